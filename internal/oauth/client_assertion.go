package oauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A SigningKey is the private key of a client that proves itself with signed
// assertions (private_key_jwt, OIDC Core §9). It prints as a fixed text in
// every format, and may be used by several goroutines at once.
type SigningKey struct {
	// A function for the reason that [Secret] has one: package fmt would print
	// the key.
	sign func(jwt.Claims) (string, error)
}

func (SigningKey) String() string               { return masked }
func (SigningKey) GoString() string             { return masked }
func (SigningKey) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(masked)) }
func (SigningKey) LogValue() slog.Value         { return slog.StringValue(masked) }
func (SigningKey) MarshalText() ([]byte, error) { return []byte(masked), nil }

// ReadSigningKey reads the only private key in PEM text: PKCS #8, PKCS #1 or
// SEC 1, not encrypted; certificates and public keys beside it are ignored. RSA
// of 2048 bits or more signs with RS256, P-256 with ES256, P-384 with ES384,
// P-521 with ES512, Ed25519 with EdDSA. kid is the name by which the server
// finds the public key; empty leaves it out.
func ReadSigningKey(text []byte, kid string) (*SigningKey, error) {
	block, err := privateBlock(text)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	alg, err := signingAlgorithm(key)
	if err != nil {
		return nil, err
	}
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		return nil, fmt.Errorf("using the private key: %w", err)
	}
	return &SigningKey{func(c jwt.Claims) (string, error) { return jwt.Signed(signer).Claims(c).Serialize() }}, nil
}

// privateBlock finds the private key in PEM text.
func privateBlock(text []byte) (*pem.Block, error) {
	var private *pem.Block
	public := false
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		switch {
		case block == nil && private != nil:
			return private, nil
		case block == nil && public:
			return nil, errors.New("there is a public key or certificate, but the private key is needed")
		case block == nil:
			return nil, errors.New("there is no private key in PEM: it begins with the line -----BEGIN PRIVATE KEY-----")
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, errors.New("the private key is encrypted; decrypt it (openssl pkey -in … -out …) and keep the file from others")
		case block.Type == "OPENSSH PRIVATE KEY":
			return nil, errors.New("the private key is in OpenSSH's form; convert it (ssh-keygen -p -m PKCS8 -f …)")
		case strings.HasSuffix(block.Type, "PRIVATE KEY") && private != nil:
			return nil, errors.New("there are several private keys; leave the one to sign with")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			private = block
		case strings.HasSuffix(block.Type, "PUBLIC KEY"), strings.HasSuffix(block.Type, "CERTIFICATE"):
			public = true
		}
	}
}

func parsePrivateKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	return nil, errUnsupportedKey
}

var errUnsupportedKey = errors.New("a key of this kind is not supported; use RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519")

// signingAlgorithm returns the one algorithm that a key signs with here (RFC
// 7518 §3.1, RFC 8037 §3.1).
func signingAlgorithm(key crypto.PrivateKey) (jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < 2048 { // RFC 7518 §3.3
			return "", fmt.Errorf("the RSA key has %d bits; it needs 2048 or more", bits)
		}
		return jose.RS256, nil
	case *ecdsa.PrivateKey:
		switch key.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	}
	return "", errUnsupportedKey
}

// assertionLifetime is how long an assertion is good for. It is made for one
// request that is sent at once.
const assertionLifetime = time.Minute

// assertion returns a new client assertion (RFC 7523 §3). Each request needs
// its own. audience is the authorization server's, one only, so that no other
// server can pass it on (RFC 7523 §3 item 3).
func (k *SigningKey) assertion(clientID, audience string, now time.Time) (Secret, error) {
	if clientID == "" || audience == "" {
		return Secret{}, errors.New("signing a client assertion: it needs a client_id and an audience")
	}
	signed, err := k.sign(jwt.Claims{
		Issuer:   clientID,
		Subject:  clientID,
		Audience: jwt.Audience{audience},
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(assertionLifetime)),
		ID:       rand.Text(), // 128 bits or more
	})
	if err != nil {
		return Secret{}, fmt.Errorf("signing a client assertion: %w", err)
	}
	return NewSecret(signed), nil
}
