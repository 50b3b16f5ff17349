package caddymodule

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// What the portal's pages say, in words.

// A portalMessage tells the outcome of what the visitor has just done.
type portalMessage struct {
	Text string
	// Kind is ok or warn. What went partly wrong is an alert.
	Kind string
	// Serves: it is told only while an account serves, as the address with the
	// message may be an old one.
	Serves bool
}

// portalMessages are by the value of the query's `message`. They are fixed, as
// anybody can make a link with one.
var portalMessages = map[string]portalMessage{
	"signed_in":              {"You are signed in.", "ok", true},
	"signed_out":             {"You are signed out, and the server has been told.", "ok", false},
	"signed_out_not_revoked": {"You are signed out here, but the server was not told: tokens may be valid there until they expire.", "warn", false},
	"attempt_ok":             {"The attempt worked: the account is signed in.", "ok", true},
}

// stateText is a state as people read it. Kind is ok, warn, bad or idle.
type stateText struct {
	Word, Kind string
	// Means is what it is for who needs the account, Do what to do, where that
	// doesn't depend on more. See sessionView.
	Means, Do string
	// Needs: a person has to do something, it doesn't mend itself.
	Needs bool
}

var stateTexts = map[oauth.State]stateText{
	oauth.StateReady: {"Ready", "ok", "Requests get a token. There is nothing to do.", "", false},
	oauth.StateRefreshing: {"Getting a token", "idle", "There is no token yet; one is being asked for, and requests wait for it.",
		"Nothing: it takes a moment.", false},
	oauth.StateDegraded: {"Working, but not saved", "warn", "Requests get a token, but it can't be saved: after a restart a new sign-in may be needed.", storeText, true},
	oauth.StateAway: {"Server can't be reached", "warn", "Requests fail: there is no token, and the authorization server can't be asked for one.",
		"Nothing at first: the proxy tries again by itself. If it lasts, look at the way to the server: its name, the firewall, its certificate.", false},
	oauth.StateRefused: {"Refused by the server", "bad", "Requests fail: the server refuses the credentials or what is asked for. No further attempt is made until they change.",
		refusedText, true},
	oauth.StateLoginRequired: {"Sign-in needed", "bad", "Requests fail: only a person can get a new token.", "", true},
	oauth.StateUnknown:       {"Not known yet", "idle", "There is no token, and none has been asked for so far.", "Nothing: the first request asks for one.", false},
}

const (
	storeText      = "See to the disk of the token store; the server's log says what is wrong. As soon as it works, all goes on by itself."
	unreadableText = "Requests fail: the token store can't be read."
	endsText       = "Requests get a token, but it is the last one: when it expires, requests fail."
	refusedText    = "Correct what the reason names. A changed secret file is taken by itself, a changed Caddyfile when it is reloaded."
)

// loginTexts are what to do where a sign-in is needed, by who can do it.
var loginTexts = map[string]string{
	"person":        "Press “BUTTON”, and sign in at the server.",
	"itself":        "Press “BUTTON”: the proxy signs in once, with the credentials that are configured.",
	"refresh_token": "Import another refresh token.",
}

var wayTexts = map[string]string{
	"authorization_code": "in the browser",
	"device_code":        "with a code, on any device",
	"refresh_token":      "with a refresh token from elsewhere",
	"password":           "by itself, with a password",
	"client_credentials": "by itself, as a client",
}

var happeningTexts = map[oauth.EventKind]string{
	oauth.EventRefreshed:           "Got a token",
	oauth.EventLoginRequired:       "A sign-in was needed",
	oauth.EventCredentialsRejected: "The server refused",
	oauth.EventRefreshExpiring:     "The refresh token was about to end",
	oauth.EventDegraded:            "No new token, or it couldn't be saved",
	oauth.EventRecovered:           "Ready again",
	oauth.EventTokenRequest:        "A token was asked for",
}

