package sandbox

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// faultTests says of each fault of the token endpoint what a refresh gets. A
// login is asked instead where grant says so.
var faultTests = []struct {
	fault     Fault
	grant     string // refresh_token if empty
	status    int    // 0: no answer
	header    string // a line of the header
	body      string // part of the body
	code      string // of the event
	committed bool
	oldWorks  bool // the presented refresh token is still good
}{
	{fault: LostReply, committed: true},
	{fault: Slow, status: 200, body: `"expires_in":600}`, committed: true},
	{fault: ServerError, status: 500, body: `"server_error"`, code: "server_error", oldWorks: true},
	{fault: LateServerError, status: 500, body: `"server_error"`, code: "server_error", committed: true},
	{fault: BadGateway, status: 502, header: "Content-Type: text/html; charset=utf-8", body: "<html>", oldWorks: true},
	{fault: TooManyRequests, status: 429, header: "Retry-After: 2", code: "temporarily_unavailable", oldWorks: true},
	{fault: Unavailable, status: 503, code: "temporarily_unavailable", oldWorks: true},
	{fault: HTML, status: 200, header: "Content-Type: text/html; charset=utf-8", body: "<html>", oldWorks: true},
	{fault: HTMLForbidden, status: 403, header: "Content-Type: text/html; charset=utf-8", body: "<html>", oldWorks: true},
	{fault: Redirect, status: 307, header: "Location: /oauth/v2/oauth-moved", oldWorks: true},
	{fault: Huge, status: 200, body: `","token_type":"bearer","access_token":"`, committed: true},
	{fault: Truncated, status: 200, body: `","sco`, committed: true},
	{fault: NoExpiry, status: 200, body: `"claims":"publicid"}`, committed: true},
	{fault: StringExpiry, status: 200, body: `"expires_in":"600"}`, committed: true},
	{fault: FloatExpiry, status: 200, body: `"expires_in":600.0}`, committed: true},
	{fault: ZeroExpiry, status: 200, body: `"expires_in":0}`, committed: true},
	{fault: NonsenseExpiry, status: 200, body: `"expires_in":"soon"}`, committed: true},
	{fault: NegativeExpiry, status: 200, body: `"expires_in":-600}`, committed: true},
	{fault: SameRefreshToken, status: 200, body: `"refresh_token":"_1XBPWQQ_`, committed: true, oldWorks: true},
	{fault: NoRefreshToken, status: 200, body: `","scope":""`, committed: true, oldWorks: true},
	{fault: EmptyRefreshToken, status: 200, body: `"refresh_token":""`, committed: true, oldWorks: true},
	{fault: UpperTokenType, status: 200, body: `"token_type":"BEARER"`, committed: true},
	{fault: MACTokenType, status: 200, body: `"token_type":"mac"`, committed: true},
	{fault: BadAccessToken, status: 200, body: `"access_token":"broken\r\nX-Injected: 1"`, committed: true},
	{fault: ExtraMembers, status: 200, body: `"unknown":null}`, committed: true},
	{fault: TextPlain, status: 200, header: "Content-Type: text/plain; charset=utf-8", body: `"token_type":"bearer"`, committed: true},
	{fault: Dead401, status: 401, body: `"invalid_grant"`, code: "invalid_grant", oldWorks: true},
	{fault: Dead400InvalidRequest, status: 400, body: `"invalid_request"`, code: "invalid_request", oldWorks: true},
	{fault: Dead400Empty, status: 400, header: "Content-Length: 0", oldWorks: true},
	{fault: Empty401, status: 401, header: "Content-Length: 0", oldWorks: true},
	{fault: WrongPassword, grant: "password", status: 400, body: `"invalid_grant"`, code: "invalid_grant"},
	{fault: WrongPassword401, grant: "password", status: 401, body: `"invalid_grant"`, code: "invalid_grant"},
	{fault: WrongPassword403, grant: "password", status: 403, body: `"invalid_grant"`, code: "invalid_grant"},
	{fault: InvalidClient, status: 401, header: `Www-Authenticate: Basic realm="sandbox"`, code: "invalid_client", oldWorks: true},
	{fault: InvalidScope, status: 400, body: `"invalid_scope"`, code: "invalid_scope", oldWorks: true},
}

