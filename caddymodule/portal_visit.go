package caddymodule

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A visit is one request to the portal.
type visit struct {
	*Portal
	w    http.ResponseWriter
	r    *http.Request
	path string // below the portal's
	user string
	page portalPage
}

// serve answers on the portal's own paths.
func (v *visit) serve() error {
	read := v.r.Method == http.MethodGet || v.r.Method == http.MethodHead
	switch {
	case (v.path == "" || v.path == "/") && read:
		return v.accounts()
	case v.path == "/device" && read:
		return v.device()
	case v.path == "/result" && read:
		return v.result()
	case v.path == "/login" && v.r.Method == http.MethodPost:
		return v.act(v.login)
	case v.path == "/logout" && v.r.Method == http.MethodPost:
		return v.act(v.logout)
	case v.path == "/callback":
		return v.refuse("callback_malformed")
	case v.path == "/login" || v.path == "/logout":
		v.w.Header().Set("Allow", "POST")
		return v.refuse("method_refused")
	case portalPaths[v.path]:
		v.w.Header().Set("Allow", "GET, HEAD")
		return v.refuse("method_refused")
	}
	return v.refuse("not_found")
}

func (v *visit) refuse(code string) error {
	return problemPage{portalPage: v.page, Code: code}.write(v.w)
}

// redirect sends the browser to a page of the portal.
func (v *visit) redirect(path string, query url.Values) error {
	v.w.Header().Set("Cache-Control", "no-store")
	v.w.Header().Set("Referrer-Policy", "no-referrer")
	v.w.Header().Set("Location", v.base+path+"?"+query.Encode())
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// accounts is the page of what there is.
func (v *visit) accounts() error {
	ctx, cancel := context.WithTimeout(v.r.Context(), listTimeout)
	defer cancel()
	query, sessions := v.r.URL.Query(), v.app.shared.sessions
	page := accountsPage{portalPage: v.page, CSRF: csrf(v.browser()), Message: query.Get("message"), Now: time.Now()}
	own := sessions.All()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		perUser := own[name].Account().PerUser
		if perUser && v.user != "" {
			if st, err := sessions.StatusOf(ctx, oauth.Key{Account: name, User: v.user}); err == nil {
				page.Sessions = append(page.Sessions, st)
			}
		}
		switch {
		case !v.admin(v.user):
		case perUser:
			users, err := v.users(ctx, name, query)
			if err != nil {
				return errors.Join(err, v.refuse("unavailable"))
			}
			page.Users = append(page.Users, users)
		default:
			page.Sessions = append(page.Sessions, own[name].Status())
		}
	}
	return page.write(v.w)
}

// users is what an admin sees of an account with sessions per user.
func (v *visit) users(ctx context.Context, account string, query url.Values) (accountUsers, error) {
	sessions := v.app.shared.sessions
	names, err := sessions.Users(ctx, account)
	users := accountUsers{Account: account, SignedIn: len(names)}
	if err != nil {
		return users, err
	}
	if query.Get("account") == account {
		users.Asked = query.Get("user")
	}
	if users.Asked != "" {
		if st, err := sessions.StatusOf(ctx, oauth.Key{Account: account, User: users.Asked}); err == nil {
			users.Found = &st
		}
	}
	for _, name := range names[:min(len(names), maxListed)] {
		if st, err := sessions.StatusOf(ctx, oauth.Key{Account: account, User: name}); err == nil {
			users.List = append(users.List, st)
		}
	}
	return users, nil
}

// act reads a form, checks that it is from a page of ours in this browser and
// that the visitor may act, and does it.
func (v *visit) act(do func(context.Context, *oauth.Session) error) error {
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, 16<<10)
	if err := v.r.ParseForm(); err != nil || !v.sameSite() || !v.fromOurPage() {
		return v.refuse("form_refused")
	}
	key := oauth.Key{Account: v.r.PostForm.Get("account"), User: v.r.PostForm.Get("user")}
	if !v.mine(v.user, key) {
		return v.refuse("not_allowed")
	}
	s, err := v.app.shared.sessions.Session(v.r.Context(), key)
	if err != nil {
		return v.refuse("unknown_account")
	}
	return do(v.r.Context(), s)
}

// sameSite heeds what the browser says of where a form came from. Referrer-
// Policy no-referrer makes Origin null on our own forms.
func (v *visit) sameSite() bool {
	if site := v.r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := v.r.Header.Get("Origin")
	return origin == "" || origin == "null" || origin == v.origin
}

// fromOurPage compares the form's token with that of the browser's cookie.
func (v *visit) fromOurPage() bool {
	c, err := v.r.Cookie(v.cookieName())
	return err == nil && len(c.Value) == browserLength && hmac.Equal([]byte(v.r.PostForm.Get("csrf")), []byte(csrf(c.Value)))
}

func (v *visit) login(ctx context.Context, s *oauth.Session) error {
	if !s.Account().PersonLogin() {
		switch err := s.Login(ctx); {
		case err == nil:
			return v.redirect("/", url.Values{"message": {"attempt_ok"}})
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
	message := "signed_out"
	if !out.Revoked && out.Detail != "" {
		message = "signed_out_not_revoked"
	}
	return v.redirect("/", url.Values{"message": {message}})
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
	l, err := v.app.shared.sessions.FinishLogin(v.r.Context(), v.r.URL.RawQuery, bound, v.user)
	switch {
	case err == nil:
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

// cookieName is that of the browser's cookie. With the prefix, browsers take it
// from this host over TLS only (RFC 6265bis §4.1.3).
func (p *Portal) cookieName() string {
	if strings.HasPrefix(p.origin, "https://") {
		return secureCookie
	}
	return plainCookie
}

// dropPortalCookies takes the portal's cookies off a request to the API, whose
// site may be the same. The others stay as they are.
func dropPortalCookies(h http.Header) {
	lines := h["Cookie"]
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, plainCookie) }) {
		return
	}
	var kept []string
	for _, line := range lines {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), func(pair string) bool {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			return name == plainCookie || name == secureCookie
		})
		if len(pairs) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(pairs, ";")))
		}
	}
	if h["Cookie"] = kept; len(kept) == 0 {
		delete(h, "Cookie")
	}
}

const (
	browserLength = 52
	plainCookie   = "caddy-bearer"
	secureCookie  = "__Host-caddy-bearer"
)

// browser is what tells this browser from others: the cookie's value, which is
// set if there is none.
func (v *visit) browser() string {
	if c, err := v.r.Cookie(v.cookieName()); err == nil && len(c.Value) == browserLength {
		return c.Value
	}
	value := rand.Text() + rand.Text() // 256 bits and more
	c := &http.Cookie{
		Name: v.cookieName(), Value: value, Path: "/", HttpOnly: true,
		Secure:   strings.HasPrefix(v.origin, "https://"),
		SameSite: http.SameSiteLaxMode, // the callback comes from the server's site
	}
	http.SetCookie(v.w, c)
	v.r.AddCookie(c) // the same for the rest of this visit
	return value
}

// csrf is what forms bring along: known to pages that the browser's cookie was
// sent for, and telling nothing of it.
func csrf(browser string) string {
	sum := sha256.Sum256([]byte("form " + browser))
	return hex.EncodeToString(sum[:])
}
