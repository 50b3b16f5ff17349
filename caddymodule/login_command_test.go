package caddymodule

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Over SSH the address is pasted: the whole of it, or its query.
func TestLoginCommandPaste(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	for name, form := range map[string]func(string) string{
		"whole":      func(u string) string { return u + "\n" },
		"query":      func(u string) string { return mustParse(t, u).RawQuery },
		"with frame": func(u string) string { return "  " + u + "#top \r\n" },
	} {
		c := r.runCommand(loginCommand(), "erp/ada", "--paste")
		callback, err := r.sandbox.Approve(c.says("http"), "ada@sandbox")
		if err != nil {
			t.Fatal(err)
		}
		before := r.status("erp/ada").Generation
		c.types(form(callback)).ends(0, "erp/ada is logged in")
		if st := r.status("erp/ada"); st.State != oauth.StateReady || st.Generation == before {
			t.Errorf("%s: %s, generation %d after %d", name, st.State, st.Generation, before)
		}
	}
	r.runCommand(loginCommand(), "erp/ada", "--paste", "--timeout", "200ms").ends(1, "not finished within 200ms: no address was pasted in time")
	r.harmless("what can't be", func() {
		for text, want := range map[string]string{
			"": "no address was pasted", "\n": "paste the whole address", "https://proxy.example.com/\n": "malformed", "code=x&state=y\n": "no such login",
			"code=x&state=" + strings.Repeat("A", 43): "no such login",
		} {
			r.runCommand(loginCommand(), "erp/ada", "--paste").types(text).ends(1, want)
		}
	})
}

// A login that was begun in a terminal for a redirect URI on the portal: the
// page there says what to do, spends nothing, and leaves the answer to the
// terminal. Nobody else can use it.
func TestLoginCommandPasteFromPortal(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	ada.page("")
	c := r.runCommand(loginCommand(), "erp/ada", "--paste")
	callback := ada.approve(c.says("http"))
	r.harmless("the browser", func() {
		a := ada.open(callback)
		if checkHeaders(t, "terminal", a); a.StatusCode != 200 || !strings.Contains(a.text, "finished there") || strings.Contains(a.text, parameter(t, callback, "code")) {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.text)
		}
	})
	c.types(callback+"\n").ends(0, "erp/ada is logged in")
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("the token of %q", got)
	}
	r.harmless("a portal's callback in a terminal", func() {
		own := ada.approve(ada.begin("erp/ada"))
		r.runCommand(loginCommand(), "erp/ada", "--paste").types(own+"\n").ends(1, "somebody else")
		if a := ada.open(callback); a.Header.Get("Location") != "/bearer/result?problem=login_unknown" {
			t.Errorf("the spent callback: %d %v", a.StatusCode, a.Header)
		}
	})
}

// With a redirect URI on the portal, the command waits until somebody has
// logged in there.
func TestLoginCommandPortal(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada") // before: that isn't what is waited for
	c := r.runCommand(loginCommand(), "erp/ada")
	if link := c.says("http"); link != r.origin()+"/bearer" {
		t.Errorf("the portal is at %s", link)
	}
	select {
	case <-c.done:
		t.Fatal("it didn't wait")
	case <-time.After(1200 * time.Millisecond):
	}
	ada.signIn("erp/ada")
	c.ends(0, "Sign in on the portal", "erp/ada is logged in")
	r.runCommand(loginCommand(), "erp/ada", "--timeout", "100ms").ends(1, "nobody logged in on the portal in time")
}

