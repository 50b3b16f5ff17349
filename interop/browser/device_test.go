package browser

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// A code is shown on one device and entered on another: the page sees by itself
// when it is done.
func TestDevice(t *testing.T) {
	onScreens(t, allScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "device_code")
		b, other := s.open(screen), s.open(phone)
		code := s.beginsDevice(b)
		b.look("device")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
		shown := func(r request) bool { return r.url.Path == "/bearer/device" }
		b.until("the page to load itself again", func() bool { return len(b.watch.asked(shown)) > 1 })

		// By hand, at the address that the page tells.
		b.arrives("/bearer/device", "Enter this code to sign in")
		other.visit(read[string](b, `document.querySelector(".address a").href`))
		other.arrives(devicePath, "Log in")
		other.fill("user_code", strings.ToLower(code))
		other.signsIn(user, password)
		other.arrives(devicePath, "Done")

		b.arrives("/bearer/", "Accounts") // by itself
		b.shows(http.StatusOK)
		b.says("You are signed in.", "sandbox State: Ready", "with a code, on any device")
		b.look("device-signed-in")
		calls(t, s.url(callPath), nil, http.StatusOK, "")
		s.keepsQuiet(code)
	})
}

// waitLink stops the page from loading itself, or looks whether it is done.
const waitLink = `.wait + p a`

// userCode is the form of the sandbox's codes.
var userCode = regexp.MustCompile(`\b[A-Z]{4}-[A-Z]{4}\b`)

// beginsDevice presses the button and returns the code.
func (s *sandbox) beginsDevice(b *tab) (code string) {
	s.Helper()
	b.visit(s.url("/bearer"))
	b.press(signIn)
	b.arrives("/bearer/device", "Enter this code to sign in")
	b.shows(http.StatusOK)
	if code = userCode.FindString(b.text()); code == "" {
		b.Fatalf("the page shows no code: %s", b.text())
	}
	return code
}

// The page can be kept from loading itself, and tells when it came to nothing.
func TestDeviceDenied(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "device_code")
		b, other := s.open(screen), s.open(phone)
		code := s.beginsDevice(b)
		b.press(waitLink) // stop
		b.arrives("/bearer/device", "Enter this code to sign in")
		if read[bool](b, `document.querySelector("meta[http-equiv=refresh]") !== null`) {
			t.Error("the page that stands still would load itself again")
		}
		b.says(code)
		b.look("device-still")

		other.visit(read[string](b, `document.querySelector("a.first").href`))
		other.arrives(devicePath, "Log in")
		if got := read[string](other, `document.querySelector("[name=user_code]").value`); got != code {
			t.Errorf("the code filled in is %s, want %s", got, code)
		}
		other.press(deny)
		other.arrives(devicePath, "Done")

		b.until("the server's no", func() bool {
			_, _, page := fetchURL(t, "GET", b.location(), nil)
			return bytes.Contains(page, []byte("The server did not grant access"))
		})
		b.says(code)
		b.press(waitLink)
		b.arrives("/bearer/device", "The server did not grant access")
		b.shows(http.StatusForbidden)
		b.says("Account: sandbox", "access_denied")
		b.look("device-denied")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
	})
}
