package browser

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A person signs an account in, goes back in the history, signs it in once more
// and out.
func TestSignIn(t *testing.T) {
	onScreens(t, allScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)

		// Whoever wants to see the API's pages is sent to the portal.
		b.visit(s.url(callPath))
		b.arrives("/bearer/", "Accounts")
		b.shows(http.StatusOK)
		b.says("sandbox State: Sign-in needed")
		b.look("accounts-sign-in-needed")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")

		b.press(signIn)
		b.arrives(authorizePath, "Log in") // by itself
		b.signsIn(user, "wrong")
		b.arrives(authorizePath, "Log in")
		b.says("wrong username or password")
		b.signsIn(user, password)
		b.arrives("/bearer/", "Accounts")
		b.shows(http.StatusOK)
		b.says("You are signed in.", "sandbox State: Ready")
		if at := b.location(); at != s.url("/bearer/?message=signed_in") {
			t.Errorf("the address bar shows %s", at)
		}
		b.look("accounts-signed-in")
		calls(t, s.url(callPath), nil, http.StatusOK, "")
		b.visit(s.url(callPath))
		if got := b.watch.status(s.url(callPath)); got != http.StatusOK || !strings.Contains(b.text(), `"items"`) {
			t.Errorf("the browser gets %d: %s", got, b.text())
		}

		goesBack(b, s)
		signsInAgain(b, s)

		b.press(signOut)
		b.arrives("/bearer/", "Accounts")
		b.shows(http.StatusOK)
		b.says("You are signed out, and the server has been told.", "sandbox State: Sign-in needed")
		b.look("accounts-signed-out")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
		b.visit(s.url(callPath))
		b.arrives("/bearer/", "Accounts")
		s.keepsQuiet(secrets(b)...)
	})
}

// secrets are the codes and states that went through the address bar.
func secrets(b *tab) (all []string) {
	for _, r := range b.watch.asked(isCallback) {
		all = append(all, r.url.Query().Get("state"))
		if code := r.url.Query().Get("code"); code != "" {
			all = append(all, code)
		}
	}
	if len(all) == 0 {
		b.Error("no callback was seen")
	}
	return all
}

func isCallback(r request) bool {
	return r.document && strings.HasSuffix(r.url.Path, "/callback")
}

// goesBack goes back to the beginning: on the way the server sends another
// answer to a sign-in that is over. That costs no token and changes nothing.
func goesBack(b *tab, s *sandbox) {
	b.Helper()
	before, callbacks := s.tokenRequests(), len(b.watch.asked(isCallback))
	logins := func(r request) bool { return r.url.Path == "/bearer/login" }
	begun := len(b.watch.asked(logins))
	var seen []string
	for b.history().CurrentIndex > 1 { // 0 is the empty tab
		b.back()
		at, err := url.Parse(b.location())
		if err != nil {
			b.Fatal(err)
		}
		if seen = append(seen, at.Path); at.Path == "/bearer/result" {
			b.shows(http.StatusBadRequest)
			b.says("This sign-in is over")
		}
	}
	if got := len(b.watch.asked(isCallback)); got != callbacks+1 {
		b.Errorf("going back over %q led to %d callbacks, want 1", seen, got-callbacks)
	}
	if got := len(b.watch.asked(logins)); got != begun {
		b.Errorf("going back over %q began %d sign-ins", seen, got-begun)
	}
	if got := s.tokenRequests(); got != before {
		b.Errorf("going back cost %d token requests", got-before)
	}
	b.visit(s.url("/bearer"))
	b.says("sandbox State: Ready")
	calls(b.T, s.url(callPath), nil, http.StatusOK, "")
}

// signsInAgain comes back at once: the server knows the person by now.
func signsInAgain(b *tab, s *sandbox) {
	b.Helper()
	before := s.tokenRequests()
	b.press(signIn)
	b.arrives("/bearer/", "Accounts")
	b.says("You are signed in.", "sandbox State: Ready")
	if got := s.tokenRequests(); got != before+1 {
		b.Errorf("another sign-in cost %d token requests, want 1", got-before)
	}
}

// The server is away when the tokens are to be revoked: the person is told.
func TestSignOutNotRevoked(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		b.visit(s.url("/bearer"))
		b.hold("http://" + s.server + "/*")
		b.press(signIn)
		b.stop(b.holds()) // it leads on by itself, and we want to see it
		b.arrives("/bearer/login", "You are being taken to "+s.server+" to sign in")
		b.shows(http.StatusOK)
		b.look("continue")
		b.press(first)
		b.arrives(authorizePath, "Log in")
		b.signsIn(user, password)
		b.arrives("/bearer/", "Accounts")

		s.play("revoke-away")
		b.press(signOut)
		b.arrives("/bearer/", "Accounts")
		b.says("You are signed out here, but the server was not told", "sandbox State: Sign-in needed")
		b.look("accounts-not-revoked")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
	})
}

// After a sign-out no page tells any more that there is a session: not from the
// browser's memory, nor by what its address says.
func TestSignOutBack(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		b.visit(s.url("/bearer"))
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.signsIn(user, password)
		b.arrives("/bearer/", "Accounts")
		b.press(signOut)
		b.arrives("/bearer/", "Accounts")
		b.back()
		b.says("sandbox State: Sign-in needed")
		if text := strings.Join(strings.Fields(b.text()), " "); strings.Contains(text, "You are signed in.") || strings.Contains(text, "State: Ready") {
			t.Errorf("after a sign-out the page before says: %s", text)
		}
	})
}
