package sandbox

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// API returns the API behind the authorization server. It serves requests with
// one live access token in one Authorization header:
//
//	GET  /document/v1/documents   a page as Pagero's: items and meta
//	POST /file/v1/files           reads the body, answers id, bytes and sha256
//	     /echo, /echo/…           tells what was received, any method
//	GET  /stream/{bytes}          so many bytes
//	GET  /events                  three server-sent events, 10 ms apart
//	     /trailers                tells the request's trailers, answers with some
//	     /status/{code}           that status, 200 to 599
func (s *Sandbox) API() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := s.begin(w, r, newEvent(KindAPI, r))
		if !s.admit(x, r) {
			return
		}
		if b := s.faults.take(endpointAPI, ""); b.answer != nil {
			x.note(func(e *Event) { e.Fault = b.info.Name })
			b.answer(s, x)
			return
		}
		serveAPI(x, r)
	})
}

// serveAPI picks the route. It is no ServeMux, which would answer an unclean
// path with a redirect where a test wants to see what was sent.
func serveAPI(x *exchange, r *http.Request) {
	path := r.URL.Path
	argument := path[strings.LastIndexByte(path, '/')+1:]
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case path == "/document/v1/documents" && read:
		serveDocuments(x, r)
	case path == "/file/v1/files" && r.Method == http.MethodPost:
		serveUpload(x, r)
	case path == "/echo" || strings.HasPrefix(path, "/echo/"):
		serveEcho(x, r)
	case path == "/stream/"+argument && read:
		serveStream(x, argument)
	case path == "/events" && read:
		serveSSE(x, r)
	case path == "/trailers":
		serveTrailers(x, r)
	case path == "/status/"+argument:
		serveStatus(x, argument)
	default:
		apiError(x, http.StatusNotFound, "not_found", "no such resource or method")
	}
}

// admit checks the access token (RFC 6750 §2.1, §3) and answers if it isn't
// good. It is stricter than the RFC, where the scheme is case-insensitive.
func (s *Sandbox) admit(x *exchange, r *http.Request) bool {
	if len(r.Header.Values("Authorization")) > 1 {
		apiError(x, http.StatusBadRequest, "invalid_request", "more than one Authorization header")
		return false
	}
	if s.tokenInQuery(r) {
		apiError(x, http.StatusBadRequest, "invalid_request", "a token in the URI")
		return false
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		// Without credentials there is no error code in the challenge, §3.1.
		x.Header().Set("WWW-Authenticate", `Bearer realm="sandbox"`)
		apiError(x, http.StatusUnauthorized, "invalid_token", "no bearer token")
		return false
	}
	if !s.useAccessToken(x, token) {
		rejectAccessToken(s, x)
		return false
	}
	return true
}

// tokenInQuery also finds a token under another name than RFC 6750 gives it.
func (s *Sandbox) tokenInQuery(r *http.Request) bool {
	query := r.URL.Query()
	if query.Has("access_token") {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, values := range query {
		for _, value := range values {
			if s.tokens.findAccess(value) != nil || s.tokens.findRefresh(value) != nil {
				return true
			}
		}
	}
	return false
}

// useAccessToken says whether the token is live, and notes which one it is.
func (s *Sandbox) useAccessToken(x *exchange, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.tokens.findAccess(token)
	if a == nil {
		return false
	}
	x.note(func(e *Event) {
		e.Family, e.Generation = a.family.name(), a.generation
		e.Presented = tokenName(a.family, a.generation)
		s.tellUser(e, a.family)
	})
	x.user = a.family.user
	return a.live(time.Now())
}

func rejectAccessToken(_ *Sandbox, x *exchange) {
	x.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	apiError(x, http.StatusUnauthorized, "invalid_token", "the access token is expired, revoked or unknown")
}

// apiAnswer returns an API fault that answers without a challenge.
func apiAnswer(status int, code string) func(*Sandbox, *exchange) {
	return func(_ *Sandbox, x *exchange) { apiError(x, status, code, "played by the sandbox") }
}

func apiError(x *exchange, status int, code, description string) {
	x.note(func(e *Event) { e.Error = code })
	writeJSON(x, status, map[string]any{"error": code, "error_description": description})
}

func writeJSON(x *exchange, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // only maps, strings and numbers of our own come here
	}
	body = append(body, '\n')
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	_, _ = x.Write(body) // the exchange notes a client that has gone
}
