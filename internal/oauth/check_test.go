package oauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A doctor is a sandbox over TLS and an account of it that is checked.
type doctor struct {
	*testing.T
	sandbox *sandbox.Sandbox
	servers *sandbox.Servers
	account *oauth.Account
	others  []oauth.ClientAuth
}

func newDoctor(t *testing.T, c sandbox.Config) *doctor {
	t.Helper()
	d := &doctor{T: t, sandbox: sandbox.New(c), others: oauth.AllClientAuths}
	var err error
	if d.servers, err = d.sandbox.ListenTLS(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.sandbox.Close(); d.servers.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.servers.CAPEM)
	url := d.servers.AuthorizationServerURL
	d.account = &oauth.Account{
		Name: "erp", RequestTimeout: time.Minute,
		Client: oauth.Client{
			ID: "sandbox-client", Secret: oauth.Fixed("sandbox-secret"), Auth: oauth.AuthBasic,
			TokenEndpoint: url + "/oauth/v2/oauth-token", RevokeEndpoint: url + "/oauth/v2/oauth-revoke", AuthorizeEndpoint: url + "/oauth/v2/oauth-authorize",
			Transport: oauth.NewTransport(roots, nil, nil),
		},
		Grant: &oauth.Password{User: oauth.Fixed("sandbox-user"), Secret: oauth.Fixed("sandbox-password"), Relogin: true},
	}
	return d
}

// finds checks the account: each want is "level check: part of the text", and
// what isn't wanted is ok. Nothing may have been spent.
func (d *doctor) finds(wants ...string) {
	d.Helper()
	found := new(oauth.Checks).Check(context.Background(), d.account, d.others)
	left := map[string]bool{}
	for _, w := range wants {
		left[w] = true
	}
	for _, f := range found {
		matched := false
		for _, w := range wants {
			head, text, _ := strings.Cut(w, ": ")
			if head == fmt.Sprintf("%s %s", f.Level, f.Check) && strings.Contains(f.What+" | "+f.Fix, text) {
				matched = true
				delete(left, w)
			}
		}
		if f.Level != oauth.LevelOK && !matched {
			d.Errorf("not expected: %+v", f)
		}
		if f.Level != oauth.LevelOK && f.Fix == "" {
			d.Errorf("nothing says what to do: %+v", f)
		}
		if strings.Contains(f.What+f.Fix, "sandbox-secret") || strings.Contains(f.What+f.Fix, "sandbox-password") {
			d.Errorf("a secret is shown: %+v", f)
		}
	}
	for w := range left {
		d.Errorf("not found: %s, in\n%+v", w, found)
	}
	for _, e := range d.sandbox.Events() {
		if e.Kind == sandbox.KindToken || e.Kind == sandbox.KindDevice || e.Committed {
			d.Errorf("something was spent: %+v", e)
		}
	}
	if n := d.sandbox.TokenRequests(""); n != 0 {
		d.Errorf("%d token requests", n)
	}
}

func TestCheckInOrder(t *testing.T) {
	t.Parallel()
	d := newDoctor(t, sandbox.Config{})
	d.account.Grant = &oauth.AuthorizationCode{}
	d.finds("ok endpoint: token_endpoint", "ok endpoint: authorize_endpoint", "ok endpoint: revoke_endpoint", "ok certificate: TLS 1.3, certificate of localhost, 127.0.0.1, ::1 by sandbox CA, good for 364 days",
		"ok clock: agrees", "ok client_auth: accepts the client as `client_auth basic`")
	if n := d.revocations(); n != 1 {
		t.Errorf("%d revocations", n)
	}
}

func (d *doctor) revocations() (n int) {
	for _, e := range d.sandbox.Events() {
		if e.Kind == sandbox.KindRevoke && e.Method == "POST" {
			n++
		}
	}
	return n
}

