package caddymodule

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A providerRig is a running Caddy with an account of the README, in front of a
// sandbox of its provider: authorization server and API on one host, as
// providers with a base URL have it.
type providerRig struct {
	*rig
	row    providerRow
	block  string // of the README
	table  tableRow
	server *httptest.Server
	portal string // its site

	mu        sync.Mutex
	lines     []string  // what reached the server, see wireLine
	discovery int       // how often the metadata were asked for
	granted   time.Time // when the first token was sent
}

// shortLife is that of the first access token; all later ones live for an
// hour, so that a slow machine doesn't change what is sent.
const shortLife = time.Second

func newProviderRig(t *testing.T, row providerRow, table tableRow, block string) *providerRig {
	t.Helper()
	r := &providerRig{rig: &rig{T: t, dir: t.TempDir(), address: freeAddress(t)}, row: row, table: table, block: block}
	r.server = httptest.NewUnstartedServer(r)
	scheme := "http://"
	if row.tls {
		scheme = "https://"
	}
	base := scheme + r.server.Listener.Addr().String() // before New asks for it
	r.portal = "http://" + r.address
	c := row.config
	c.Provider, c.TokenLifetime, c.DeviceInterval = or(c.Provider, table.provider), shortLife, time.Second
	if row.redirect != "" {
		c.RedirectURIs = []string{r.substitute(base).Replace(row.redirect)}
	}
	if strings.Contains(block, "secure_code ") {
		c.SecureCode = base + "/auth.html"
	}
	certificate, key := clientCertificate(t)
	if strings.Contains(block, "private_key_jwt") {
		c.ClientKey = publicKey(t, certificate)
	}
	r.sandbox = sandbox.New(c)
	if strings.Contains(block, "client_auth tls") {
		cert, k, err := r.sandbox.NewClientCertificate()
		if err != nil {
			t.Fatal(err)
		}
		certificate, key = string(cert), string(k)
	}
	r.startServer()
	for name, text := range map[string]string{
		"client_secret": "sandbox-secret", "password": "sandbox-password", "client.pem": certificate, "client_key.pem": key,
	} {
		r.secret(name, text)
	}
	for _, m := range envName.FindAllStringSubmatch(block, -1) {
		t.Setenv(m[1], map[bool]string{true: "sandbox-client", false: "sandbox-user"}[strings.HasSuffix(m[1], "CLIENT_ID")])
	}
	return r
}

var envName = regexp.MustCompile(`\{env\.([A-Z_]+)\}`)

func (r *providerRig) startServer() {
	if r.row.tls {
		r.server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		r.server.StartTLS()
		r.secret("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})))
	} else {
		r.server.Start()
	}
	r.Cleanup(func() {
		r.sandbox.Close()
		r.server.Close()
	})
}

// substitute puts the test's hosts and files in the place of the README's.
func (r *providerRig) substitute(base string) *strings.Replacer {
	_, host, _ := strings.Cut(base, "://")
	return strings.NewReplacer(
		"https://proxy.example.com", r.portal,
		"https://fhir.example.com", base, "https://is.example.com:5543", base, "https://login.example.com", base,
		"api.example.com", host,
		"/run/credentials/", r.dir+"/", "/etc/caddy/is-ca.pem", r.dir+"/ca.pem")
}

// accountBlock is the README's block with what must differ, and no more.
func (r *providerRig) accountBlock() string {
	r.Helper()
	block := strings.TrimSpace(r.substitute(r.server.URL).Replace(r.block))
	var lines []string
	if p, ok := oauth.ProviderNamed(r.table.provider); ok && p.Argument == oauth.NoArgument {
		for option, preset := range map[string]string{
			"authorize_endpoint": p.AuthorizeEndpoint, "token_endpoint": p.TokenEndpoint, "revoke_endpoint": p.RevokeEndpoint,
		} {
			if u, err := url.Parse(preset); err == nil && preset != "" {
				lines = append(lines, option+" "+r.server.URL+u.Path)
			}
		}
		lines = append(lines, "upstream "+r.server.URL)
	}
	if r.row.tls && !strings.Contains(block, "\ttls {") {
		lines = append(lines, "tls {", "ca "+r.dir+"/ca.pem", "}")
	}
	for _, left := range []string{"example.com", "/run/", "/etc/"} {
		if strings.Contains(block, left) {
			r.Fatalf("%s is still in the block:\n%s", left, block)
		}
	}
	return strings.TrimSuffix(block, "}") + strings.Join(append(lines, "}"), "\n")
}

// caddyfile is what an operator writes around the block. The provider's own
// API is meant where its URL is known from the block.
func (r *providerRig) caddyfile() string {
	r.Helper()
	_, port, _ := strings.Cut(r.address, ":")
	upstream, transport := r.server.URL, ""
	if p, _ := oauth.ProviderNamed(r.table.provider); p.Argument == oauth.BaseArgument {
		upstream = ""
	}
	if r.row.tls {
		transport = " {\ntransport http {\ntls_trust_pool file " + r.dir + "/ca.pem\n}\n}"
	}
	return "{\nadmin off\npersist_config off\nauto_https disable_redirects\ngrace_period 5s\nbearer {\nportal " + r.portal + "/bearer\n" +
		"store bbolt {\npath " + r.dir + "/store/tokens.db\n}\n" + r.accountBlock() + "\n}\n}\n\n" +
		"http://:" + port + " {\nbind 127.0.0.1\nbearer_portal\nbearer_proxy " + r.row.account + " " + upstream + transport + "\n}\n"
}

func (r *providerRig) start() {
	r.Helper()
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatalf("%v\n%s", err, r.caddyfile())
	}
}

func (r *providerRig) restart() {
	r.Helper()
	r.stop()
	r.start()
	r.settled()
}

// ServeHTTP is the provider's host.
func (r *providerRig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := or(r.row.paths[req.URL.Path], req.URL.Path)
	e := r.sandbox.Endpoints("")
	switch {
	case path == e.Discovery:
		r.mu.Lock()
		r.discovery++
		r.mu.Unlock()
	case slices.Contains([]string{e.Authorize, e.Token, e.Revoke, e.DeviceAuthorization, e.Session}, path):
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		line := r.wireLine(req, body)
		w = &answerWriter{ResponseWriter: w, before: func(status int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if status == 400 && strings.Contains(line, "device_code") {
				return // the person isn't done yet
			}
			r.lines = append(r.lines, line)
			if path == e.Token && status == 200 && r.granted.IsZero() {
				r.granted = time.Now()
				r.sandbox.SetTokenLifetime(time.Hour)
			}
		}}
	default:
		r.sandbox.API().ServeHTTP(w, req)
		return
	}
	req.URL.Path = path
	r.sandbox.AuthorizationServer().ServeHTTP(w, req)
}

// An answerWriter calls before ahead of the status.
type answerWriter struct {
	http.ResponseWriter
	before func(status int)
}

func (w *answerWriter) WriteHeader(status int) {
	w.before(status)
	w.ResponseWriter.WriteHeader(status)
}