// listedStates are the choices of the page, in their order.
var listedStates = []struct{ State, Word string }{
	{"", "All"}, {needsSomebody, "Needs somebody"},
	{string(oauth.StateLoginRequired), ""}, {string(oauth.StateRefused), ""}, {string(oauth.StateDegraded), ""}, {string(oauth.StateAway), ""},
	{string(oauth.StateUnknown), ""}, {string(oauth.StateRefreshing), ""}, {string(oauth.StateReady), ""},
}

// summaryText tells how many of the sessions need a person, and how many wait
// for their server.
func summaryText(all stateCounts) string {
	n, needs, away := all[""], all[needsSomebody], all[string(oauth.StateAway)]
	of := func(part int, one, many string) string {
		switch {
		case n == 1:
			return "The account " + one
		case part == 1:
			return "1 of " + humanize.Comma(int64(n)) + " accounts " + one
		case part == n:
			return "All " + humanize.Comma(int64(n)) + " accounts " + many
		}
		return humanize.Comma(int64(part)) + " of " + humanize.Comma(int64(n)) + " accounts " + many
	}
	switch {
	case n == 0:
		return ""
	case needs > 0 && away > 0:
		return of(needs, "needs", "need") + " somebody; " + humanize.Comma(int64(away)) + " can't reach the server."
	case needs > 0:
		return of(needs, "needs", "need") + " somebody."
	case away > 0:
		return of(away, "can't reach its server; it is", "can't reach their server; they are") + " tried again."
	}
	if n == 1 {
		return "Nobody is needed."
	}
	return "Nobody is needed for the " + humanize.Comma(int64(n)) + " accounts."
}

// counted is a number of things.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(int64(n)) + " " + many
}

// A portalProblem is a refusal as people read it.
type portalProblem struct {
	Status int
	// Title, what happened, what to do.
	Title, What, Do string
	RetryAfter      time.Duration // told if above 0, in seconds
}

const askOperator = "If it happens again, tell whoever looks after this proxy."