// Which way of authentication fits is found by revocations alone.
func TestCheckClientAuth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config sandbox.Config
		auth   oauth.ClientAuth
		secret string
		others []oauth.ClientAuth
		want   string
		tries  int
	}{
		{"raw is wanted", sandbox.Config{RawBasic: true, ClientSecret: "s+/cret %"}, oauth.AuthBasic, "s+/cret %", oauth.AllClientAuths, "fail client_auth: client_auth basic_raw", 2},
		{"encoded is wanted", sandbox.Config{EncodedBasic: true, ClientSecret: "s+/cret %"}, oauth.AuthBasicRaw, "s+/cret %", oauth.AllClientAuths, "fail client_auth: accepts it as basic", 2},
		{"only the body", sandbox.Config{RawBasic: true, EncodedBasic: true, ClientSecret: "s+/cret %"}, oauth.AuthBasic, "s+/cret %", oauth.AllClientAuths, "fail client_auth: client_auth post", 3},
		{"wrong secret", sandbox.Config{}, oauth.AuthBasic, "wrong", oauth.AllClientAuths, "fail client_auth: tried: basic, post | compare client_id and client_secret", 2},
		{"wrong secret, one way", sandbox.Config{}, oauth.AuthBasic, "wrong", []oauth.ClientAuth{oauth.AuthBasic}, "fail client_auth: tried: basic |", 1},
		{"no public client", sandbox.Config{}, oauth.AuthNone, "", oauth.AllClientAuths, "fail client_auth: give it its client_secret", 1},
		{"a public client", sandbox.Config{Public: true}, oauth.AuthNone, "", oauth.AllClientAuths, "ok client_auth: accepts the client as `client_auth none`", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDoctor(t, tt.config)
			d.account.Client.Auth, d.account.Client.Secret, d.others = tt.auth, oauth.Fixed(tt.secret), tt.others
			d.finds(tt.want)
			if n := d.revocations(); n != tt.tries {
				t.Errorf("%d revocations, want %d", n, tt.tries)
			}
		})
	}
}

// Accounts that are one client ask for it once: a server may lock a client that
// it has refused too often. Another secret is another question.
func TestCheckClientAuthOnce(t *testing.T) {
	t.Parallel()
	d := newDoctor(t, sandbox.Config{})
	var checks oauth.Checks
	var work sync.WaitGroup
	for i := range 20 {
		a := *d.account
		a.Client.Secret = oauth.Fixed([]string{"wrong", "wronger"}[i%2])
		work.Go(func() {
			found := checks.Check(t.Context(), &a, d.others)
			if last := found[len(found)-1]; last.Level != oauth.LevelFail || last.Check != "client_auth" || !strings.Contains(last.What, "401 invalid_client") {
				t.Errorf("%+v", last)
			}
		})
	}
	work.Wait()
	if n := d.revocations(); n != 4 { // two secrets, each as basic and as post
		t.Errorf("%d revocations", n)
	}
}

func TestCheckClientAuthUnclear(t *testing.T) {
	t.Parallel()
	d := newDoctor(t, sandbox.Config{})
	d.sandbox.Play(sandbox.RevokeAway, -1)
	d.finds("warn client_auth: answered 503 temporarily_unavailable", "warn endpoint: revoke_endpoint")
	d.account.Client.RevokeEndpoint = ""
	d.finds("warn client_auth: no revocation endpoint")
	d.account.Client.RevokeEndpoint, d.account.Client.DeleteSession = d.servers.AuthorizationServerURL+"/Session", true
	d.finds("warn client_auth: no revocation endpoint", "warn endpoint: revoke_endpoint")
}

// What the issuer says of itself is compared with what is configured.
func TestCheckMetadata(t *testing.T) {
	t.Parallel()
	d := newDoctor(t, sandbox.Config{Provider: "oidc"})
	url := d.servers.AuthorizationServerURL
	d.account.Client.Discover, d.account.Client.Issuer = true, url
	d.account.Client.TokenEndpoint, d.account.Client.RevokeEndpoint, d.account.Client.AuthorizeEndpoint = "", "", ""
	d.finds("ok metadata: agree with the account", "ok endpoint: token_endpoint", "ok client_auth: accepts")
	d.account.Client.TokenEndpoint = url + "/elsewhere"
	d.finds("warn metadata: token_endpoint is "+url+"/elsewhere", "warn endpoint: answers 404")
	d.account.Client.TokenEndpoint = ""
	d.sandbox.Play(sandbox.WrongDiscoveryIssuer, 2)
	d.finds("fail metadata: its issuer is not the configured one")
	d.account.Client.Discover, d.account.Client.TokenEndpoint = false, url+"/token"
	d.finds("warn metadata: don't fit `issuer "+url+"`", "warn client_auth: no revocation endpoint")
	d.sandbox.Play(sandbox.DiscoveryAway, 4) // nobody promised any
	d.finds("warn client_auth: no revocation endpoint")
	d.account.Client.Discover, d.account.Client.TokenEndpoint = true, ""
	d.finds("fail metadata: answered 503 | look whether the issuer can be reached")
}

