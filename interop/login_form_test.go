package interop

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// What a login sends is legal, has all that it should and nothing else, as
// servers of others see it.
func TestLoginRequestForm(t *testing.T) {
	t.Parallel()
	needsLogin(t)
	for _, tt := range servers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sent := make(chan url.Values, 8)
			r := tt.rig(t, withLifetime(10*time.Minute), func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if params, err := form(r); err == nil && params.Has("grant_type") {
						sent <- params
					}
					next.ServeHTTP(w, r)
				})
			})
			p := newLoginProxy(r)
			p.run()
			o := p.login("erp", newPerson(r.Username, r.Password))
			if o.exit != nil || o.trip != nil {
				t.Fatalf("%v %v\n%s", o.exit, o.trip, o.out)
			}
			u, err := url.Parse(o.url)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{"response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method"}
			if r.prompt != "" {
				names = append(names, "prompt")
			}
			asked := u.Query()
			if err := exactly(asked, names...); err != nil {
				t.Errorf("the authorization request: %v", err)
			}
			params := wait(t, sent)
			if err := exactly(params, "grant_type", "code", "redirect_uri", "code_verifier"); err != nil {
				t.Errorf("the token request: %v", err)
			}
			if asked.Get("code_challenge_method") != "S256" || len(asked.Get("code_challenge")) != 43 || len(params.Get("code_verifier")) < 43 {
				t.Error("the PKCE parameters are wrong")
			}
			if params.Get("redirect_uri") != asked.Get("redirect_uri") {
				t.Error("the token request has another redirect_uri")
			}
		})
	}
}

// exactly checks that a request has these parameters, each once and not empty,
// and no others.
func exactly(params url.Values, names ...string) error {
	for _, name := range names {
		if values := params[name]; len(values) != 1 || values[0] == "" {
			return fmt.Errorf("parameter %s comes %d times or empty", name, len(values))
		}
	}
	if len(params) != len(names) {
		return fmt.Errorf("it has %d parameters, want only %q", len(params), names)
	}
	return nil
}

// Two people log in to one account: each one's requests carry their own token,
// and one's logout leaves the other alone. Only oidc-provider knows several.
func TestLoginPerUser(t *testing.T) {
	t.Parallel()
	needsLogin(t)
	r := newOIDCRig(t, withLifetime(10*time.Minute), nil)
	p := newLoginProxy(r)
	p.target = "erp/{http.request.header.X-Remote-User}"
	p.options = "user_from_header X-Remote-User"
	p.configure()
	p.run()
	for _, name := range []string{"alice", "bob"} {
		o := p.login("erp/"+name, newPerson(name+"@example.com", "any"))
		if o.exit != nil || o.trip != nil || o.page != http.StatusOK {
			t.Fatalf("logging %s in: %v; the person: %v, status %d\n%s", name, o.exit, o.trip, o.page, o.out)
		}
	}
	calls := func(name string, wantStatus int, wantUser string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+p.address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Remote-User", name)
		res, err := application.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if user := res.Header.Get(UserField); res.StatusCode != wantStatus || user != wantUser {
			t.Errorf("%q calls: %d %s as %q, want %d as %q", name, res.StatusCode, res.Header.Get("Caddy-Bearer-Error"), user, wantStatus, wantUser)
		}
	}
	calls("alice", http.StatusOK, "alice@example.com")
	calls("bob", http.StatusOK, "bob@example.com")
	calls("carol", http.StatusServiceUnavailable, "")
	calls("", http.StatusForbidden, "")
	p.restart()
	calls("bob", http.StatusOK, "bob@example.com")
	if out, err := p.bearer("logout", "erp/bob"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	calls("bob", http.StatusServiceUnavailable, "")
	calls("alice", http.StatusOK, "alice@example.com")
}
