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

// A sessionView puts a session's condition into words.
type sessionView struct{ oauth.Status }

// stateText is a state as people read it. Kind is ok, warn, bad or idle.
type stateText struct {
	Word, Kind string
	// Next is what to do when the session gives no detail.
	Next string
}

var stateTexts = map[oauth.State]stateText{
	oauth.StateReady:         {"Ready", "ok", ""},
	oauth.StateRefreshing:    {"Getting a token", "idle", "A token is being asked for. Load this page again in a moment."},
	oauth.StateDegraded:      {"Working, but not saved", "warn", "The token store can't be written. After a restart a new sign-in may be needed; the server's log says why."},
	oauth.StateAway:          {"Server can't be reached", "warn", "The proxy tries again by itself."},
	oauth.StateRefused:       {"Refused by the server", "bad", "What the configuration says about this account has to be corrected."},
	oauth.StateLoginRequired: {"Sign-in needed", "bad", "A person has to sign in."},
	oauth.StateUnknown:       {"Not known yet", "idle", "Nothing has been tried so far."},
}

// Condition is the state in words.
func (s sessionView) Condition() stateText {
	if t, ok := stateTexts[s.State]; ok {
		return t
	}
	return stateTexts[oauth.StateUnknown]
}

// Next is what to do, or why it is so.
func (s sessionView) Next() string {
	switch {
	case s.Detail == "":
		return s.Condition().Next
	case s.State == oauth.StateLoginRequired && s.Button() != "":
		return s.Reason // the button says what to do
	}
	return s.Detail
}

// serves reports whether requests get a token, or will in a moment.
func (s sessionView) serves() bool {
	return s.State == oauth.StateReady || s.State == oauth.StateDegraded || s.State == oauth.StateRefreshing
}

// Button is the caption of what gets a token: empty where there is nothing to
// press.
func (s sessionView) Button() string {
	switch s.Grant {
	case "refresh_token":
		return ""
	case "authorization_code", "device_code":
		if s.CanLogout() {
			return "Sign in again"
		}
		return "Sign in"
	}
	if s.serves() {
		return ""
	}
	return "Try again"
}

// CanLogout reports whether there is something to end.
func (s sessionView) CanLogout() bool {
	return s.serves() || s.HasRefreshToken || !s.Expires.IsZero()
}

// Way is how the account signs in.
func (s sessionView) Way() string {
	switch s.Grant {
	case "authorization_code":
		return "in the browser"
	case "device_code":
		return "with a code, on any device"
	case "refresh_token":
		return "with a refresh token from elsewhere"
	case "password":
		return "by itself, with a password"
	case "client_credentials":
		return "by itself, as a client"
	}
	return s.Grant
}

// Import is the command that gives the session a refresh token; empty unless
// it needs one. A name that a shell could take for something else is left to
// the reader.
func (s sessionView) Import() string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@/-"
	switch name := s.Key.String(); {
	case s.Grant != "refresh_token":
		return ""
	case strings.Trim(name, plain) != "" || strings.HasPrefix(name, "-"):
		return "caddy bearer import <account>"
	default:
		return "caddy bearer import " + name
	}
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

// A moment is a time as pages tell it.
type moment struct{ ISO, UTC, Relative string }

// when tells a time in UTC, and how far it is from now.
func when(t, now time.Time) moment {
	t = t.UTC()
	return moment{
		ISO: t.Format(time.RFC3339), UTC: t.Format("2 January 2006, 15:04:05 UTC"),
		Relative: humanize.RelTime(t, now, "ago", "from now"),
	}
}
