package oauth_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func (r *rig) configure(accounts ...*oauth.Account) {
	r.sessions.Configure(r.Context(), accounts)
}

// underWay begins a refresh and leaves it a second later, unanswered.
func (r *rig) underWay(s *oauth.Session) {
	r.Helper()
	before := r.sandbox.TokenRequests("")
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || r.sandbox.TokenRequests("") != before+1 {
		r.Fatalf("Refresh: %v; no refresh is under way", err)
	}
}

func TestReloads(t *testing.T) {
	t.Parallel()
	t.Run("cost no token request", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{TokenLifetime: 24 * time.Hour}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			tok := r.token(s)
			for range 200 {
				r.configure(r.account())
				after(time.Second)
				if again := r.token(s); again != tok {
					t.Fatal("the token changed")
				}
			}
			r.requests(1, 0)
		})
	})
	t.Run("nor with a secret changed, while the token lives", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			tok := r.token(s)
			a := r.account()
			a.Grant.(*oauth.Password).Secret, a.Client.Secret = oauth.Fixed("new"), oauth.Fixed("new")
			r.configure(a)
			synctest.Wait()
			if r.token(s) != tok {
				t.Error("the token changed")
			}
			r.requests(1, 0)
		})
	})
	t.Run("leave a refresh under way alone", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			for range 50 {
				r.configure(r.account())
				time.Sleep(50 * time.Millisecond)
			}
			r.token(s)
			r.requests(1, 0)
		})
	})
	t.Run("while latched make no attempt", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.WrongPassword, -1)
			s := r.start(r.account())
			defer r.stop()
			for range 50 {
				r.configure(r.account())
				after(time.Minute)
				r.fails(s, oauth.ErrCredentialsRejected)
			}
			r.requests(1, 0)
		})
	})
}

// The token of one identity is never given for another, and is there again
// when its identity is.
func TestOtherIdentity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*oauth.Account)
		want   error // nil: it gets a token of its own
	}{
		{"username", func(a *oauth.Account) { a.Grant.(*oauth.Password).User = oauth.Fixed("other") }, oauth.ErrCredentialsRejected},
		{"scope", func(a *oauth.Account) { a.Scope = "" }, nil},
		{"client", func(a *oauth.Account) { a.Client.ID = "other" }, oauth.ErrCredentialsRejected},
		{"host", func(a *oauth.Account) { a.Client.TokenEndpoint = "http://as2.test/oauth/v2/oauth-token" }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{TokenLifetime: 24 * time.Hour}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				first := r.token(s)
				other := r.account()
				tt.change(other)
				r.configure(other)
				if cur := s.Current(); cur != nil {
					t.Error("the former identity's token is current")
				}
				if tt.want != nil {
					r.fails(s, tt.want)
				} else if r.token(s).Authorization()[0] == first.Authorization()[0] {
					t.Error("the former identity's token is given")
				}
				requests := r.sandbox.TokenRequests("")
				if requests != 2 {
					t.Errorf("%d token requests, want 2", requests)
				}
				after(time.Hour)
				for range 3 {
					r.configure(r.account())
					if r.token(s).Authorization()[0] != first.Authorization()[0] {
						t.Error("back again, another token is given")
					}
					after(time.Minute)
					r.configure(other)
					after(time.Minute)
				}
				r.stop() // over a restart, too
				s = r.start(r.account())
				if r.token(s).Authorization()[0] != first.Authorization()[0] {
					t.Error("after a restart another token is given")
				}
				if n := r.sandbox.TokenRequests("") - requests; n != 0 {
					t.Errorf("%d token requests more", n)
				}
			})
		})
	}
	t.Run("changed while a refresh is under way", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			time.Sleep(2 * time.Second)
			other := r.account()
			other.Grant.(*oauth.Password).User = oauth.Fixed("other")
			r.configure(other)
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(2, 0)
			r.configure(r.account()) // the first one's answer was kept
			r.token(s)
			r.requests(2, 0)
		})
	})
}

func TestRemovedAccount(t *testing.T) {
	t.Parallel()
	t.Run("is unknown, and rests", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			tok := r.token(s)
			r.configure()
			if _, err := r.sessions.Session(r.Context(), oauth.Key{Account: "erp"}); !errors.Is(err, oauth.ErrUnknownAccount) {
				t.Errorf("Session: %v", err)
			}
			if len(r.sessions.All()) != 0 {
				t.Error("it is still listed")
			}
			after(5 * time.Minute)
			r.configure(r.account()) // back again
			s, err := r.sessions.Session(r.Context(), oauth.Key{Account: "erp"})
			if err != nil {
				t.Fatal(err)
			}
			if r.token(s).Authorization()[0] != tok.Authorization()[0] {
				t.Error("back again, it has another token")
			}
			r.requests(1, 0)
			r.configure()
			after(48 * time.Hour)
			r.requests(1, 0)
		})
	})
	t.Run("a refresh under way is its last", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.underWay(s)
			r.token(s)
			r.configure()
			after(48 * time.Hour)
			r.requests(1, 1)
		})
	})
	t.Run("a request that holds it wakes nothing for good", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.configure()
			after(550 * time.Second)
			_, _ = s.Token(r.Context()) // a long request that replays
			after(48 * time.Hour)
			if n := r.sandbox.TokenRequests("refresh_token"); n > 1 {
				t.Errorf("%d refreshes of an account that is no more", n)
			}
		})
	})
}
