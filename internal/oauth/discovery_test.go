package oauth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMetadataURLs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		issuer string
		want   []string // nil: refused
	}{
		{"https://as.example", []string{"https://as.example/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server"}},
		{"https://as.example/", []string{"https://as.example/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server"}},
		{"https://as.example/a/b", []string{"https://as.example/a/b/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server/a/b"}},
		{"https://as.example:8443/a/", []string{"https://as.example:8443/a/.well-known/openid-configuration", "https://as.example:8443/.well-known/oauth-authorization-server/a"}},
		{"https://as.example/a%2Fb", []string{"https://as.example/a%2Fb/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server/a%2Fb"}},
		{"http://[::1]:1", []string{"http://[::1]:1/.well-known/openid-configuration", "http://[::1]:1/.well-known/oauth-authorization-server"}},
		{"http://as.example", nil},
		{"https://as.example?x=1", nil},
		{"https://as.example/a?", nil},
		{"https://as.example#f", nil},
		{"https://u@as.example", nil},
		{"as.example", nil},
		{"https://", nil},
		{"", nil},
	}
	for _, tt := range tests {
		got, err := metadataURLs(tt.issuer)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("metadataURLs(%q) = %q, %v", tt.issuer, got, err)
		}
	}
}

// A directory answers requests for metadata by path and counts them.
type directory struct {
	answers  map[string]func(http.ResponseWriter)
	requests []*http.Request
}

