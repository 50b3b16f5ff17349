package oauth_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An account with a refresh token of elsewhere waits for it, spends it once,
// and goes on with its successors.
func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		elsewhere := r.account()
		answer := elsewhere.Grant.SignIn(t.Context(), &elsewhere.Client, "all")
		if answer.Outcome != oauth.Granted {
			t.Fatal(answer.Detail)
		}
		brought := answer.Tokens.RefreshToken

		a := r.account()
		a.Grant = oauth.RefreshToken{}
		s := r.start(a)
		r.fails(s, oauth.ErrLoginRequired)
		r.state(s, oauth.StateLoginRequired)
		if err := s.Import(t.Context(), brought); err != nil {
			t.Fatal(err)
		}
		r.token(s)
		r.requests(1, 1)
		time.Sleep(2 * time.Hour)
		r.token(s)
		r.stop()
		s = r.start(a)
		defer r.stop()
		r.token(s)
		r.requests(1, 3) // one ahead while in use, one after two idle hours

		// One that was spent before is refused, and that is told.
		if err := s.Import(t.Context(), brought); !errors.Is(err, oauth.ErrImportRefused) {
			t.Errorf("importing a spent refresh token: %v", err)
		}
		r.requests(1, 4)
	})
}

// A refused import makes no sign-in, and takes nothing away.
func TestImportRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		tok := r.token(s)
		if err := s.Import(t.Context(), oauth.NewSecret("garbage")); !errors.Is(err, oauth.ErrImportRefused) {
			t.Error(err)
		}
		r.requests(1, 1)
		if again := r.token(s); again.Authorization()[0] != tok.Authorization()[0] {
			t.Error("another token is in use")
		}
		time.Sleep(2 * time.Hour)
		r.token(s)
		if n := r.sandbox.TokenRequests("password"); n != 1 {
			t.Errorf("%d sign-ins, want 1", n)
		}
	})
}

// An import is stored before it is spent, and survives a lost answer.
func TestImportWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		elsewhere := r.account()
		brought := elsewhere.Grant.SignIn(t.Context(), &elsewhere.Client, "all").Tokens.RefreshToken
		r.sandbox.Play(sandbox.Unavailable, -1)
		a := r.account()
		a.Grant = oauth.RefreshToken{}
		s := r.start(a)
		if err := s.Import(t.Context(), brought); !errors.Is(err, oauth.ErrUnavailable) {
			t.Errorf("importing while the server is away: %v", err)
		}
		r.stop()
		r.sandbox.Clear()
		s = r.start(a)
		defer r.stop()
		r.token(s)
	})
}

func TestClientCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		a := r.account()
		a.Grant = oauth.ClientCredentials{}
		s := r.start(a)
		defer r.stop()
		r.token(s)
		time.Sleep(550 * time.Second) // in use: the next one is fetched ahead
		synctest.Wait()
		if n := r.sandbox.TokenRequests("client_credentials"); n != 2 {
			t.Errorf("%d sign-ins, want 2", n)
		}
		r.token(s)
		time.Sleep(7 * 24 * time.Hour) // one more ahead, then idle: nothing to keep alive
		synctest.Wait()
		r.state(s, oauth.StateReady)
		if n := r.sandbox.TokenRequests(""); n != 3 {
			t.Errorf("%d token requests, want 3", n)
		}
		r.token(s)

		r.sandbox.SetClientSecret("another")
		time.Sleep(time.Hour)
		r.fails(s, oauth.ErrCredentialsRejected)
		before := r.sandbox.TokenRequests("")
		time.Sleep(24 * time.Hour)
		r.fails(s, oauth.ErrCredentialsRejected)
		if n := r.sandbox.TokenRequests(""); n != before {
			t.Errorf("%d more attempts with a refused secret", n-before)
		}
	})
}
