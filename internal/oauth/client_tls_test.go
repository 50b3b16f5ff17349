package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
	"unicode"
)

// certificate makes one for a name of 127.0.0.1's, signed by itself.
func certificate(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CANARY"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		trust  bool
		server tls.Config
		want   Outcome
	}{
		{"in order", func(*x509.Certificate) {}, true, tls.Config{}, Granted},
		{"self-signed", func(*x509.Certificate) {}, false, tls.Config{}, NotTried},
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) }, true, tls.Config{}, NotTried},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) }, true, tls.Config{}, NotTried},
		{"wrong name", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"CANARY.test"} }, true, tls.Config{}, NotTried},
		{"only a common name", func(c *x509.Certificate) { c.IPAddresses = nil }, true, tls.Config{}, NotTried},
		{"TLS 1.2", func(*x509.Certificate) {}, true, tls.Config{MaxVersion: tls.VersionTLS12}, Granted},
		{"TLS 1.1", func(*x509.Certificate) {}, true, tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, NotTried},
		{"TLS 1.0", func(*x509.Certificate) {}, true, tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, NotTried},
	}
	for i := range tests {
		tt := &tests[i]
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cert, pool := certificate(t, tt.change)
			if !tt.trust {
				pool = x509.NewCertPool()
			}
			tt.server.Certificates = []tls.Certificate{cert}
			w := newWire(t, &tt.server, send(200, jsonHeader, good))
			c := w.client(AuthBasic)
			c.Transport = NewTransport(pool, nil, nil)
			a := w.refresh(t, c)
			if a.Outcome != tt.want {
				t.Errorf("%v (%s), want %v", a.Outcome, a.Detail, tt.want)
			}
			if n := len(w.seen()); (n == 1) != (tt.want == Granted) || n > 1 {
				t.Errorf("%d requests were sent", n)
			}
			if strings.Contains(a.Detail, "CANARY") {
				t.Errorf("the detail quotes the certificate: %s", a.Detail)
			}
		})
	}
}

// A certificate is the other side's text: anyone on the way can present one.
func TestCertificateNamesAreHarmless(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"as2.test", "\x1b[31mas2.test", "as2.test\r\nlevel=INFO", "as2\x00.test"} {
		cert, pool := certificate(t, func(c *x509.Certificate) { c.DNSNames = []string{name} })
		w := newWire(t, &tls.Config{Certificates: []tls.Certificate{cert}}, send(200, jsonHeader, good))
		c := w.client(AuthBasic)
		tr := NewTransport(pool, nil, nil)
		tr.TLSClientConfig.ServerName = "as.test"
		c.Transport = tr
		a := w.refresh(t, c)
		if a.Outcome != NotTried || len(w.seen()) != 0 {
			t.Errorf("%q: %v (%s)", name, a.Outcome, a.Detail)
		}
		if strings.ContainsFunc(a.Detail, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the detail has control characters of the certificate: %q", a.Detail)
		}
	}
}

// A server that speaks no TLS, or breaks off, has not got the request.
func TestTLSHandshakeFails(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"reset":     reset,
		"closed":    func(c net.Conn) { _ = c.Close() },
		"plain":     func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 CANARY\r\n\r\n"); _ = c.Close() },
		"stands":    func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"bad bytes": func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("CANARY", 100)); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go serve(c)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			c := &Client{ID: "id", Auth: AuthBasic, TokenEndpoint: "https://" + l.Addr().String() + "/token", Transport: NewTransport(nil, nil, nil)}
			if a := c.refresh(ctx, NewSecret("RT"), ""); a.Outcome != NotTried || strings.Contains(a.Detail, "CANARY") {
				t.Errorf("%v (%s), want not_tried", a.Outcome, a.Detail)
			}
		})
	}
}
