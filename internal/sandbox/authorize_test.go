package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const testRedirect = "https://client.test/cb"

// authorizeURL returns an authorization request with the usual parameters;
// those given replace them, and an empty value takes one away.
func (r *rig) authorizeURL(pairs ...string) string {
	v := form("response_type", "code", "client_id", "sandbox-client", "redirect_uri", testRedirect, "state", "s1")
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return "http://as.test" + r.provider.paths.authorize + "?" + v.Encode()
}

// approve returns the parameters of the callback.
func (r *rig) approve(t *testing.T, user string, pairs ...string) url.Values {
	t.Helper()
	location, err := r.Approve(r.authorizeURL(pairs...), user)
	if err != nil {
		t.Fatal(err)
	}
	return query(t, location)
}

func query(t *testing.T, location string) url.Values {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	v, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// exchange redeems a code; pairs are as those of authorizeURL.
func (r *rig) exchange(code string, pairs ...string) answer {
	v := form("grant_type", "authorization_code", "code", code, "redirect_uri", testRedirect)
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return send(r.client, post(r.provider.paths.token, v))
}

func (r *rig) browse(method, target, body, cookie string) answer {
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	return send(r.client, req)
}

const goodLogin = "username=sandbox-user&password=sandbox-password"

// TestAuthorizeInBrowser is the way of a person: page, wrong password, right
// one, and no page the next time.
func TestAuthorizeInBrowser(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		target := r.authorizeURL("state", `"><script>`)
		page := r.browse("GET", target, "", "")
		if page.status != 200 || page.header.Get("Content-Type") != "text/html; charset=utf-8" ||
			!strings.Contains(page.body, `name="password"`) || strings.Contains(page.body, "<script") {
			t.Errorf("page: %d %s", page.status, page.body)
		}
		if got := page.header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
			t.Errorf("Content-Security-Policy: %q", got)
		}
		wrong := r.browse("POST", target, "username=sandbox-user&password=x", "")
		if wrong.status != 403 || !strings.Contains(wrong.body, "wrong username or password") || wrong.header.Get("Set-Cookie") != "" {
			t.Errorf("wrong password: %d %s", wrong.status, wrong.body)
		}
		if e := r.last(); e.Kind != KindAuthorize || e.Error != "invalid_grant" || e.Committed || e.Username != "sandbox-user" {
			t.Errorf("event %+v", e)
		}
		done := r.browse("POST", target, goodLogin, "")
		callback := query(t, done.header.Get("Location"))
		if done.status != 302 || callback.Get("state") != `"><script>` || len(callback.Get("code")) != 32 {
			t.Fatalf("logged in: %d %s", done.status, done.header.Get("Location"))
		}
		if e := r.last(); !e.Committed || e.ClientID != "sandbox-client" || e.Status != 302 || strings.Contains(e.Path, "code") {
			t.Errorf("event %+v", e)
		}
		r.exchange(callback.Get("code")).must(t)

		cookie, attributes, _ := strings.Cut(done.header.Get("Set-Cookie"), "; ")
		if attributes != "Path=/; HttpOnly; SameSite=Lax" {
			t.Errorf("cookie attributes: %s", attributes)
		}
		again := r.browse("GET", target, "", cookie)
		r.exchange(query(t, again.header.Get("Location")).Get("code")).must(t)
		if got := r.browse("GET", target+"&prompt=login", "", cookie); got.status != 200 {
			t.Errorf("prompt=login with a session: %d, want the page", got.status)
		}
		if got := r.browse("GET", target, "", cookie+"x"); got.status != 200 {
			t.Errorf("unknown cookie: %d, want the page", got.status)
		}
		none := r.browse("GET", target+"&prompt=none", "", "")
		if got := query(t, none.header.Get("Location")).Get("error"); got != "login_required" {
			t.Errorf("prompt=none without a session: %q", got)
		}
		r.SetInactive("sandbox-user", true)
		if got := r.browse("GET", target, "", cookie); got.status != 200 {
			t.Errorf("session of an inactive user: %d, want the page", got.status)
		}
		denied := r.browse("POST", target, "deny=1", "")
		if got := query(t, denied.header.Get("Location")); got.Get("error") != "access_denied" || got.Has("code") || got.Get("iss") == "" {
			t.Errorf("denied: %v", got)
		}
		if got := r.browse("PUT", target, goodLogin, ""); got.status != 405 || got.header.Get("Allow") != "GET, POST" {
			t.Errorf("PUT: %d", got.status)
		}
		if got := r.browse("POST", target, "a=%zz", ""); got.status != 400 || got.header.Get("Location") != "" {
			t.Errorf("bad form: %d", got.status)
		}
	})
}