// What is wrong on the way there.
func TestCheckUnreachable(t *testing.T) {
	t.Parallel()
	d := newDoctor(t, sandbox.Config{})
	trusting := d.account.Client.Transport
	d.account.Client.Transport = oauth.NewTransport(x509.NewCertPool(), nil, nil)
	d.finds("fail endpoint: token_endpoint, revoke_endpoint at", "fail endpoint: tls { ca /path/to/ca.pem }")
	d.account.Client.Transport = trusting
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	d.account.Client.TokenEndpoint = "https://" + l.Addr().String() + "/token"
	d.finds("fail endpoint: connection refused | nothing listens there", "ok client_auth: accepts")
	silent, err := d.sandbox.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d.account.Client.TokenEndpoint = strings.Replace(silent.AuthorizationServerURL, "http:", "https:", 1) + "/token"
	d.finds("fail endpoint: it does not speak TLS there | look for a mistake in the port", "ok client_auth: accepts")
	named := oauth.NewTransport(nil, nil, nil)
	named.TLSClientConfig = trusting.(*http.Transport).TLSClientConfig.Clone()
	named.TLSClientConfig.ServerName = "other.test"
	d.account.Client.TokenEndpoint, d.account.Client.Transport = d.account.Client.RevokeEndpoint, named
	d.finds("fail endpoint: use a name that is in the certificate: localhost, 127.0.0.1, ::1")
}

// A server whose clock is wrong, whose certificate ends soon, and that answers
// oddly to a GET.
func TestCheckOddServer(t *testing.T) {
	t.Parallel()
	var skew atomic.Int64
	var status atomic.Int32
	status.Store(405)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		w.Header().Set("Date", time.Now().Add(time.Duration(skew.Load())).UTC().Format(http.TimeFormat))
		w.Header().Set("Location", "https://127.0.0.1:1/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	s.StartTLS()
	defer s.Close()
	d := newDoctor(t, sandbox.Config{})
	d.account.Client.RevokeEndpoint, d.account.Client.TokenEndpoint = "", s.URL+"/token"
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	d.account.Client.Transport = oauth.NewTransport(roots, nil, nil)
	const unclear = "warn client_auth: no revocation endpoint"
	for _, tt := range []struct {
		skew   time.Duration
		status int32
		wants  []string
	}{
		{0, 405, []string{"ok certificate: TLS 1.2", "ok clock: agrees", "ok endpoint: answers, in"}},
		{-2 * time.Minute, 400, []string{"warn clock: ahead of the server's"}},
		{10 * time.Minute, 401, []string{"fail clock: behind the server's | set this machine's clock"}},
		{0, 404, []string{"warn endpoint: answers 404 to a GET | compare the path"}},
		{0, 502, []string{"warn endpoint: answers 502"}},
		{0, 302, []string{"warn endpoint: redirects are not followed"}},
	} {
		skew.Store(int64(tt.skew))
		status.Store(tt.status)
		d.finds(append(tt.wants, unclear)...)
	}
}

// A server that takes the connection and says nothing doesn't hold the check.
func TestCheckBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newDoctor(t, sandbox.Config{})
	d.account.Client.TokenEndpoint, d.account.Client.RevokeEndpoint = "http://"+l.Addr().String()+"/t", "http://"+l.Addr().String()+"/r"
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	found := new(oauth.Checks).Check(ctx, d.account, nil)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(found) != 1 || found[0].Level != oauth.LevelFail || !strings.Contains(found[0].What, "time-out") {
		t.Errorf("%+v", found)
	}
}
