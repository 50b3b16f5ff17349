package interop

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// maxEcho is how long a body the API takes.
const maxEcho = 1 << 20

// UserField is the field of the API's answers that tells the token's user.
const UserField = "X-User"

// API serves every path to who has a live access token, and answers with the
// request's own body. Others get 401 (RFC 6750 §3).
type API struct {
	// Live asks the authorization server about an access token: who is its user,
	// and is it live.
	Live func(ctx context.Context, token string) (user string, live bool)
	// Delay is how long after a request's arrival the API looks at its token.
	// Meanwhile a refresh may have killed it. Default: 0.
	Delay time.Duration

	served, refused atomic.Int64
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		http.Error(w, "the body can't be read", http.StatusBadRequest)
		return
	}
	time.Sleep(a.Delay)
	user, live := a.look(r)
	if !live {
		a.refused.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "the access token is not live", http.StatusUnauthorized)
		return
	}
	a.served.Add(1)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(UserField, user)
	_, _ = w.Write(body)
}

func (a *API) look(r *http.Request) (user string, live bool) {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 {
		return "", false
	}
	token, ok := strings.CutPrefix(fields[0], "Bearer ")
	if !ok {
		return "", false
	}
	return a.Live(r.Context(), token)
}

// APIRequests returns how many requests the API has served and how many it has
// refused.
func (a *API) APIRequests() (served, refused int64) {
	return a.served.Load(), a.refused.Load()
}