func TestTokenFaults(t *testing.T) {
	t.Parallel()
	tested := map[Fault]bool{RejectAccessToken: true, Reject403: true, API500: true} // in api_test.go
	for _, test := range faultTests {
		tested[test.fault] = true
		t.Run(string(test.fault), func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, r *rig) {
				p := r.token(login).must(t)
				request := refresh(p.Refresh)
				if test.grant == "password" {
					request = login
				}
				r.Play(test.fault, 1)
				a := r.token(request)
				if a.status != test.status || !strings.Contains(a.body, test.body) {
					t.Errorf("got %d %.200q, want %d with %q", a.status, a.body, test.status, test.body)
				}
				var header bytes.Buffer
				_ = a.header.Write(&header)
				if !strings.Contains(header.String(), test.header) {
					t.Errorf("got header\n%swant %q", header.String(), test.header)
				}
				if broken := test.fault == LostReply || test.fault == Truncated; (a.err != nil) != broken {
					t.Errorf("error %v", a.err)
				}
				e := r.last()
				replied := test.fault != LostReply && test.fault != Truncated
				if e.Fault != test.fault || e.Status != test.status || e.Error != test.code ||
					e.Committed != test.committed || (e.Issued != "") != test.committed || e.Replied != replied {
					t.Errorf("event %+v", e)
				}
				if test.grant == "" {
					if works := r.token(refresh(p.Refresh)).status == 200; works != test.oldWorks {
						t.Errorf("the presented refresh token works afterwards: %v, want %v", works, test.oldWorks)
					}
				}
				// Played once: the next answer is a good one.
				if r.token(login).must(t); r.last().Fault != "" {
					t.Errorf("played twice: %+v", r.last())
				}
			})
		})
	}
	for _, info := range Faults() {
		if !tested[info.Name] && !testedAtLogin[info.Name] {
			t.Errorf("no test for %s", info.Name)
		}
		if info.Description == "" || strings.Contains(info.Description, "\n") {
			t.Errorf("description of %s: %q", info.Name, info.Description)
		}
	}
}

// TestRefreshTokenFaults looks into the answers that say something else about
// the refresh token.
func TestRefreshTokenFaults(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for fault, want := range map[Fault]string{SameRefreshToken: p.Refresh, NoRefreshToken: "", EmptyRefreshToken: ""} {
			r.Play(fault, 1)
			a := r.token(refresh(p.Refresh))
			next := a.must(t)
			if next.Refresh != want || strings.Contains(a.body, `"refresh_token"`) != (fault != NoRefreshToken) {
				t.Errorf("%s: %s", fault, a.body)
			}
			if got := r.call(next.Access); got != 200 {
				t.Errorf("%s: access token %d, want 200", fault, got)
			}
			if e := r.last(); e.Presented == "f1.g1" {
				t.Errorf("%s: the access token is not a new generation: %+v", fault, e)
			}
		}
		if next := r.token(refresh(p.Refresh)).must(t); next.Refresh == p.Refresh {
			t.Error("no rotation afterwards")
		}
		r.Play(NoRefreshToken, 1)
		if p := r.token(login).must(t); p.Refresh != "" {
			t.Error("a login with no-refresh-token gave one")
		}
	})
}

func TestSlowTakesItsTime(t *testing.T) {
	run(t, Config{SlowFor: 20 * time.Second}, func(t *testing.T, r *rig) {
		r.Play(Slow, 1)
		start := time.Now()
		done := make(chan answer)
		go func() { done <- r.token(login) }()
		time.Sleep(19 * time.Second)
		if e := r.last(); !e.Committed || e.Replied || e.Status != 0 {
			t.Errorf("while it waits: %+v", e)
		}
		(<-done).must(t)
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("took %v, want 20s", took)
		}
	})
}

func TestHugeAndTruncated(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		r.Play(Huge, 1)
		a := r.token(login)
		if len(a.body) <= 8<<20 || strings.Index(a.body, `"access_token"`) < 1<<20 {
			t.Errorf("huge: %d bytes, tokens at %d", len(a.body), strings.Index(a.body, `"access_token"`))
		}
		p := a.must(t)
		r.Play(Truncated, 1)
		a = r.token(refresh(p.Refresh))
		_, rest, _ := strings.Cut(a.body, `"refresh_token":"`)
		token, rest, closed := strings.Cut(rest, `"`)
		if !closed || rest != `,"sco` || json.Valid([]byte(a.body)) {
			t.Fatalf("truncated: %s", a.body)
		}
		r.token(refresh(token)).must(t)
	})
}

