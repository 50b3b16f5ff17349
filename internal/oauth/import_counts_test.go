package oauth_test

import (
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An import that brought a token is the first sign-in, even if its own answer
// didn't come and the token was only good later on: with relogin off, the
// password isn't used then.
func TestImportIsTheFirstSignIn(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]sandbox.Fault{
		"granted": "", "the server is away first": sandbox.Unavailable, "the answer is cut short": sandbox.Truncated,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{Grace: time.Minute}, func(r *rig) {
				elsewhere := r.account()
				brought := elsewhere.Grant.SignIn(r.Context(), &elsewhere.Client, "all").Tokens.RefreshToken
				r.sandbox.Play(sandbox.Unavailable, 1) // the sign-in at the start
				s := r.start(r.noRelogin())
				defer r.stop()
				after(0)
				if fault != "" {
					r.sandbox.Play(fault, 1)
				}
				if err := s.Import(r.Context(), brought); (err == nil) != (fault == "") {
					t.Errorf("Import: %v", err)
				}
				after(time.Minute)
				r.token(s)
				r.sandbox.RevokeRefreshTokens()
				after(time.Hour)
				r.fails(s, oauth.ErrLoginRequired)
				for _, e := range r.tokenEvents("password")[1:] {
					if e.Committed {
						t.Error("the password was used")
					}
				}
			})
		})
	}
}
