package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"time"
)

// Log stands before an authorization server and keeps what came of the token
// requests and revocations. The zero value is ready.
type Log struct {
	mu      sync.Mutex
	events  []TokenEvent
	spent   string
	last    issued
	secrets []string
}

// TokenEvent is one request to the token endpoint or to the revocation endpoint.
type TokenEvent struct {
	At time.Time // when its answer was known
	// Grant is grant_type, as sent; Revocation for a revocation.
	Grant string
	// Presented is the SHA-256 of the refresh token or the code that was sent, or
	// of the token to revoke, in hex; empty without one.
	Presented string
	Status    int
	Code      string // error code of RFC 6749 §5.2, empty when granted
}

// Revocation is the grant of events that are revocations.
const Revocation = "revocation"

// issued is what a token response brings.
type issued struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Error        string `json:"error"`
}

// wrap returns next with the log before it. Of the requests, those to the paths
// token and revoke are logged, before anybody has the answer. A client that goes
// away doesn't undo what it caused.
func (l *Log) wrap(next http.Handler, token, revoke string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != token && r.URL.Path != revoke {
			next.ServeHTTP(w, r)
			return
		}
		sent, err := form(r)
		if err != nil {
			http.Error(w, "the form can't be read", http.StatusBadRequest)
			return
		}
		if r.URL.Path == revoke {
			sent.Set("grant_type", Revocation)
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
		l.add(sent, answer)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

func (l *Log) add(sent url.Values, answer *httptest.ResponseRecorder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := TokenEvent{At: time.Now(), Grant: sent.Get("grant_type"), Status: answer.Code}
	for _, name := range []string{"refresh_token", "code", "token"} {
		if value := sent.Get(name); value != "" {
			sum := sha256.Sum256([]byte(value))
			e.Presented = hex.EncodeToString(sum[:])
			l.secrets = append(l.secrets, value)
		}
	}
	if verifier := sent.Get("code_verifier"); verifier != "" {
		l.secrets = append(l.secrets, verifier)
	}
	var got issued
	_ = json.Unmarshal(answer.Body.Bytes(), &got) // a revocation's may be empty
	e.Code = got.Error
	if answer.Code == http.StatusOK && e.Grant != Revocation {
		l.last = got
		for _, token := range []string{got.AccessToken, got.RefreshToken, got.IDToken} {
			if token != "" {
				l.secrets = append(l.secrets, token)
			}
		}
		if e.Grant == "refresh_token" {
			l.spent = sent.Get("refresh_token")
		}
	}
	l.events = append(l.events, e)
}

// TokenEvents returns the log, oldest first.
func (l *Log) TokenEvents() []TokenEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]TokenEvent(nil), l.events...)
}

// Spent returns the refresh token that was spent last, for who plays a thief;
// empty if there was no refresh.
func (l *Log) Spent() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spent
}

// Issued returns the tokens that were issued last.
func (l *Log) Issued() (access, refresh string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.AccessToken, l.last.RefreshToken
}

// Secrets returns every token, code and verifier that went through; none of them
// belongs into anybody's log.
func (l *Log) Secrets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.secrets...)
}

// form returns the form in a request's body, and leaves the body as it was: the
// server must see the client's own bytes.
func form(r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return url.ParseQuery(string(body))
}
