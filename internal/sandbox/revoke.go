package sandbox

import (
	"net/http"
	"strings"
	"time"
)

// serveRevoke is the revocation endpoint (RFC 7009): a refresh token ends with
// all tokens of its login, an access token alone unless the provider ends both.
// A token that is unknown or has ended already is revoked successfully too;
// only Committed in the event tells the difference.
func (s *Sandbox) serveRevoke(w http.ResponseWriter, r *http.Request) {
	form, refused := readForm(w, r)
	if r.Method != http.MethodPost {
		refused = methodRefused("use POST")
	}
	e := s.settings().clientEvent(KindRevoke, r, form)
	e.Grant, e.Username = "", ""
	b := s.faults.take(endpointRevoke, "")
	e.Fault = b.info.Name
	x := s.begin(w, r, e)
	if s.provider.encoding != nil {
		x.encoding = s.provider.encoding(r)
	}
	if b.answer != nil {
		b.answer(s, x)
		return
	}
	if refused == nil {
		refused = s.revoke(r, form, x)
	}
	if refused != nil {
		refuse(x, refused)
		return
	}
	x.Header().Set("Cache-Control", "no-store")
	x.WriteHeader(http.StatusOK)
}

func methodRefused(description string) *refusal {
	return &refusal{http.StatusMethodNotAllowed, "invalid_request", description}
}

func (s *Sandbox) revoke(r *http.Request, form map[string]string, x *exchange) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.authenticate(r, form); refused != nil {
		return refused
	}
	token := form["token"]
	if token == "" {
		return invalidRequest("token is missing")
	}
	// token_type_hint only speeds up a search (RFC 7009 §2.1); ours is quick.
	if t := s.tokens.findRefresh(token); t != nil {
		x.noteRevoked(t.family, t.generation, !t.family.ended && !t.revoked)
		t.family.ended = true
	} else if a := s.tokens.findAccess(token); a != nil {
		x.noteRevoked(a.family, a.generation, !a.family.ended && !a.revoked)
		a.revoked = true
		if s.provider.revokesPair {
			a.family.ended = true
		}
	}
	return nil
}

func (x *exchange) noteRevoked(f *family, generation int, changed bool) {
	x.note(func(e *Event) {
		e.Family, e.Generation = f.name(), generation
		e.Presented, e.Committed = tokenName(f, generation), changed
	})
}

// serveSession is Aidbox's DELETE /Session: it ends the login of the access
// token that the request brings, and needs no client.
func (s *Sandbox) serveSession(w http.ResponseWriter, r *http.Request) {
	e := newEvent(KindRevoke, r)
	b := s.faults.take(endpointRevoke, "")
	e.Fault = b.info.Name
	x := s.begin(w, r, e)
	if r.Method != http.MethodDelete {
		x.Header().Set("Allow", http.MethodDelete)
		apiError(x, http.StatusMethodNotAllowed, "invalid_request", "use DELETE")
		return
	}
	if b.answer != nil {
		b.answer(s, x)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(r.Header.Values("Authorization")) > 1 || r.URL.RawQuery != "" || !s.endSession(x, token) {
		rejectAccessToken(s, x)
		return
	}
	x.WriteHeader(http.StatusNoContent)
}

func (s *Sandbox) endSession(x *exchange, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.tokens.findAccess(token)
	if a == nil {
		return false
	}
	live := a.live(time.Now())
	x.noteRevoked(a.family, a.generation, live)
	if live {
		a.family.ended = true
	}
	return live
}
