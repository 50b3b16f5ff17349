package oauth_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestEventsOfAPerson(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s, w := r.watch(r.person())
		if e := r.tells(w, oauth.EventLoginRequired)[0]; !strings.Contains(e.Detail, "caddy bearer login erp") {
			t.Errorf("%+v", e)
		}
		r.logIn(s)
		after(2 * time.Second)
		r.tells(w, oauth.EventRecovered)
		r.sandbox.RevokeRefreshTokens()
		_ = s.Refresh(r.Context())
		if e := r.tells(w, oauth.EventLoginRequired)[0]; e.State != oauth.StateReady {
			t.Errorf("%+v", e) // the last token lives yet
		}
		after(time.Hour)
		r.fails(s, oauth.ErrLoginRequired)
		r.tells(w)
		r.stop()
		s, w = r.watch(r.person()) // a monitor that lost its memory, too, is told
		r.tells(w, oauth.EventLoginRequired)
		r.logIn(s)
		after(2 * time.Second)
		r.tells(w, oauth.EventRecovered)
		r.stop()
	})
}

// A user's session tells of itself when it is asked for, not when it is
// looked at.
func TestEventsOfUsers(t *testing.T) {
	t.Parallel()
	playLogin(t, annAndBob, func(r *loginRig) {
		a := r.person()
		a.PerUser = true
		_, w := r.watch(a)
		defer r.stop()
		ann := r.user("ann")
		r.tells(w)
		r.fails(ann, oauth.ErrLoginRequired)
		if e := r.tells(w, oauth.EventLoginRequired)[0]; e.Key.User != "ann" {
			t.Errorf("%+v", e)
		}
		r.fails(ann, oauth.ErrLoginRequired)
		r.tells(w)
	})
}

// A server that says yes and no in turn causes no storm of events, and what is
// told last is so.
func TestEventsDoNotStorm(t *testing.T) {
	t.Parallel()
	for _, well := range []bool{true, false} {
		play(t, sandbox.Config{}, func(r *rig) {
			s, w := r.watch(r.account())
			defer r.stop()
			r.token(s)
			after(time.Minute)
			w.take()
			for i := range 101 { // within a second
				r.sandbox.Clear()
				refuses := (i%2 == 1) == well
				if refuses {
					r.sandbox.Play(sandbox.InvalidClient, -1)
				}
				if err := s.Login(r.Context()); (err != nil) != refuses {
					t.Fatalf("attempt %d: %v", i, err)
				}
				after(9 * time.Millisecond)
			}
			after(5 * time.Second)
			events := w.take()
			if len(events) > 3 {
				t.Errorf("%d events", len(events))
			}
			last := oauth.EventCredentialsRejected
			if well {
				last = oauth.EventRecovered
			}
			if len(events) > 0 && events[len(events)-1].Kind != last {
				t.Errorf("the last event is %s, the state %s", events[len(events)-1].Kind, s.Status().State)
			}
			for i := 1; i < len(events); i++ {
				if d := events[i].At.Sub(events[i-1].At); d < time.Second {
					t.Errorf("%v between two events", d)
				}
			}
		})
	}
}

func TestEventsOfRefreshes(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s, w := r.watch(r.account())
		defer r.stop()
		r.token(s)
		for range 3 { // at once
			if err := s.Refresh(r.Context()); err != nil {
				t.Fatal(err)
			}
		}
		after(time.Minute)
		r.sandbox.Play(sandbox.Unavailable, 1)
		_ = s.Refresh(r.Context())
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		refreshed := 0
		var requests []string
		for _, e := range w.events {
			switch e.Kind {
			case oauth.EventRefreshed:
				refreshed++
				if left := time.Until(e.Until); e.Grant != "password" || left < 8*time.Minute || left > 10*time.Minute {
					t.Errorf("%+v", e)
				}
			case oauth.EventTokenRequest:
				requests = append(requests, e.Grant+" "+e.Outcome.String())
				if e.Took < 0 {
					t.Errorf("%+v", e)
				}
			}
		}
		if refreshed != 1 {
			t.Errorf("%d refreshes were told of within a second", refreshed)
		}
		want := []string{"password granted", "refresh_token granted", "refresh_token granted", "refresh_token granted", "refresh_token not_tried"}
		if !slices.Equal(requests, want) {
			t.Errorf("token requests %v, want %v", requests, want)
		}
	})
}

