package interop

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ory/fosite"
)

// maxEcho is how long a body the API takes.
const maxEcho = 1 << 20

// API serves every path to who has a live access token, and answers with the
// request's own body. Others get 401 (RFC 6750 §3).
func (s *Server) API() http.Handler { return http.HandlerFunc(s.serveAPI) }

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		http.Error(w, "the body can't be read", http.StatusBadRequest)
		return
	}
	time.Sleep(s.config.APIDelay)
	if !s.live(r) {
		s.refused.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "the access token is not live", http.StatusUnauthorized)
		return
	}
	s.served.Add(1)
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(body)
}

// live asks fosite about the request's access token.
func (s *Server) live(r *http.Request) bool {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 {
		return false
	}
	token, ok := strings.CutPrefix(fields[0], "Bearer ")
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	use, _, err := s.provider.IntrospectToken(r.Context(), token, fosite.AccessToken, new(fosite.DefaultSession), ScopeAPI)
	return err == nil && use == fosite.AccessToken
}

// APIRequests returns how many requests the API has served and how many it has
// refused.
func (s *Server) APIRequests() (served, refused int64) {
	return s.served.Load(), s.refused.Load()
}
