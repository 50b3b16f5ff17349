package sandbox

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// signingKey signs the id_tokens of every sandbox in the process; RS256 is
// what each client must know (OpenID Connect Core §15.1).
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // only for a size that isn't allowed
	}
	return key
})

const signingKeyID = "sandbox-1"

// newIDToken returns an ID token (OpenID Connect Core §2) for the user of a
// family. A fault may change its claims.
func (s *Sandbox) newIDToken(f *family, tr *tokenRequest, nonce string, now time.Time) string {
	claims := members{
		{"iss", quote(s.issuer(tr.base))},
		{"sub", quote(f.user)},
		{"aud", quote(s.config.ClientID)},
		{"exp", strconv.FormatInt(now.Add(10*time.Minute).Unix(), 10)},
		{"iat", strconv.FormatInt(now.Unix(), 10)},
		{"auth_time", strconv.FormatInt(now.Unix(), 10)},
		{"email", quote(f.user + "@sandbox.test")},
	}
	if nonce != "" {
		claims = claims.set("nonce", quote(nonce))
	}
	if tr.play.claims != nil {
		claims = tr.play.claims(claims)
	}
	header := members{{"alg", `"RS256"`}, {"kid", quote(signingKeyID)}, {"typ", `"JWT"`}}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(header.encode()) + "." + encode(claims.encode())
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, signingKey(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // only for a key that is too small
	}
	return signed + "." + encode(signature)
}

// serveJWKS tells the public key (RFC 7517 §5).
func (s *Sandbox) serveJWKS(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	key := signingKey().PublicKey
	encode := base64.RawURLEncoding.EncodeToString
	jwk := members{
		{"kty", `"RSA"`}, {"use", `"sig"`}, {"alg", `"RS256"`}, {"kid", quote(signingKeyID)},
		{"n", quote(encode(key.N.Bytes()))},
		{"e", quote(encode(big.NewInt(int64(key.E)).Bytes()))},
	}
	sendJSON(w, http.StatusOK, members{{"keys", "[" + jwk.encodeText() + "]"}}.encode())
}
