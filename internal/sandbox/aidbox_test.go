package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func aidboxJSON(body string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, "http://as.test/auth/token", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

const aidboxLogin = `"grant_type":"password","username":"sandbox-user","password":"sandbox-password"`

// TestAidboxBodies: form and JSON, with and without a secret.
func TestAidboxBodies(t *testing.T) {
	const client = `{"client_id":"sandbox-client",`
	for _, test := range []struct {
		name, body, content string
		optional            bool // Config.SecretOptional
		status              int
		code                string
	}{
		{"JSON", client + `"client_secret":"sandbox-secret",` + aidboxLogin + "}", "", false, 200, ""},
		{"JSON, charset", client + `"client_secret":"sandbox-secret",` + aidboxLogin + "}", "application/json; charset=utf-8", false, 200, ""},
		{"no secret", client + aidboxLogin + "}", "", false, 401, "invalid_client"},
		{"optional", client + aidboxLogin + "}", "", true, 200, ""},
		{"optional and right", client + `"client_secret":"sandbox-secret",` + aidboxLogin + "}", "", true, 200, ""},
		{"optional but wrong", client + `"client_secret":"x",` + aidboxLogin + "}", "", true, 401, "invalid_client"},
		{"no client", "{" + aidboxLogin + "}", "", true, 401, "invalid_client"},
		{"form", "client_id=sandbox-client&grant_type=password&" + goodLogin, "application/x-www-form-urlencoded", true, 200, ""},
		{"other type", client + aidboxLogin + "}", "text/plain", true, 400, "invalid_request"},
		{"repeated", client + `"username":"x",` + aidboxLogin + "}", "", true, 400, "invalid_request"},
		{"number", client + `"x":1,` + aidboxLogin + "}", "", true, 400, "invalid_request"},
		{"nested", client + `"x":{"y":"z"},` + aidboxLogin + "}", "", true, 400, "invalid_request"},
		{"array", `[]`, "", true, 400, "invalid_request"},
		{"cut off", client + aidboxLogin, "", true, 400, "invalid_request"},
		{"more", client + aidboxLogin + "}{}", "", true, 400, "invalid_request"},
		{"too large", client + aidboxLogin + `,"x":"` + strings.Repeat("x", maxForm) + `"}`, "", true, 400, "invalid_request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, Config{Provider: "aidbox", SecretOptional: test.optional}, func(t *testing.T, r *rig) {
				req := aidboxJSON(test.body)
				if test.content != "" {
					req.Header.Set("Content-Type", test.content)
				}
				if a := send(r.client, req); test.code == "" {
					a.must(t)
				} else {
					a.refused(t, test.status, test.code)
				}
				time.Sleep(time.Second) // the server lingers after a body that is too large
				if e := r.last(); e.Error != test.code || test.code == "" && (e.Grant != "password" || e.Username != "sandbox-user") {
					t.Errorf("event %+v", e)
				}
			})
		})
	}
	t.Run("query", func(t *testing.T) {
		run(t, Config{Provider: "aidbox", SecretOptional: true}, func(t *testing.T, r *rig) {
			req := aidboxJSON(client + aidboxLogin + "}")
			req.URL.RawQuery = "x=y"
			send(r.client, req).refused(t, 400, "invalid_request")
		})
	})
}

