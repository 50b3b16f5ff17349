package sandbox

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
)

// loginCookie remembers who has logged in at this server.
const loginCookie = "sandbox_login"

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1). GET shows a
// login page, or answers at once for a browser that has logged in before; POST
// takes what the page's form sends.
func (s *Sandbox) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r, newEvent(KindAuthorize, r))
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		x.Header().Set("Allow", "GET, POST")
		errorPage(x, http.StatusMethodNotAllowed, "Use GET or POST.")
		return
	}
	ar, refused := s.readAuthorizationRequest(baseURL(r), r.URL.RawQuery)
	if ar == nil {
		x.note(func(e *Event) { e.Error = refused.code })
		errorPage(x, http.StatusBadRequest, refused.description)
		return
	}
	x.note(func(e *Event) { e.ClientID = s.settings().ClientID })
	switch {
	case refused != nil || ar.fragment:
		s.redirectBack(x, ar, "", refused)
	case r.Method == http.MethodPost:
		s.takeLogin(x, r, ar)
	default:
		s.askLogin(x, r, ar)
	}
}

// askLogin answers with the page, or without it for a session.
func (s *Sandbox) askLogin(x *exchange, r *http.Request, ar *authorizationRequest) {
	user := s.sessionUser(r)
	switch {
	case user != "" && ar.prompt != "login":
		s.redirectBack(x, ar, user, nil)
	case ar.prompt == "none": // OpenID Connect Core §3.1.2.6
		s.redirectBack(x, ar, "", &refusal{code: "login_required", description: "nobody is logged in"})
	default:
		loginPage(x, http.StatusOK, s.settings().ClientID, "")
	}
}

// takeLogin carries out what the page's form sent.
func (s *Sandbox) takeLogin(x *exchange, r *http.Request, ar *authorizationRequest) {
	form, refused := readFormBody(x, r)
	if refused != nil {
		x.note(func(e *Event) { e.Error = refused.code })
		errorPage(x, refused.status, refused.description)
		return
	}
	if form["deny"] != "" {
		s.redirectBack(x, ar, "", denied())
		return
	}
	user := form["username"]
	x.note(func(e *Event) { e.Username = s.settings().knownUser(user) })
	s.mu.Lock()
	refused = s.checkPassword(user, form["password"])
	s.mu.Unlock()
	if refused != nil {
		x.note(func(e *Event) { e.Error = refused.code })
		loginPage(x, http.StatusForbidden, s.settings().ClientID, refused.description)
		return
	}
	s.newSession(x, user)
	s.redirectBack(x, ar, user, nil)
}

func denied() *refusal {
	return &refusal{code: "access_denied", description: "the user said no"}
}

func (s *Sandbox) redirectBack(x *exchange, ar *authorizationRequest, user string, refused *refusal) {
	var outcome Event
	location := s.answer(ar, user, refused, &outcome)
	x.note(func(e *Event) { e.take(outcome) })
	x.Header().Set("Location", location)
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Referrer-Policy", "no-referrer")
	x.Header().Set("Content-Length", "0")
	x.WriteHeader(http.StatusFound)
}

// take adopts what came of an authorization.
func (e *Event) take(outcome Event) {
	e.Fault, e.Error, e.Committed = outcome.Fault, outcome.Error, outcome.Committed
	if outcome.Username != "" {
		e.Username = outcome.Username
	}
}

func (s *Sandbox) newSession(x *exchange, user string) {
	value := opaque(32)
	s.mu.Lock()
	s.sessions[sha256.Sum256([]byte(value))] = user
	s.mu.Unlock()
	http.SetCookie(x, &http.Cookie{
		Name: loginCookie, Value: value, Path: "/",
		HttpOnly: true, Secure: x.request.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
}

// sessionUser returns who has logged in with this browser; empty: nobody.
func (s *Sandbox) sessionUser(r *http.Request) string {
	cookie, err := r.Cookie(loginCookie)
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user := s.sessions[sha256.Sum256([]byte(cookie.Value))]
	if s.inactive[user] {
		return ""
	}
	return user
}

// Approve plays the person who follows authorizeURL, logs in as username and
// agrees; the user needs no password here, and no session is begun. It returns
// where the browser would be sent, which may bring an error that the request
// deserves or a fault plays. An error is what the browser would be shown in
// place of a redirect, or an unknown user.
func (s *Sandbox) Approve(authorizeURL, username string) (callbackURL string, err error) {
	s.mu.Lock()
	err = s.checkUser(username)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	return s.decide(authorizeURL, username, nil)
}

// Deny plays the person who says no; see [Sandbox.Approve].
func (s *Sandbox) Deny(authorizeURL string) (callbackURL string, err error) {
	return s.decide(authorizeURL, "", denied())
}

func (s *Sandbox) decide(authorizeURL, user string, refused *refusal) (string, error) {
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return "", fmt.Errorf("parsing the authorization request: %w", err)
	}
	if u.Host == "" || u.Path != s.provider.paths.authorize {
		return "", fmt.Errorf("the authorization request must go to a URL that ends in %s", s.provider.paths.authorize)
	}
	ar, bad := s.readAuthorizationRequest(u.Scheme+"://"+u.Host, u.RawQuery)
	if ar == nil {
		return "", fmt.Errorf("refused without a redirect: %s: %s", bad.code, bad.description)
	}
	if bad != nil {
		refused = bad
	}
	e := Event{Kind: KindAuthorize, Path: shorten(u.Path), ClientID: s.settings().ClientID, Status: http.StatusFound, Replied: true}
	location := s.answer(ar, user, refused, &e)
	s.log.add(e)
	return location, nil
}
