package caddymodule

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What an authorization server (or somebody in its name) writes into an error
// is in no page, header or log (RFC 6749 §10.14).
func TestPortalHostileError(t *testing.T) {
	var log string
	s := newScene(t, sandbox.Config{}, func(r *portalRig) { log, r.site = r.logFile(), "log" })
	if err := os.Setenv("CANARY", "canary-of-the-environment"); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv("CANARY")
	seen := map[string]string{}
	see := func(what, callback string) {
		t.Helper()
		s.harmless(what, func() {
			a := s.ada.open(callback)
			location := s.ada.redirected(a)
			page := s.ada.open(location)
			auditPage(t, readPage(t, page.text))
			if code := page.Header.Get(errorHeader); code != "login_denied" {
				t.Errorf("%s: %s", what, code)
			}
			seen[what] = fmt.Sprint(a.Header, a.text, page.Header, page.text)
			seen[what+", accounts"] = s.ada.open("/bearer").text
		})
	}
	s.sandbox.Play(sandbox.HostileDescription, 1)
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	see("the sandbox's", changed(t, callback, "error_description", parameter(t, callback, "error_description")[:4000])) // all of it is more than Caddy takes
	for _, evil := range []string{
		"<script>alert(1)</script>", "canary {env.CANARY} {http.auth.user.id} {{.CSRF}}", "a\r\nSet-Cookie: forged=1", "\x1b[2J\u202e\x00", "canary/", "access_denied\x00canary", "canary\"level\":\"error",
		strings.Repeat("canary", 400),
	} {
		state := parameter(t, s.ada.begin("erp/ada"), "state")
		iss := s.sandbox.Endpoints(s.servers.AuthorizationServerURL).Issuer
		q := url.Values{"state": {state}, "iss": {iss}, "error": {evil}, "error_description": {evil}, "error_uri": {"https://canary.example/" + evil}, "session_state": {evil}, "canary": {evil}}
		see(evil, "/bearer/callback?"+q.Encode())
	}
	s.unharmed()
	s.stop()
	seen["log"] = read(t, log)
	s.reload() // for the end of the rig
	if !contains(seen["log"], "a login came to nothing", "handled request") {
		t.Error("the log is silent")
	}
	for place, text := range seen {
		for _, part := range []string{"canary", "<script", "forged", "\u202e", "\x1b", "u001b[", "alert(", "right to left", "onerror", "{env."} {
			if strings.Contains(text, part) {
				t.Errorf("%.40q: %q is in what was answered or logged", place, part)
			}
		}
	}
}

// An id_token that isn't for this login ends it: what the server gave is
// revoked, and the session is as it was (OIDC Core §3.1.3.7).
func TestPortalIDToken(t *testing.T) {
	s := newScene(t, sandbox.Config{}, func(r *portalRig) { r.account = "scope openid" })
	for _, fault := range []sandbox.Fault{sandbox.WrongNonce, sandbox.WrongAudience, sandbox.WrongIssuer, sandbox.ExpiredIDToken, sandbox.NoIDToken} {
		callback := s.ada.approve(s.ada.begin("erp/ada"))
		before, revoked := s.status("erp/ada"), s.revocations()
		s.sandbox.Play(fault, 1)
		if came := s.ada.finish(callback); came != "login_failed" {
			t.Errorf("%s: %s", fault, came)
		}
		if now := s.status("erp/ada"); now.Generation != before.Generation || now.State != oauth.StateReady || s.revocations() != revoked+1 {
			t.Errorf("%s: the session is %s, generation %d after %d; %d revocations", fault, now.State, now.Generation, before.Generation, s.revocations()-revoked)
		}
	}
	s.unharmed()
}

// revocations counts those that ended something.
func (r *portalRig) revocations() (n int) {
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindRevoke && e.Committed {
			n++
		}
	}
	return n
}

// What a server does to its callbacks, as the sandbox plays it.
func TestPortalCallbackFaults(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	for fault, want := range map[sandbox.Fault]string{
		sandbox.AccessDenied: "login_denied", sandbox.WrongIss: "issuer_mismatch", sandbox.NoIss: "issuer_mismatch", sandbox.EmptyIss: "issuer_mismatch",
		sandbox.CodeAndError: "callback_malformed", sandbox.RepeatedCode: "callback_malformed", sandbox.RepeatedState: "callback_malformed",
		sandbox.WrongState: "login_unknown",
	} {
		link := s.ada.begin("erp/ada")
		s.sandbox.Play(fault, 1)
		callback := s.ada.approve(link)
		s.harmless(string(fault), func() {
			if came := s.ada.finish(callback); came != want {
				t.Errorf("%s: %s, want %s", fault, came, want)
			}
		})
	}
	s.unharmed()
}

// A server that refuses the challenge refuses the login: the next request has
// one again (RFC 7636 §7.2).
func TestPortalNoFallBack(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	for range 3 {
		link := s.ada.begin("erp/ada")
		if parameter(t, link, "code_challenge_method") != "S256" || parameter(t, link, "code_challenge") == "" {
			t.Errorf("without a challenge: %s", link)
		}
		callback := changed(t, s.ada.approve(link), "code", "", "error", "invalid_request")
		if came := s.ada.finish(callback); came != "login_denied" {
			t.Error(came)
		}
	}
	s.unharmed()
}

// Pagero's issuer isn't published: the first login pins it, for all users as
// soon as a second one brings the same, over restarts.
func TestPortalPinnedIssuer(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.pinned = true
	r.start()
	ada, alan := r.browser("ada"), r.browser("alan")
	// A login that comes to nothing pins nothing.
	evil := ada.approve(ada.begin("erp/ada"))
	if came := ada.finish(changed(t, evil, "code", "x", "iss", "https://evil.example")); came != "login_failed" {
		t.Errorf("a first login with a code of nobody's: %s", came)
	}
	ada.signIn("erp/ada")
	alan.signIn("erp/alan")
	for range 2 {
		for _, iss := range []string{"https://evil.example", ""} {
			callback := alan.approve(alan.begin("erp/alan"))
			r.harmless("iss "+iss, func() {
				if came := alan.finish(changed(t, callback, "iss", iss)); came != "issuer_mismatch" {
					t.Errorf("iss %q: %s", iss, came)
				}
			})
		}
		r.restart()
	}
	alan.signIn("erp/alan")
}
