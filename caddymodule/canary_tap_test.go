package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A canaryTap stands before authorization servers and APIs, and plants every
// secret that passes: whatever they and the proxy tell each other belongs
// nowhere else.
type canaryTap struct {
	t  testing.TB
	mu sync.Mutex
	*canaryScanner
	noted map[string]int // by kind
	talk  bool           // the authorization server repeats in its errors what it was sent
}

func newCanaryTap(t testing.TB) *canaryTap {
	return &canaryTap{t: t, canaryScanner: newCanaryScanner(), noted: map[string]int{}}
}

func (c *canaryTap) note(kind, secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted[kind]++
	c.plant(c.t, kind, secret)
}

// canaryMembers are the parameters and members of OAuth that are secret. What
// is empty, as the id_token of an account without openid, isn't planted.
var canaryMembers = map[string]string{
	"client_secret": "client secret", "password": "password", "client_assertion": "assertion", "code": "code", "state": "state", "nonce": "nonce",
	"code_verifier": "code verifier", "refresh_token": "refresh token", "access_token": "access token", "id_token": "id token",
	"device_code": "device code", "user_code": "user code", "token": "revoked token",
}

func (c *canaryTap) noteValues(values url.Values) {
	for name, all := range values {
		for _, v := range all {
			if kind := canaryMembers[name]; kind != "" && len(v) >= canaryShort { // the people's passwords are short
				c.note(kind, v)
			}
		}
	}
}

// serverBehind is an authorization server behind the tap.
func (c *canaryTap) serverBehind(server http.Handler) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		form, _ := url.ParseQuery(string(body))
		c.noteValues(form)
		c.noteValues(r.URL.Query())
		if _, secret, ok := r.BasicAuth(); ok {
			c.note("client secret", secret)
		}
		c.mu.Lock()
		talk := c.talk && len(body) > 0
		c.mu.Unlock()
		if talk {
			text, _ := json.Marshal(map[string]string{
				"error": "invalid_request_" + form.Get("refresh_token"), "error_uri": "https://x.test/?" + string(body),
				"error_description": "bad request: " + string(body) + " " + r.Header.Get("Authorization"),
			})
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("WWW-Authenticate", `Basic realm="`+form.Get("password")+`"`)
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(text)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		server.ServeHTTP(answerTap{w, c}, r)
	}))
	c.t.Cleanup(s.Close)
	return s.URL
}

// An answerTap plants what is in an answer.
type answerTap struct {
	http.ResponseWriter
	tap *canaryTap
}

func (a answerTap) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a answerTap) WriteHeader(status int) {
	if u, err := url.Parse(a.Header().Get("Location")); err == nil {
		a.tap.noteValues(u.Query())
		fragment, _ := url.ParseQuery(u.EscapedFragment())
		a.tap.noteValues(fragment)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a answerTap) Write(b []byte) (int, error) {
	var members map[string]any
	if json.Unmarshal(b, &members) == nil {
		for name, v := range members {
			if text, ok := v.(string); ok {
				a.tap.noteValues(url.Values{name: {text}})
			}
		}
	}
	return a.ResponseWriter.Write(b)
}

// apiBehind is an API behind the tap: that of the account which the path names,
// as /echo/<account>.
func (c *canaryTap) apiBehind(apis map[string]http.Handler) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); token != "" {
			c.note("access token", token)
		}
		_, account, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/echo"), "/")
		account, rest, _ := strings.Cut(account, "/")
		api := apis[account]
		if api == nil {
			api = apis[""]
		}
		switch rest {
		case "leak": // in a field of the answer
			w.Header().Set("X-Debug", r.Header.Get("Authorization"))
		case "cut":
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "a beginning")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		api.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = nil
	c.t.Cleanup(s.Close)
	return s.URL
}

// A recordingTransport keeps the portal's answers.
type recordingTransport struct {
	http.RoundTripper
	keep func(request *http.Request, text []byte)
}

func (rt recordingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := rt.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	var text bytes.Buffer
	_ = res.Header.Write(&text)
	rt.keep(req, append(text.Bytes(), body...))
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, err
}
