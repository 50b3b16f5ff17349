package sandbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A rig is a sandbox on two pipes, and a client that keeps no connection and
// follows no redirect.
type rig struct {
	*Sandbox
	as, api *PipeListener
	client  *http.Client // to the authorization server
	caller  *http.Client // to the API
}

// run calls f in a bubble of virtual time.
func run(t *testing.T, c Config, f func(*testing.T, *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(c)
		r := &rig{Sandbox: s, as: Pipe(), api: Pipe()}
		r.client = pipeClient(t, r.as, s.AuthorizationServer())
		r.caller = pipeClient(t, r.api, s.API())
		t.Cleanup(s.Close)
		f(t, r)
	})
}

func pipeClient(t *testing.T, l *PipeListener, h http.Handler) *http.Client {
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return &http.Client{
		Transport: &http.Transport{DialContext: l.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// An answer is what the client got: a response, or part of one and an error.
type answer struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	err     error
}

func send(c *http.Client, r *http.Request) answer {
	resp, err := c.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), resp.Trailer, err}
}

// form returns parameters from name and value in turn.
func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

var login = form("grant_type", "password", "username", "sandbox-user", "password", "sandbox-password")

func refresh(token string) url.Values {
	return form("grant_type", "refresh_token", "refresh_token", token)
}

func post(path string, v url.Values) *http.Request {
	r, err := http.NewRequest(http.MethodPost, "http://as.test"+path, strings.NewReader(v.Encode()))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("sandbox-client", "sandbox-secret")
	return r
}

func (r *rig) token(v url.Values) answer { return send(r.client, post(tokenPath, v)) }

// A grantedPair is a token answer as a test reads it.
type grantedPair struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// must returns the tokens of an answer that has to be good.
func (a answer) must(t *testing.T) grantedPair {
	t.Helper()
	var p grantedPair
	if a.err != nil || a.status != http.StatusOK {
		t.Fatalf("token request: status %d, error %v, body %s", a.status, a.err, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("token answer: %v: %s", err, a.body)
	}
	return p
}

// refused checks that an answer is the OAuth error.
func (a answer) refused(t *testing.T, status int, code string) {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != status || body.Error != code {
		t.Fatalf("got %d %q (error %v), want %d %s", a.status, a.body, a.err, status, code)
	}
}

// call asks the API with an access token.
func (r *rig) call(token string) int {
	req, _ := http.NewRequest(http.MethodGet, "http://api.test/echo", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	return send(r.caller, req).status
}

func (r *rig) last() Event {
	events := r.Events()
	return events[len(events)-1]
}

func TestTokensExpire(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		time.Sleep(600*time.Second - time.Nanosecond)
		if got := r.call(p.Access); got != 200 {
			t.Errorf("just before the end: %d, want 200", got)
		}
		time.Sleep(time.Nanosecond)
		if got := r.call(p.Access); got != 401 {
			t.Errorf("at the end: %d, want 401", got)
		}
		r.SetTokenLifetime(2500 * time.Millisecond)
		a := r.token(refresh(p.Refresh))
		if !strings.Contains(a.body, `"expires_in":2}`) {
			t.Errorf("after SetTokenLifetime: %s", a.body)
		}
		p = a.must(t)
		time.Sleep(2400 * time.Millisecond)
		if got := r.call(p.Access); got != 200 {
			t.Errorf("before the new end: %d, want 200", got)
		}
		time.Sleep(100 * time.Millisecond)
		if got := r.call(p.Access); got != 401 {
			t.Errorf("at the new end: %d, want 401", got)
		}
	})
}

func TestRevokeAll(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		r.RevokeAccessTokens()
		if got := r.call(p.Access); got != 401 {
			t.Errorf("revoked access token: %d, want 401", got)
		}
		p = r.token(refresh(p.Refresh)).must(t)
		r.RevokeRefreshTokens()
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")
		if got := r.call(p.Access); got != 200 {
			t.Errorf("access token after RevokeRefreshTokens: %d, want 200", got)
		}
	})
}