// TestHugeAbandoned: a client that stops reading has not been answered.
func TestHugeAbandoned(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		r.Play(Huge, 1)
		resp, err := r.client.Do(post(tokenPath, login))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		time.Sleep(time.Second)
		if e := r.last(); !e.Committed || e.Replied {
			t.Errorf("event %+v", e)
		}
	})
}

func TestRedirectFollowed(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		r.Play(Redirect, 1)
		r.client.CheckRedirect = nil // a careless client
		r.token(login).refused(t, 400, "invalid_request")
		if e := r.last(); e.Kind != KindFollowed || e.Method != "POST" || e.Grant != "password" {
			t.Errorf("event %+v", e)
		}
		if n := r.TokenRequests(""); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func TestPlayOrder(t *testing.T) {
	run(t, Config{RetryAfter: "Fri, 31 Dec 9999 23:59:59 GMT"}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		expect := func(status int, request answer) {
			t.Helper()
			if request.status != status {
				t.Errorf("got %d, want %d", request.status, status)
			}
		}
		r.Play(Dead401, 1) // waits for a refresh
		r.Play(ServerError, 2)
		r.Play(Unavailable, 1)
		r.Play(HTMLForbidden, -1)
		r.Play(API500, 1) // of the API
		expect(500, r.token(login))
		expect(401, r.token(refresh(p.Refresh)))
		expect(500, r.token(login))
		expect(503, r.token(login))
		for range 3 {
			expect(403, r.token(login))
		}
		r.Play(TooManyRequests, -1) // later than html-403
		a := r.token(login)
		expect(429, a)
		if got := a.header.Get("Retry-After"); got != "Fri, 31 Dec 9999 23:59:59 GMT" {
			t.Errorf("Retry-After: %q", got)
		}
		r.Play(ServerError, 1) // before those that stand
		expect(500, r.token(login))
		r.Play(TooManyRequests, 0)
		expect(403, r.token(login))
		r.Play(Unavailable, 5)
		r.Play(Unavailable, 0)
		expect(403, r.token(login))
		r.Clear()
		expect(200, r.token(login))
		expect(200, answer{status: r.call(p.Access)}) // Clear was for api-500 too
	})
}

func TestUnknownFault(t *testing.T) {
	t.Parallel()
	if f, err := ParseFault("lost-reply"); f != LostReply || err != nil {
		t.Errorf("lost-reply: %v, %v", f, err)
	}
	_, err := ParseFault("lost")
	if err == nil || !strings.Contains(err.Error(), `"lost"`) || !strings.Contains(err.Error(), "dead-400-empty") {
		t.Errorf("unknown fault: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Play of an unknown fault did not panic")
		}
	}()
	New(Config{}).Play("lost", 1)
}

func TestControl(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	h := s.AuthorizationServer()
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, target, strings.NewReader(login.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("sandbox-client", "sandbox-secret")
		h.ServeHTTP(w, r)
		return w
	}
	for _, step := range []struct {
		method, target string
		status         int
	}{
		{"POST", "/sandbox/faults?name=503", 204},
		{"POST", tokenPath, 503},
		{"POST", tokenPath, 200},
		{"POST", "/sandbox/faults?name=5xx&times=-1", 204},
		{"POST", tokenPath, 500},
		{"POST", tokenPath, 500},
		{"POST", "/sandbox/faults?name=5xx&times=0", 204},
		{"POST", tokenPath, 200},
		{"POST", "/sandbox/faults?name=5xx&times=9", 204},
		{"POST", "/sandbox/faults?times=0", 204},
		{"POST", tokenPath, 200},
		{"POST", "/sandbox/faults?name=nonsense", 400},
		{"POST", "/sandbox/faults?name=5xx&times=x", 400},
		{"POST", "/sandbox/faults?name=5xx&times=-2", 400},
		{"POST", "/sandbox/faults", 400},
		{"GET", "/sandbox/faults?name=5xx", 405},
		{"POST", "/sandbox/events", 405},
		{"POST", tokenPath + "/", 404},
		{"POST", "/" + tokenPath, 404}, // not mended by a redirect
	} {
		if w := ask(step.method, step.target); w.Code != step.status {
			t.Errorf("%s %s: %d %s, want %d", step.method, step.target, w.Code, w.Body, step.status)
		}
	}
	w := ask(http.MethodGet, "/sandbox/events")
	var events []Event
	if err := json.Unmarshal(w.Body.Bytes(), &events); err != nil || len(events) != 6 || events[0].Fault != Unavailable || events[0].Grant != "password" {
		t.Errorf("events: %v\n%s", err, w.Body)
	}
}
