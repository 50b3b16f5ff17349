package caddymodule

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An authority signs certificates of people.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	der, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.key, a.pem = key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// person is the certificate of somebody.
func (a *authority) person(subject pkix.Name) tls.Certificate {
	a.t.Helper()
	der, key := a.sign(&x509.Certificate{Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// shows makes a browser one with certificates; serverName is that of the
// handshake.
func (b *browser) shows(serverName string, certificates ...tls.Certificate) *browser {
	c := b.client.Transport.(*http.Transport).TLSClientConfig
	c.ServerName, c.Certificates = serverName, certificates
	return b
}

// The user of a client certificate is its subject, whole; who has none that
// the site's authority signed has no connection.
func TestUsersClientCertificate(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	ca, other := newAuthority(t, "people"), newAuthority(t, "people")
	r.secret("ca.pem", ca.pem)
	r.proxy = "bearer_proxy erp/{http.request.tls.client.subject} " + r.api
	https(r)
	r.tls = "tls internal {\n\t\tclient_auth {\n\t\t\tmode require_and_verify\n\t\t\ttrust_pool file " + r.dir + "/ca.pem\n\t\t}\n\t}"
	r.auth, r.portal = "", "user {http.request.tls.client.subject}"
	r.sessions = []string{"erp/CN=ada", "erp/CN=alan"}
	_, port, _ := net.SplitHostPort(r.address)
	r.extra = "https://open.example.com:" + port + " {\n\tbind 127.0.0.1\n\ttls internal\n\trespond \"open to all\"\n}"
	r.certificate = ca.person(pkix.Name{CommonName: "anybody"})
	r.start()
	person := func(name string, c tls.Certificate) *browser {
		b := r.browser("").shows("proxy.example.com", c)
		b.person = idpUser(name)
		return b
	}
	ada, alan := person("ada", ca.person(pkix.Name{CommonName: "ada"})), person("alan", ca.person(pkix.Name{CommonName: "alan"}))
	ada.signIn("erp/CN=ada")
	callback := ada.approve(ada.begin("erp/CN=ada"))
	r.harmless("alan", func() {
		alan.client.Jar.SetCookies(mustParse(t, r.origin()), []*http.Cookie{{Name: "__Host-caddy-bearer", Value: ada.cookie(), Path: "/", Secure: true}})
		if came := alan.finish(callback); came != "login_foreign" {
			t.Errorf("alan with ada's cookie: %s", came)
		}
		if a := alan.open("/echo", "Sec-Fetch-Mode", "", "X-Client-Subject", "CN=ada"); a.Header.Get(errorHeader) != "login_required" {
			t.Errorf("alan without a session: %d %s", a.StatusCode, a.text)
		}
	})
	alan.signIn("erp/CN=alan")
	for range 3 { // on connections that are kept
		if a, b := ada.whose(), alan.whose(); a != "ada@sandbox" || b != "alan@sandbox" {
			t.Errorf("the tokens of %q and %q", a, b)
		}
	}
	longer := person("root", ca.person(pkix.Name{CommonName: "ada", Organization: []string{"another"}}))
	if a := longer.open("/echo", "Sec-Fetch-Mode", ""); a.Header.Get(errorHeader) != "login_required" {
		t.Errorf("a subject that begins as ada's: %d %s", a.StatusCode, a.text)
	}
	checkStrangers(r, other)
}

// checkStrangers tries without a certificate of the authority.
func checkStrangers(r *portalRig, other *authority) {
	r.Helper()
	for name, b := range map[string]*browser{
		"without a certificate":        r.browser("").shows("proxy.example.com"),
		"with another authority's":     r.browser("").shows("proxy.example.com", other.person(pkix.Name{CommonName: "ada"})),
		"by the name of the open site": r.browser("").shows("open.example.com"),
		"by no name":                   r.browser("").shows("127.0.0.1"),
	} {
		for _, path := range []string{"/echo", "/bearer", "/bearer/callback?code=x&state=y"} {
			req, err := http.NewRequestWithContext(r.Context(), "GET", r.origin()+path, nil)
			if err != nil {
				r.Fatal(err)
			}
			res, err := b.client.Do(req)
			if err != nil {
				if !strings.Contains(err.Error(), "tls: ") {
					r.Errorf("%s: %v", name, err)
				}
				continue
			}
			res.Body.Close()
			if res.StatusCode != 421 {
				r.Errorf("%s, %s: %d %v", name, path, res.StatusCode, res.Header)
			}
		}
	}
	open := r.browser("").shows("open.example.com")
	if a := open.open(strings.Replace(r.origin(), r.host, "open.example.com", 1) + "/"); a.text != "open to all" {
		r.Errorf("the open site: %d %s", a.StatusCode, a.text)
	}
}
