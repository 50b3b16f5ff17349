package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`

// TestProviders holds, for each provider, its paths, the bytes of a login's
// and a refresh's answer, and the callback.
func TestProviders(t *testing.T) {
	for _, test := range []struct {
		config           Config
		endpoints        Endpoints
		callback         string
		login, refreshed string
	}{
		{
			Config{Provider: "pagero"},
			Endpoints{
				Iss: true, Issuer: "/oauth/v2/oauth-anonymous", Authorize: "/oauth/v2/oauth-authorize", Token: "/oauth/v2/oauth-token", Revoke: "/oauth/v2/oauth-revoke",
				DeviceAuthorization: "/oauth/v2/oauth-device", Verification: "/oauth/v2/oauth-device-verification", JWKS: "/oauth/v2/oauth-anonymous/jwks",
			},
			`code=[0-9A-Za-z]{32}&state=s1&iss=http%3A%2F%2Fas\.test%2Foauth%2Fv2%2Foauth-anonymous`,
			`{"token_type":"bearer","access_token":"eyJ[^"]+","refresh_token":"_1XBPWQQ_` + uuid + `","scope":"","claims":"publicid","expires_in":600}`,
			`{"token_type":"bearer","access_token":"eyJ[^"]+","refresh_token":"_1XBPWQQ_` + uuid + `","scope":"","claims":"publicid","expires_in":600}`,
		},
		{
			Config{Provider: "pagero_legacy"},
			Endpoints{Authorize: "/oauth2/authorize", Token: "/oauth2/token"},
			`code=` + uuid + `&state=s1`,
			`{"scope":"all","access_token":"` + uuid + `","token_type":"bearer","expires_in":300,"refresh_token":"` + uuid + `"}`,
			`{"scope":"all","access_token":"` + uuid + `","token_type":"bearer","expires_in":300,"refresh_token":"` + uuid + `"}`,
		},
		{
			Config{Provider: "aidbox"},
			Endpoints{Authorize: "/auth/authorize", Token: "/auth/token", Session: "/Session"},
			`code=[0-9a-f]{32}&state=s1`,
			`{"token_type":"Bearer","access_token":"[\w-]{48}","refresh_token":"[\w-]{22}"}`,
			`{"token_type":"Bearer","access_token":"[\w-]{48}"}`,
		},
		{
			Config{Provider: "aidbox", SendExpiry: true, UserInfo: true},
			Endpoints{Authorize: "/auth/authorize", Token: "/auth/token", Session: "/Session"},
			`code=[0-9a-f]{32}&state=s1`,
			`{"token_type":"Bearer","access_token":"[\w-]{48}","expires_in":3600,"refresh_token":"[\w-]{22}","userinfo":{"resourceType":"User","id":"sandbox-user",.*}}`,
			`{"token_type":"Bearer","access_token":"[\w-]{48}","expires_in":3600,"userinfo":{.*}}`,
		},
		{
			Config{Provider: "webmethods"},
			Endpoints{Authorize: "/invoke/pub.oauth/authorize", Token: "/invoke/pub.oauth/getToken", Revoke: "/invoke/pub.oauth/revokeToken"},
			`code=[0-9a-f]{32}&state=s1`,
			`{"access_token":"[0-9a-f]{64}","token_type":"Bearer","expires_in":"3600","scope":"","refresh_token":"[0-9a-f]{64}"}`,
			`{"access_token":"[0-9a-f]{64}","token_type":"Bearer","expires_in":"3600","scope":"","refresh_token":"[0-9a-f]{64}"}`,
		},
		{
			Config{Provider: "oidc", AlwaysRefreshToken: true},
			Endpoints{
				Iss: true, Authorize: "/authorize", Token: "/token", Revoke: "/revoke", DeviceAuthorization: "/device_authorization",
				Verification: "/device", Discovery: "/.well-known/openid-configuration", JWKS: "/jwks.json",
			},
			`code=[\w-]{32}&state=s1&iss=http%3A%2F%2Fas\.test`,
			`{"access_token":"[\w-]{43}","token_type":"Bearer","expires_in":3600,"refresh_token":"[\w-]{43}"}`,
			`{"access_token":"[\w-]{43}","token_type":"Bearer","expires_in":3600,"refresh_token":"[\w-]{43}"}`,
		},
	} {
		t.Run(test.config.Provider, func(t *testing.T) {
			run(t, test.config, func(t *testing.T, r *rig) {
				if got := r.Endpoints(""); got != test.endpoints {
					t.Errorf("endpoints %+v", got)
				}
				location, err := r.Approve(r.authorizeURL(), "sandbox-user")
				if err != nil || !regexp.MustCompile(`^`+regexp.QuoteMeta(testRedirect)+`\?`+test.callback+`$`).MatchString(location) {
					t.Fatalf("callback %s, %v; want %s", location, err, test.callback)
				}
				a := r.exchangeJSON("authorization_code", "code", query(t, location).Get("code"), "redirect_uri", testRedirect)
				if !regexp.MustCompile(`^` + test.login + `$`).MatchString(a.body) {
					t.Errorf("login %s\nwant %s", a.body, test.login)
				}
				p := a.must(t)
				a = r.exchangeJSON("refresh_token", "refresh_token", p.Refresh)
				if !regexp.MustCompile(`^` + test.refreshed + `$`).MatchString(a.body) {
					t.Errorf("refresh %s\nwant %s", a.body, test.refreshed)
				}
				p2 := a.must(t)
				if got := r.call(p2.Access); got != 200 {
					t.Errorf("refreshed token: %d", got)
				}
				r.checkRotation(t, test.config.Provider, p, p2)
			})
		})
	}
}

