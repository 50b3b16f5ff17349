package oauth_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

const (
	pageroIssuer = base + "/oauth/v2/oauth-anonymous"
	evilIssuer   = "http://evil.test/oauth/v2/oauth-anonymous"
)

// with returns a callback with one parameter changed; empty takes it out.
func with(q url.Values, name, value string) url.Values {
	c := url.Values{}
	for n, values := range q {
		c[n] = values
	}
	if c[name] = []string{value}; value == "" {
		delete(c, name)
	}
	return c
}

// B10: iss is compared as simple text, also that of an error. A callback with
// the wrong one causes no token request, and uses the login up.
func TestIss(t *testing.T) {
	t.Parallel()
	known := func(a *oauth.Account) { a.Client.Issuer = pageroIssuer }
	none := func(a *oauth.Account) { a.Client.PinIssuer = false }
	tests := []struct {
		name    string
		account func(*oauth.Account)
		iss     string // of the callback; empty: there is none
		ok      bool
	}{
		{"issuer, the same", known, pageroIssuer, true},
		{"issuer, none", known, "", false},
		{"issuer, another", known, evilIssuer, false},
		{"issuer, a slash more", known, pageroIssuer + "/", false},
		{"issuer, in other letters", known, strings.Replace(pageroIssuer, "oauth", "OAuth", 1), false},
		{"issuer, escaped", known, strings.Replace(pageroIssuer, "anonymous", "anonymou%73", 1), false},
		{"issuer, without the port", known, strings.Replace(pageroIssuer, ":8081", "", 1), false},
		{"issuer, longer", known, pageroIssuer + ".evil.test", false},
		{"nothing known, none", none, "", true},
		{"nothing known, one", none, pageroIssuer, false},
		{"to be pinned, one", nil, pageroIssuer, true},
		{"to be pinned, none", nil, "", true},
		{"to be pinned, but with an issuer", func(a *oauth.Account) { known(a); a.Client.PinIssuer = true }, evilIssuer, false},
	}
	for _, tt := range tests {
		for _, failed := range []bool{false, true} {
			name := tt.name
			if failed {
				name += ", of an error"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				playLogin(t, sandbox.Config{}, func(r *loginRig) {
					a := r.person()
					if tt.account != nil {
						tt.account(a)
					}
					s := r.start(a)
					defer r.stop()
					good := r.approve(r.begin(s, anns()))
					q := with(good, "iss", tt.iss)
					want := oauth.ErrIssuerMismatch
					if failed {
						q = with(with(q, "code", ""), "error", "access_denied")
						if tt.ok {
							want = oauth.ErrLoginDenied
						}
					}
					_, err := r.finish(q)
					if tt.ok && !failed {
						if err != nil {
							t.Fatal(err)
						}
						r.codes(1)
						r.token(s)
						return
					}
					r.refused(err, want)
					_, err = r.finish(good) // its code may be known to another server
					r.refused(err, oauth.ErrLoginUnknown)
					r.codes(0)
					r.empty(s)
				})
			})
		}
	}
}