func TestSetSecrets(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		r.SetPassword("new")
		r.token(login).refused(t, 400, "invalid_grant")
		p = r.token(refresh(p.Refresh)).must(t)
		r.token(form("grant_type", "password", "username", "sandbox-user", "password", "new")).must(t)
		r.SetClientSecret("new")
		r.token(refresh(p.Refresh)).refused(t, 401, "invalid_client")
		if got := r.last(); got.Error != "invalid_client" || got.Committed {
			t.Errorf("event %+v", got)
		}
		req := post(tokenPath, refresh(p.Refresh))
		req.SetBasicAuth("sandbox-client", "new")
		send(r.client, req).must(t)
	})
}

func TestLockAfter(t *testing.T) {
	run(t, Config{LockAfter: 2}, func(t *testing.T, r *rig) {
		wrong := form("grant_type", "password", "username", "sandbox-user", "password", "wrong")
		r.token(wrong).refused(t, 400, "invalid_grant")
		r.token(login).must(t) // sets the count back
		r.token(wrong).refused(t, 400, "invalid_grant")
		r.token(login).must(t)
		r.token(wrong).refused(t, 400, "invalid_grant")
		r.token(wrong).refused(t, 400, "invalid_grant")
		r.token(login).refused(t, 400, "invalid_grant")
		r.SetPassword("sandbox-password")
		r.token(login).must(t)
		r.Play(WrongPassword, 2)
		r.token(login).refused(t, 400, "invalid_grant")
		r.token(login).refused(t, 400, "invalid_grant")
		r.token(login).refused(t, 400, "invalid_grant")
	})
}

func TestDelay(t *testing.T) {
	run(t, Config{Delay: 7 * time.Second}, func(t *testing.T, r *rig) {
		start := time.Now()
		done := make(chan answer)
		go func() { done <- r.token(login) }()
		synctest.Wait()
		if e := r.last(); e.Committed || e.Replied || r.TokenRequests("password") != 1 {
			t.Errorf("during the delay: %+v", e)
		}
		(<-done).must(t)
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("took %v, want 7s", took)
		}
		go func() { done <- r.token(login) }()
		synctest.Wait()
		r.Close()
		if a := <-done; a.err == nil {
			t.Errorf("Close: got an answer %d", a.status)
		}
		if e := r.last(); e.Committed {
			t.Errorf("Close: committed: %+v", e)
		}
	})
}

// TestServerGoesOnWithoutClient is the late answer: the client has given up,
// the server hasn't.
func TestServerGoesOnWithoutClient(t *testing.T) {
	run(t, Config{Delay: 7 * time.Second}, func(t *testing.T, r *rig) {
		r.client.Timeout = 5 * time.Second
		if a := r.token(login); a.err == nil {
			t.Fatal("the client didn't time out")
		}
		if r.last().Committed {
			t.Fatal("committed before the delay ended")
		}
		time.Sleep(3 * time.Second)
		if e := r.last(); !e.Committed || e.Replied {
			t.Errorf("after the delay: committed %v, replied %v; want true, false", e.Committed, e.Replied)
		}
	})
}

func TestListen(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	for range 2 { // again after Close, with the same tokens
		servers, err := s.Listen()
		if err != nil {
			t.Fatal(err)
		}
		defer servers.Close()
		resp, err := http.PostForm(servers.AuthorizationServerURL+tokenPath, form("grant_type", "password",
			"username", "sandbox-user", "password", "sandbox-password",
			"client_id", "sandbox-client", "client_secret", "sandbox-secret"))
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		resp.Body.Close()
		p := answer{status: resp.StatusCode, body: body.String()}.must(t)
		req, _ := http.NewRequest(http.MethodGet, servers.APIURL+"/document/v1/documents", nil)
		req.Header.Set("Authorization", "Bearer "+p.Access)
		if a := send(http.DefaultClient, req); a.status != 200 {
			t.Errorf("API: %d %s %v", a.status, a.body, a.err)
		}
		servers.Close()
		if _, err := http.Get(servers.APIURL + "/echo"); err == nil {
			t.Error("still answers after Close")
		}
	}
}
