package caddymodule

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// eventProbe is a handler of events that keeps what it is given.
type eventProbe struct{}

// probed are the events of the running test. handle, if it isn't nil, is
// called with each.
var probed struct {
	sync.Mutex
	events []caddy.Event
	handle func(caddy.Event)
}

func init() { caddy.RegisterModule(eventProbe{}) }

func (eventProbe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.bearer_probe", New: func() caddy.Module { return new(eventProbe) }}
}

func (eventProbe) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (eventProbe) Handle(_ context.Context, e caddy.Event) error {
	probed.Lock()
	probed.events = append(probed.events, e)
	handle := probed.handle
	probed.Unlock()
	if handle != nil {
		handle(e)
	}
	return nil
}

// onEvents makes the rig's Caddy give its probe these events, or all of ours.
func (r *rig) onEvents(handle func(caddy.Event), kinds ...string) {
	if kinds == nil {
		kinds = []string{"refreshed", "login_required", "credentials_rejected", "refresh_expiring", "degraded", "recovered"}
	}
	r.global += "\n\tevents {"
	for _, kind := range kinds {
		r.global += "\n\t\ton bearer." + kind + " bearer_probe"
	}
	r.global += "\n\t}"
	probed.Lock()
	defer probed.Unlock()
	probed.events, probed.handle = nil, handle
}

// events are the names of those that came, without the prefix.
func events() (names []string) {
	probed.Lock()
	defer probed.Unlock()
	for _, e := range probed.events {
		names = append(names, strings.TrimPrefix(e.Name(), "bearer."))
	}
	return names
}

func lastEvent() caddy.Event {
	probed.Lock()
	defer probed.Unlock()
	return probed.events[len(probed.events)-1]
}

// told waits for events.
func (r *rig) told(want ...string) {
	r.Helper()
	for deadline := time.Now().Add(20 * time.Second); !slices.Equal(events(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("events %v, want %v", events(), want)
		}
	}
}

func TestEventsOfCaddy(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.onEvents(nil)
	log := r.logFile()
	r.secret("password", "wrong-secret")
	r.start()
	r.told("credentials_rejected") // while Caddy was starting
	e := lastEvent()
	if e.Origin().CaddyModule().ID != "bearer" {
		t.Errorf("of %v", e.Origin().CaddyModule().ID)
	}
	for name, want := range map[string]any{"account": "erp", "user": "", "state": "refused", "code": "credentials_rejected"} {
		if e.Data[name] != want {
			t.Errorf("%s is %v, want %v", name, e.Data[name], want)
		}
	}
	if detail, _ := e.Data["detail"].(string); detail == "" || strings.Contains(detail, "wrong-secret") {
		t.Errorf("detail %q", detail)
	}
	if err := r.load(r.caddyfile()); err != nil { // a reload is no news
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	r.told("credentials_rejected")

	r.secret("password", "sandbox-password")
	if err := r.session().Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.told("credentials_rejected", "refreshed", "recovered")
	probed.Lock()
	refreshed := probed.events[1]
	probed.Unlock()
	if expires, err := time.Parse(time.RFC3339, refreshed.Data["expires"].(string)); err != nil || time.Until(expires) > 10*time.Minute || refreshed.Data["grant"] != "password" {
		t.Errorf("%v", refreshed.Data)
	}
	text := read(t, log)
	if !contains(text, `"name":"bearer.recovered"`, "ready again") {
		t.Error("the log has no events")
	}
	for _, secret := range []string{"wrong-secret", "sandbox-password", "sandbox-secret", "Bearer ey", r.session().Current().Authorization()[0]} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

// A handler that takes its time, or panics, holds up neither refreshes nor
// requests nor reloads, and loses no event.
func TestSlowEventHandler(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	gate := make(chan struct{})
	r.onEvents(func(e caddy.Event) {
		<-gate
		panic("a handler's fault")
	}, "refreshed", "credentials_rejected")
	r.start()
	opened := sync.OnceFunc(func() { close(gate) })
	defer opened()
	r.get("/echo")
	r.told("refreshed")
	time.Sleep(time.Second) // refreshes are told of once a second
	begun := time.Now()
	if err := r.session().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.load(r.caddyfile()); err != nil {
		t.Fatal(err)
	}
	r.settled()
	r.get("/echo")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	opened()
	r.told("refreshed", "refreshed")
	r.get("/echo")
}

// What comes of sessions while another configuration is being started is
// emitted by the one that comes into force.
func TestEventsOfTheConfigurationInForce(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.onEvents(nil, "credentials_rejected")
	r.secret("password", "wrong-secret")
	good := r.caddyfile()
	for range 20 { // Caddy starts its apps in any order
		probed.Lock()
		probed.events = nil
		probed.Unlock()
		if err := r.load(good); err != nil {
			t.Fatal(err)
		}
		r.told("credentials_rejected")
		r.stop()
	}
}

// With another store there are other sessions: what comes of them while the
// old configuration is still in force isn't for its handlers.
func TestEventsOfAnotherStore(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	r.secret("password", "wrong-secret")
	r.onEvents(nil, "credentials_rejected")
	for i := range 10 {
		probed.Lock()
		probed.events = nil
		probed.Unlock()
		if err := r.load(strings.Replace(r.caddyfile(), "/store/", fmt.Sprintf("/store%d/", i), 1)); err != nil {
			t.Fatal(err)
		}
		r.told("credentials_rejected")
		silent := strings.Replace(r.caddyfile(), "on bearer.credentials_rejected", "on bearer.recovered", 1)
		if err := r.load(silent); err != nil {
			t.Fatal(err)
		}
	}
}

// Too many events: the oldest give way, and the last one is there.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	em := newEmitter(nil)
	em.busy = true // nobody takes them
	for i := range maxEvents + 7 {
		em.observe(oauth.Event{Kind: oauth.EventDegraded, Key: oauth.Key{Account: "erp"}, At: time.Unix(int64(i), 0)})
	}
	if len(em.waiting) != maxEvents || em.dropped != 7 || em.waiting[0].At.Unix() != 7 {
		t.Errorf("%d wait, %d were dropped", len(em.waiting), em.dropped)
	}
}

// With the sessions end those who wait for a configuration to tell of them.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	em := newEmitter(oauth.NewSessions(nil)) // in force nowhere
	em.busy, em.waiting = true, []oauth.Event{{Kind: oauth.EventDegraded}}
	gone := make(chan struct{})
	go func() { em.emit(); close(gone) }()
	select {
	case <-gone:
		t.Fatal("an event was dropped while the sessions live")
	case <-time.After(50 * time.Millisecond):
	}
	close(em.over)
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the emitter waits yet")
	}
}
