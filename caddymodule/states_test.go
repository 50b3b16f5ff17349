package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A brittleStore fails as a test tells it.
type brittleStore struct{ Store }

var noSave, noLoad atomic.Bool

var errBrittle = errors.New("the disk is gone")

func init() { caddy.RegisterModule(&brittleStore{}) }

func (*brittleStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "bearer.stores.brittle", New: func() caddy.Module { return new(brittleStore) }}
}
func (*brittleStore) PoolKey() string { return "brittle" }
func (*brittleStore) Open(context.Context) (Store, error) {
	return &brittleStore{store.NewMemory()}, nil
}
func (*brittleStore) Configure(context.Context, Store) error { return nil }
func (*brittleStore) Describe() string                       { return "a store that fails" }
func (*brittleStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (s *brittleStore) Save(ctx context.Context, key StoreKey, e StoreEntry) error {
	if noSave.Load() {
		return errBrittle
	}
	return s.Store.Save(ctx, key, e)
}

func (s *brittleStore) Load(ctx context.Context, key StoreKey) (StoreEntry, error) {
	if noLoad.Load() {
		return StoreEntry{}, errBrittle
	}
	return s.Store.Load(ctx, key)
}

// A condition of an account, and how each who tells of it must.
type shownState struct {
	name    string
	state   oauth.State
	config  sandbox.Config
	before  func(*rig)
	replace []string   // in the Caddyfile
	after   func(*rig) // Caddy runs
	end     func()
	// status and code are of a request's answer; status 200 without a code.
	status int
	code   string
	// reason is the code that bearer_ready tells.
	reason string
	events []string
	store  bool // the store is told as degraded
}

var shownStates = []shownState{
	{name: "ready", state: oauth.StateReady, status: 200},
	{
		name: "refreshing", state: oauth.StateRefreshing, status: 504, code: "token_timeout",
		config: sandbox.Config{Gate: func(sandbox.Stage, string) bool { <-gate; return true }},
		before: func(r *rig) { r.account, gate = "token_timeout 200ms", make(chan struct{}) },
		end:    func() { close(gate) },
	},
	{
		name: "degraded", state: oauth.StateDegraded, status: 200, events: []string{"degraded"}, store: true,
		after: func(r *rig) {
			r.ready()
			noSave.Store(true)
			r.eventually("unsaved", func() bool { // a refresh may join the sign-in, which is about to end
				return r.session().Refresh(r.Context()) == nil && r.session().Status().Unsaved
			})
		},
	},
	{
		name: "away", state: oauth.StateAway, status: 503, code: "authorization_server_unavailable", events: []string{"degraded"},
		reason: "authorization_server_unavailable",
		before: func(r *rig) { r.sandbox.Play(sandbox.Unavailable, -1) },
	},
	{
		name: "refused", state: oauth.StateRefused, status: 503, code: "credentials_rejected", events: []string{"credentials_rejected"},
		reason: "credentials_rejected",
		before: func(r *rig) { r.secret("password", "wrong") },
	},
	{
		name: "misconfigured", state: oauth.StateRefused, status: 503, code: "account_misconfigured", events: []string{"credentials_rejected"},
		reason: "account_misconfigured",
		before: func(r *rig) { r.sandbox.Play(sandbox.InvalidScope, -1) },
	},
	{
		name: "login required", state: oauth.StateLoginRequired, status: 503, code: "login_required", events: []string{"login_required"},
		reason:  "login_required",
		replace: []string{"grant password {", "grant refresh_token", "username sandbox-user\n", "", "password {file.DIR/password}\n\t\t\t}\n", ""},
	},
	{
		name: "logged out", state: oauth.StateLoginRequired, status: 503, code: "login_required", events: []string{"login_required"},
		reason: "login_required",
		after: func(r *rig) {
			r.ready()
			if _, err := r.session().Logout(r.Context()); err != nil {
				r.Fatal(err)
			}
		},
	},
	{
		name: "the store can't be read", state: oauth.StateUnknown, status: 503, code: "store_unavailable", events: []string{"degraded"},
		reason: "store_unavailable",
		before: func(*rig) { noLoad.Store(true) },
	},
	{
		name: "not tried", state: oauth.StateUnknown, status: 200, // the request signs in
		after: func(r *rig) {
			r.ready()
			if err := r.session().Forget(r.Context()); err != nil {
				r.Fatal(err)
			}
		},
	},
}

// gate holds the token requests of the state refreshing back.
var gate chan struct{}

// Each state is shown alike by the status, the portal, the metrics, the
// readiness, the events and the answer to a request.
func TestStatesAreShownAlike(t *testing.T) {
	for _, s := range shownStates {
		t.Run(s.name, func(t *testing.T) { s.run(newRig(t, s.config)) })
	}
}

func (s shownState) run(r *rig) {
	noSave.Store(false)
	noLoad.Store(false)
	r.Cleanup(func() { noSave.Store(false); noLoad.Store(false) })
	r.onEvents(nil, "login_required", "credentials_rejected", "refresh_expiring", "degraded", "recovered")
	r.site = "metrics /metrics\n\tbearer_ready /ready\n\tbearer_portal {\n\t\tunprotected\n\t}"
	if s.before != nil {
		s.before(r)
	}
	config := r.caddyfile()
	a := strings.Index(config, "store bbolt {")
	config = config[:a] + "portal http://" + r.address + "/bearer\n\t\tstore brittle" + config[a+strings.Index(config[a:], "}")+1:]
	for i := 0; i+1 < len(s.replace); i += 2 {
		config = strings.Replace(config, strings.ReplaceAll(s.replace[i], "DIR", r.dir), s.replace[i+1], 1)
	}
	if err := r.load(config); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(r.stop)
	if s.end != nil {
		r.Cleanup(s.end)
	}
	if s.after != nil {
		s.after(r)
	}
	r.eventually("in the state", func() bool { return s.shown(r).State == s.state })
	s.check(r)
	res, body := r.do("GET", "/echo", nil)
	if res.StatusCode != s.status || res.Header.Get(errorHeader) != s.code || s.code != "" && !strings.Contains(body, `"code":"`+s.code+`"`) {
		r.Errorf("a request: %d %s %s", res.StatusCode, res.Header.Get(errorHeader), body)
	}
	if len(s.events) == 0 {
		time.Sleep(50 * time.Millisecond)
	}
	r.told(s.events...)
	if len(s.events) > 0 {
		code := s.code
		if s.state == oauth.StateDegraded {
			code = "store_unavailable" // requests are served
		}
		if data := lastEvent().Data; data["account"] != "erp" || data["state"] != string(s.state) || data["code"] != code {
			r.Errorf("an event says %v", data)
		}
		if portal, _ := lastEvent().Data["portal"].(string); (portal == "http://"+r.address+"/bearer") != (s.state == oauth.StateLoginRequired) {
			r.Errorf("the event has the portal %q", portal)
		}
	}
}

// shown is what `caddy bearer status --json` prints of the account.
func (s shownState) shown(r *rig) accountStatus {
	r.Helper()
	rec := httptest.NewRecorder()
	if err := serveStatus(rec, httptest.NewRequest("GET", "/bearer/status", nil)); err != nil {
		r.Fatal(err)
	}
	var st statusJSON
	if err := json.Unmarshal(rec.Body.Bytes(), &st); err != nil || len(st.Accounts) != 1 {
		r.Fatalf("%v: %s", err, rec.Body)
	}
	return st.Accounts[0]
}

func (s shownState) check(r *rig) {
	r.Helper()
	serving := s.state == oauth.StateReady || s.state == oauth.StateDegraded
	metrics := r.scrape()
	if got := metrics[`caddy_bearer_account_up{account="erp"}`] == 1; got != serving {
		r.Errorf("account_up is %v", got)
	}
	if got := metrics["caddy_bearer_store_degraded"] == 1; got != s.store {
		r.Errorf("store_degraded is %v", got)
	}
	for _, state := range states {
		if got := metrics[fmt.Sprintf(`caddy_bearer_account_state{account="erp",state="%s"}`, state)] == 1; got != (state == s.state) {
			r.Errorf("account_state of %s is %v", state, got)
		}
	}
	if _, live := metrics[`caddy_bearer_token_expiry_timestamp_seconds{account="erp"}`]; live != serving {
		r.Errorf("a token expires: %v", live)
	}
	status, body := r.probe()
	want := ready
	if !serving {
		want = fmt.Sprintf(`{"ready":false,"accounts":[{"account":"erp","state":"%s"`, s.state)
		if s.reason != "" {
			want += fmt.Sprintf(`,"code":"%s"`, s.reason)
		}
		want += "}]}"
	}
	if body != want || (status == 200) != serving {
		r.Errorf("bearer_ready: %d %s, want %s", status, body, want)
	}
	if _, page := r.do("GET", "/bearer", nil); !strings.Contains(html.UnescapeString(page), ">"+stateTexts[s.state].Word+"<") {
		r.Errorf("the portal doesn't say %q: %s", stateTexts[s.state].Word, page)
	}
}
