package oauth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F44: TLS fails because the clock is wrong. Expected: it counts as a server
// that is away. Best: 1.
func TestF44TLSFailsForAWrongClock(t *testing.T) {
	t.Parallel()
	slowest := time.Duration(0)
	for _, jump := range []time.Duration{-10 * year, 10 * year} {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				a := r.overTLS()
				s := r.start(a)
				defer r.stop()
				r.token(s)
				r.clocks.set(jump)
				begin := time.Now()
				for time.Since(begin) < time.Hour {
					if _, err := s.Token(r.Context()); err != nil {
						r.failure(s, oauth.ErrUnavailable)
					}
					time.Sleep(time.Second)
				}
				for s.Status().State == oauth.StateRefreshing { // a try is under way just now
					time.Sleep(10 * time.Millisecond)
				}
				r.state(s, oauth.StateAway)
				r.requests(1, 0)
				if r.probes() != 0 || !s.Status().HasRefreshToken {
					t.Error("the refresh token is lost, or something went over a connection that isn't trusted")
				}
				r.clocks.set(0)
				begin = time.Now()
				for s.Current() == nil && time.Since(begin) < time.Hour {
					time.Sleep(100 * time.Millisecond)
				}
				if slowest = max(slowest, time.Since(begin)); slowest > soon {
					t.Errorf("a token %v after the clock was set right", slowest)
				}
				r.token(s)
				r.requests(1, 1)
			})
		})
	}
	measured(t, 44, 1, "an hour of a clock that is wrong by ten years: no token request, no login; a token %v after it was set right", slowest.Round(time.Second/10))
}

// overTLS is an account whose server has a certificate for 90 days, which is
// checked by the clock of the sessions.
func (r *rig) overTLS() *oauth.Account {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "as.test"}, DNSNames: []string{"as.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		r.Fatal(err)
	}
	roots := x509.NewCertPool()
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		r.Fatal(err)
	}
	roots.AddCert(certificate)
	network := sandbox.Pipe()
	server := &http.Server{Handler: r.sandbox.AuthorizationServer(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	listener := tls.NewListener(network, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}})
	go func() { _ = server.Serve(listener) }()
	r.Cleanup(func() {
		_ = server.Close()
		_ = network.Close()
	})
	a := r.account()
	a.Client.TokenEndpoint = "https://as.test/oauth/v2/oauth-token"
	tr := oauth.NewTransport(roots, nil, nil)
	tr.DialContext, tr.TLSClientConfig.Time = network.DialContext, r.clocks.now
	a.Client.Transport = tr
	return a
}