// A code that is entered elsewhere, and a grant that needs nobody.
func TestLoginCommandDirect(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{DeviceInterval: time.Second})
	r.accounts = "account tv {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant device_code\n\t\t}\n\t\t" +
		"account robot {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant client_credentials\n\t\t}\n\t\t" +
		"account given {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant refresh_token\n\t\t}"
	r.start()
	c := r.runCommand(loginCommand(), "tv")
	line := c.says("Open this address")
	code := strings.TrimSuffix(line[strings.LastIndexByte(line, ' ')+1:], ":")
	if err := r.sandbox.ApproveDevice(code, "ada@sandbox"); err != nil {
		t.Fatal(line, err)
	}
	c.ends(0, "tv is logged in")
	c = r.runCommand(loginCommand(), "tv")
	line = c.says("Open this address")
	if err := r.sandbox.DenyDevice(strings.TrimSuffix(line[strings.LastIndexByte(line, ' ')+1:], ":")); err != nil {
		t.Fatal(err)
	}
	c.ends(1, "access_denied")
	if st := r.status("tv"); st.State != oauth.StateReady {
		t.Errorf("after a login that was denied: %s", st.State)
	}
	r.runCommand(loginCommand(), "robot").ends(0, "robot is logged in", "refresh token: none")
	r.runCommand(loginCommand(), "given").ends(1, "can't sign in by itself; give it a refresh token: caddy bearer import given")
}

// Status and logout of a user: exit codes, and both facts of a logout.
func TestLogoutCommand(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	r.runCommand(statusCommand(), "erp/ada").ends(3, "erp/ada", "login_required", "can't serve: erp/ada")
	r.runCommand(statusCommand()).ends(0, "erp/…", "users: 0")
	r.runCommand(logoutCommand(), "erp/ada").ends(0, "stays out until it is logged in", "nothing to revoke")
	ada.signIn("erp/ada")
	r.runCommand(statusCommand(), "erp/ada").ends(0, "erp/ada", "ready")
	r.runCommand(statusCommand(), "erp/ada", "--json").ends(0, `"user": "ada"`, `"state": "ready"`)
	r.runCommand(statusCommand()).ends(0, "erp/…", "users: 1")
	r.runCommand(statusCommand(), "nobody").ends(1, "nobody")
	r.runCommand(statusCommand(), "a", "b").ends(2)
	before := r.revocations()
	r.runCommand(logoutCommand(), "erp/ada").ends(0, "erp/ada has no tokens here any more", "the server has revoked them")
	if n := r.revocations() - before; n != 1 {
		t.Errorf("%d revocations", n)
	}
	r.runCommand(statusCommand(), "erp/ada").ends(3, "login_required")
	if got := ada.whose(); got != "" {
		t.Errorf("after the logout: the token of %q", got)
	}
	ada.signIn("erp/ada")
	r.sandbox.Play(sandbox.RevokeAway, 1)
	r.runCommand(logoutCommand(), "erp/ada").ends(1, "erp/ada has no tokens here any more", "has NOT revoked them", "503")
	if st := r.status("erp/ada"); st.State != oauth.StateLoginRequired || st.HasRefreshToken {
		t.Errorf("after a logout that the server didn't hear: %s", st.State)
	}
	r.runCommand(logoutCommand(), "erp").ends(1, "one session per user")
	r.runCommand(logoutCommand()).ends(2)
	if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
}

// Of an account with users, the users are shown.
func TestStatusCommandPerUser(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	r.runCommand(statusCommand(), "erp").ends(0, "users: none has logged in yet")
}

// A login that was begun at the admin endpoint without anything that binds it
// can't be finished by whoever has no cookie.
func TestLoginAdminUnbound(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant, r.auth, r.portal, r.proxy, r.sessions = "", "", "", "bearer_proxy erp "+r.api, []string{"erp"}
	r.start()
	for _, body := range []string{`{"account":"erp"}`, `{"account":"erp","browser":""}`} {
		res, err := http.Post("http://"+r.admin+"/bearer/login", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var began beganJSON
		err = json.NewDecoder(res.Body).Decode(&began)
		res.Body.Close()
		if res.StatusCode != 200 {
			continue // refused at once
		}
		if err != nil {
			t.Fatal(err)
		}
		callback, err := r.sandbox.Approve(began.URL, "alan@sandbox")
		if err != nil {
			t.Fatal(err)
		}
		r.harmless(body, func() {
			if a := r.browser("").open(callback); a.StatusCode == 303 && strings.Contains(a.Header.Get("Location"), "signed_in") {
				t.Errorf("%s: a browser without a cookie has signed in", body)
			}
		})
	}
}
