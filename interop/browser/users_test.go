package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Two people have a session each, and an admin who looks after them.
func TestUsers(t *testing.T) {
	onScreens(t, allScreens, func(t *testing.T, screen screen) {
		o := newOffice(t)
		alan := o.open(screen, "alan")
		alan.shows(http.StatusOK)
		alan.says("mail for alan State: Sign-in needed")
		if text := alan.text(); strings.Contains(text, "archive") || strings.Contains(text, "Look up") {
			t.Errorf("alan sees what is the admin's: %s", text)
		}
		alan.look("user")
		alan.press(signIn)
		alan.arrives(authorizePath, "Log in")
		alan.signsIn(user, password)
		alan.arrives("/bearer/", "Accounts")
		alan.says("You are signed in.", "mail for alan State: Ready")
		calls(t, o.url(callPath), is("alan"), http.StatusOK, "")
		calls(t, o.url(callPath), is("grace"), http.StatusServiceUnavailable, "login_required")

		grace := o.open(screen, "grace")
		grace.says("mail for grace State: Sign-in needed")
		callback := alan.watch.asked(isCallback)[0].url.String()
		grace.visit(callback)
		grace.arrives("/bearer/result", "This sign-in is over")

		ada := o.open(screen, "ada")
		ada.says("mail for ada State: Sign-in needed", "1 user is signed in", "archive State: Sign-in needed")
		ada.look("admin")
		ada.press(`a.field`)
		ada.await("the focus on the field", `document.activeElement.name === "user"`)
		ada.arrives("/bearer", "Accounts")
		ada.fill("user", "grace")
		ada.keys("\r")
		ada.await("grace's session", `location.search.includes("user=grace")`)
		ada.arrives("/bearer", "Accounts")
		ada.look("admin-looked-up")
		ada.says("There is no session of grace yet.")
		ada.visit(o.url("/bearer"))
		ada.press(`li ` + signOut)
		ada.arrives("/bearer/", "Accounts")
		ada.says("You are signed out, and the server has been told.", "Nobody is signed in")
		calls(t, o.url(callPath), is("alan"), http.StatusServiceUnavailable, "login_required")
		alan.visit(o.url("/bearer"))
		alan.says("mail for alan State: Sign-in needed")
		o.keepsQuiet(append(secrets(alan), officePassword)...)
	})
}

// A sign-in belongs to the user who began it, also in one and the same browser;
// and somebody has to be there at all.
func TestOtherUser(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		o := newOffice(t)
		b := o.open(screen, "alan")
		b.hold(o.url("/bearer/callback*"))
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.signsIn(user, password)
		h := b.holds()
		b.stop(h)
		b.knows(o.proxy, "grace")
		b.visit(h.url.String())
		b.arrives("/bearer/result", "This sign-in was begun elsewhere")
		b.shows(http.StatusForbidden)
		b.visit(h.url.String() + "&nobody=1")
		b.arrives("/bearer/result", "Nobody is signed in at the proxy")
		b.shows(http.StatusForbidden)
		b.visit(o.url("/bearer?nobody=1"))
		b.arrives("/bearer", "Nobody is signed in at the proxy")
		b.shows(http.StatusForbidden)
		b.look("no-user")

		b.knows(o.proxy, "alan")
		b.visit(h.url.String())
		b.arrives("/bearer/", "Accounts")
		b.says("You are signed in.", "mail for alan State: Ready")
	})
}

// 16 sign-ins of a user may wait; the first of 17 is over, as one that took too
// long.
func TestExpired(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		o := newOffice(t)
		b := o.open(screen, "alan")
		b.hold(o.url("/bearer/callback*"))
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.signsIn(user, password)
		h := b.holds()
		b.stop(h)
		o.begins("alan", 16)
		b.visit(h.url.String())
		b.arrives("/bearer/result", "This sign-in is over")
		b.shows(http.StatusBadRequest)
		calls(t, o.url(callPath), is("alan"), http.StatusServiceUnavailable, "login_required")
		if n := o.sandbox.tokenRequests(); n != 0 {
			t.Errorf("there are %d token requests", n)
		}
	})
}

// The authorization server can't be reached.
func TestAway(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		o := newOffice(t)
		b := o.open(screen, "ada")
		for _, tt := range []struct {
			account, heading string
			status           int64
		}{
			{"away", "The attempt failed", http.StatusBadGateway},
			{"screenless", "The sign-in could not be begun", http.StatusServiceUnavailable},
		} {
			b.visit(o.url("/bearer"))
			b.press(fmt.Sprintf(`form[action$="/login"]:has([name=account][value=%s]) button`, tt.account))
			b.arrives("/bearer/login", tt.heading)
			b.shows(tt.status)
			b.says("Account: " + tt.account)
			b.look("problem-" + tt.account)
		}
		calls(t, o.url("/away/"), is("grace"), http.StatusServiceUnavailable, "authorization_server_unavailable")
		b.visit(o.url("/bearer"))
		b.says("away State: Server can't be reached")
		b.look("accounts-away")
	})
}
