package oauth_test

import (
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A login is for the account as it was when it began.
func TestLoginOfAChangedAccount(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*oauth.Account){
		"client":         func(a *oauth.Account) { a.Client.ID = "other" },
		"scope":          func(a *oauth.Account) { a.Scope = "openid" },
		"token endpoint": func(a *oauth.Account) { a.Client.TokenEndpoint = "http://as2.test/oauth/v2/oauth-token" },
		"grant":          func(a *oauth.Account) { a.Grant = oauth.DeviceCode{} },
	}
	for name, change := range changes {
		t.Run(name+", before the callback", func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				q := r.approve(r.begin(s, anns()))
				a := r.person()
				change(a)
				r.configure(a)
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginChanged)
				r.codes(0)
				r.empty(s)
			})
		})
		t.Run(name+", while the code is exchanged", func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				q := r.approve(r.begin(s, anns()))
				a := r.person()
				change(a)
				time.AfterFunc(2*time.Second, func() { r.configure(a) })
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginChanged)
				r.codes(1)
				r.empty(s)
				r.configure(r.person())
				r.empty(s)
				after(time.Minute)
				r.revoked(1) // nobody has these tokens
			})
		})
	}
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			q := r.approve(r.begin(s, anns()))
			r.configure()
			_, err := r.finish(q)
			r.refused(err, oauth.ErrLoginChanged)
			r.codes(0)
		})
	})
}

// Pending logins outlive configurations, also one without their account.
func TestPendingLoginsSurviveConfigure(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		l := r.begin(s, anns())
		q := r.approve(l)
		for range 50 {
			a := r.person()
			a.TokenTimeout += time.Second
			a.Client.Secret = oauth.Fixed("sandbox-secret")
			r.configure(a)
		}
		r.configure()
		r.configure(r.person())
		if look, err := r.sessions.LookUpLogin(l.ID); err != nil || look.Done {
			t.Errorf("LookUpLogin: %+v, %v", look, err)
		}
		if _, err := r.finish(q); err != nil {
			t.Fatal(err)
		}
		r.codes(1)
		r.token(s)
	})
}

// §4: secrets are read before each request, so that one that was rotated while
// the person was away is the one that is used.
func TestSecretRotatedDuringALogin(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		secret := newText("sandbox-secret")
		a := r.person()
		a.Client.Secret = secret.secret
		s := r.start(a)
		defer r.stop()
		q := r.approve(r.begin(s, anns()))
		r.sandbox.SetClientSecret("rotated")
		secret.set("rotated")
		if _, err := r.finish(q); err != nil {
			t.Fatal(err)
		}
		r.token(s)
	})
}
