package sandbox

import (
	"net/http"
	"strconv"
)

// AuthorizationServer returns the authorization server. These are Pagero's
// paths; [Sandbox.Endpoints] tells those of another provider:
//
//	     /oauth/v2/oauth-authorize             RFC 6749 §3.1, with a login page
//	POST /oauth/v2/oauth-token                 RFC 6749 §3.2
//	POST /oauth/v2/oauth-revoke                RFC 7009
//	POST /oauth/v2/oauth-device                RFC 8628 §3.1
//	     /oauth/v2/oauth-device-verification   where a person enters a user code
//	GET  /sandbox/events                       the log as a JSON array
//	POST /sandbox/faults?name=N&times=T
//
// The last plays a fault as [Sandbox.Play] does, once if times is absent; with
// 0 it clears the fault, or all of them if name is absent too.
func (s *Sandbox) AuthorizationServer() http.Handler {
	routes := s.routes()
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

func (s *Sandbox) routes() map[string]http.HandlerFunc {
	p := s.provider.paths
	routes := map[string]http.HandlerFunc{
		p.authorize: s.serveAuthorize,
		p.token:     s.serveToken,
		p.revoke:    s.serveRevoke,
		p.device:    s.serveDevice,
		p.verify:    s.serveVerification,
		p.session:   s.serveSession,
		p.discovery: s.serveDiscovery,
		p.jwks:      s.serveJWKS,
		movedPath:   s.serveFollowed,

		"/sandbox/events": s.serveEvents,
		"/sandbox/faults": s.serveFaults,
	}
	delete(routes, "") // the endpoints that the provider lacks
	return routes
}

func (s *Sandbox) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		s.serveProbe(w, r)
		return
	}
	form, refused := s.readToken(w, r)
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
	if s.provider.encoding != nil {
		x.encoding = s.provider.encoding(r)
	}
	s.pause(config.Delay)
	s.reach(x, Received)

	if b.answer != nil {
		b.answer(s, x)
		return
	}
	var granted members
	if refused == nil {
		granted, refused = s.grant(r, form, b, x)
	}
	s.reach(x, Committed)
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
	s.sendStaged(x, granted)
}

// serveProbe answers a GET of the token endpoint as RFC 6749 §3.2 has it: with
// a refusal, unless the server as a whole is away.
func (s *Sandbox) serveProbe(w http.ResponseWriter, r *http.Request) {
	config := s.settings()
	e := config.clientEvent(KindProbe, r, nil)
	b := s.faults.outage(endpointToken)
	e.Fault = b.info.Name
	x := s.begin(w, r, e)
	s.pause(config.Delay)
	if b.answer != nil {
		b.answer(s, x)
		return
	}
	refuse(x, &refusal{http.StatusMethodNotAllowed, "invalid_request", "use POST"})
}

// grant carries out a token request and notes what came of it. From its return
// on the change is made, whether or not the client hears of it.
func (s *Sandbox) grant(r *http.Request, form map[string]string, b behaviour, x *exchange) (members, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var outcome Event
	tr := &tokenRequest{form: form, base: baseURL(r), play: b, event: &outcome}
	p, refused := s.grantLocked(r, tr)
	if refused == nil {
		outcome.Family, outcome.Generation = p.family.name(), p.generation
		outcome.Issued, outcome.Committed = tokenName(p.family, p.generation), true
	}
	// Still under the lock: whoever sees the effect finds it in the log.
	x.note(func(e *Event) {
		e.Family, e.Generation, e.Presented = outcome.Family, outcome.Generation, outcome.Presented
		e.Issued, e.Committed = outcome.Issued, outcome.Committed
		if outcome.Username != "" {
			e.Username = outcome.Username
		}
	})
	if refused != nil {
		return nil, refused
	}
	m := s.provider.members(s.config, p)
	if p.idToken != "" {
		m = m.set("id_token", quote(p.idToken))
	}
	return m, nil
}

func (s *Sandbox) grantLocked(r *http.Request, tr *tokenRequest) (pair, *refusal) {
	if refused := s.authenticate(r, tr.form); refused != nil {
		return pair{}, refused
	}
	kind := tr.form["grant_type"]
	if kind == "" {
		return pair{}, invalidRequest("grant_type is missing")
	}
	grant, ok := grants[kind]
	if !ok || kind == deviceGrant && s.provider.paths.device == "" {
		return pair{}, &refusal{http.StatusBadRequest, "unsupported_grant_type", "this grant type is not supported"}
	}
	if refused := s.provider.checkScope(tr.form["scope"]); refused != nil {
		return pair{}, refused
	}
	return grant(s, tr)
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
	sendMembers(w, refused.status, members{
		{"error", quote(refused.code)},
		{"error_description", quote(refused.description)},
	})
}

// An encoding is how an answer's members are written. The zero value is JSON.
type encoding struct {
	media  string
	encode func(members) []byte
}

// sendMembers sends an answer in the encoding of the exchange.
func sendMembers(w http.ResponseWriter, status int, m members) {
	if x, ok := w.(*exchange); ok && x.encoding.encode != nil {
		w.Header().Set("Content-Type", x.encoding.media)
		sendJSON(w, status, x.encoding.encode(m))
		return
	}
	sendJSON(w, status, m.encode())
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
