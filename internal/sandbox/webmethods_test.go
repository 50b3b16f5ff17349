package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWebMethods is what sets the Integration Server apart.
func TestWebMethods(t *testing.T) {
	run(t, Config{Provider: "webmethods", RedirectURIs: []string{testRedirect}}, func(t *testing.T, r *rig) {
		// redirect_uri belongs to both requests or to neither.
		for _, test := range []struct {
			atAuthorize, atToken string
			code                 string
		}{
			{testRedirect, testRedirect, ""},
			{"", "", ""},
			{"", testRedirect, "invalid_request"},
			{testRedirect, "", "invalid_request"},
			{testRedirect, testRedirect + "/", "invalid_grant"},
		} {
			code := r.approve(t, "sandbox-user", "redirect_uri", test.atAuthorize).Get("code")
			a := r.exchange(code, "redirect_uri", test.atToken)
			if got := r.last().Error; got != test.code || (a.status == 200) != (test.code == "") {
				t.Errorf("%q then %q: %d, %q", test.atAuthorize, test.atToken, a.status, got)
			}
		}
		// What the answer looks like is the client's choice, by default not JSON.
		for accept, want := range map[string]string{
			"":                            "text/html; charset=utf-8",
			"*/*":                         "text/html; charset=utf-8",
			"text/xml":                    "text/xml; charset=utf-8",
			"application/xml":             "text/xml; charset=utf-8",
			"application/json":            "application/json",
			"text/html, application/json": "application/json",
		} {
			for _, body := range []map[bool]string{{true: "sandbox-password"}, {false: "wrong"}} {
				for good, password := range body {
					req := post(r.provider.paths.token, form("grant_type", "password", "username", "sandbox-user", "password", password))
					req.Header["Accept"] = []string{accept}
					a := send(r.client, req)
					word := map[bool]string{true: "access_token", false: "invalid_grant"}[good]
					if a.header.Get("Content-Type") != want || !strings.Contains(a.body, word) || json.Valid([]byte(a.body)) != (want == "application/json") {
						t.Errorf("Accept %q: %s %s", accept, a.header.Get("Content-Type"), a.body)
					}
				}
			}
		}
		// Confidential clients with HTTP authentication only.
		req := post(r.provider.paths.token, form("grant_type", "client_credentials", "client_id", "sandbox-client", "client_secret", "sandbox-secret"))
		req.Header.Del("Authorization")
		if a := send(r.client, req); a.status != 401 || r.last().Error != "invalid_client" {
			t.Errorf("secret in the body: %d", a.status)
		}
	})
}

func TestWebMethodsRevocation(t *testing.T) {
	run(t, Config{Provider: "webmethods"}, func(t *testing.T, r *rig) {
		for _, test := range []func(grantedPair) string{
			func(p grantedPair) string { return p.Access },
			func(p grantedPair) string { return p.Refresh },
		} {
			p := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password").must(t)
			a := send(r.client, post(r.provider.paths.revoke, form("token", test(p))))
			if a.status != http.StatusOK || !r.last().Committed {
				t.Errorf("revocation: %d, event %+v", a.status, r.last())
			}
			if got := r.call(p.Access); got != 401 {
				t.Errorf("access token: %d, want 401", got)
			}
			r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).refused(t, 400, "invalid_grant")
		}
		if a := send(r.client, post(r.provider.paths.revoke, form("token", "unknown"))); a.status != 200 || r.last().Committed {
			t.Errorf("unknown token: %d, event %+v", a.status, r.last())
		}
	})
}

func TestMaxRefreshes(t *testing.T) {
	for _, provider := range []string{"webmethods", "pagero"} {
		t.Run(provider, func(t *testing.T) {
			run(t, Config{Provider: provider, MaxRefreshes: 2}, func(t *testing.T, r *rig) {
				p := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password").must(t)
				for range 2 {
					p = r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).must(t)
				}
				r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).refused(t, 400, "invalid_grant")
				if got := r.call(p.Access); got != 200 {
					t.Errorf("access token: %d", got)
				}
				time.Sleep(time.Hour)
				r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).refused(t, 400, "invalid_grant")
			})
		})
	}
	t.Run("none", func(t *testing.T) {
		run(t, Config{Provider: "webmethods", MaxRefreshes: -1}, func(t *testing.T, r *rig) {
			a := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password")
			if a.must(t); strings.Contains(a.body, "refresh_token") {
				t.Errorf("answer %s", a.body)
			}
		})
	})
}
