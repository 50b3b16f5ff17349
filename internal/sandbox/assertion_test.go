package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// signJWT signs as a client would, with a key of its own.
func signJWT(t *testing.T, key crypto.Signer, algorithm string, claims map[string]any) string {
	t.Helper()
	header, _ := json.Marshal(map[string]string{"alg": algorithm, "typ": "JWT"})
	payload, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	text := encode(header) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch key := key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		r, s, signErr := ecdsa.Sign(rand.Reader, key, sum[:])
		signature, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), signErr
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}

func testKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"RS256": signingKey(), "ES256": ec, "EdDSA": ed}
}

// assertionRequest is a login with an assertion in place of a secret.
func assertionRequest(path, jwt string, pairs ...string) *http.Request {
	req := post(path, form(append([]string{"grant_type", "password", "username", "sandbox-user", "password", "sandbox-password",
		"client_assertion_type", assertionType, "client_assertion", jwt}, pairs...)...))
	req.Header.Del("Authorization")
	return req
}

func TestPrivateKeyJWT(t *testing.T) {
	for algorithm, key := range testKeys(t) {
		t.Run(algorithm, func(t *testing.T) {
			run(t, Config{Provider: "oidc", ClientKey: key.Public()}, func(t *testing.T, r *rig) {
				checkAssertions(t, r, algorithm, key)
			})
		})
	}
}

func checkAssertions(t *testing.T, r *rig, algorithm string, key crypto.Signer) {
	number := 0
	now := time.Now()
	claims := func(pairs ...any) map[string]any {
		number++
		c := map[string]any{
			"iss": "sandbox-client", "sub": "sandbox-client", "aud": "http://as.test/token",
			"exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "jti": fmt.Sprint(number),
		}
		for i := 0; i < len(pairs); i += 2 {
			if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
				delete(c, pairs[i].(string))
			}
		}
		return c
	}
	for _, test := range []struct {
		name   string
		claims map[string]any
		good   bool
	}{
		{"token endpoint", claims(), true},
		{"issuer", claims("aud", "http://as.test"), true},
		{"array", claims("aud", []string{"x", "http://as.test"}), true},
		{"no iat", claims("iat", nil), true},
		{"other audience", claims("aud", "http://as.test/"), false},
		{"no audience", claims("aud", nil), false},
		{"other iss", claims("iss", "x"), false},
		{"other sub", claims("sub", "x"), false},
		{"no sub", claims("sub", nil), false},
		{"expired", claims("exp", now.Unix()), false},
		{"far ahead", claims("exp", now.Add(5*time.Minute+time.Second).Unix()), false},
		{"no exp", claims("exp", nil), false},
		{"exp is text", claims("exp", "1"), false},
		{"from tomorrow", claims("nbf", now.Add(time.Hour).Unix()), false},
		{"issued tomorrow", claims("iat", now.Add(time.Hour).Unix()), false},
		{"no jti", claims("jti", nil), false},
		{"jti of before", claims("jti", "1"), false},
		{"other case", claims("jti", nil, "JTI", "x"), false},
	} {
		a := send(r.client, assertionRequest("/token", signJWT(t, key, algorithm, test.claims)))
		if test.good {
			a.must(t)
		} else if a.status != 401 {
			t.Errorf("%s: %d %s", test.name, a.status, a.body)
		}
		if e := r.last(); e.ClientAuth != "private_key_jwt" || (e.Error == "invalid_client") == test.good {
			t.Errorf("%s: event %+v", test.name, e)
		}
	}
	good := func() string { return signJWT(t, key, algorithm, claims()) }
	send(r.client, assertionRequest("/token", good(), "client_id", "sandbox-client")).must(t)
	if e := r.last(); e.ClientID != "sandbox-client" {
		t.Errorf("event %+v", e)
	}
	send(r.client, assertionRequest("/token", good(), "client_id", "x")).refused(t, 401, "invalid_client")
	send(r.client, assertionRequest("/token", good(), "client_secret", "sandbox-secret")).refused(t, 400, "invalid_request")
	send(r.client, assertionRequest("/token", good()[:20])).refused(t, 401, "invalid_client")
	send(r.client, assertionRequest("/token", signJWT(t, key, "none", claims()))).refused(t, 401, "invalid_client")
	req := assertionRequest("/token", good())
	req.SetBasicAuth("sandbox-client", "sandbox-secret")
	send(r.client, req).refused(t, 400, "invalid_request")
	r.exchangeJSON("client_credentials").refused(t, 401, "invalid_client") // a secret won't do
	other := form("grant_type", "client_credentials", "client_assertion_type", "x", "client_assertion", good())
	req = post("/token", other)
	req.Header.Del("Authorization")
	send(r.client, req).refused(t, 401, "invalid_client")
	for wrong, foreignKey := range testKeys(t) {
		if wrong == "RS256" && algorithm == "RS256" {
			continue // the same key
		}
		send(r.client, assertionRequest("/token", signJWT(t, foreignKey, wrong, claims()))).refused(t, 401, "invalid_client")
	}
	revocation := post("/revoke", form("token", "x", "client_assertion_type", assertionType, "client_assertion", good()))
	revocation.Header.Del("Authorization")
	if a := send(r.client, revocation); a.status != 200 {
		t.Errorf("revocation: %d %s", a.status, a.body)
	}
	// What has expired is forgotten, so that a long run doesn't grow.
	time.Sleep(10 * time.Minute)
	now = time.Now()
	send(r.client, assertionRequest("/token", good())).must(t)
	if n := len(r.assertions); n != 1 {
		t.Errorf("%d assertions are remembered, want 1", n)
	}
}

func TestPublicClient(t *testing.T) {
	run(t, Config{Public: true}, func(t *testing.T, r *rig) {
		verifier := "verifier-verifier-verifier-verifier-verifier"
		callback := r.approve(t, "sandbox-user", "code_challenge", s256(verifier), "code_challenge_method", "S256")
		v := form("grant_type", "authorization_code", "code", callback.Get("code"), "redirect_uri", testRedirect, "code_verifier", verifier)
		r.token(v).refused(t, 401, "invalid_client") // Basic
		req := post(tokenPath, v)
		req.Header.Del("Authorization")
		send(r.client, req).refused(t, 401, "invalid_client") // no client_id
		v.Set("client_id", "sandbox-client")
		req = post(tokenPath, v)
		req.Header.Del("Authorization")
		send(r.client, req).must(t)
		if e := r.last(); e.ClientAuth != "none" || e.ClientID != "sandbox-client" {
			t.Errorf("event %+v", e)
		}
	})
}

// TestNoPublicClients: Pagero's older server and webMethods want a secret.
func TestNoPublicClients(t *testing.T) {
	for _, provider := range []string{"pagero_legacy", "webmethods"} {
		t.Run(provider, func(t *testing.T) {
			run(t, Config{Provider: provider, Public: true}, func(t *testing.T, r *rig) {
				req := post(r.provider.paths.token, form("grant_type", "client_credentials", "client_id", "sandbox-client"))
				req.Header.Del("Authorization")
				req.Header.Set("Accept", "application/json")
				send(r.client, req).refused(t, 401, "invalid_client")
			})
		})
	}
}
