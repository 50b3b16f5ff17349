package oauth_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A tap is a transport that notes what goes over it, and can take the server's
// place.
type tap struct {
	next http.RoundTripper

	mu   sync.Mutex
	seen []sent
	// answer, if not nil, may answer in place of the server: with nil it doesn't.
	answer func(sent) *http.Response
	// change, if not nil, may change the members of a JSON answer.
	change func(sent, map[string]any)
	// secrets are those that went by.
	secrets []string
}

// A sent is one request of the client.
type sent struct {
	Method string
	URL    *url.URL
	Header http.Header
	Form   url.Values
}

func (t *tap) RoundTrip(req *http.Request) (*http.Response, error) {
	s := sent{Method: req.Method, URL: req.URL, Header: req.Header.Clone()}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		s.Form, _ = url.ParseQuery(string(body))
	}
	t.mu.Lock()
	t.seen = append(t.seen, s)
	for _, name := range []string{"code", "code_verifier", "refresh_token", "password", "client_secret", "device_code", "token"} {
		t.secrets = append(t.secrets, s.Form[name]...)
	}
	answer, change := t.answer, t.change
	t.mu.Unlock()
	if answer != nil {
		if res := answer(s); res != nil {
			return res, nil
		}
	}
	res, err := t.next.RoundTrip(req)
	if err != nil || change == nil {
		return res, err
	}
	return changed(res, func(m map[string]any) { change(s, m) })
}

// changed returns an answer with its members changed.
func changed(res *http.Response, change func(map[string]any)) (*http.Response, error) {
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	var members map[string]any
	if json.Unmarshal(body, &members) == nil {
		change(members)
		if body, err = json.Marshal(members); err != nil {
			return nil, err
		}
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return res, nil
}

// answers sets what takes the server's place.
func (t *tap) answers(f func(sent) *http.Response) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = f
}

// changes sets what changes answers.
func (t *tap) changes(f func(sent, map[string]any)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change = f
}

// to returns the requests to a path.
func (t *tap) to(endpoint string) []sent {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []sent
	for _, s := range t.seen {
		if strings.HasSuffix(endpoint, s.URL.Path) && s.URL.Path != "" {
			list = append(list, s)
		}
	}
	return list
}

// check finds secrets in URLs (B23).
func (t *tap) check(test *testing.T) {
	test.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen {
		text, err := url.PathUnescape(s.URL.String())
		if err != nil {
			test.Error(err)
		}
		for _, secret := range append(t.secrets, "sandbox-secret", "sandbox-password") {
			if strings.Contains(text, secret) {
				test.Errorf("a secret is in the URL of a request to %s", s.URL.Path)
			}
		}
		if s.Method == http.MethodPost && s.URL.RawQuery != "" {
			test.Errorf("the request to %s has a query", s.URL.Path)
		}
	}
}

// reply is an answer of a server.
func reply(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}