func TestAidboxSession(t *testing.T) {
	run(t, Config{Provider: "aidbox"}, func(t *testing.T, r *rig) {
		end := func(method, token, query string) answer {
			req, _ := http.NewRequest(method, "http://as.test/Session"+query, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			return send(r.client, req)
		}
		p := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password").must(t)
		other := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password").must(t)
		end("POST", p.Access, "").refused(t, 405, "invalid_request")
		end("DELETE", p.Refresh, "").refused(t, 401, "invalid_token")
		end("DELETE", p.Access, "?x=y").refused(t, 401, "invalid_token")
		r.Play(RevokeAway, 1)
		end("DELETE", p.Access, "").refused(t, 503, "temporarily_unavailable")
		if e := r.last(); e.Fault != RevokeAway || e.Committed || r.call(p.Access) != 200 {
			t.Errorf("revoke-away: %+v", e)
		}
		if a := end("DELETE", p.Access, ""); a.status != 204 || a.body != "" {
			t.Errorf("end of the session: %d %s", a.status, a.body)
		}
		if e := r.last(); e.Kind != KindRevoke || !e.Committed || e.Presented != "f1.g1" || e.Status != 204 {
			t.Errorf("event %+v", e)
		}
		if got := r.call(p.Access); got != 401 {
			t.Errorf("access token: %d, want 401", got)
		}
		r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).refused(t, 400, "invalid_grant")
		end("DELETE", p.Access, "").refused(t, 401, "invalid_token")
		if got := r.call(other.Access); got != 200 {
			t.Errorf("the other session: %d, want 200", got)
		}
		time.Sleep(time.Hour)
		end("DELETE", other.Access, "").refused(t, 401, "invalid_token")
		r.exchangeJSON("refresh_token", "refresh_token", other.Refresh).must(t) // an expired token ended nothing
	})
}

// secureCode asks for a code and returns the fragment of the 302.
func (r *rig) secureCode(t *testing.T, query string) (location string, fragment url.Values) {
	t.Helper()
	a := r.browse("GET", "http://as.test/auth/authorize?grant_type=password&client_id=sandbox-client"+query, "", "")
	location, text, _ := strings.Cut(a.header.Get("Location"), "#")
	fragment, err := url.ParseQuery(text)
	if a.status != 302 || err != nil {
		t.Fatalf("secure code: %d %s, %v", a.status, a.header.Get("Location"), err)
	}
	return location, fragment
}

func TestAidboxSecureCode(t *testing.T) {
	const redirect = "http://localhost:3449/auth.html"
	run(t, Config{Provider: "aidbox", SecretOptional: true, SecureCode: redirect}, func(t *testing.T, r *rig) {
		login := func(code, password string) answer {
			return send(r.client, aidboxJSON(`{"code":"`+code+`","client_id":"sandbox-client","grant_type":"password","username":"sandbox-user","password":"`+password+`"}`))
		}
		location, fragment := r.secureCode(t, "&state=a%20%26b")
		code := fragment.Get("code")
		if location != redirect || fragment.Get("state") != "a &b" || strings.Count(code, ".") != 2 || !strings.HasPrefix(code, "eyJ") {
			t.Fatalf("%s#%v", location, fragment)
		}
		login(code, "sandbox-password").must(t)
		login(code, "sandbox-password").refused(t, 400, "invalid_grant") // only once
		login("", "sandbox-password").refused(t, 400, "invalid_request")
		login("x", "sandbox-password").refused(t, 400, "invalid_grant")

		_, fragment = r.secureCode(t, "")
		if fragment.Has("state") {
			t.Errorf("a state from nowhere: %v", fragment)
		}
		login(fragment.Get("code"), "wrong").refused(t, 400, "invalid_grant")
		login(fragment.Get("code"), "sandbox-password").refused(t, 400, "invalid_grant") // gone with the first try

		_, fragment = r.secureCode(t, "")
		r.exchange(fragment.Get("code"), "redirect_uri", "").refused(t, 400, "invalid_grant") // no authorization code
		time.Sleep(time.Minute)
		login(fragment.Get("code"), "sandbox-password").refused(t, 400, "invalid_grant")
		p := r.exchange(r.approve(t, "sandbox-user").Get("code")).must(t)
		r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).must(t)

		if a := r.browse("GET", "http://as.test/auth/authorize?grant_type=password&client_id=x", "", ""); a.status != 400 {
			t.Errorf("other client: %d", a.status)
		}
		if _, f := r.secureCode(t, "&state=1&state=2"); f.Get("error") != "invalid_request" || f.Has("code") {
			t.Errorf("state twice: %v", f)
		}
	})
}

func TestAidboxWithoutSecureCode(t *testing.T) {
	run(t, Config{Provider: "aidbox"}, func(t *testing.T, r *rig) {
		a := r.browse("GET", "http://as.test/auth/authorize?grant_type=password&client_id=sandbox-client", "", "")
		if a.status != 400 || a.header.Get("Location") != "" {
			t.Errorf("without a registered redirect: %d", a.status)
		}
	})
}