// The iss of the first login is demanded of the later ones, its absence too,
// over a restart; `issuer` goes before it.
func TestPinnedIss(t *testing.T) {
	t.Parallel()
	for _, first := range []string{pageroIssuer, ""} {
		other := map[string]string{pageroIssuer: "", "": pageroIssuer}[first]
		t.Run("first "+first, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				login := func(iss string) error {
					_, err := r.finish(with(r.approve(r.begin(s, anns())), "iss", iss))
					return err
				}
				// Neither a denied login nor one that fails pins anything.
				q := with(r.approve(r.begin(s, anns())), "iss", evilIssuer)
				_, err := r.finish(with(with(q, "code", ""), "error", "access_denied"))
				r.refused(err, oauth.ErrLoginDenied)
				_, err = r.finish(with(with(r.approve(r.begin(s, anns())), "iss", evilIssuer), "code", "injected"))
				r.refused(err, oauth.ErrLoginFailed)
				r.codes(1)

				if err := login(first); err != nil {
					t.Fatal(err)
				}
				r.codes(2)
				for range 2 {
					r.refused(login(other), oauth.ErrIssuerMismatch)
					r.refused(login(evilIssuer), oauth.ErrIssuerMismatch)
					r.codes(2)
					r.stop()
					s = r.start(r.person())
				}
				if err := login(first); err != nil {
					t.Error(err)
				}
				r.codes(3)

				// What the operator says counts.
				a := r.person()
				a.Client.Issuer = evilIssuer
				r.configure(a)
				if err := login(evilIssuer); err != nil {
					t.Error(err)
				}
				r.refused(login(pageroIssuer), oauth.ErrIssuerMismatch)
				r.refused(login(""), oauth.ErrIssuerMismatch)
				r.configure(r.person())
				if err := login(first); err != nil {
					t.Errorf("the pin is gone: %v", err)
				}

				// Another authorization endpoint is another server.
				moved := r.person()
				moved.Client.AuthorizeEndpoint = strings.Replace(moved.Client.AuthorizeEndpoint, "8081", "8082", 1)
				r.configure(moved)
				if err := login(other); err != nil {
					t.Error(err)
				}
				r.refused(login(first), oauth.ErrIssuerMismatch)
				r.stop()
			})
		})
	}
	// A callback passes through the user's browser: one user can't lock the
	// others out.
	t.Run("is that of all users once two have brought it", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Users: map[string]string{"ann": "anns", "bob": "bobs", "cid": "cids"}}, func(r *loginRig) {
			r.users(r.person())
			defer r.stop()
			login := func(name, iss string) error {
				q := r.approveAs(r.begin(r.user(name), anns()), name)
				if iss != "" {
					q = with(q, "iss", iss)
				}
				_, err := r.finish(q)
				return err
			}
			if err := login("ann", evilIssuer); err != nil {
				t.Fatal(err)
			}
			r.refused(login("ann", ""), oauth.ErrIssuerMismatch) // hers holds for herself
			for _, name := range []string{"bob", "cid"} {
				if err := login(name, ""); err != nil {
					t.Errorf("%s is locked out: %v", name, err)
				}
			}
			r.refused(login("bob", evilIssuer), oauth.ErrIssuerMismatch)
			r.refused(login("cid", evilIssuer), oauth.ErrIssuerMismatch)
			r.codes(3)
		})
	})
}

// B9, B10: two may be the first at a time. Only one's iss is pinned; the other
// one's tokens are given back.
func TestTwoFirstLogins(t *testing.T) {
	t.Parallel()
	for _, second := range []string{evilIssuer, "", pageroIssuer} {
		t.Run("the second with "+second, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				q1 := r.approve(r.begin(s, anns()))
				q2 := with(r.approve(r.begin(s, anns())), "iss", second)
				errs := make(chan error, 2)
				for _, q := range []url.Values{q1, q2} {
					go func() {
						_, err := r.finish(q)
						errs <- err
					}()
				}
				failed := 0
				for range 2 {
					if err := <-errs; err != nil {
						r.refused(err, oauth.ErrIssuerMismatch)
						failed++
					}
				}
				r.codes(2) // neither could know of the other
				if second == pageroIssuer {
					if failed != 0 {
						t.Error("one was refused")
					}
					return
				}
				if failed != 1 {
					t.Errorf("%d of both logins were refused", failed)
				}
				r.revoked(1)
				r.token(s) // its tokens are not those that were given back
				if err := s.Refresh(r.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// With metadata, it tells whether there must be an iss (RFC 9207 §3).
func TestIssByMetadata(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		sends bool
		iss   string
		ok    bool
	}{
		{"sent and right", true, base, true},
		{"sent, but missing", true, "", false},
		{"sent and wrong", true, "http://evil.test", false},
		{"sent, with a slash", true, base + "/", false},
		{"not promised, right", false, base, true},
		{"not promised, none", false, "", true},
		{"not promised, wrong", false, "http://evil.test", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Provider: "oidc", AlwaysRefreshToken: true}, func(r *loginRig) {
				r.wire.changes(func(s sent, m map[string]any) {
					if s.Method == http.MethodGet {
						m["authorization_response_iss_parameter_supported"] = tt.sends
					}
				})
				s := r.start(r.discovered())
				defer r.stop()
				_, err := r.finish(with(r.approve(r.begin(s, anns())), "iss", tt.iss))
				if tt.ok && err == nil {
					r.codes(1)
					r.token(s)
					return
				}
				r.refused(err, oauth.ErrIssuerMismatch)
				if tt.ok {
					t.Error("it was refused")
				}
				r.codes(0)
			})
		})
	}
}

// discovered is an account of a person whose endpoints come from metadata.
func (r *loginRig) discovered() *oauth.Account {
	a := r.person()
	a.Client.Issuer, a.Client.Discover, a.Client.PinIssuer = r.endpoints.Issuer, true, false
	a.Client.AuthorizeEndpoint, a.Client.TokenEndpoint, a.Client.RevokeEndpoint, a.Client.DeviceEndpoint = "", "", "", ""
	return a
}
