package sandbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestEventsHoldNoSecret sends secrets in right and wrong places.
func TestEventsHoldNoSecret(t *testing.T) {
	run(t, Config{ClientSecret: "canary-1", Password: "canary-2"}, func(t *testing.T, r *rig) {
		ask := func(id, secret, pathAndQuery string, pairs ...string) answer {
			req := post(pathAndQuery, form(pairs...))
			req.SetBasicAuth(id, secret)
			return send(r.client, req)
		}
		good := []string{"grant_type", "password", "username", "sandbox-user", "password", "canary-2"}
		p := ask("sandbox-client", "canary-1", tokenPath, good...).must(t)
		ask("sandbox-client", "canary-1", tokenPath+"?password=canary-2", good...)
		ask("canary-1", "canary-2", tokenPath, "grant_type", "canary-1", "username", "canary-2")
		ask("sandbox-client", "canary-1", tokenPath, "grant_type", "refresh_token", "refresh_token", p.Refresh)
		ask("sandbox-client", "canary-1", revokePath, "token", p.Refresh)
		r.call(p.Access)
		req, _ := http.NewRequest(http.MethodGet, "http://api.test/echo?x="+p.Access, nil)
		send(r.caller, req)

		text, err := json.Marshal(r.Events())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"canary", p.Access, p.Refresh, "_1XBPWQQ_", "eyJ"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
		if e := r.Events()[2]; e.ClientID != Unknown || e.Grant != Unknown || e.Username != Unknown {
			t.Errorf("unknown names: %+v", e)
		}
	})
}

func TestEventFields(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		start := time.Now()
		time.Sleep(time.Hour)
		p := r.token(login).must(t)
		want := Event{
			Seq: 1, At: start.Add(time.Hour), Kind: KindToken, Grant: "password", ClientID: "sandbox-client",
			ClientAuth: "basic", Username: "sandbox-user", Family: "f1", Generation: 1, Issued: "f1.g1", Status: 200,
			Committed: true, Replied: true, ConnID: "pipe:1", Method: "POST", Path: tokenPath,
		}
		got := r.last()
		if !got.At.Equal(want.At) {
			t.Errorf("at %v, want %v", got.At, want.At)
		}
		if got.At = want.At; got != want {
			t.Errorf("login:\n got %+v\nwant %+v", got, want)
		}
		r.call(p.Access)
		want = Event{
			Seq: 2, At: want.At, Kind: KindAPI, Family: "f1", Generation: 1, Presented: "f1.g1", Status: 200,
			Replied: true, ConnID: "pipe:1", Method: "GET", Path: "/echo",
		}
		if got := r.last(); got != want {
			t.Errorf("call:\n got %+v\nwant %+v", got, want)
		}
		r.token(refresh(p.Refresh)).must(t)
		if got := r.last().ConnID; got != "pipe:2" {
			t.Errorf("the second connection is %s", got)
		}
	})
}

func TestEventLimit(t *testing.T) {
	t.Parallel()
	s := New(Config{EventLimit: 3})
	h := s.AuthorizationServer()
	for range 10 {
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader("grant_type=password"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	events := s.Events()
	if len(events) != 3 || events[0].Seq != 8 || events[2].Seq != 10 {
		t.Errorf("events %+v", events)
	}
	if all, password := s.TokenRequests(""), s.TokenRequests("password"); all != 10 || password != 10 {
		t.Errorf("counted %d and %d, want 10", all, password)
	}
	if n := s.TokenRequests("refresh_token"); n != 0 {
		t.Errorf("counted %d refreshes, want 0", n)
	}
	events[0].Kind = "changed"
	if s.Events()[0].Kind == "changed" {
		t.Error("Events is not a copy")
	}
}
