package oauth_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A watcher keeps the events of a rig's sessions.
type watcher struct {
	mu     sync.Mutex
	events []oauth.Event
}

// watch begins as start does, with somebody who watches.
func (r *rig) watch(accounts ...*oauth.Account) (*oauth.Session, *watcher) {
	r.Helper()
	w := new(watcher)
	r.sessions = oauth.NewSessions(r.log)
	r.sessions.Turn(r.clocks.turn)
	r.sessions.Observe(func(e oauth.Event) {
		for _, s := range r.sessions.All() { // no lock is held
			s.Status()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	r.sessions.Open(lasting{r.store})
	r.sessions.Configure(r.Context(), accounts)
	s, err := r.sessions.Session(r.Context(), oauth.Key{Account: accounts[0].Name})
	if err != nil && !accounts[0].PerUser {
		r.Fatal(err)
	}
	return s, w
}

// take returns the changes since the last call, without refreshes.
func (w *watcher) take() []oauth.Event {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	changes := slices.DeleteFunc(w.events, func(e oauth.Event) bool {
		return e.Kind == oauth.EventTokenRequest || e.Kind == oauth.EventRefreshed
	})
	w.events = nil
	return changes
}

// tells checks which changes there were since the last call.
func (r *rig) tells(w *watcher, want ...oauth.EventKind) []oauth.Event {
	r.Helper()
	events := w.take()
	var got []oauth.EventKind
	for _, e := range events {
		got = append(got, e.Kind)
	}
	if !slices.Equal(got, want) {
		r.Fatalf("events %v, want %v", got, want)
	}
	return events
}

func TestEvents(t *testing.T) {
	t.Parallel()
	t.Run("the server is away at boot", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.Unavailable, -1)
			s, w := r.watch(r.account())
			defer r.stop()
			after(time.Hour)
			e := r.tells(w, oauth.EventDegraded)[0]
			if e.State != oauth.StateAway || !errors.Is(e.Err, oauth.ErrUnavailable) || e.Detail == "" || e.Key != s.Key() {
				t.Errorf("%+v", e)
			}
			r.sandbox.Clear()
			after(10 * time.Minute)
			if e := r.tells(w, oauth.EventRecovered)[0]; e.State != oauth.StateReady || e.Err != nil {
				t.Errorf("%+v", e)
			}
		})
	})
	t.Run("the server is away while a token lives", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s, w := r.watch(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.Unavailable, -1)
			_ = s.Refresh(r.Context())
			after(3 * time.Minute)
			r.tells(w)
			after(time.Hour)
			r.tells(w, oauth.EventDegraded)
		})
	})
	t.Run("the password is refused", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			wrong := r.account()
			wrong.Grant = &oauth.Password{User: oauth.Fixed("sandbox-user"), Secret: oauth.Fixed("wrong"), Relogin: true}
			_, w := r.watch(wrong)
			defer r.stop()
			after(time.Hour)
			r.sessions.Configure(r.Context(), []*oauth.Account{wrong}) // a reload
			after(time.Hour)
			e := r.tells(w, oauth.EventCredentialsRejected)[0]
			if e.State != oauth.StateRefused || !errors.Is(e.Err, oauth.ErrCredentialsRejected) || strings.Contains(e.Detail, "wrong\"") {
				t.Errorf("%+v", e)
			}
			r.sessions.Configure(r.Context(), []*oauth.Account{r.account()})
			after(time.Minute)
			r.tells(w, oauth.EventRecovered)
		})
	})
	t.Run("the client is refused while a token lives", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s, w := r.watch(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.InvalidClient, -1)
			_ = s.Refresh(r.Context())
			if e := r.tells(w, oauth.EventCredentialsRejected)[0]; e.State != oauth.StateReady {
				t.Errorf("%+v", e) // told before users are
			}
			after(24 * time.Hour)
			r.tells(w)
		})
	})
	t.Run("the tokens can't be saved", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s, w := r.watch(r.account())
			defer r.stop()
			r.token(s)
			f.onSave(full)
			for range 60 {
				after(time.Minute)
				r.token(s)
			}
			if e := r.tells(w, oauth.EventDegraded)[0]; e.State != oauth.StateDegraded || !errors.Is(e.Err, oauth.ErrStoreUnavailable) {
				t.Errorf("%+v", e)
			}
			if !r.sessions.Unsaved() {
				t.Error("not told as unsaved")
			}
			f.onSave(nil)
			after(15 * time.Second)
			r.tells(w, oauth.EventRecovered)
			if r.sessions.Unsaved() {
				t.Error("still told as unsaved")
			}
		})
	})
	t.Run("the store tells of itself", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			store := &installed{lasting: lasting{r.store}}
			w := new(watcher)
			r.sessions = oauth.NewSessions(r.log)
			r.sessions.Observe(func(e oauth.Event) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, e)
			})
			r.sessions.Open(store)
			r.sessions.Configure(r.Context(), []*oauth.Account{r.account()})
			defer r.stop()
			for _, problem := range []string{"the disk is full", "the disk is still full", "", ""} {
				store.tell(oauth.StoreNotice{Problem: problem})
			}
			events := r.tells(w, oauth.EventDegraded, oauth.EventRecovered)
			if e := events[0]; e.Key != (oauth.Key{}) || e.Detail != "the disk is full" {
				t.Errorf("%+v", e)
			}
		})
	})
	t.Run("an operator logs out and in", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s, w := r.watch(r.account())
			defer r.stop()
			r.token(s)
			if _, err := s.Logout(r.Context()); err != nil {
				t.Fatal(err)
			}
			after(time.Hour)
			r.tells(w, oauth.EventLoginRequired)
			if err := s.Login(r.Context()); err != nil {
				t.Fatal(err)
			}
			r.tells(w, oauth.EventRecovered)
			if err := s.Forget(r.Context()); err != nil { // the next request signs in
				t.Fatal(err)
			}
			r.token(s)
			r.tells(w)
		})
	})
}
