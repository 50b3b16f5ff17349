package sandbox

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// raw sends bytes over a connection of its own and returns all that came back.
func (r *rig) raw(t *testing.T, request string) string {
	t.Helper()
	conn, err := r.as.DialContext(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, request)
	reply, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	return string(reply)
}

// TestWireShape holds the bytes of an answer as a curl user would see them.
func TestWireShape(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		body := login.Encode() + "&scope=all"
		reply := r.raw(t, "POST /oauth/v2/oauth-token HTTP/1.1\r\nHost: as.test\r\nConnection: close\r\n"+
			"Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("sandbox-client:sandbox-secret"))+"\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\n"+
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
		want := regexp.MustCompile(`^HTTP/1\.1 200 OK\r\n` +
			`Cache-Control: no-store\r\n` +
			`Content-Length: \d+\r\n` +
			`Content-Type: application/json\r\n` +
			`Date: [^\r]+\r\n` +
			`Connection: close\r\n\r\n` +
			`\{"token_type":"bearer",` +
			`"access_token":"eyJraWQiOiIxNTUzNzgyMDQxIiwieDV0Ijoi[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",` +
			`"refresh_token":"_1XBPWQQ_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",` +
			`"scope":"","claims":"publicid","expires_in":600\}$`)
		if !want.MatchString(reply) {
			t.Errorf("got\n%s\nwant\n%s", reply, want)
		}
	})
}

func TestWireShapeOfErrors(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		body := "grant_type=password"
		reply := r.raw(t, "POST /oauth/v2/oauth-token HTTP/1.1\r\nHost: as.test\r\nConnection: close\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\n"+
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
		want := regexp.MustCompile(`^HTTP/1\.1 401 Unauthorized\r\n` +
			`Cache-Control: no-store\r\n` +
			`Content-Length: \d+\r\n` +
			`Content-Type: application/json\r\n` +
			`Www-Authenticate: Basic realm="sandbox"\r\n` +
			`Date: [^\r]+\r\n` +
			`Connection: close\r\n\r\n` +
			`\{"error":"invalid_client","error_description":"[^"]+"\}$`)
		if !want.MatchString(reply) {
			t.Errorf("got\n%s\nwant\n%s", reply, want)
		}
	})
}

func TestTokenRequest(t *testing.T) {
	t.Parallel()
	const good = "grant_type=password&username=sandbox-user&password=sandbox-password"
	const inBody = good + "&client_id=sandbox-client&client_secret=sandbox-secret"
	basic := func(r *http.Request) {}
	noAuth := func(r *http.Request) { r.Header.Del("Authorization") }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, test := range []struct {
		name, body string
		edit       func(*http.Request)
		status     int
		code, auth string
	}{
		{"Basic", good, basic, 200, "", "basic"},
		{"body", inBody, noAuth, 200, "", "post"},
		{"scope all", good + "&scope=all", basic, 200, "", "basic"},
		{"empty scope", good + "&scope=", basic, 200, "", "basic"},
		{"charset", good, header("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"), 200, "", "basic"},
		{"same client_id beside Basic", good + "&client_id=sandbox-client", basic, 200, "", "basic"},
		{"unknown parameter", good + "&resource=x", basic, 200, "", "basic"},

		{"both", inBody, basic, 400, "invalid_request", "both"},
		{"other client_id beside Basic", good + "&client_id=x", basic, 400, "invalid_request", "basic"},
		{"two Authorization headers", good, func(r *http.Request) {
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
		}, 400, "invalid_request", "basic"},
		{"no client", good, noAuth, 401, "invalid_client", "none"},
		{"client_id only", good + "&client_id=sandbox-client", noAuth, 401, "invalid_client", "none"},
		{"other scheme", inBody, header("Authorization", "Bearer x"), 401, "invalid_client", "post"},
		{"wrong secret", good, func(r *http.Request) { r.SetBasicAuth("sandbox-client", "x") }, 401, "invalid_client", "basic"},
		{"wrong client", good, func(r *http.Request) { r.SetBasicAuth("x", "sandbox-secret") }, 401, "invalid_client", "basic"},
		{"wrong secret in the body", inBody + "x", noAuth, 401, "invalid_client", "post"},

		{"query", good, func(r *http.Request) { r.URL.RawQuery = "x=1" }, 400, "invalid_request", "basic"},
		{"grant in the query", "", func(r *http.Request) { r.URL.RawQuery = good }, 400, "invalid_request", "basic"},
		{"repeated", good + "&username=sandbox-user", basic, 400, "invalid_request", "basic"},
		{"repeated unknown", good + "&x=1&x=1", basic, 400, "invalid_request", "basic"},
		{"JSON", good, header("Content-Type", "application/json"), 400, "invalid_request", "basic"},
		{"no media type", good, func(r *http.Request) { r.Header.Del("Content-Type") }, 400, "invalid_request", "basic"},
		{"bad encoding", good + "&x=%zz", basic, 400, "invalid_request", "basic"},
		{"too large", good + "&x=" + strings.Repeat("x", maxForm), basic, 400, "invalid_request", "basic"},
		{"GET", good, func(r *http.Request) { r.Method = http.MethodGet }, 405, "invalid_request", "basic"},
		{"no grant type", "username=x", basic, 400, "invalid_request", "basic"},
		{"unknown grant type", "grant_type=implicit", basic, 400, "unsupported_grant_type", "basic"},
		{"other scope", good + "&scope=admin", basic, 400, "invalid_scope", "basic"},
		{"no password", "grant_type=password&username=sandbox-user", basic, 400, "invalid_request", "basic"},
		{"wrong password", strings.Replace(good, "sandbox-password", "x", 1), basic, 400, "invalid_grant", "basic"},
		{"wrong user", strings.Replace(good, "sandbox-user", "x", 1), basic, 400, "invalid_grant", "basic"},
		{"no refresh token", "grant_type=refresh_token", basic, 400, "invalid_request", "basic"},
		{"unknown refresh token", "grant_type=refresh_token&refresh_token=x", basic, 400, "invalid_grant", "basic"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := New(Config{})
			r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(test.body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth("sandbox-client", "sandbox-secret")
			test.edit(r)
			w := httptest.NewRecorder()
			s.AuthorizationServer().ServeHTTP(w, r)
			a := answer{status: w.Code, body: w.Body.String()}
			e := s.Events()[0]
			if test.code == "" {
				a.must(t)
			} else {
				a.refused(t, test.status, test.code)
			}
			if e.Error != test.code || e.Status != test.status || e.ClientAuth != test.auth || e.Committed != (test.status == 200) {
				t.Errorf("event %+v", e)
			}
			challenge := w.Header().Get("WWW-Authenticate")
			if (challenge == `Basic realm="sandbox"`) != (test.status == 401) {
				t.Errorf("WWW-Authenticate: %q", challenge)
			}
			if allow := w.Header().Get("Allow"); (allow == "POST") != (test.status == 405) {
				t.Errorf("Allow: %q", allow)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: %q", got)
			}
		})
	}
}

