package sandbox

import (
	"net/http"
	"strconv"
	"time"
)

// AuthorizationServer returns the authorization server:
//
//	POST /oauth/v2/oauth-token    RFC 6749 §3.2: password, refresh_token
//	POST /oauth/v2/oauth-revoke   RFC 7009
//	GET  /sandbox/events          the log as a JSON array
//	POST /sandbox/faults?name=N&times=T
//
// The last plays a fault as [Sandbox.Play] does, once if times is absent; with
// 0 it clears the fault, or all of them if name is absent too.
func (s *Sandbox) AuthorizationServer() http.Handler {
	routes := map[string]http.HandlerFunc{
		tokenPath:         s.serveToken,
		revokePath:        s.serveRevoke,
		movedPath:         s.serveFollowed,
		"/sandbox/events": s.serveEvents,
		"/sandbox/faults": s.serveFaults,
	}
	// No ServeMux: it would mend a wrong path with a redirect.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve, ok := routes[r.URL.Path]
		if !ok {
			refuse(w, &refusal{http.StatusNotFound, "not_found", "there is nothing at this path"})
			return
		}
		serve(w, r)
	})
}

// A grantFunc carries out one grant type. It is called with s.mu held and the
// client authenticated, and fills in what it learns about the token presented.
type grantFunc func(s *Sandbox, form map[string]string, mode refreshMode, e *Event) (pair, *refusal)

var grants = map[string]grantFunc{
	"password":           (*Sandbox).grantPassword,
	"refresh_token":      (*Sandbox).grantRefresh,
	"client_credentials": (*Sandbox).grantClientCredentials,
}

func (s *Sandbox) serveToken(w http.ResponseWriter, r *http.Request) {
	form, refused := readForm(w, r)
	config := s.settings()
	e := config.clientEvent(KindToken, r, form)
	var b behaviour
	if r.Method == http.MethodPost {
		b = s.faults.take(endpointToken, e.Grant)
		e.Fault = b.info.Name
	} else {
		refused = &refusal{http.StatusMethodNotAllowed, "invalid_request", "use POST"}
	}
	x := s.begin(w, r, e)
	s.pause(config.Delay)

	if b.answer != nil {
		b.answer(s, x)
		return
	}
	var granted members
	if refused == nil {
		granted, refused = s.grant(r, form, b.mode, x)
	}
	if b.wait {
		s.pause(config.SlowFor)
	}
	if b.after != nil {
		b.after(s, x)
		return
	}
	if refused != nil {
		refuse(x, refused)
		return
	}
	if b.shape != nil {
		granted = b.shape(granted)
	}
	if b.send != nil {
		b.send(x, granted)
		return
	}
	sendJSON(x, http.StatusOK, granted.encode())
}

// grant carries out a token request and notes what came of it. From its return
// on the change is made, whether or not the client hears of it.
func (s *Sandbox) grant(r *http.Request, form map[string]string, mode refreshMode, x *exchange) (members, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var outcome Event
	p, refused := s.grantLocked(r, form, mode, &outcome)
	if refused == nil {
		outcome.Family, outcome.Generation = p.family.name(), p.generation
		outcome.Issued, outcome.Committed = tokenName(p.family, p.generation), true
	}
	// Still under the lock: whoever sees the effect finds it in the log.
	x.note(func(e *Event) {
		e.Family, e.Generation, e.Presented = outcome.Family, outcome.Generation, outcome.Presented
		e.Issued, e.Committed = outcome.Issued, outcome.Committed
	})
	if refused != nil {
		return nil, refused
	}
	return pageroMembers(p), nil
}

