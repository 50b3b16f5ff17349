package sandbox

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func (r *rig) discover(t *testing.T) map[string]any {
	t.Helper()
	a := r.browse("GET", "http://as.test/.well-known/openid-configuration", "", "")
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("discovery: %d %s %v", a.status, a.body, err)
	}
	return m
}

func TestDiscovery(t *testing.T) {
	run(t, Config{Provider: "oidc"}, func(t *testing.T, r *rig) {
		m := r.discover(t)
		for name, want := range map[string]any{
			"issuer":                        "http://as.test",
			"authorization_endpoint":        "http://as.test/authorize",
			"token_endpoint":                "http://as.test/token",
			"revocation_endpoint":           "http://as.test/revoke",
			"device_authorization_endpoint": "http://as.test/device_authorization",
			"jwks_uri":                      "http://as.test/jwks.json",
			"authorization_response_iss_parameter_supported": true,
		} {
			if m[name] != want {
				t.Errorf("%s: %v, want %v", name, m[name], want)
			}
		}
		for name, want := range map[string]string{
			"code_challenge_methods_supported":      `["S256"]`,
			"token_endpoint_auth_methods_supported": `["client_secret_basic","client_secret_post"]`,
			"response_types_supported":              `["code"]`,
		} {
			if got, _ := json.Marshal(m[name]); string(got) != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if e := r.last(); e.Kind != KindDiscovery || e.Status != 200 || !e.Replied {
			t.Errorf("event %+v", e)
		}
		if a := r.browse("POST", "http://as.test/.well-known/openid-configuration", "x", ""); a.status != 405 {
			t.Errorf("POST: %d", a.status)
		}
		if _, _, err := r.NewClientCertificate(); err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(r.discover(t)["token_endpoint_auth_methods_supported"]); !strings.Contains(string(got), "tls_client_auth") {
			t.Errorf("with a certificate: %s", got)
		}
	})
}

func TestIssuer(t *testing.T) {
	run(t, Config{Provider: "oidc", Issuer: "https://issuer.test"}, func(t *testing.T, r *rig) {
		if got := r.discover(t)["issuer"]; got != "https://issuer.test" {
			t.Errorf("issuer %v", got)
		}
		callback := r.approve(t, "sandbox-user", "scope", "openid")
		claims := idClaims(t, r.exchange(callback.Get("code")).body)
		if callback.Get("iss") != "https://issuer.test" || claims["iss"] != "https://issuer.test" {
			t.Errorf("iss %q, id_token %v", callback.Get("iss"), claims)
		}
		if _, has := claims["nonce"]; has {
			t.Errorf("a nonce that nobody sent: %v", claims)
		}
	})
}

// TestOfflineAccess: a refresh token only for those who ask for it.
func TestOfflineAccess(t *testing.T) {
	for _, always := range []bool{false, true} {
		r := &rig{Sandbox: New(Config{Provider: "oidc", AlwaysRefreshToken: always})}
		r.client = &http.Client{Transport: handlerTransport{r.AuthorizationServer()}}
		for scope, want := range map[string]bool{"": always, "openid": always, "openid offline_access": true, "offline": true, "xoffline": always} {
			a := r.exchange(r.approve(t, "sandbox-user", "scope", scope).Get("code"))
			if p := a.must(t); (p.Refresh != "") != want || strings.Contains(a.body, "refresh_token") != want {
				t.Errorf("always %v, scope %q: %s", always, scope, a.body)
			}
		}
	}
}

func TestScopeOfRefresh(t *testing.T) {
	run(t, Config{Provider: "oidc"}, func(t *testing.T, r *rig) {
		a := r.exchange(r.approve(t, "sandbox-user", "scope", "offline_access a b").Get("code"))
		if !strings.Contains(a.body, `"scope":"offline_access a b"`) {
			t.Errorf("answer %s", a.body)
		}
		p := a.must(t)
		r.exchangeJSON("refresh_token", "refresh_token", p.Refresh, "scope", "a c").refused(t, 400, "invalid_scope")
		r.exchangeJSON("refresh_token", "refresh_token", p.Refresh, "scope", "b a").must(t)
	})
}

// TestIDToken checks the signature as a client would.
func TestIDToken(t *testing.T) {
	run(t, Config{Provider: "oidc", ClientID: "c1"}, func(t *testing.T, r *rig) {
		code := r.approve(t, "sandbox-user", "client_id", "c1", "scope", "openid", "nonce", "n-1").Get("code")
		req := post("/token", form("grant_type", "authorization_code", "code", code, "redirect_uri", testRedirect))
		req.SetBasicAuth("c1", "sandbox-secret")
		a := send(r.client, req)
		var m struct {
			IDToken string `json:"id_token"`
		}
		if err := json.Unmarshal([]byte(a.body), &m); err != nil {
			t.Fatal(err)
		}
		var keys struct {
			Keys []struct{ Kty, Kid, N, E string }
		}
		jwks := r.browse("GET", "http://as.test/jwks.json", "", "")
		if err := json.Unmarshal([]byte(jwks.body), &keys); err != nil || len(keys.Keys) != 1 {
			t.Fatalf("%v: %s", err, jwks.body)
		}
		decode := func(text string) []byte {
			raw, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		key := &rsa.PublicKey{
			N: new(big.Int).SetBytes(decode(keys.Keys[0].N)),
			E: int(new(big.Int).SetBytes(decode(keys.Keys[0].E)).Int64()),
		}
		dot := strings.LastIndexByte(m.IDToken, '.')
		sum := sha256.Sum256([]byte(m.IDToken[:dot]))
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], decode(m.IDToken[dot+1:])); err != nil {
			t.Error(err)
		}
		if header := string(decode(strings.Split(m.IDToken, ".")[0])); !strings.Contains(header, `"alg":"RS256","kid":"`+keys.Keys[0].Kid) {
			t.Errorf("header %s", header)
		}
		claims := idClaims(t, a.body)
		now := float64(time.Now().Unix())
		if claims["iss"] != "http://as.test" || claims["aud"] != "c1" || claims["sub"] != "sandbox-user" ||
			claims["nonce"] != "n-1" || claims["iat"] != now || claims["exp"] != now+600 {
			t.Errorf("claims %v", claims)
		}
	})
}

// A handlerTransport asks a handler without a network.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	request := httptest.NewRequest(r.Method, r.URL.String(), r.Body)
	request.Header = r.Header
	h.ServeHTTP(w, request)
	return w.Result(), nil
}
