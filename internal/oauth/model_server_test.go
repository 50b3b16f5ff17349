package oauth_test

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// This file is the model's place at the server: the oracle.

// server is the authorization server with the model at its door.
func (w *world) server(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.Header.Get("X-Life"))
		if err != nil {
			next.ServeHTTP(rw, r)
			return
		}
		w.mu.Lock()
		w.byConn[r.RemoteAddr] = origin{w.lives[n], w.policy}
		w.mu.Unlock()
		next.ServeHTTP(&overheard{ResponseWriter: rw, world: w, conn: r.RemoteAddr}, r)
	})
}

// An overheard answer tells the model which tokens are given out, before the
// client can know of them.
type overheard struct {
	http.ResponseWriter
	world *world
	conn  string
}

func (o *overheard) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o *overheard) Write(b []byte) (int, error) {
	o.world.overhear(o.conn, b)
	return o.ResponseWriter.Write(b)
}

func (w *world) overhear(conn string, b []byte) {
	events := w.sandbox.Events()
	var e sandbox.Event
	for _, e = range events {
		if e.Kind == sandbox.KindToken && e.ConnID == conn {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Grant == "refresh_token" && e.Error == "invalid_grant" && e.Fault == "" {
		w.judgeLoss(events, e)
	}
	if !e.Committed || e.Issued == "" {
		return
	}
	is := issued{e.Family, e.Generation, e.Username, e.Seq, time.Now()}
	for _, m := range inAnswer.FindAllSubmatch(b, -1) {
		in := w.access
		if string(m[1]) == "refresh_token" {
			in = w.refresh
		}
		if _, old := in[string(m[2])]; !old && len(m[2]) > 0 {
			in[string(m[2])] = is
		}
	}
}

// keeps are the faults after which the presented refresh token is good still.
var keeps = map[sandbox.Fault]bool{sandbox.SameRefreshToken: true, sandbox.NoRefreshToken: true, sandbox.EmptyRefreshToken: true}

// judgeLoss decides whether the death of a refresh token could be avoided: it
// was revoked, or the answer with its successor was lost and no grace helped.
func (w *world) judgeLoss(events []sandbox.Event, e sandbox.Event) {
	f := w.family(e.Family)
	if !e.Committed || f.gone {
		f.gone = true
		return
	}
	f.gone = true
	if w.byConn[e.ConnID].life.dead() {
		return
	}
	for _, spent := range events {
		if spent.Kind != sandbox.KindToken || spent.Family != e.Family || spent.Issued == "" || spent.Generation <= e.Generation || keeps[spent.Fault] {
			continue
		}
		by := w.byConn[spent.ConnID]
		switch {
		case w.grace == 0, by.life == nil, by.life.dead() && w.got[spent.Issued], by.policy != oauth.LostReplay, spent.Fault == sandbox.Slow, w.out != outage{}:
			return
		}
		end := spent.At.Add(w.grace)
		for _, at := range w.disturbed {
			if !at.Before(spent.At) && at.Before(end) {
				return
			}
		}
		for _, other := range events {
			if other.Seq > spent.Seq && other.Kind == sandbox.KindToken && other.Fault != "" && other.At.Before(end) {
				return
			}
		}
		w.violated("the server's grace was missed", spent, e)
		return
	}
	w.violated("a refresh token is refused that nobody has spent", e)
}
