package caddymodule

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// wireLine is a request in one line: method, path, client authentication, body
// and the names of its parameters; the values of those that are no secret.
func (r *providerRig) wireLine(req *http.Request, body []byte) string {
	params, form := req.URL.Query(), ""
	switch media := req.Header.Get("Content-Type"); {
	case media == "application/x-www-form-urlencoded" && req.URL.RawQuery == "":
		params, _ = url.ParseQuery(string(body))
	case media == "application/json":
		form = " json"
		object := map[string]string{}
		if json.Unmarshal(body, &object) != nil {
			form = " broken json"
		}
		for name, value := range object {
			params.Set(name, value)
		}
	case media != "":
		form = " " + media
	}
	if req.Method == "POST" && req.Header.Get("Accept") != "application/json" {
		form += " accepting " + req.Header.Get("Accept")
	}
	auth := "none"
	switch kind, _, _ := strings.Cut(req.Header.Get("Authorization"), " "); {
	case kind != "":
		auth = strings.ToLower(kind)
	case params.Has("client_secret"):
		auth = "post"
	case params.Has("client_assertion"):
		auth = "private_key_jwt"
	case req.TLS != nil && len(req.TLS.PeerCertificates) > 0:
		auth = "tls"
	}
	return req.Method + " " + req.URL.Path + " " + auth + form + ":" + r.parameters(params)
}

func (r *providerRig) parameters(params url.Values) (text string) {
	var words []string
	for name, values := range params {
		if slices.Contains([]string{"grant_type", "scope", "redirect_uri", "token_type_hint", "response_type", "prompt", "code_challenge_method"}, name) {
			name += "=" + strings.ReplaceAll(strings.Join(values, " and "), r.portal, "https://proxy.example.com")
		}
		words = append(words, name)
	}
	slices.Sort(words)
	for _, w := range words {
		text += " " + w
	}
	return text
}

// clientCertificate returns a certificate of its own issue and its key, in PEM.
func clientCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", raw), encode("PRIVATE KEY", der)
}

func publicKey(t *testing.T, certificate string) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(certificate))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.PublicKey
}
