package caddymodule

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A sessionView puts a session's condition into words. Without a Past nothing is
// known of the last day.
type sessionView struct {
	oauth.Status
	Past *oauth.History
}

// known is the state, or unknown if the page has no words for it.
func (s sessionView) known() oauth.State {
	if _, ok := stateTexts[s.State]; ok {
		return s.State
	}
	return oauth.StateUnknown
}

// Condition is the state in words.
func (s sessionView) Condition() stateText { return stateTexts[s.known()] }

// Means is what the condition is for who needs the account.
func (s sessionView) Means() string {
	switch {
	case s.unreadable():
		return unreadableText
	case s.ends():
		return endsText
	}
	return s.Condition().Means
}

// unreadable reports whether the store can't be read.
func (s sessionView) unreadable() bool {
	return s.known() == oauth.StateUnknown && s.Err != nil
}

// ends reports whether the token that lives is the last one: only a person can
// get another.
func (s sessionView) ends() bool {
	return s.known() == oauth.StateReady && s.personal()
}

// personal reports whether what stands in the way doesn't mend itself.
func (s sessionView) personal() bool {
	return errors.Is(s.Err, oauth.ErrLoginRequired) || errors.Is(s.Err, oauth.ErrCredentialsRejected) || errors.Is(s.Err, oauth.ErrMisconfigured)
}

// needs reports whether a person has to do something: what mends itself is not
// counted, but a store that can't be read is.
func (s sessionView) needs() bool {
	return s.Condition().Needs || s.unreadable() || s.ends()
}

// Why is the reason, as far as one is known.
func (s sessionView) Why() string {
	if s.Reason != "" {
		return s.Reason
	}
	return s.Detail
}

// Do is what to do next; empty if there is nothing.
func (s sessionView) Do() string {
	switch state := s.known(); {
	case state == oauth.StateLoginRequired, s.ends() && errors.Is(s.Err, oauth.ErrLoginRequired):
		return s.loginText()
	case state == oauth.StateRefused, s.ends():
		if b := s.Button(); b != "" {
			return refusedText + " “" + b + "” tries it at once."
		}
		return refusedText
	case s.unreadable():
		return storeText
	}
	return s.Condition().Do
}

func (s sessionView) loginText() string {
	switch s.Grant {
	case "refresh_token":
		return loginTexts["refresh_token"]
	case "authorization_code", "device_code":
		return strings.ReplaceAll(loginTexts["person"], "BUTTON", s.Button())
	}
	return strings.ReplaceAll(loginTexts["itself"], "BUTTON", s.Button())
}

// works reports whether requests get a token, or will in a moment.
func (s sessionView) works() bool { return serves(s.State) || s.State == oauth.StateRefreshing }

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
	if s.works() && !s.ends() {
		return ""
	}
	return "Try again"
}

// CanLogout reports whether there is something to end.
func (s sessionView) CanLogout() bool {
	return s.works() || s.HasRefreshToken || !s.Expires.IsZero()
}

// Way is how the account signs in.
func (s sessionView) Way() string {
	if way, ok := wayTexts[s.Grant]; ok {
		return way
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

// Life is how much of the access token's life is left, in percent.
func (s sessionView) Life(now time.Time) int { return life(s.Obtained, s.Expires, now) }

// endingSoon is when the end of a refresh token that only a person can renew is
// pointed out.
const endingSoon = 30 * 24 * time.Hour

// Ending reports whether the refresh token ends soon and a person is needed
// then.
func (s sessionView) Ending(now time.Time) bool {
	person := s.Grant == "authorization_code" || s.Grant == "device_code" || s.Grant == "refresh_token"
	return person && s.HasRefreshToken && !s.RefreshExpires.IsZero() && s.RefreshExpires.Sub(now) < endingSoon
}

// Chart is the last day.
func (s sessionView) Chart() chart {
	if s.Past == nil {
		return chart{}
	}
	return chartOf(s.Past)
}

// Latest are the last things that happened, newest first.
func (s sessionView) Latest(most int) []happeningView {
	var list []happeningView
	if s.Past == nil {
		return nil
	}
	for _, h := range slices.Backward(s.Past.Recent) {
		if len(list) == most {
			break
		}
		list = append(list, happeningView{h})
	}
	return list
}

// A happeningView puts a happening into words.
type happeningView struct{ oauth.Happening }

func (h happeningView) Word() string {
	if word, ok := happeningTexts[h.Kind]; ok {
		return word
	}
	return string(h.Kind)
}