func TestBasicEncodings(t *testing.T) {
	t.Parallel()
	const id, secret = "client+1", "s%41 :/é"
	for _, test := range []struct {
		name                       string
		rawOnly, encodedOnly       bool
		rawAccepted, encodedPassed bool
	}{
		{"default", false, false, true, true},
		{"raw", true, false, true, false},
		{"encoded", false, true, false, true},
		{"neither", true, true, false, false},
	} {
		c := Config{ClientID: id, ClientSecret: secret, RawBasic: test.rawOnly, EncodedBasic: test.encodedOnly}
		ask := func(id, secret string) bool {
			r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(login.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth(id, secret)
			w := httptest.NewRecorder()
			New(c).AuthorizationServer().ServeHTTP(w, r)
			return w.Code == 200
		}
		if got := ask(id, secret); got != test.rawAccepted {
			t.Errorf("%s: raw accepted: %v", test.name, got)
		}
		if got := ask(url.QueryEscape(id), url.QueryEscape(secret)); got != test.encodedPassed {
			t.Errorf("%s: encoded accepted: %v", test.name, got)
		}
	}
}

// FuzzTokenRequest: whatever comes, the answer is well-formed and nobody gets
// tokens without the secrets.
func FuzzTokenRequest(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "Basic c2FuZGJveC1jbGllbnQ6c2FuZGJveC1zZWNyZXQ=", "", login.Encode())
	f.Add("application/x-www-form-urlencoded", "", "a=b", "grant_type=refresh_token&refresh_token=%00")
	f.Add("application/json", "Basic ==", "", `{"grant_type":"password"}`)
	f.Add("x; y=z; y", "Bearer", ";", "a&b=;%")
	f.Fuzz(func(t *testing.T, media, authorization, query, body string) {
		s := New(Config{})
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header["Content-Type"] = []string{media}
		r.Header["Authorization"] = []string{authorization}
		w := httptest.NewRecorder()
		s.AuthorizationServer().ServeHTTP(w, r)
		e := s.Events()[0]
		if w.Code == http.StatusOK {
			values, err := url.ParseQuery(body)
			if err != nil || values.Get("password") != "sandbox-password" || query != "" || !e.Committed {
				t.Fatalf("tokens for %q %q: %+v", query, body, e)
			}
			answer{status: w.Code, body: w.Body.String()}.must(t)
			return
		}
		answer{status: w.Code, body: w.Body.String()}.refused(t, w.Code, e.Error)
		if e.Committed || e.Issued != "" {
			t.Fatalf("committed: %+v", e)
		}
	})
}
