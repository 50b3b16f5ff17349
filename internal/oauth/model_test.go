package oauth_test

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A few seconds' worth on each commit, always the same; the flags of rapid ask
// for more, and for others with seed 0:
// go test -run TestModel ./internal/oauth -rapid.checks=10000 -rapid.seed=0 -timeout 2h
func init() {
	for name, value := range map[string]string{"rapid.checks": "30", "rapid.steps": "25", "rapid.seed": "1"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// TestModel plays random sequences of all that can happen to a session, and
// compares what the client does with what the server did. A sequence that
// breaks a rule is cut down to the shortest that does.
func TestModel(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]time.Duration{"no grace": 0, "grace of 30 s": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				rapid.SyncTest(t, func(t *rapid.T) { playModel(t, grace) })
			})
		})
	}
}

// A machine is the state machine: the world, and what is configured in it.
type machine struct {
	*world
	dial func() *http.Transport
	log  *slog.Logger
	path string

	life     *process
	downtime time.Duration // of the next kill
	logins   int           // made elsewhere

	password, secret string // as configured
	right            string // the password of sandbox-user
}

func playModel(t *rapid.T, grace time.Duration) {
	m := newMachine(t, sandbox.Config{
		Grace: grace, EventLimit: 100_000, Users: map[string]string{"bob": "bob-password"},
		Delay:   rapid.SampledFrom([]time.Duration{0, 200 * time.Millisecond}).Draw(t, "delay"),
		SlowFor: rapid.SampledFrom([]time.Duration{15 * time.Second, 90 * time.Second}).Draw(t, "slow"),
	})
	m.start(t)
	t.Repeat(map[string]func(*rapid.T){
		"":                     m.check,
		"a call":               func(*rapid.T) { m.call() },
		"many calls":           m.crowd,
		"time passes":          m.wait,
		"a fault":              m.fault,
		"the faults end":       func(*rapid.T) { m.sandbox.Clear() },
		"the API refuses":      m.refuse,
		"revocation":           m.revoke,
		"refresh":              func(t *rapid.T) { _ = m.life.session.Refresh(brief(t)) },
		"forget":               m.forget,
		"import":               m.importToken,
		"reload":               m.reload,
		"change":               m.change,
		"the password changes": m.changePassword,
		"crash":                m.crash,
		"restart":              m.restart,
		"second opener":        m.secondOpener,
		"store outage":         m.storeOutage,
		"the outage ends":      func(*rapid.T) { m.setOutage(outage{}) },
		"recovery":             m.recover,
	})
	m.end(t)
}

// newMachine makes a world in which nothing runs yet.
func newMachine(t *rapid.T, c sandbox.Config) *machine {
	dir, err := os.MkdirTemp(memoryDisk(), "model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := sandbox.New(c)
	m := &machine{
		world: newWorld(s, c.Grace), path: filepath.Join(dir, "store"), log: slog.New(slog.DiscardHandler),
		password: "sandbox-password", right: "sandbox-password", secret: "sandbox-secret",
	}
	m.configured("sandbox-user", oauth.LostReplay, true)
	network := sandbox.Pipe()
	server := &http.Server{Handler: m.server(s.AuthorizationServer()), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = server.Serve(network) }()
	m.dial = func() *http.Transport {
		tr := oauth.NewTransport(nil, nil, nil)
		tr.DialContext = network.DialContext
		return tr
	}
	t.Cleanup(func() {
		if m.life != nil {
			m.bury() // of a case that failed
		}
		_ = server.Close()
		_ = network.Close()
		s.Close()
	})
	return m
}

// memoryDisk is where a write costs nothing, if there is such a place: no power
// fails here.
func memoryDisk() string {
	const linux = "/dev/shm"
	if info, err := os.Stat(linux); err != nil || !info.IsDir() {
		return ""
	}
	return linux
}

func brief(t *rapid.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start begins a life with what the store holds.
func (m *machine) start(t *rapid.T) {
	disk, err := store.OpenBolt(m.path)
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	l := &process{world: m.world, wire: m.dial(), sessions: oauth.NewSessions(m.log)}
	l.store = &processStore{disk, l}
	l.ctx, l.kill = context.WithCancel(context.Background())
	m.mu.Lock()
	l.number = len(m.lives)
	m.lives = append(m.lives, l)
	m.mu.Unlock()
	m.disturb()
	m.life = l
	l.sessions.Open(l.store)
	m.configure()
	if l.session, err = l.sessions.Session(context.Background(), oauth.Key{Account: "erp"}); err != nil {
		t.Fatalf("there is no session: %v", err)
	}
}

// configure hands over the account as it is now.
func (m *machine) configure() {
	a := (&rig{dial: m.dial}).account()
	a.Client.Secret, a.Client.Transport = oauth.Fixed(m.secret), m.life
	a.Grant = &oauth.Password{User: oauth.Fixed(m.user), Secret: oauth.Fixed(m.password), Relogin: m.relogin}
	a.OnLostReply = m.policy
	m.life.sessions.Configure(context.Background(), []*oauth.Account{a})
}

// bury clears away what a kill leaves.
func (m *machine) bury() {
	m.life.kill()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.life.sessions.Close(gone)
	_ = m.life.store.(*processStore).Store.Close()
	m.died()
}

// check holds after every action.
func (m *machine) check(t *rapid.T) {
	synctest.Wait()
	if m.life.dead() {
		m.bury()
		time.Sleep(m.downtime)
		m.start(t)
		synctest.Wait()
	}
	m.verify(t)
}

func (m *machine) verify(t *rapid.T) {
	if st := m.life.session.Status(); st.State == oauth.StateLoginRequired {
		m.personNeeded(st.Detail)
	}
	m.mu.Lock()
	broken, detail := m.broken, m.detail
	m.mu.Unlock()
	if broken != "" {
		t.Log(detail)
		t.Fatal(broken)
	}
}

// end brings all in order and ends: nothing hangs, nothing is lost, and the
// next start needs nothing.
func (m *machine) end(t *rapid.T) {
	m.recover(t)
	m.check(t)
	fresh := m.life.session.Refresh(brief(t)) == nil
	m.stop(t, time.Minute)
	lost, requests := m.lost(), m.sandbox.TokenRequests("")
	m.start(t)
	m.check(t)
	e, err := m.life.store.Load(t.Context(), oauth.Key{Account: "erp"})
	if err != nil {
		t.Fatalf("after all, loading: %v", err)
	}
	if _, err := decodeStored(e.Value); err != nil {
		t.Fatalf("after all, decoding: %v", err)
	}
	if fresh && !lost && m.sandbox.TokenRequests("") != requests {
		t.Fatal("a start with a fresh token makes a token request")
	}
	m.stop(t, time.Minute)
	m.verify(t)
}
