package sandbox

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// tlsRig is a sandbox on sockets with TLS.
func tlsRig(t *testing.T, c Config) (*Sandbox, *Servers) {
	t.Helper()
	s := New(c)
	servers, err := s.ListenTLS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	return s, servers
}

// tlsClient trusts the sandbox's CA and has a certificate, if one is given.
func tlsClient(t *testing.T, servers *Servers, certPEM, keyPEM []byte) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(servers.CAPEM) {
		t.Fatal("CAPEM is no certificate")
	}
	config := &tls.Config{RootCAs: roots}
	if certPEM != nil {
		certificate, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func TestListenTLS(t *testing.T) {
	t.Parallel()
	s, servers := tlsRig(t, Config{Provider: "oidc"})
	if !strings.HasPrefix(servers.AuthorizationServerURL, "https://127.0.0.1:") || !strings.HasPrefix(servers.APIURL, "https://127.0.0.1:") {
		t.Errorf("servers %+v", servers)
	}
	client := tlsClient(t, servers, nil, nil)
	for _, base := range []string{servers.AuthorizationServerURL, strings.Replace(servers.AuthorizationServerURL, "127.0.0.1", "localhost", 1)} {
		req, _ := http.NewRequest("GET", base+"/.well-known/openid-configuration", nil)
		a := send(client, req)
		if !strings.Contains(a.body, `"issuer":"`+base+`"`) || !strings.Contains(a.body, `"token_endpoint":"`+base+`/token"`) {
			t.Errorf("discovery at %s: %s %v", base, a.body, a.err)
		}
	}
	callback, err := s.Approve(servers.AuthorizationServerURL+"/authorize?"+form("response_type", "code", "client_id", "sandbox-client",
		"redirect_uri", testRedirect).Encode(), "sandbox-user")
	if err != nil || !strings.HasSuffix(callback, "&iss="+url.QueryEscape(servers.AuthorizationServerURL)) {
		t.Errorf("callback %s, %v", callback, err)
	}
	req, _ := http.NewRequest("GET", servers.APIURL+"/echo", nil)
	if a := send(client, req); a.status != 401 {
		t.Errorf("API: %d %v", a.status, a.err)
	}
	if _, err := http.Get(servers.APIURL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client without the CA: %v", err)
	}
	again, err := s.ListenTLS()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if string(again.CAPEM) != string(servers.CAPEM) {
		t.Error("another CA at the second start")
	}
	servers.Close()
	if a := send(client, req); a.err == nil {
		t.Error("answers after Close")
	}
}

func TestTLSClientAuthentication(t *testing.T) {
	t.Parallel()
	s, servers := tlsRig(t, Config{})
	token := func(client *http.Client, edit func(*http.Request), pairs ...string) answer {
		v := form(append([]string{"grant_type", "client_credentials"}, pairs...)...)
		req, _ := http.NewRequest("POST", servers.AuthorizationServerURL+tokenPath, strings.NewReader(v.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if edit != nil {
			edit(req)
		}
		return send(client, req)
	}
	basic := func(r *http.Request) { r.SetBasicAuth("sandbox-client", "sandbox-secret") }
	foreignCert, foreignKey, err := NewForeignCertificate("sandbox-client")
	if err != nil {
		t.Fatal(err)
	}
	foreigner := tlsClient(t, servers, foreignCert, foreignKey)
	token(foreigner, basic).must(t) // nobody asked for the certificate
	token(foreigner, nil, "client_id", "sandbox-client").refused(t, 401, "invalid_client")

	certPEM, keyPEM, err := s.NewClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	client := tlsClient(t, servers, certPEM, keyPEM)
	token(client, nil, "client_id", "sandbox-client").must(t)
	events := s.Events()
	if e := events[len(events)-1]; e.ClientAuth != "tls" || e.ClientID != "sandbox-client" {
		t.Errorf("event %+v", e)
	}
	token(client, nil).refused(t, 401, "invalid_client") // RFC 8705 §2 wants client_id
	token(client, nil, "client_id", "x").refused(t, 401, "invalid_client")
	token(client, basic).refused(t, 401, "invalid_client") // not registered for it any more
	token(foreigner, nil, "client_id", "sandbox-client").refused(t, 401, "invalid_client")
	token(tlsClient(t, servers, nil, nil), nil, "client_id", "sandbox-client").refused(t, 401, "invalid_client")
	second, secondKey, err := s.NewClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	token(tlsClient(t, servers, second, secondKey), nil, "client_id", "sandbox-client").must(t)
	token(client, nil, "client_id", "sandbox-client").must(t)
}

// TestUnaskedCertificate: a public client may have a certificate for other
// purposes.
func TestUnaskedCertificate(t *testing.T) {
	t.Parallel()
	_, servers := tlsRig(t, Config{Public: true})
	certPEM, keyPEM, err := NewForeignCertificate("device")
	if err != nil {
		t.Fatal(err)
	}
	a := send(tlsClient(t, servers, certPEM, keyPEM), func() *http.Request {
		v := form("grant_type", "client_credentials", "client_id", "sandbox-client")
		req, _ := http.NewRequest("POST", servers.AuthorizationServerURL+tokenPath, strings.NewReader(v.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req
	}())
	a.must(t)
}

// TestTLSClientByCA: a CA's certificate stands for those that it issues in the
// client's name.
func TestTLSClientByCA(t *testing.T) {
	t.Parallel()
	ca, err := newAuthority("company CA")
	if err != nil {
		t.Fatal(err)
	}
	_, servers := tlsRig(t, Config{ClientCertificate: ca.pem()})
	foreignCA, err := newAuthority("company CA")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		issuer *authority
		name   string
		server bool
		status int
	}{
		{ca, "sandbox-client", false, 200},
		{ca, "other-client", false, 401},
		{ca, "sandbox-client", true, 401}, // a server's certificate
		{foreignCA, "sandbox-client", false, 401},
	} {
		certPEM, keyPEM, err := test.issuer.issueClient(test.name)
		if test.server {
			template := certificateTemplate(test.name)
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			certPEM, keyPEM, err = test.issuer.issue(template)
		}
		if err != nil {
			t.Fatal(err)
		}
		v := form("grant_type", "client_credentials", "client_id", "sandbox-client")
		req, _ := http.NewRequest("POST", servers.AuthorizationServerURL+tokenPath, strings.NewReader(v.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if a := send(tlsClient(t, servers, certPEM, keyPEM), req); a.status != test.status {
			t.Errorf("%s: %d %s %v, want %d", test.name, a.status, a.body, a.err, test.status)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New took a certificate that is none")
		}
	}()
	New(Config{ClientCertificate: []byte("none")})
}
