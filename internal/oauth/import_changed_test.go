package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What an import leaves is the identity's that it was for: if the account is
// another one when it ends, that one's token stays in use.
func TestImportIntoAChangedAccount(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{"refused": false, "granted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Delay: 5 * time.Second, Users: map[string]string{"bob": "bob-password"}}, func(r *loginRig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				token := oauth.NewSecret("not-a-token")
				if good {
					elsewhere := r.account()
					token = elsewhere.Grant.SignIn(r.Context(), &elsewhere.Client, "all").Tokens.RefreshToken
				}
				bob := r.account()
				bob.Grant = &oauth.Password{User: oauth.Fixed("bob"), Secret: oauth.Fixed("bob-password"), Relogin: true}
				time.AfterFunc(2*time.Second, func() { r.configure(bob) })
				if err := s.Import(r.Context(), token); errors.Is(err, oauth.ErrImportRefused) == good {
					t.Errorf("Import: %v", err)
				}
				after(time.Minute)
				if is := r.called(s).Username; is != "bob" {
					t.Errorf("the token is %q's", is)
				}
				n := r.sandbox.TokenRequests("")
				r.configure(r.account()) // back again
				if is := r.called(s).Username; is != "sandbox-user" {
					t.Errorf("the token is %q's", is)
				}
				if r.sandbox.TokenRequests("") != n {
					t.Error("what it had is gone")
				}
			})
		})
	}
}
