package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// After a logout nobody gets in by themselves, over a restart, a reload and a
// forget, until a login.
func TestLogoutStaysOut(t *testing.T) {
	t.Parallel()
	grants := map[string]func(*oauth.Account){
		"password":              func(*oauth.Account) {},
		"client_credentials":    func(a *oauth.Account) { a.Grant = oauth.ClientCredentials{} },
		"on_lost_reply login":   func(a *oauth.Account) { a.OnLostReply = oauth.LostLogin },
		"password, relogin off": func(a *oauth.Account) { a.Grant.(*oauth.Password).Relogin = false },
	}
	for name, change := range grants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				a := r.machine()
				change(a)
				s := r.start(a)
				r.token(s)
				r.logsOut(s, true, "")
				requests := r.sandbox.TokenRequests("")
				for range 3 {
					for range 30 {
						after(time.Minute)
						r.fails(s, oauth.ErrLoginRequired)
					}
					if err := s.Refresh(r.Context()); !errors.Is(err, oauth.ErrLoginRequired) {
						t.Errorf("Refresh: %v", err)
					}
					r.state(s, oauth.StateLoginRequired)
					if f := r.failure(s, oauth.ErrLoginRequired); !f.RetryAt.IsZero() || f.Detail != "it was logged out" {
						t.Errorf("%+v", f)
					}
					r.configure(a)
					if err := s.Forget(r.Context()); err != nil {
						t.Error(err)
					}
					r.stop()
					s = r.start(a)
				}
				defer r.stop()
				after(48 * time.Hour)
				if n := r.sandbox.TokenRequests("") - requests; n != 0 {
					t.Errorf("%d token requests after the logout", n)
				}
				if err := s.Login(r.Context()); err != nil {
					t.Fatal(err)
				}
				r.token(s)
				after(2 * time.Hour)
				r.token(s)
			})
		})
	}
	t.Run("while a refresh is in flight", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.machine())
			defer r.stop()
			r.token(s)
			r.wire.slow("refresh_token", 5*time.Second)
			refreshed := make(chan error, 1)
			go func() { refreshed <- s.Refresh(r.Context()) }()
			after(time.Second)
			r.logsOut(s, true, "") // of what the refresh brought
			if err := <-refreshed; err != nil {
				t.Errorf("Refresh: %v", err)
			}
			r.revoked(1)
			r.empty(s)
			after(time.Hour)
			r.fails(s, oauth.ErrLoginRequired)
			r.requests(1, 1)
		})
	})
	t.Run("with a latch: that is still known", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			r.sandbox.Play(sandbox.WrongPassword, -1)
			s := r.start(r.machine())
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.logsOut(s, false, "")
			after(time.Hour)
			r.requests(1, 0)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
				t.Errorf("Login: %v", err)
			}
			after(time.Hour)
			if _, err := s.Token(r.Context()); err == nil {
				t.Error("there is a token")
			}
			r.requests(2, 0)
		})
	})
}

// Of a user nothing is left in the store.
func TestLogoutOfAUser(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{Users: map[string]string{"bob": "bobs"}}, func(r *loginRig) {
		r.users(r.person())
		ann, bob := r.user("ann"), r.user("bob")
		r.logIn(ann)
		if _, err := r.finish(r.approveAs(r.begin(bob, anns()), "bob")); err != nil {
			t.Fatal(err)
		}
		bobs := r.family(bob)
		r.logsOut(ann, true, "")
		if text := r.stored(ann.Key()); text != "" {
			t.Error("the store still has an entry")
		}
		if names, err := r.sessions.Users(r.Context(), "erp"); err != nil || len(names) != 1 || names[0] != "bob" {
			t.Errorf("the users are %q, %v", names, err)
		}
		r.fails(ann, oauth.ErrLoginRequired)
		r.state(ann, oauth.StateLoginRequired)
		if r.family(bob) != bobs {
			t.Error("Bob's session changed")
		}
		if err := bob.Refresh(r.Context()); err != nil {
			t.Error(err)
		}
		r.revoked(1)
		r.logIn(ann) // and in again
		r.token(ann)
		r.stop()
		r.users(r.person())
		defer r.stop()
		r.token(r.user("ann"))
		r.codes(3)
	})
}
