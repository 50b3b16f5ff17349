package interop

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Refused credentials are tried once, however often the proxy starts, and again
// when they are corrected.
func TestRefusedOnce(t *testing.T) {
	t.Parallel()
	scope := "scope " + ScopeAPI + " " + ScopeOffline
	for _, tt := range []struct {
		name, file, lines, refusal string
	}{
		{"password", "password", scope, "password Bad Request"},
		{"client_secret", "client_secret", scope, "password Unauthorized"},
		{"client_auth post", "", "client_auth post\n" + scope, "password Unauthorized"},
		{"client_auth basic_raw", "", "client_auth basic_raw\n" + scope, "password Bad Request"},
		{"scope", "", "scope everything", "password Bad Request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withLifetime(10*time.Minute), nil)
			p := newProxy(r, tt.lines)
			var right []byte
			if tt.file != "" {
				var err error
				if right, err = os.ReadFile(p.dir + "/" + tt.file); err != nil {
					t.Fatal(err)
				}
				p.write(tt.file, "wrong")
			}
			wantCode := "credentials_rejected"
			if tt.name == "scope" {
				wantCode = "account_misconfigured"
			}
			for n := range 4 {
				if n > 0 {
					p.stop([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[n%2])
				}
				p.run()
				for range 3 {
					if status, code, err := p.call(application, ""); status != 503 || code != wantCode || err != nil {
						t.Errorf("start %d: %d %s %v, want 503 %s", n, status, code, err, wantCode)
					}
				}
			}
			r.want(tt.refusal)
			if tt.file == "" {
				return
			}
			p.write(tt.file, string(right))
			for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
				if status, _, _ := p.call(application, ""); status == http.StatusOK {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the corrected file is not seen")
				}
			}
			r.want(tt.refusal, signedIn)
		})
	}
}

// Without the scope that fosite wants for it, there is no refresh token. Then a
// token's end means a sign-in, and nobody notices.
func TestNoRefreshToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(3*time.Second), nil)
	p := newProxy(r, "scope "+ScopeAPI)
	p.run()
	for deadline := time.Now().Add(patience); len(r.TokenEvents()) < 3; time.Sleep(20 * time.Millisecond) {
		p.works()
		if time.Now().After(deadline) {
			t.Fatal("the tokens are not renewed")
		}
	}
	for _, got := range r.requests() {
		if got != signedIn {
			t.Errorf("%s, want only sign-ins", got)
		}
	}
}

// What goes over the wire is legal, as a server of others sees it.
func TestTokenRequestForm(t *testing.T) {
	t.Parallel()
	type sent struct {
		head *http.Request
		form url.Values
	}
	seen := make(chan sent, 8)
	r := newRig(t, withLifetime(10*time.Minute), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			params, _ := form(r)
			seen <- sent{r, params}
			next.ServeHTTP(w, r)
		})
	})
	p := newProxy(r)
	p.run()
	p.works()
	if out, err := p.bearer("refresh", "erp"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []url.Values{
		{"grant_type": {"password"}, "username": nil, "password": nil, "scope": nil},
		{"grant_type": {"refresh_token"}, "refresh_token": nil, "scope": nil},
	} {
		got := wait(t, seen)
		if h := got.head; h.Method != "POST" || h.URL.RawQuery != "" ||
			!strings.HasPrefix(h.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			t.Errorf("%s %s %s", h.Method, h.URL, h.Header.Get("Content-Type"))
		}
		if len(got.form) != len(want) || got.form.Get("grant_type") != want.Get("grant_type") {
			t.Errorf("a %s request has %d parameters, want %d", want.Get("grant_type"), len(got.form), len(want))
		}
		for name, values := range got.form {
			if !want.Has(name) || len(values) != 1 || values[0] == "" {
				t.Errorf("parameter %s comes %d times or empty, or must not be there", name, len(values))
			}
		}
	}
}
