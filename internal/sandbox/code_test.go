package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestCodeGrant(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		code := r.approve(t, "sandbox-user").Get("code")
		a := r.exchange(code)
		p := a.must(t)
		if !strings.Contains(a.body, `"scope":"","claims":"publicid","expires_in":600}`) {
			t.Errorf("answer %s", a.body)
		}
		if e := r.last(); e.Grant != "authorization_code" || e.Username != "sandbox-user" || e.Issued != "f1.g1" || !e.Committed {
			t.Errorf("event %+v", e)
		}
		p = r.token(refresh(p.Refresh)).must(t)
		if got := r.call(p.Access); got != 200 {
			t.Errorf("refreshed token: %d", got)
		}
		// The code once more: somebody has stolen it (RFC 6749 §4.1.2).
		r.exchange(code).refused(t, 400, "invalid_grant")
		if e := r.last(); e.Family != "f1" || !e.Committed {
			t.Errorf("event of the reuse %+v", e)
		}
		if got := r.call(p.Access); got != 401 {
			t.Errorf("after the reuse of the code: %d, want 401", got)
		}
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")
		if n := r.TokenRequests("authorization_code"); n != 2 {
			t.Errorf("%d requests with a code, want 2", n)
		}
	})
}

func TestCodeExpires(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		early, late := r.approve(t, "sandbox-user").Get("code"), r.approve(t, "sandbox-user").Get("code")
		time.Sleep(10*time.Minute - time.Nanosecond)
		r.exchange(early).must(t)
		time.Sleep(time.Nanosecond)
		r.exchange(late).refused(t, 400, "invalid_grant")
		time.Sleep(2 * time.Hour)
		r.approve(t, "sandbox-user")
		if n := len(r.codes.codes); n != 1 {
			t.Errorf("%d codes are kept, want the new one", n)
		}
	})
}

// TestCodeRefused: each code is presented wrongly, then rightly. Only what
// never looked at the code leaves it good.
func TestCodeRefused(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		for _, test := range []struct {
			name  string
			pairs []string
			code  string
			good  bool // afterwards
		}{
			{"no code", []string{"code", ""}, "invalid_request", true},
			{"unknown code", []string{"code", "x"}, "invalid_grant", true},
			{"no redirect URI", []string{"redirect_uri", ""}, "invalid_request", true},
			{"other redirect URI", []string{"redirect_uri", testRedirect + "/"}, "invalid_grant", false},
			{"verifier without challenge", []string{"code_verifier", strings.Repeat("v", 43)}, "invalid_grant", false},
		} {
			code := r.approve(t, "sandbox-user").Get("code")
			r.exchange(code, test.pairs...).refused(t, 400, test.code)
			if got := r.exchange(code).status == 200; got != test.good {
				t.Errorf("%s: the code is good afterwards: %v", test.name, got)
			}
		}
		code := r.approve(t, "sandbox-user").Get("code")
		r.SetInactive("sandbox-user", true)
		r.exchange(code).refused(t, 400, "invalid_grant")
	})
}

func TestPKCE(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		verifier := strings.Repeat("v", 43)
		for _, test := range []struct {
			name, challenge, method, verifier string
			good                              bool
		}{
			{"S256", s256(verifier), "S256", verifier, true},
			{"plain", verifier, "plain", verifier, true},
			{"plain by default", verifier, "", verifier, true},
			{"no verifier", s256(verifier), "S256", "", false},
			{"other verifier", s256(verifier), "S256", verifier + "v", false},
			{"challenge as verifier", s256(verifier), "S256", s256(verifier), false},
			{"short verifier", s256("short"), "S256", "short", false},
			{"S256 taken for plain", s256(verifier), "plain", verifier, false},
		} {
			code := r.approve(t, "sandbox-user", "code_challenge", test.challenge, "code_challenge_method", test.method).Get("code")
			if a := r.exchange(code, "code_verifier", test.verifier); (a.status == 200) != test.good {
				t.Errorf("%s: %d %s", test.name, a.status, a.body)
			}
			if got := r.last().Error; !test.good && got != "invalid_grant" {
				t.Errorf("%s: %s", test.name, got)
			}
		}
	})
}

func TestRequirePKCE(t *testing.T) {
	for _, c := range []Config{{RequirePKCE: true}, {Public: true}} {
		s := New(c)
		r := &rig{Sandbox: s}
		if got := r.approve(t, "sandbox-user").Get("error"); got != "invalid_request" {
			t.Errorf("without a challenge: error %q", got)
		}
		got := r.approve(t, "sandbox-user", "code_challenge", s256(strings.Repeat("v", 43)), "code_challenge_method", "S256")
		if !got.Has("code") {
			t.Errorf("with a challenge: %v", got)
		}
	}
}

// TestUsers: every token knows whose it is.
func TestUsers(t *testing.T) {
	users := map[string]string{"anna": "a-password", "bert": "b-password"}
	run(t, Config{Users: users}, func(t *testing.T, r *rig) {
		delete(users, "bert") // the sandbox has its own copy
		whose := func(access string) string {
			t.Helper()
			a := send(r.caller, apiRequest("GET", "/echo", nil, access))
			var echo struct {
				User string `json:"token_user"`
			}
			if err := json.Unmarshal([]byte(a.body), &echo); err != nil || a.status != 200 {
				t.Fatalf("echo: %d %s", a.status, a.body)
			}
			if e := r.last(); e.Username != echo.User {
				t.Errorf("event of %s: %+v", echo.User, e)
			}
			return echo.User
		}
		for _, user := range []string{"anna", "bert", "sandbox-user"} {
			p := r.exchange(r.approve(t, user).Get("code")).must(t)
			if got := whose(p.Access); got != user {
				t.Errorf("token of %s is %s's", user, got)
			}
			p = r.token(refresh(p.Refresh)).must(t)
			if e := r.last(); e.Username != user {
				t.Errorf("event of the refresh: %+v", e)
			}
			if got := whose(p.Access); got != user {
				t.Errorf("refreshed token of %s is %s's", user, got)
			}
		}
		p := r.token(form("grant_type", "password", "username", "anna", "password", "a-password")).must(t)
		if got := whose(p.Access); got != "anna" {
			t.Errorf("password login of anna: %s", got)
		}
		r.token(form("grant_type", "password", "username", "anna", "password", "b-password")).refused(t, 400, "invalid_grant")
		if got := whose(r.token(form("grant_type", "client_credentials")).must(t).Access); got != "" {
			t.Errorf("the client's own token is %s's", got)
		}
	})
}

// TestLockIsPerUser: anna's wrong passwords don't lock bert out.
func TestLockIsPerUser(t *testing.T) {
	run(t, Config{LockAfter: 1, Users: map[string]string{"anna": "a", "bert": "b"}}, func(t *testing.T, r *rig) {
		r.token(form("grant_type", "password", "username", "anna", "password", "x")).refused(t, 400, "invalid_grant")
		r.token(form("grant_type", "password", "username", "anna", "password", "a")).refused(t, 400, "invalid_grant")
		r.token(form("grant_type", "password", "username", "bert", "password", "b")).must(t)
	})
}

func TestInactiveUser(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		r.SetInactive("sandbox-user", true)
		if a := r.token(login); a.status != 400 || !strings.Contains(a.body, `"User is inactive"`) {
			t.Errorf("login: %d %s", a.status, a.body)
		}
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")
		if got := r.call(p.Access); got != 200 {
			t.Errorf("access token: %d", got)
		}
		r.SetInactive("sandbox-user", false)
		r.token(refresh(p.Refresh)).must(t)
	})
}
