package caddymodule

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// With Caddy's tracing, the wait for a token is a span; the authorization
// server is told nothing of the trace, and the trace holds no secret.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var spans, tokenRequests bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&spans, body)
	}))
	defer collector.Close()
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL,
		"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_PROPAGATORS": "tracecontext,baggage,b3",
	} {
		t.Setenv(name, value)
	}

	r := newRig(t, sandbox.Config{})
	target, err := url.Parse(r.servers.AuthorizationServerURL)
	if err != nil {
		t.Fatal(err)
	}
	wire := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		mu.Lock()
		defer mu.Unlock()
		_ = p.In.Header.Write(&tokenRequests)
	}})
	defer wire.Close()
	r.servers.AuthorizationServerURL = wire.URL
	r.site = "tracing {\n\t\tspan legacy-call\n\t}"
	r.start()
	r.ready()
	token := r.session().Current().Authorization()[0]
	if err := r.session().Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	const trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "caller-baggage"
	header := []string{"traceparent", "00-" + trace + "-00f067aa0ba902b7-01", "baggage", "who=" + caller}
	res, body := r.do("GET", "/echo", nil, header...)
	if res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	second := r.session().Current().Authorization()[0]
	if err := r.session().Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.sandbox.Play(sandbox.Unavailable, -1)
	if res, _ := r.do("GET", "/echo", nil, header...); res.StatusCode != 503 {
		t.Fatalf("%d", res.StatusCode)
	}
	exported := func() string {
		mu.Lock()
		defer mu.Unlock()
		return spans.String()
	}
	r.eventually("exported", func() bool {
		return contains(exported(), "legacy-call", "bearer.token", "caddy.bearer.account", "erp", "authorization_server_unavailable")
	})
	secrets := []string{"sandbox-secret", "sandbox-password", strings.TrimPrefix(token, "Bearer "), strings.TrimPrefix(second, "Bearer ")}
	for _, secret := range secrets {
		if strings.Contains(exported(), secret) {
			t.Errorf("the trace has %s", secret)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	sent := strings.ToLower(tokenRequests.String())
	if !strings.Contains(sent, "user-agent") {
		t.Fatal("no token request was seen")
	}
	for _, field := range []string{"traceparent", "tracestate", "baggage", "b3:", trace, caller} {
		if strings.Contains(sent, field) {
			t.Errorf("the authorization server was told %s", field)
		}
	}
	if slices.Contains(secrets, "") {
		t.Error("a secret is empty")
	}
}
