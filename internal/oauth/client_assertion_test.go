package oauth

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

var testRSAKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(key any) string {
	return pemText("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
}

func ecKey(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

// decodeJWT returns the parts of a token, decoded by nothing of ours.
func decodeJWT(t *testing.T, token string) (header, claims map[string]any, signed, signature []byte) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	decode := func(part string) []byte {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if json.Unmarshal(decode(parts[0]), &header) != nil || json.Unmarshal(decode(parts[1]), &claims) != nil {
		t.Fatalf("no JSON in %s", token)
	}
	return header, claims, []byte(parts[0] + "." + parts[1]), decode(parts[2])
}

// B31, B57: what is signed, and that anybody with the public key can tell.
func TestAssertion(t *testing.T) {
	t.Parallel()
	p256, p384, p521 := ecKey(elliptic.P256()), ecKey(elliptic.P384()), ecKey(elliptic.P521())
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecVerify := func(key *ecdsa.PrivateKey, hash func([]byte) []byte) func(signed, sig []byte) bool {
		return func(signed, sig []byte) bool { // RFC 7518 §3.4: r and s, each as long as the curve
			n := (key.Curve.Params().BitSize + 7) / 8
			r, s := new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])
			return len(sig) == 2*n && ecdsa.Verify(&key.PublicKey, hash(signed), r, s)
		}
	}
	h256 := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	h384 := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	h512 := func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }
	rsaVerify := func(signed, sig []byte) bool {
		return rsa.VerifyPKCS1v15(&testRSAKey().PublicKey, crypto.SHA256, h256(signed), sig) == nil
	}
	sec1 := func(key *ecdsa.PrivateKey) string {
		return pemText("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
	}
	tests := []struct {
		name, pem, alg string
		verify         func(signed, sig []byte) bool
	}{
		{"RSA, PKCS #8", pkcs8(testRSAKey()), "RS256", rsaVerify},
		{"RSA, PKCS #1", pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testRSAKey())), "RS256", rsaVerify},
		{"P-256, PKCS #8", pkcs8(p256), "ES256", ecVerify(p256, h256)},
		{"P-256, SEC 1", sec1(p256), "ES256", ecVerify(p256, h256)},
		{"P-256, SEC 1, with its parameters", pemText("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + sec1(p256), "ES256", ecVerify(p256, h256)},
		{"P-384", pkcs8(p384), "ES384", ecVerify(p384, h384)},
		{"P-521", sec1(p521), "ES512", ecVerify(p521, h512)},
		{"Ed25519", pkcs8(ed), "EdDSA", func(signed, sig []byte) bool { return ed25519.Verify(ed.Public().(ed25519.PublicKey), signed, sig) }},
		{"with text and its public key", "my key\n" + pkcs8(ed) + pemText("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ed.Public()))), "EdDSA",
			func(signed, sig []byte) bool { return ed25519.Verify(ed.Public().(ed25519.PublicKey), signed, sig) }},
	}
	now := time.Unix(1_700_000_000, 999_999_999)
	for _, tt := range tests {
		for _, kid := range []string{"", `key "1"`} {
			t.Run(tt.name+" "+kid, func(t *testing.T) {
				t.Parallel()
				key, err := ReadSigningKey([]byte(tt.pem), kid)
				if err != nil {
					t.Fatal(err)
				}
				token, err := key.assertion("my client", "https://as.example/token", now)
				if err != nil {
					t.Fatal(err)
				}
				header, claims, signed, sig := decodeJWT(t, token.Reveal())
				wantHeader := map[string]any{"alg": tt.alg, "typ": "JWT"}
				if kid != "" {
					wantHeader["kid"] = kid
				}
				if fmt.Sprint(header) != fmt.Sprint(wantHeader) {
					t.Errorf("header %v, want %v", header, wantHeader)
				}
				jti, _ := claims["jti"].(string)
				wantClaims := map[string]any{
					"iss": "my client", "sub": "my client", "aud": "https://as.example/token",
					"iat": 1_700_000_000.0, "exp": 1_700_000_060.0, "jti": jti,
				}
				if fmt.Sprint(claims) != fmt.Sprint(wantClaims) || len(jti) < 22 {
					t.Errorf("claims %v, want %v", claims, wantClaims)
				}
				if !tt.verify(signed, sig) {
					t.Error("the signature is wrong")
				}
				signed[len(signed)-1] ^= 1
				if tt.verify(signed, sig) {
					t.Error("the test verifies anything")
				}
			})
		}
	}
}

// B31: a new assertion for each attempt, by several goroutines too.
func TestAssertionIsNeverTheSame(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ReadSigningKey([]byte(pkcs8(ed)), "k")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	seen := map[any]bool{}
	now := time.Unix(1_700_000_000, 0)
	for range 4 {
		group.Go(func() {
			for range 250 {
				token, err := key.assertion("c", "a", now)
				if err != nil {
					t.Error(err)
					return
				}
				_, claims, _, _ := decodeJWT(t, token.Reveal())
				mu.Lock()
				seen[claims["jti"]] = true
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(seen) != 1000 {
		t.Errorf("%d jti in 1,000 assertions", len(seen))
	}
	for _, missing := range [][2]string{{"", "a"}, {"c", ""}} {
		if token, err := key.assertion(missing[0], missing[1], now); err == nil || !token.Empty() {
			t.Errorf("an assertion without client id or audience: %q", missing)
		}
	}
}

func TestReadSigningKeyRefuses(t *testing.T) {
	t.Parallel()
	good := pkcs8(ecKey(elliptic.P256()))
	public := must(x509.MarshalPKIXPublicKey(&testRSAKey().PublicKey))
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	legacy := pem.EncodeToMemory(&pem.Block{
		Type:    "RSA PRIVATE KEY",
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
		Bytes:   []byte("x"),
	})
	tests := []struct{ name, pem, why string }{
		{"empty", "", "no private key in PEM"},
		{"no PEM", "MIIEvQIBADANBg", "no private key in PEM"},
		{"broken PEM", strings.Replace(good, "-----END", "----END", 1), "no private key in PEM"},
		{"a path", "/run/credentials/key.pem", "no private key in PEM"},
		{"encrypted, PKCS #8", pemText("ENCRYPTED PRIVATE KEY", []byte("x")), "encrypted"},
		{"encrypted, PKCS #1", string(legacy), "encrypted"},
		{"encrypted beside another", good + string(legacy), "encrypted"},
		{"public key", pemText("PUBLIC KEY", public), "the private key is needed"},
		{"RSA public key", pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&testRSAKey().PublicKey)), "the private key is needed"},
		{"certificate", pemText("CERTIFICATE", []byte("x")), "the private key is needed"},
		{"two keys", good + pkcs8(ecKey(elliptic.P256())), "several private keys"},
		{"the same key twice", good + good, "several private keys"},
		{"OpenSSH", pemText("OPENSSH PRIVATE KEY", []byte("x")), "OpenSSH"},
		{"DSA", pemText("DSA PRIVATE KEY", []byte("x")), "not supported"},
		{"small RSA", pkcs8(small), "1024 bits"},
		{"P-224", pkcs8(ecKey(elliptic.P224())), "not supported"},
		{"X25519", pkcs8(must(ecdh.X25519().GenerateKey(rand.Reader))), "not supported"},
		{"PKCS #8, spoilt", pemText("PRIVATE KEY", []byte("x")), "reading the private key"},
		{"PKCS #1, spoilt", pemText("RSA PRIVATE KEY", []byte("x")), "reading the private key"},
		{"SEC 1, spoilt", pemText("EC PRIVATE KEY", []byte("x")), "reading the private key"},
		{"a public key called private", pemText("PRIVATE KEY", public), "reading the private key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key, err := ReadSigningKey([]byte(tt.pem), "kid")
			if err == nil || key != nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("key %v, error %v; want %q", key, err, tt.why)
			}
		})
	}
}

// A key must not be seen, in whatever it lies.
func TestSigningKeyIsMasked(t *testing.T) {
	t.Parallel()
	priv := testRSAKey()
	key, err := ReadSigningKey([]byte(pkcs8(priv)), "kid")
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Key  *SigningKey
		key  *SigningKey
		val  SigningKey
		list []*SigningKey
	}
	h := holder{key, key, *key, []*SigningKey{key}}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{key, *key, h, &h} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if got := fmt.Sprintf(verb, key); got != masked {
			t.Errorf("%s prints %q", verb, got)
		}
		if got := fmt.Sprintf(verb, *key); got != masked {
			t.Errorf("%s of the value prints %q", verb, got)
		}
	}
	encoded, err := json.Marshal(h)
	if err != nil || string(encoded) != `{"Key":"`+masked+`"}` {
		t.Errorf("JSON %s, %v", encoded, err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "key", key, "value", *key, "holder", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "key", key, "value", *key, "holder", h)
	if key.String() != masked || key.GoString() != masked || key.LogValue().String() != masked {
		t.Error("a method shows something else")
	}
	for _, secret := range []string{priv.D.String(), priv.D.Text(16), priv.Primes[0].String(), priv.Primes[0].Text(16), priv.N.String(), priv.N.Text(16)} {
		if strings.Contains(out.String(), secret) || strings.Contains(strings.ToLower(out.String()), secret) {
			t.Errorf("the key is printed: %.20s…", secret)
		}
	}
}