func (s *Sandbox) grantLocked(r *http.Request, form map[string]string, mode refreshMode, e *Event) (pair, *refusal) {
	if refused := s.config.authenticate(r, form); refused != nil {
		return pair{}, refused
	}
	kind := form["grant_type"]
	if kind == "" {
		return pair{}, invalidRequest("grant_type is missing")
	}
	grant, ok := grants[kind]
	if !ok {
		return pair{}, &refusal{http.StatusBadRequest, "unsupported_grant_type", "this grant type is not supported"}
	}
	if scope := form["scope"]; scope != "" && scope != "all" {
		return pair{}, &refusal{http.StatusBadRequest, "invalid_scope", "the only scope is all"}
	}
	return grant(s, form, mode, e)
}

// grantPassword is RFC 6749 §4.3.
func (s *Sandbox) grantPassword(form map[string]string, mode refreshMode, _ *Event) (pair, *refusal) {
	if form["username"] == "" || form["password"] == "" {
		return pair{}, invalidRequest("username or password is missing")
	}
	if form["username"] != s.config.Username {
		return pair{}, invalidGrant("wrong username or password")
	}
	if s.config.LockAfter > 0 && s.wrong >= s.config.LockAfter {
		return pair{}, invalidGrant("the user is locked")
	}
	if form["password"] != s.config.Password {
		s.wrong++
		return pair{}, invalidGrant("wrong username or password")
	}
	s.wrong = 0
	return s.issue(s.tokens.newFamily(), nil, "", mode), nil
}

// grantClientCredentials is RFC 6749 §4.4: there is no refresh token.
func (s *Sandbox) grantClientCredentials(map[string]string, refreshMode, *Event) (pair, *refusal) {
	return s.issue(s.tokens.newFamily(), nil, "", keepMute), nil
}

// grantRefresh is RFC 6749 §6, with rotation.
func (s *Sandbox) grantRefresh(form map[string]string, mode refreshMode, e *Event) (pair, *refusal) {
	token := form["refresh_token"]
	if token == "" {
		return pair{}, invalidRequest("refresh_token is missing")
	}
	t := s.tokens.findRefresh(token)
	if t == nil {
		return pair{}, invalidGrant("unknown refresh token")
	}
	e.Family, e.Generation = t.family.name(), t.generation
	e.Presented = tokenName(t.family, t.generation)
	ok, reused := t.spend(time.Now(), s.config.Grace)
	if reused {
		e.Committed = true
		return pair{}, invalidGrant("the refresh token was used before; all tokens of this login are revoked")
	}
	if !ok {
		return pair{}, invalidGrant("the refresh token is revoked")
	}
	return s.issue(t.family, t, token, mode), nil
}

func (s *Sandbox) issue(f *family, presented *refreshToken, token string, mode refreshMode) pair {
	now := time.Now()
	p := pair{mode: mode, access: pageroAccessToken(now, s.config.TokenLifetime)}
	switch mode {
	case rotate:
		p.refresh = pageroRefreshToken()
	case keepSame:
		p.refresh = token
	}
	return s.tokens.issue(f, presented, p, s.config, now)
}

// serveFollowed is what no client may reach: it shows in the log that a token
// request, with all its secrets, went after a redirect.
func (s *Sandbox) serveFollowed(w http.ResponseWriter, r *http.Request) {
	form, _ := readForm(w, r)
	x := s.begin(w, r, s.settings().clientEvent(KindFollowed, r, form))
	refuse(x, invalidRequest("a redirect of the token endpoint was followed"))
}

// refuse sends an error answer and notes its code.
func refuse(w http.ResponseWriter, refused *refusal) {
	if x, ok := w.(*exchange); ok {
		x.note(func(e *Event) { e.Error = refused.code })
	}
	switch refused.status {
	case http.StatusUnauthorized:
		if refused.code == "invalid_client" {
			w.Header().Set("WWW-Authenticate", `Basic realm="sandbox"`)
		}
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	}
	sendJSON(w, refused.status, members{
		{"error", quote(refused.code)},
		{"error_description", quote(refused.description)},
	}.encode())
}

// sendJSON sends a body of the token endpoint (RFC 6749 §5.1).
func sendJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the exchange notes a client that has gone
}
