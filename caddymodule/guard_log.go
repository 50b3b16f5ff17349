package caddymodule

import (
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// This file is what the guard notes of requests.

// A seldomLog tells of a kind of event once a second at most: who causes one must
// not be able to fill the disk. Kinds are from a closed set.
type seldomLog struct {
	to *slog.Logger

	mu    sync.Mutex
	kinds map[string]*seldomKind
}

type seldomKind struct {
	told   time.Time
	untold int // since
}

const seldomPause = time.Second

// of is the logger to tell of a kind now, or nil.
func (l *seldomLog) of(kind string) *slog.Logger {
	switch untold, ok := l.due(kind, time.Now()); {
	case !ok:
		return nil
	case untold > 0:
		return l.to.With("others", untold)
	}
	return l.to
}

// due reports whether an event is told now, and how many were not since the
// last one of its kind.
func (l *seldomLog) due(kind string, now time.Time) (untold int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = map[string]*seldomKind{}
	}
	k := l.kinds[kind]
	if k == nil {
		k = new(seldomKind)
		l.kinds[kind] = k
	}
	if now.Sub(k.told) < seldomPause {
		k.untold++
		return 0, false
	}
	untold, k.untold, k.told = k.untold, 0, now
	return untold, true
}

// A passageWriter notes how a request ends.
type passageWriter struct {
	caddyhttp.ResponseWriterWrapper
	passage *passage
	status  int // 0: nothing was answered yet
}

// WriteHeader keeps caches between us and the caller from giving the answer to
// others: they would rely on the Authorization that only we send (RFC 9111
// §3.5). It filters informational answers, too, which the reverse proxy passes on
// from below the transport.
func (w *passageWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		if w.status == 0 {
			w.status = status
		}
		if status >= 200 {
			if w.Header()["Cache-Control"] == nil {
				w.Header()["Cache-Control"] = []string{"private, no-store"}
			}
			isolate(w.Header())
		}
		w.ResponseWriter.WriteHeader(status)
		return
	}
	h := w.Header()
	whole := maps.Clone(h)
	var authorization []string
	if token := w.passage.carried.Load(); token != nil { // the session's may be newer, or none
		authorization = token.Authorization()
	}
	strip(h, nil, authorization)
	w.ResponseWriter.WriteHeader(status)
	maps.Copy(h, whole)
}

// outcome is [outcomePassed], or the code of our own answer.
func (w *passageWriter) outcome() string {
	if code := w.Header().Get(errorHeader); code != "" {
		return code
	}
	return outcomePassed
}

// record counts a request and writes its audit line.
func (g *Guard) record(r *http.Request, w *passageWriter) {
	g.app.countPassage(w)
	if g.audit == nil {
		return
	}
	line := g.audit.Check(zapcore.InfoLevel, "request")
	if line == nil {
		return
	}
	account, user := w.passage.account, w.passage.user
	if s := w.passage.session; s != nil {
		account, user = s.Key().Account, s.Key().User
	}
	status, path := w.status, r.URL.EscapedPath() // in ASCII, so that nothing in it steers a terminal
	if status == 0 {
		status = http.StatusOK
	}
	line.Write(zap.String("caller", caller(r)), zap.String("account", account), zap.String("user", user),
		zap.String("method", r.Method), zap.String("host", r.Host), zap.String("path", path[:min(len(path), maxAuditPath)]),
		zap.Int("status", status), zap.String("outcome", w.outcome()))
}

// maxAuditPath is how many bytes of a path are noted.
const maxAuditPath = 1024

// caller names who has sent a request: by its key or other authentication, or
// by its address.
func caller(r *http.Request) string {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if id, _ := repl.GetString("http.auth.user.id"); id != "" {
			return id
		}
	}
	if ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "unix"
	}
	return host
}
