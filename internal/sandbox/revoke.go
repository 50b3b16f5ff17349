package sandbox

import "net/http"

// serveRevoke is the revocation endpoint (RFC 7009): a refresh token ends with
// all tokens of its login, an access token alone. A token that is unknown or
// has ended already is revoked successfully too; only Committed in the event
// tells the difference.
func (s *Sandbox) serveRevoke(w http.ResponseWriter, r *http.Request) {
	form, refused := readForm(w, r)
	if r.Method != http.MethodPost {
		refused = &refusal{http.StatusMethodNotAllowed, "invalid_request", "use POST"}
	}
	e := s.settings().clientEvent(KindRevoke, r, form)
	e.Grant, e.Username = "", ""
	x := s.begin(w, r, e)
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

func (s *Sandbox) revoke(r *http.Request, form map[string]string, x *exchange) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.config.authenticate(r, form); refused != nil {
		return refused
	}
	token := form["token"]
	if token == "" {
		return invalidRequest("token is missing")
	}
	// token_type_hint only speeds up a search (RFC 7009 §2.1); ours is quick.
	var f *family
	var generation int
	var changed bool
	if t := s.tokens.findRefresh(token); t != nil {
		f, generation = t.family, t.generation
		changed = !f.ended && !t.revoked
		f.ended = true
	} else if a := s.tokens.findAccess(token); a != nil {
		f, generation = a.family, a.generation
		changed = !f.ended && !a.revoked
		a.revoked = true
	}
	if f != nil {
		x.note(func(e *Event) {
			e.Family, e.Generation = f.name(), generation
			e.Presented, e.Committed = tokenName(f, generation), changed
		})
	}
	return nil
}
