package caddymodule

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how a visitor signs in and out.

func (v *visit) login(ctx context.Context, s *oauth.Session) error {
	if !s.Account().PersonLogin() {
		switch err := s.Login(ctx); {
		case err == nil:
			return v.home("attempt_ok")
		case errors.Is(err, oauth.ErrNoLogin):
			return v.refuse("no_login")
		default:
			return v.problem("attempt_failed", s.Key(), err)
		}
	}
	if code, ok := s.Account().Grant.(*oauth.AuthorizationCode); ok && v.app.terminalLogin(code) {
		return v.problem("no_portal_login", s.Key(), nil)
	}
	l, err := s.BeginLogin(ctx, oauth.LoginStart{Browser: oauth.NewSecret(v.browser()), By: v.user})
	switch {
	case err != nil:
		return v.problem("unavailable", s.Key(), err)
	case l.Device != nil:
		return v.redirect("/device", url.Values{"login": {l.ID}})
	}
	return continuePage{portalPage: v.page, URL: l.URL}.write(v.w)
}

func (v *visit) logout(ctx context.Context, s *oauth.Session) error {
	out, err := s.Logout(ctx)
	if err != nil {
		return v.problem("logout_failed", s.Key(), nil)
	}
	v.setBrowser(v.browser())
	message := "signed_out"
	if !out.Revoked && out.Detail != "" {
		message = "signed_out_not_revoked"
	}
	return v.home(message)
}

// callback finishes a sign-in, and leads to a page whose address has no code.
func (v *visit) callback() error {
	if v.User != "" && v.user == "" {
		return v.outcome("no_user")
	}
	browser, _ := v.r.Cookie(v.cookieName())
	var bound oauth.Secret
	if browser != nil {
		bound = oauth.NewSecret(browser.Value)
	}
	l, err := v.app.shared.sessions.FinishLogin(v.r.Context(), oauth.LoginFinish{
		Query: v.r.URL.RawQuery, At: v.scheme() + "://" + v.r.Host + v.r.URL.EscapedPath(),
		Browser: bound, By: v.user, May: func(key oauth.Key) bool { return v.mine(v.user, key) },
	})
	switch {
	case err == nil:
		v.setBrowser(browser.Value) // it is there: the login is bound to it
		return v.redirect("/", url.Values{"message": {"signed_in"}})
	case errors.Is(err, oauth.ErrLoginTerminal):
		return v.refuse("terminal") // its address is what the person needs
	case l != nil:
		v.log.Warn("a login came to nothing", "account", l.Key.Account, "user", l.Key.User, "error", err)
		return v.redirect("/result", url.Values{"login": {l.ID}})
	}
	v.log.Warn("refused a callback", "error", err)
	return v.outcome(loginCode(err))
}

func (v *visit) outcome(code string) error {
	return v.redirect("/result", url.Values{"problem": {code}})
}

// result tells what came of a sign-in.
func (v *visit) result() error {
	query := v.r.URL.Query()
	if code := query.Get("problem"); slices.Contains(outcomes, code) {
		return v.refuse(code)
	}
	l, err := v.app.shared.sessions.LookUpLogin(query.Get("login"))
	switch {
	case err != nil || !l.Done || !v.mine(v.user, l.Key):
		return v.refuse("login_unknown")
	case l.Err == nil:
		return v.redirect("/", url.Values{"message": {"signed_in"}})
	}
	return v.problem(loginCode(l.Err), l.Key, l.Err)
}

// device shows a code until it was entered.
func (v *visit) device() error {
	query := v.r.URL.Query()
	l, err := v.app.shared.sessions.LookUpLogin(query.Get("login"))
	if err != nil || l.Device == nil || !v.mine(v.user, l.Key) {
		return v.refuse("login_unknown")
	}
	if l.Done && l.Err == nil {
		return v.redirect("/", url.Values{"message": {"signed_in"}})
	}
	page := devicePage{
		portalPage: v.page, Key: l.Key, Now: time.Now(), Expires: l.Expires,
		UserCode: l.Device.UserCode, VerificationURI: l.Device.VerificationURI, VerificationURIComplete: l.Device.VerificationURIComplete,
		Check: v.base + "/device?" + url.Values{"login": {l.ID}}.Encode(), Still: query.Has("still"),
	}
	switch {
	case l.Done && !page.Now.Before(l.Expires):
		page.Over = deviceExpired
	case errors.Is(l.Err, oauth.ErrLoginDenied):
		return v.problem("login_denied", l.Key, l.Err)
	case l.Done:
		page.Over, page.Reason = deviceFailed, detailOf(l.Err)
	}
	return page.write(v.w)
}

func (v *visit) problem(code string, key oauth.Key, err error) error {
	return problemPage{portalPage: v.page, Code: code, Account: key.String(), Detail: detailOf(err)}.write(v.w)
}

// detailOf is what of an error a visitor is told.
func detailOf(err error) string {
	var l *oauth.LoginError
	var f *oauth.Failure
	switch {
	case errors.As(err, &l):
		return l.Detail
	case errors.As(err, &f):
		return f.Detail
	}
	return ""
}

// loginCode is the page of why a login came to nothing.
func loginCode(err error) string {
	for code, kind := range map[string]error{
		"callback_malformed": oauth.ErrCallbackMalformed,
		"login_unknown":      oauth.ErrLoginUnknown,
		"login_foreign":      oauth.ErrLoginForeign,
		"issuer_mismatch":    oauth.ErrIssuerMismatch,
		"login_denied":       oauth.ErrLoginDenied,
		"login_changed":      oauth.ErrLoginChanged,
	} {
		if errors.Is(err, kind) {
			return code
		}
	}
	return "login_failed"
}

// outcomes are the pages that a callback leads to where no login is known.
var outcomes = []string{"callback_malformed", "login_unknown", "login_foreign", "login_failed", "no_user"}