// portalProblems are the refusals by code. The first group are the outcomes of
// a callback.
var portalProblems = map[string]portalProblem{
	"callback_malformed": {Status: http.StatusBadRequest, Title: "The answer could not be read",
		What: "The address that brought you here is incomplete or contradicts itself. It was not used.",
		Do:   "Go back to the portal and sign in again. " + askOperator},
	"login_unknown": {Status: http.StatusBadRequest, Title: "This sign-in is over",
		What: "It was finished before, took too long, or was never begun here. Nothing has changed just now.",
		Do:   "Go back to the portal. If the account is ready, all is well; otherwise sign in again."},
	"login_foreign": {Status: http.StatusForbidden, Title: "This sign-in was begun elsewhere",
		What: "It was begun in another browser or by another user of this proxy, and can only be finished there. It was not taken here, so that nobody can hand you a sign-in that isn't yours.",
		Do:   "Finish it where you began it, or go back to the portal and sign in here. Cookies must be allowed for this site."},
	"issuer_mismatch": {Status: http.StatusBadRequest, Title: "The answer came from an unexpected server",
		What: "It names another issuer than the one at which this account signs in. It was not used.",
		Do:   "Don't sign in again until it is clear why: tell whoever looks after this proxy. The account's issuer line says which issuer is expected."},
	"login_denied": {Status: http.StatusForbidden, Title: "The server did not grant access",
		What: "The sign-in was cancelled, or your user there may not do this.",
		Do:   "Go back to the portal and sign in again, with a user who may. " + askOperator},
	"login_failed": {Status: http.StatusBadGateway, Title: "The sign-in could not be completed",
		What: "The server let you in, but gave the proxy no token.",
		Do:   "Go back to the portal and sign in again. If it happens again, tell whoever looks after this proxy; its log says more."},
	"login_changed": {Status: http.StatusConflict, Title: "The account was changed meanwhile",
		What: "While you were signing in, the configuration of this account changed. The answer was not used.",
		Do:   "Go back to the portal and sign in again."},
	"terminal": {Status: http.StatusOK, Title: "Almost done",
		What: "This sign-in was begun on the command line, and is finished there.",
		Do:   "Copy the whole address of this page from the browser's address bar and paste it into the terminal. Then close this page; the address works only once."},

	"no_portal_login": {Status: http.StatusBadRequest, Title: "Sign in on the command line",
		What: "The redirect URI of this account is not on this portal, so the answer can't come here.",
		Do:   "Use the command line, caddy bearer login, or set redirect_uri to a URL of the portal."},
	"no_login": {Status: http.StatusBadRequest, Title: "This account has no sign-in",
		What: "It works with a refresh token that comes from elsewhere.",
		Do:   "Give it one on the command line: caddy bearer import."},
	"attempt_failed": {Status: http.StatusBadGateway, Title: "The attempt failed",
		What: "The account got no token.",
		Do:   "Go back to the portal to see what it needs."},
	"logout_failed": {Status: http.StatusServiceUnavailable, Title: "You could not be signed out",
		What: "The token store can't be changed now.",
		Do:   "Go back to the portal and try again. " + askOperator},
	"unavailable": {Status: http.StatusServiceUnavailable, Title: "The sign-in could not be begun", RetryAfter: 30 * time.Second,
		What: "The server at which the account signs in, or the token store, is not available now.",
		Do:   "Wait a little, then go back to the portal and try again."},

	"form_refused": {Status: http.StatusForbidden, Title: "The form was not accepted",
		What: "It didn't come from a page of this portal in this browser, or the page was too old. Nothing was done.",
		Do:   "Go back to the portal and press the button again. Cookies must be allowed for this site."},
	"host_refused": {Status: http.StatusMisdirectedRequest, Title: "The portal has another name",
		What: "It answers to the name in its URL only, so that no other site can pass for it.",
		Do:   "Open the portal by the address that you were given. For the operator: the line portal of the option bearer has it."},
	"not_allowed": {Status: http.StatusForbidden, Title: "This isn't yours to use",
		What: "The session belongs to somebody else, or the account is for others.",
		Do:   "Go back to the portal to see what is yours. An operator can let you act for others with the line admins in bearer_portal."},
	"no_user": {Status: http.StatusForbidden, Title: "Nobody is signed in at the proxy",
		What: "The portal has to know who you are, and the proxy didn't say.",
		Do:   "Sign in at the proxy first. For the operator: put authentication before bearer_portal, and name the user that it sets in the line user, such as {http.auth.user.id}."},
	"unknown_account": {Status: http.StatusNotFound, Title: "No such account",
		What: "The proxy has no account of this name, or none with users of their own.",
		Do:   "Go back to the portal to see the accounts."},
	"not_found": {Status: http.StatusNotFound, Title: "No such page",
		What: "The portal has nothing at this address.",
		Do:   "Go back to the portal."},
	"method_refused": {Status: http.StatusMethodNotAllowed, Title: "Not in this way",
		What: "This address is not used with this method.",
		Do:   "Go back to the portal and use its links and buttons."},
	"internal": {Status: http.StatusInternalServerError, Title: "The portal has a fault",
		What: "The page could not be made.",
		Do:   "Go back to the portal and try again. If it happens again, tell whoever looks after this proxy; its log says more."},
}

// visible is a name as it can be shown: characters that have no shape of their
// own or turn the direction of the text are written as \u202e, so that no name
// passes for another, and at most 200 characters are shown.
func visible(s string) string {
	var b strings.Builder
	shown := 0
	for i, c := range s {
		if shown++; shown > 200 {
			b.WriteString("…")
			break
		}
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case c == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(c):
			b.WriteRune(c)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		}
	}
	return b.String()
}

// A moment is a time as pages tell it. Short leaves the day out if it is that
// of now.
type moment struct{ ISO, UTC, Short, Relative string }

// when tells a time in UTC, and how far it is from now.
func when(t, now time.Time) moment {
	t = t.UTC()
	m := moment{
		ISO: t.Format(time.RFC3339), UTC: t.Format("2 January 2006, 15:04:05 UTC"), Short: t.Format("2 January 2006, 15:04 UTC"),
		Relative: humanize.RelTime(t, now, "ago", "from now"),
	}
	if now.UTC().Format(time.DateOnly) == t.Format(time.DateOnly) {
		m.Short = t.Format("15:04:05 UTC")
	}
	return m
}