// TestAuthorizationRequest: what is wrong with the redirect URI is a page,
// everything else an error for the client.
func TestAuthorizationRequest(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		challenge := strings.Repeat("c", 43)
		for _, test := range []struct {
			name, query string // added to the usual one
			pairs       []string
			code        string // "page": no redirect; "": good
		}{
			{"good", "", nil, ""},
			{"no state", "", []string{"state", ""}, ""},
			{"all", "&scope=all", nil, ""},
			{"openid", "&scope=all+openid&nonce=n", nil, ""},
			{"S256", "&code_challenge_method=S256&code_challenge=" + challenge, nil, ""},
			{"loopback", "", []string{"redirect_uri", "http://127.0.0.1:4711/cb"}, ""},
			{"IPv6 loopback", "", []string{"redirect_uri", "http://[::1]:4711/cb"}, ""},
			{"own query", "", []string{"redirect_uri", "https://client.test/cb?a=b"}, ""},

			{"other client", "", []string{"client_id", "x"}, "page"},
			{"no client", "", []string{"client_id", ""}, "page"},
			{"client twice", "&client_id=sandbox-client", nil, "page"},
			{"no redirect URI", "", []string{"redirect_uri", ""}, "page"},
			{"redirect URI twice", "&redirect_uri=" + url.QueryEscape(testRedirect), nil, "page"},
			{"foreign http", "", []string{"redirect_uri", "http://client.test/cb"}, "page"},
			{"fragment", "", []string{"redirect_uri", testRedirect + "#x"}, "page"},
			{"no host", "", []string{"redirect_uri", "https:///cb"}, "page"},
			{"user", "", []string{"redirect_uri", "https://u@client.test/cb"}, "page"},
			{"script", "", []string{"redirect_uri", "javascript:alert(1)"}, "page"},
			{"line break", "", []string{"redirect_uri", testRedirect + "\r\nX: y"}, "page"},
			{"bad encoding", "&x=%zz", nil, "page"},

			{"no response type", "", []string{"response_type", ""}, "invalid_request"},
			{"token", "", []string{"response_type", "token"}, "unsupported_response_type"},
			{"state twice", "&state=s2", nil, "invalid_request"},
			{"unknown twice", "&x=1&x=2", nil, "invalid_request"},
			{"other scope", "&scope=all+admin", nil, "invalid_scope"},
			{"openid without nonce", "&scope=openid", nil, "invalid_request"},
			{"unknown method", "&code_challenge_method=S512&code_challenge=" + challenge, nil, "invalid_request"},
			{"short challenge", "&code_challenge_method=S256&code_challenge=" + challenge[1:], nil, "invalid_request"},
			{"illegal challenge", "&code_challenge_method=S256&code_challenge=" + challenge[1:] + "%2B", nil, "invalid_request"},
		} {
			target := r.authorizeURL(test.pairs...) + test.query
			location, err := r.Approve(target, "sandbox-user")
			page := r.browse("GET", target, "", "")
			if test.code == "page" {
				if err == nil || page.status != 400 || page.header.Get("Location") != "" {
					t.Errorf("%s: %q, %v, status %d; want a page", test.name, location, err, page.status)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			got := query(t, location)
			if got.Get("error") != test.code || got.Has("code") == (test.code != "") {
				t.Errorf("%s: %s, want error %q", test.name, location, test.code)
			}
			if test.name == "state twice" && got.Has("state") {
				t.Errorf("%s: %s, want none of them back", test.name, location)
			}
			if want := map[bool]int{true: 200, false: 302}[test.code == ""]; page.status != want {
				t.Errorf("%s: browser got %d, want %d", test.name, page.status, want)
			}
			if e := r.last(); e.Error != test.code {
				t.Errorf("%s: event %+v", test.name, e)
			}
		}
	})
}

// TestCallback holds the bytes of callbacks.
func TestCallback(t *testing.T) {
	run(t, Config{Issuer: "https://issuer.test/a?b"}, func(t *testing.T, r *rig) {
		for redirect, prefix := range map[string]string{
			"https://client.test:4443":      "https://client.test:4443/?code=",
			"https://client.test:4443/":     "https://client.test:4443/?code=",
			"https://client.test/cb?a=b%20": "https://client.test/cb?a=b%20&code=",
			"https://client.test/cb?":       "https://client.test/cb?code=",
		} {
			got, err := r.Approve(r.authorizeURL("redirect_uri", redirect, "state", "a &="), "sandbox-user")
			want := "&state=a+%26%3D&iss=https%3A%2F%2Fissuer.test%2Fa%3Fb"
			if err != nil || !strings.HasPrefix(got, prefix) || !strings.HasSuffix(got, want) {
				t.Errorf("%s: %s, %v; want %s…%s", redirect, got, err, prefix, want)
			}
		}
		got, err := r.Deny(r.authorizeURL())
		want := testRedirect + "?error=access_denied&error_description=the+user+said+no&state=s1&iss=https%3A%2F%2Fissuer.test%2Fa%3Fb"
		if err != nil || got != want {
			t.Errorf("denied: %s, %v; want %s", got, err, want)
		}
	})
}

func TestApproveRefuses(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		r.SetInactive("sandbox-user", true)
		if _, err := r.Approve(r.authorizeURL(), "sandbox-user"); err == nil {
			t.Error("an inactive user approved")
		}
		r.SetInactive("sandbox-user", false)
		for target, user := range map[string]string{
			r.authorizeURL(): "nobody",
			strings.Replace(r.authorizeURL(), "oauth-authorize", "oauth-token", 1): "sandbox-user",
			strings.TrimPrefix(r.authorizeURL(), "http://as.test"):                 "sandbox-user",
			"%": "sandbox-user",
		} {
			if got, err := r.Approve(target, user); err == nil {
				t.Errorf("%s by %s: %s", target, user, got)
			}
		}
		if got := r.approve(t, "sandbox-user").Get("iss"); got != "http://as.test/oauth/v2/oauth-anonymous" {
			t.Errorf("iss: %s", got)
		}
	})
}

func TestRegisteredRedirectURIs(t *testing.T) {
	run(t, Config{RedirectURIs: []string{testRedirect, "http://127.0.0.1/cb"}}, func(t *testing.T, r *rig) {
		for uri, good := range map[string]bool{
			testRedirect: true, "http://127.0.0.1/cb": true,
			testRedirect + "/": false, "HTTPS://client.test/cb": false, "https://client.test:443/cb": false,
			testRedirect + "?": false, "http://127.0.0.1:1/cb": false, "https://client.test/%63b": false,
		} {
			if _, err := r.Approve(r.authorizeURL("redirect_uri", uri), "sandbox-user"); (err == nil) != good {
				t.Errorf("%s: %v, want good %v", uri, err, good)
			}
		}
	})
}