func (d *directory) RoundTrip(req *http.Request) (*http.Response, error) {
	d.requests = append(d.requests, req)
	w := httptest.NewRecorder()
	if answer := d.answers[req.URL.Path]; answer != nil {
		answer(w)
	} else {
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}

func TestFetchMetadata(t *testing.T) {
	t.Parallel()
	const oidc, rfc8414 = "/tenant/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenant"
	serve := func(status int, media, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", media)
			w.Header().Set("Location", "https://evil.example/metadata")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	good := serve(200, "application/json; charset=utf-8", goodMetadata)
	const hostile = "hostile text"
	type answers = map[string]func(http.ResponseWriter)
	tests := []struct {
		name     string
		answers  answers
		requests int
		why      string // empty: no error
	}{
		{"OIDC", answers{oidc: good, rfc8414: serve(500, "", "")}, 1, ""},
		{"RFC 8414 after 404", answers{rfc8414: good}, 2, ""},
		{"RFC 8414 after 403", answers{oidc: serve(403, "text/html", hostile), rfc8414: good}, 2, ""},
		{"RFC 8414 after 401", answers{oidc: serve(401, "", ""), rfc8414: good}, 2, ""},
		{"a file without a type", answers{oidc: serve(200, "application/octet-stream", goodMetadata)}, 1, ""},
		{"neither", nil, 2, "openid-configuration answered 404; https://as.example/.well-known/oauth-authorization-server/tenant answered 404: is the issuer right?"},
		{"away", answers{oidc: serve(503, "", hostile), rfc8414: good}, 1, "answered 503"},
		{"too many requests", answers{oidc: serve(429, "", hostile), rfc8414: good}, 1, "answered 429"},
		{"an odd yes", answers{oidc: serve(204, "", ""), rfc8414: good}, 1, "answered 204"},
		{"redirect (B25)", answers{oidc: serve(302, "", hostile), rfc8414: good}, 1, "answered 302; redirects are not followed"},
		{"HTML", answers{oidc: serve(200, "text/html", goodMetadata), rfc8414: good}, 1, "HTML"},
		{"no JSON", answers{oidc: serve(200, "application/json", hostile), rfc8414: good}, 1, "not a JSON object"},
		{"another issuer (B53)", answers{oidc: serve(200, "application/json", strings.Replace(goodMetadata, "as.example/tenant", "evil.example", 1)), rfc8414: good}, 1, "issuer is not the configured one"},
		{"too long", answers{oidc: serve(200, "application/json", only(`,"x":"`+strings.Repeat("x", maxMetadata)+`"`))}, 1, "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &directory{answers: tt.answers}
			m, err := fetchMetadata(t.Context(), d, testIssuer)
			if (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("error %v, want %q", err, tt.why)
			}
			if err != nil && (strings.Contains(err.Error(), hostile) || strings.Contains(err.Error(), "evil")) {
				t.Errorf("the error quotes the server: %v", err)
			}
			if (m.TokenEndpoint == "https://as.example/token") != (err == nil) {
				t.Errorf("got %+v with error %v", m, err)
			}
			if len(d.requests) != tt.requests {
				t.Errorf("%d requests, want %d", len(d.requests), tt.requests)
			}
			for _, r := range d.requests {
				if r.Method != "GET" || r.URL.Host != "as.example" || r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "caddy-bearer" || r.Header.Get("Authorization") != "" {
					t.Errorf("request %s %s %v", r.Method, r.URL, r.Header)
				}
			}
		})
	}
}

func TestFetchMetadataFaultsOfEndpoints(t *testing.T) {
	t.Parallel()
	d := &directory{answers: map[string]func(http.ResponseWriter){
		"/tenant/.well-known/openid-configuration": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"issuer":"`+testIssuer+`","revocation_endpoint":"https://as.example/revoke"}`)
		},
	}}
	m, err := fetchMetadata(t.Context(), d, testIssuer)
	if err == nil || m.RevokeEndpoint == "" || unlessOverridden(err, "token_endpoint") != nil {
		t.Errorf("got %+v, %v", m, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestFetchMetadataUnreachable(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	failing := func(err error) roundTripper { return func(*http.Request) (*http.Response, error) { return nil, err } }
	tests := []struct {
		name      string
		ctx       context.Context
		transport roundTripper
		issuer    string
		why       string
	}{
		{"no connection", t.Context(), failing(errors.New("hostile text")), testIssuer, "openid-configuration: the connection failed"},
		{"time-out", ended, func(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() }, testIssuer, "time-out"},
		{"broken off", t.Context(), func(*http.Request) (*http.Response, error) {
			body := io.MultiReader(strings.NewReader(goodMetadata[:20]), brokenOff{})
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		}, testIssuer, "the connection was closed"},
		{"not an issuer", t.Context(), failing(errors.New("a request was made")), "http://as.example", "must be an absolute https URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := fetchMetadata(tt.ctx, tt.transport, tt.issuer)
			if err == nil || !strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "hostile") || m != (Metadata{}) {
				t.Errorf("got %+v, %v; want %q", m, err, tt.why)
			}
		})
	}
}

type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A server that never stops costs no more than the cap.
func TestFetchMetadataEndless(t *testing.T) {
	t.Parallel()
	read := 0
	endless := readerFunc(func(p []byte) (int, error) { read += len(p); return copy(p, bytes.Repeat([]byte(" "), len(p))), nil })
	_, err := fetchMetadata(t.Context(), roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(endless)}, nil
	}), testIssuer)
	if err == nil || !strings.Contains(err.Error(), "too long") || read > maxMetadata+1 {
		t.Errorf("read %d bytes, error %v", read, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Over a socket: the redirect isn't followed.
func TestFetchMetadataOnTheWire(t *testing.T) {
	t.Parallel()
	var issuer string
	followed := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_, _ = io.WriteString(w, `{"issuer":"`+issuer+`","token_endpoint":"`+issuer+`/token"}`)
		case "/moved/.well-known/openid-configuration":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			followed = true
		}
	}))
	defer srv.Close()
	issuer = srv.URL
	wire := &http.Transport{DisableKeepAlives: true}
	if m, err := fetchMetadata(t.Context(), wire, issuer); err != nil || m.TokenEndpoint != issuer+"/token" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := fetchMetadata(t.Context(), wire, issuer+"/moved"); err == nil || !strings.Contains(err.Error(), "302") || followed {
		t.Errorf("followed %v, error %v", followed, err)
	}
}