// A refresh token that the server never renews comes to its end: 30 days
// before, that is told once.
func TestRefreshExpiring(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	play(t, sandbox.Config{}, func(r *rig) {
		r.sandbox.Play(sandbox.SameRefreshToken, -1)
		r.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		a := r.account()
		a.RefreshLifetime = 90 * day
		a.Grant = &oauth.Password{User: oauth.Fixed("sandbox-user"), Secret: oauth.Fixed("sandbox-password")}
		s, w := r.watch(a)
		defer r.stop()
		r.token(s)
		begun := r.clocks.now()
		after(60*day - time.Hour)
		r.tells(w)
		after(3 * day)
		e := r.tells(w, oauth.EventRefreshExpiring)[0]
		if d := e.Until.Sub(begun); d < 90*day-time.Minute || d > 90*day || !strings.Contains(e.Detail, "caddy bearer login erp") {
			t.Errorf("%+v, %v", e, d)
		}
		if d := e.At.Sub(begun); d > 61*day {
			t.Errorf("told after %v", d)
		}
		after(20 * day)
		r.sessions.Configure(r.Context(), []*oauth.Account{a}) // a reload
		r.tells(w)
		r.sandbox.Clear()
		after(50 * day) // renewed each day
		r.tells(w)
	})
	if n := strings.Count(log.String(), "the refresh token will expire"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// A server whose refresh tokens live for days is told of in time, too.
func TestRefreshExpiringSoon(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		r.sandbox.Play(sandbox.SameRefreshToken, -1)
		a := r.account()
		a.RefreshLifetime = 10 * day
		s, w := r.watch(a)
		defer r.stop()
		r.token(s)
		after(4*day + time.Hour)
		r.tells(w)
		after(2 * day)
		r.tells(w, oauth.EventRefreshExpiring)
	})
}

// Without anybody who watches nothing is kept for them.
func TestNobodyObserves(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		r.sandbox.Play(sandbox.Unavailable, -1)
		s := r.start(r.account())
		after(time.Minute)
		r.sandbox.Clear()
		after(time.Minute)
		r.token(s)
		r.stop()
		if _, err := s.Token(context.Background()); !errors.Is(err, oauth.ErrClosed) && err != nil {
			t.Error(err)
		}
	})
}

// An account that is no longer configured has nothing to tell, until it is
// again.
func TestEventsOfARemovedAccount(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
		other := r.account()
		other.Name = "other"
		s, w := r.watch(r.account(), other)
		defer r.stop()
		after(10 * time.Second)
		r.tells(w)
		r.sandbox.Play(sandbox.InvalidClient, 1)
		refused := make(chan error, 1)
		go func() { refused <- s.Refresh(r.Context()) }()
		after(time.Second)
		r.sessions.Configure(r.Context(), []*oauth.Account{other})
		if err := <-refused; !errors.Is(err, oauth.ErrCredentialsRejected) {
			t.Fatal(err)
		}
		r.tells(w)
		r.sessions.Configure(r.Context(), []*oauth.Account{r.account(), other})
		if e := r.tells(w, oauth.EventCredentialsRejected)[0]; e.Key != s.Key() {
			t.Errorf("%+v", e)
		}
	})
}

// The end of the process is no event.
func TestEventsAtTheEnd(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{Delay: 20 * time.Second}, func(r *rig) {
		_, w := r.watch(r.account())
		after(time.Second)
		r.stop() // breaks the sign-in off
		r.tells(w)
	})
}

func TestEventsOfPersonsRequests(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		television := r.device()
		television.Name = "television"
		s, w := r.watch(r.person(), television)
		defer r.stop()
		r.logIn(s)
		watcher, err := r.sessions.Session(r.Context(), oauth.Key{Account: "television"})
		if err != nil {
			t.Fatal(err)
		}
		l := r.begin(watcher, oauth.LoginStart{})
		after(20 * time.Second) // asked for in vain
		if err := r.sandbox.ApproveDevice(l.Device.UserCode, "sandbox-user"); err != nil {
			t.Fatal(err)
		}
		after(20 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		var requests []string
		for _, e := range w.events {
			if e.Kind == oauth.EventTokenRequest {
				requests = append(requests, e.Key.String()+" "+e.Grant+" "+e.Outcome.String())
			}
		}
		want := []string{"erp authorization_code granted", "television device_code granted"}
		if !slices.Equal(requests, want) {
			t.Errorf("token requests %v, want %v", requests, want)
		}
	})
}
