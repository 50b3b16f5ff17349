package oauth_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A reload keeps the users' sessions whose account stays, with what they do,
// and ends those of accounts that go.
func TestUsersOverReloads(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		playLogin(t, annAndBob, func(r *loginRig) {
			r.users(r.person())
			defer r.stop()
			ann := r.logInAs("ann")
			tok := r.token(ann)
			for range 50 {
				a := r.person()
				a.PerUser = true
				r.configure(a)
			}
			if r.user("ann") != ann || r.token(ann) != tok {
				t.Error("the session or its token changed")
			}
			a := r.person() // another identity, and back
			a.PerUser, a.Client.ID = true, "other"
			r.configure(a)
			if ann.Current() != nil {
				t.Error("the former identity's token is current")
			}
			r.fails(r.user("ann"), oauth.ErrLoginRequired)
			b := r.person()
			b.PerUser = true
			r.configure(b)
			if r.token(r.user("ann")).Authorization()[0] != tok.Authorization()[0] {
				t.Error("back again, it has another token")
			}
			if n := r.sandbox.TokenRequests(""); n != 1 {
				t.Errorf("%d token requests", n)
			}
		})
	})
	for name, change := range map[string]func(*oauth.Account){
		"removed":                  nil,
		"no sessions per user now": func(a *oauth.Account) { a.PerUser = false },
	} {
		for _, atWork := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a refresh under way: %v", name, atWork), func(t *testing.T) {
				t.Parallel()
				playLogin(t, annAndBob, func(r *loginRig) {
					r.users(r.person())
					defer r.stop()
					ann := r.logInAs("ann")
					r.token(ann)
					refreshes := 0
					if atWork {
						r.wire.slow("refresh_token", 5*time.Second)
						go func() { _ = ann.Refresh(r.Context()) }()
						after(time.Second)
						refreshes = 1
					}
					var accounts []*oauth.Account
					if change != nil {
						a := r.person()
						change(a)
						accounts = append(accounts, a)
					}
					r.configure(accounts...)
					if _, err := r.sessions.Session(r.Context(), ann.Key()); err == nil {
						t.Error("there is still a session")
					}
					after(7 * 24 * time.Hour)
					if n := r.sandbox.TokenRequests("refresh_token"); n != refreshes {
						t.Errorf("%d refreshes for an account that is no more, want %d", n, refreshes)
					}
					a := r.person()
					a.PerUser = true
					r.configure(a) // back again
					r.token(r.user("ann"))
					if n := r.sandbox.TokenRequests("refresh_token"); n != refreshes+1 {
						t.Errorf("%d refreshes, want %d", n, refreshes+1)
					}
					r.codes(1)
				})
			})
		}
	}
}
