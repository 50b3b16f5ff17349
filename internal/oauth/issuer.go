package oauth

import (
	"context"
	"errors"
	"slices"
)

// This file is how the iss of a callback is checked (RFC 9207).

// A pin is the iss that the first login at an authorization endpoint brought;
// nil if it brought none. A callback passes through the browser of who logs in,
// so that one user of many could pin what they like: their pin holds for
// themselves alone until another user brings the same.
type pin struct {
	AuthorizeEndpoint string  `json:"authorize_endpoint"`
	Iss               *string `json:"iss"`
	User              string  `json:"user,omitempty"`
	Firm              bool    `json:"firm"` // it holds for everybody
}

func (p pin) equals(iss *string) bool {
	return p.Iss == nil && iss == nil || p.Iss != nil && iss != nil && *p.Iss == *iss
}

// ErrIssuerMismatch: the iss of a callback isn't that of the account's
// authorization server: another server may have sent it (RFC 9207).
var ErrIssuerMismatch = errors.New("the callback names another authorization server")

// checkIss compares the iss of a callback, nil if there is none (RFC 9207
// §2.4). A pin that isn't there yet is set by [server.pin].
func (sv *server) checkIss(ctx context.Context, c *Client, user string, iss *string) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if err := sv.load(ctx); err != nil {
		return &LoginError{ErrLoginFailed, err.Error()}
	}
	return sv.judgeIss(c, user, iss)
}

// judgeIss decides by what is known. Call it with mu.
func (sv *server) judgeIss(c *Client, user string, iss *string) error {
	want, must := c.Issuer, c.Issuer != ""
	switch {
	case c.Discover:
		must = c.NeedsIss || sv.known.Metadata != nil && sv.known.Metadata.SendsIss
	case c.Issuer == "" && c.PinIssuer:
		p, ok := sv.pinOf(c)
		if !ok || !p.Firm && p.User != user {
			return nil
		}
		if must = p.Iss != nil; must {
			want = *p.Iss
		}
	}
	return issError(iss, want, must)
}

// issError decides: want is the issuer, empty if none is known; must, that an
// iss has to be there.
func issError(iss *string, want string, must bool) error {
	switch {
	case iss == nil && must:
		return &LoginError{ErrIssuerMismatch, "the callback has no iss, but this server sends one (RFC 9207)"}
	case iss == nil, want != "" && *iss == want:
		return nil
	case want == "":
		return &LoginError{ErrIssuerMismatch, "the callback has an iss, but none is expected; if it is right, add the line `issuer " + shown(*iss) + "` to the account"}
	}
	return &LoginError{ErrIssuerMismatch, "the callback's iss is " + shown(*iss) + ", not " + shown(want) + "; if it is right, set `issuer` in the account"}
}

func (sv *server) pinOf(c *Client) (pin, bool) {
	i := slices.IndexFunc(sv.known.Pins, func(p pin) bool { return p.AuthorizeEndpoint == c.AuthorizeEndpoint })
	if i < 0 {
		return pin{}, false
	}
	return sv.known.Pins[i], true
}

// pin keeps the iss of a login that succeeded, if it is the first; otherwise
// it is checked once more: two may have been the first at a time.
func (sv *server) pin(ctx context.Context, c *Client, user string, iss *string) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if err := sv.judgeIss(c, user, iss); err != nil || !c.PinIssuer || c.Issuer != "" {
		return err
	}
	former, ok := sv.pinOf(c)
	if ok && (former.Firm || former.User == user) {
		return nil
	}
	mine := pin{AuthorizeEndpoint: c.AuthorizeEndpoint, Iss: iss, User: user, Firm: user == "" || ok && former.equals(iss)}
	sv.known.Pins = append(slices.DeleteFunc(sv.known.Pins, func(p pin) bool { return p.AuthorizeEndpoint == c.AuthorizeEndpoint }), mine)
	sv.save(ctx)
	text := "none"
	if iss != nil {
		text = shown(*iss)
	}
	log := sv.sessions.log.Load().With("account", sv.key.User, "user", user, "iss", text)
	if ok && !mine.Firm {
		log.Warn("another iss than that of the first login; set `issuer` in the account to say which is right")
	} else {
		log.Info("later logins must bring the same iss", "for_all", mine.Firm)
	}
	return nil
}
