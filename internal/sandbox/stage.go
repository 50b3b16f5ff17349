package sandbox

import (
	"crypto/sha256"
	"net/http"
	"strconv"
)

// A Stage is how far the server has come with a token request.
type Stage string

// The stages, in their order.
const (
	Received  Stage = "received"  // it was read, and nothing done about it
	Committed Stage = "committed" // it was carried out or refused, and no byte of the answer sent
	HalfSent  Stage = "half-sent" // so is the first half of the answer's body
	Sent      Stage = "sent"      // so is the whole of it
)

// reach tells Config.Gate of a stage, and ends the request if it says so.
func (s *Sandbox) reach(x *exchange, stage Stage) {
	gate := s.settings().Gate
	if gate == nil || gate(stage, x.event.Grant) {
		return
	}
	x.cut()
	panic(http.ErrAbortHandler)
}

// sendStaged sends a successful answer as sendMembers does, with its stages.
func (s *Sandbox) sendStaged(x *exchange, m members) {
	if s.settings().Gate == nil || x.encoding.encode != nil {
		sendMembers(x, http.StatusOK, m)
		s.reach(x, Sent)
		return
	}
	body := m.encode()
	half := len(body) / 2
	h := x.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(http.StatusOK)
	send := func(part []byte, stage Stage) {
		_, _ = x.Write(part)
		_ = http.NewResponseController(x).Flush() // the exchange notes a client that has gone
		s.reach(x, stage)
	}
	send(body[:half], HalfSent)
	send(body[half:], Sent)
}

// TokenName returns the name that events have for a refresh token, or "" if
// the sandbox doesn't know it.
func (s *Sandbox) TokenName(refreshToken string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens.refresh[sha256.Sum256([]byte(refreshToken))]; t != nil {
		return tokenName(t.family, t.generation)
	}
	return ""
}
