package oauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The tests whose names begin with TestF are the rows of the fault matrix, one
// each. They log what was measured in one line: the row, the severity, the
// figure. 0 is nothing visible, 1 a short delay, 2 an automatic login, 3 a
// person is needed.

// measured is the line of a row.
func measured(t *testing.T, row, severity int, figure string, args ...any) {
	t.Helper()
	if t.Failed() {
		figure, args = "not what is expected, see the errors", nil
	}
	t.Logf("F%02d: severity %d; %s", row, severity, fmt.Sprintf(figure, args...))
}

// An application calls the API all the time, as the one behind the proxy does,
// and takes note of what it notices.
type application struct {
	r    *rig
	s    *oauth.Session
	stop chan struct{}
	gone sync.WaitGroup

	logins int // by password, before it began

	// After end: how many calls there were, how many got no token or were
	// refused, the longest wait for a token, and whether only a person helps.
	calls, failed int
	longest       time.Duration
	person        bool
}

// inUse starts an application that calls twice a second. The session has
// a token already.
func (r *rig) inUse(s *oauth.Session) *application {
	r.Helper()
	r.token(s)
	a := &application{r: r, s: s, stop: make(chan struct{}), logins: r.sandbox.TokenRequests("password")}
	a.gone.Go(func() {
		for {
			a.call()
			select {
			case <-a.stop:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	})
	return a
}

// call is one request, sent once more if the API refuses the token.
func (a *application) call() {
	a.calls++
	begin := time.Now()
	tok, err := a.s.Token(a.r.Context())
	if err == nil && a.r.call(tok) != 200 {
		a.s.Reject(tok, false)
		if tok, err = a.s.Token(a.r.Context()); err == nil && a.r.call(tok) != 200 {
			err = errors.New("refused")
		}
	}
	a.longest = max(a.longest, time.Since(begin))
	if err != nil {
		a.failed++
		a.person = a.person || errors.Is(err, oauth.ErrLoginRequired) || errors.Is(err, oauth.ErrCredentialsRejected) || errors.Is(err, oauth.ErrMisconfigured)
	}
}

// end stops the application and returns the severity of what it went through.
func (a *application) end() int {
	close(a.stop)
	a.gone.Wait()
	switch {
	case a.person:
		return 3
	case a.r.sandbox.TokenRequests("password") > a.logins:
		return 2
	case a.failed > 0, a.longest > 0:
		return 1
	}
	return 0
}

// String is the part of a figure that every row has.
func (a *application) String() string {
	return fmt.Sprintf("%d of %d calls failed, longest wait %v", a.failed, a.calls, a.longest.Round(time.Millisecond))
}

// A gate is what stands between the sessions and the server.
type gate struct {
	answered atomic.Int32 // how many requests it answered

	mu    sync.Mutex
	names map[string]string // of refresh tokens by value
	seen  []string
}

// between puts a gate before the server: it answers a token request, or
// returns false and leaves it to the server. Call it before account.
func (r *rig) between(answer func(w http.ResponseWriter, req *http.Request) bool) *gate {
	g := &gate{names: map[string]string{}}
	network, next := sandbox.Pipe(), r.sandbox.AuthorizationServer()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		g.note(req)
		if answer(w, req) {
			g.answered.Add(1)
			return
		}
		next.ServeHTTP(w, req)
	})}
	go func() { _ = server.Serve(network) }()
	r.dial = func() *http.Transport {
		tr := oauth.NewTransport(nil, nil, nil)
		tr.DialContext = network.DialContext
		return tr
	}
	r.Cleanup(func() {
		_ = server.Close()
		_ = network.Close()
	})
	return g
}

// note remembers which refresh token a request brings, whatever becomes of it.
func (g *gate) note(req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	token := form.Get("refresh_token")
	if token == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.names[token] == "" {
		g.names[token] = string(rune('A' + len(g.names)))
	}
	g.seen = append(g.seen, g.names[token])
}

// tokens names the refresh tokens that were sent, in order: A is the first one,
// B the first other one.
func (g *gate) tokens() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.seen, "")
}

// times answers the next n requests that begin is called for; a negative
// number all.
type times struct{ left atomic.Int32 }

func (n *times) set(left int32) { n.left.Store(left) }

func (n *times) take() bool {
	for {
		left := n.left.Load()
		if left == 0 {
			return false
		}
		if left < 0 || n.left.CompareAndSwap(left, left-1) {
			return true
		}
	}
}

// presented names the refresh tokens that were presented, in order.
func (r *rig) presented() []string {
	var names []string
	for _, e := range r.tokenEvents("refresh_token") {
		names = append(names, e.Presented)
	}
	return names
}

// spent checks which refresh tokens were presented, in order.
func (r *rig) spent(want ...string) {
	r.Helper()
	if got := r.presented(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.Errorf("the refresh tokens %v were presented, want %v", got, want)
	}
}

// life is the time in which a token of the sandbox is refreshed once, and the
// application has used its successor.
const life = 600 * time.Second

// A journal is what a session logs.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// logged keeps what the sessions log from now on. Call it before start.
func (r *rig) logged() *journal {
	j := new(journal)
	r.log = slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return j
}
