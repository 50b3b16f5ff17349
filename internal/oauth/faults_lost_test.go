package oauth_test

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

func TestLostReply(t *testing.T) {
	t.Parallel()
	const grace = 30 * time.Second
	tests := []struct {
		name              string
		grace             time.Duration
		fault             sandbox.Fault
		times             int
		policy            oauth.OnLostReply
		password, refresh int
	}{
		{"replay, with grace: the same token at once", grace, sandbox.LostReply, 1, oauth.LostReplay, 1, 2},
		{"replay, with grace: again and again", grace, sandbox.LostReply, 3, oauth.LostReplay, 1, 4},
		{"replay, with grace: 500 after it was spent", grace, sandbox.LateServerError, 1, oauth.LostReplay, 1, 2},
		{"replay, with grace: unreadable 200", grace, sandbox.Huge, 1, oauth.LostReplay, 1, 2},
		{"replay, not spent: 500", 0, sandbox.ServerError, 1, oauth.LostReplay, 1, 2},
		{"replay, not spent: 502", 0, sandbox.BadGateway, 1, oauth.LostReplay, 1, 2},
		{"replay, no grace: invalid_grant, one login", 0, sandbox.LostReply, 1, oauth.LostReplay, 2, 2},
		{"the refresh token of a broken answer is kept", 0, sandbox.Truncated, 1, oauth.LostReplay, 1, 2},
		{"the refresh token of another token_type is kept", 0, sandbox.MACTokenType, 1, oauth.LostStop, 1, 2},
		{"the refresh token beside a bad access token is kept", 0, sandbox.BadAccessToken, 1, oauth.LostLogin, 1, 2},
		{"login: no replay, password login", grace, sandbox.LostReply, 1, oauth.LostLogin, 2, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{Grace: tt.grace}, func(r *rig) {
				a := r.account()
				a.OnLostReply = tt.policy
				s := r.start(a)
				defer r.stop()
				r.token(s)
				r.sandbox.Play(tt.fault, tt.times)
				r.stale(s)
				after(10 * time.Second)
				r.requests(tt.password, tt.refresh)
				r.token(s)
				want := []time.Duration{0, time.Second, 5 * time.Second}
				for i, gap := range r.gaps("refresh_token") {
					if gap < want[i] || gap > want[i]+time.Second {
						t.Errorf("replay %d after %v, want %v", i+1, gap, want[i])
					}
				}
				conns := map[string]bool{}
				for _, e := range r.tokenEvents("") {
					if conns[e.ConnID] {
						t.Errorf("request %d is on a connection that was used before", e.Seq)
					}
					conns[e.ConnID] = true
				}
				after(545 * time.Second) // and all is well
				r.token(s)
				r.requests(tt.password, tt.refresh+1)
			})
		})
	}
	t.Run("stop: serve to the end, then login_required", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Grace: grace}, func(r *rig) {
			a := r.account()
			a.OnLostReply = oauth.LostStop
			s := r.start(a)
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.LateServerError, 1)
			r.stale(s)
			r.requests(1, 1)
			if _, err := s.Token(r.Context()); err != nil {
				t.Errorf("the live access token is not served: %v", err)
			}
			for range 60 {
				after(time.Minute)
				r.failure(s, oauth.ErrLoginRequired)
			}
			r.requests(1, 1)
			if !s.Status().HasRefreshToken {
				t.Error("the refresh token is gone")
			}
		})
	})
	t.Run("login: no replay while the login's reply is lost, too", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Grace: grace}, func(r *rig) {
			a := r.account()
			a.OnLostReply = oauth.LostLogin
			s := r.start(a)
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.ServerError, 4)
			r.stale(s)
			after(30 * time.Second)
			r.token(s)
			r.requests(5, 1)
		})
	})
	t.Run("login: no replay after a restart either, the password being wrong", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Grace: grace}, func(r *rig) {
			a := r.account()
			a.OnLostReply = oauth.LostLogin
			s := r.start(a)
			r.token(s)
			r.sandbox.Play(sandbox.LostReply, 1)
			r.sandbox.Play(sandbox.WrongPassword, -1)
			r.stale(s)
			after(time.Minute)
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(2, 1)
			r.stop()
			s = r.start(a)
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(2, 1)
		})
	})
	t.Run("a sign-in: once more, with back-off", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.LostReply, 2)
			s := r.start(r.account())
			defer r.stop()
			r.within(s, 10*time.Second)
			r.requests(3, 0)
		})
	})
}

// A process that ended between the request and the commit.
func TestRestartWithUnresolvedIntent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		grace             time.Duration
		policy            oauth.OnLostReply
		password, refresh int
		want              error
	}{
		{"replay, with grace", time.Minute, oauth.LostReplay, 1, 2, nil},
		{"replay, no grace", 0, oauth.LostReplay, 2, 2, nil},
		{"login", time.Minute, oauth.LostLogin, 2, 1, nil},
		{"stop", time.Minute, oauth.LostStop, 1, 1, oauth.ErrLoginRequired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{Grace: tt.grace}, func(r *rig) {
				a := r.account()
				a.OnLostReply = tt.policy
				s := r.start(a)
				r.token(s)
				r.sandbox.Play(sandbox.Slow, 1) // spent, and 15 s to the answer
				r.stale(s)
				killed := r.sessions
				r.store = r.copyOf(r.store) // what a kill -9 leaves
				r.requests(1, 1)

				s = r.start(a)
				defer r.stop()
				after(100 * time.Millisecond)
				r.requests(tt.password, tt.refresh)
				if tt.want == nil {
					r.token(s)
				} else {
					after(time.Minute) // the live token goes to its end
					r.fails(s, tt.want)
					r.requests(tt.password, tt.refresh)
				}
				gone, cancel := context.WithCancel(r.Context())
				cancel()
				_ = killed.Close(gone)
			})
		})
	}
}

// copyOf gives a store with the same entry.
func (r *rig) copyOf(from oauth.Store) oauth.Store {
	r.Helper()
	to := store.NewMemory()
	keys, err := from.List(r.Context(), "")
	if err != nil {
		r.Fatal(err)
	}
	for _, key := range keys {
		e, err := from.Load(r.Context(), key)
		if err != nil {
			r.Fatal(err)
		}
		for g := uint64(1); g <= e.Generation; g++ {
			if err := to.Save(r.Context(), key, oauth.Entry{Generation: g, Value: e.Value}); err != nil {
				r.Fatal(err)
			}
		}
	}
	return to
}