// exchangeJSON asks the token endpoint for JSON.
func (r *rig) exchangeJSON(grant string, pairs ...string) answer {
	req := post(r.provider.paths.token, form(append([]string{"grant_type", grant}, pairs...)...))
	req.Header.Set("Accept", "application/json")
	return send(r.client, req)
}

func (r *rig) checkRotation(t *testing.T, provider string, first, second grantedPair) {
	t.Helper()
	rotates := !slices.Contains([]string{"aidbox", "webmethods"}, provider)
	if provider == "webmethods" && second.Refresh != first.Refresh {
		t.Error("webmethods gave another refresh token")
	}
	a := r.exchangeJSON("refresh_token", "refresh_token", first.Refresh)
	if (a.status == 200) == rotates {
		t.Errorf("the first refresh token once more: %d %s", a.status, a.body)
	}
}

func TestUnknownProvider(t *testing.T) {
	t.Parallel()
	defer func() {
		if text, _ := recover().(string); !strings.Contains(text, "pagero, pagero_legacy, aidbox, webmethods, oidc") {
			t.Errorf("panic %q", text)
		}
	}()
	New(Config{Provider: "curity"})
}

// TestPageroLegacy: Basic only, PKCE is ignored, nothing can be revoked.
func TestPageroLegacy(t *testing.T) {
	run(t, Config{Provider: "pagero_legacy"}, func(t *testing.T, r *rig) {
		callback := r.approve(t, "sandbox-user", "code_challenge", "x", "code_challenge_method", "y", "redirect_uri", "https://client.test:4443")
		r.exchange(callback.Get("code"), "redirect_uri", "https://client.test:4443").must(t)
		body := form("client_id", "sandbox-client", "client_secret", "sandbox-secret", "grant_type", "password",
			"username", "sandbox-user", "password", "sandbox-password")
		req := post("/oauth2/token", body)
		req.Header.Del("Authorization")
		send(r.client, req).refused(t, 401, "invalid_client")
		for _, path := range []string{"/oauth2/revoke", revokePath, tokenPath, "/Session", "", "/"} {
			send(r.client, post(path, form("token", "x"))).refused(t, 404, "not_found")
		}
		if got := r.approve(t, "sandbox-user", "scope", "openid").Get("error"); got != "invalid_scope" {
			t.Errorf("openid: %q", got)
		}
		r.exchangeJSON(deviceGrant, "device_code", "x").refused(t, 400, "unsupported_grant_type")
		if got, err := r.Approve(r.authorizeURL("redirect_uri", "https://client.test:4443", "state", ""), "sandbox-user"); err != nil ||
			!strings.HasPrefix(got, "https://client.test:4443/?code=") || strings.Contains(got, "&") {
			t.Errorf("callback at the root: %s, %v", got, err)
		}
	})
}

func TestPageroOpenID(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		code := r.approve(t, "sandbox-user", "scope", "openid", "nonce", "n-1").Get("code")
		claims := idClaims(t, r.exchange(code).body)
		if claims["iss"] != "http://as.test/oauth/v2/oauth-anonymous" || claims["nonce"] != "n-1" || claims["email"] != "sandbox-user@sandbox.test" {
			t.Errorf("claims %v", claims)
		}
		if a := r.exchange(r.approve(t, "sandbox-user").Get("code")); strings.Contains(a.body, "id_token") {
			t.Errorf("without openid: %s", a.body)
		}
	})
}

// idClaims returns the claims of a token answer's id_token; nil if it has none.
func idClaims(t *testing.T, body string) map[string]any {
	t.Helper()
	var m struct {
		IDToken string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if m.IDToken == "" {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(m.IDToken, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}
