package caddymodule

import (
	"fmt"
	"sync"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file takes what happens to the sessions to Caddy's metrics and events.

// maxEvents wait at most; the oldest give way.
const maxEvents = 1000

// An emitter emits the events of one store's sessions, one after another, as
// the bearer app of the configuration in force. Caddy's handlers of events may
// take their time: whoever caused one doesn't wait.
type emitter struct {
	sessions *oauth.Sessions
	over     chan struct{} // closed when they end

	mu      sync.Mutex
	waiting []oauth.Event
	busy    bool
	dropped int
}

func newEmitter(of *oauth.Sessions) *emitter {
	return &emitter{sessions: of, over: make(chan struct{})}
}

// observe takes an event.
func (em *emitter) observe(e oauth.Event) {
	if e.Kind == oauth.EventTokenRequest {
		countTokenRequest(e)
		return
	}
	em.mu.Lock()
	defer em.mu.Unlock()
	if len(em.waiting) == maxEvents {
		em.waiting = em.waiting[1:]
		em.dropped++
	}
	em.waiting = append(em.waiting, e)
	if !em.busy {
		em.busy = true
		go em.emit()
	}
}

func (em *emitter) emit() {
	for {
		em.mu.Lock()
		if len(em.waiting) == 0 {
			em.waiting, em.busy = nil, false
			em.mu.Unlock()
			return
		}
		e, dropped := em.waiting[0], em.dropped
		em.waiting, em.dropped = em.waiting[1:], 0
		em.mu.Unlock()
		app := em.inForce()
		if app == nil {
			return // still busy, so that nobody begins again
		}
		if dropped > 0 {
			app.lease.log.Warn("events were dropped: a handler of events is too slow", "count", dropped)
		}
		app.emit(e)
	}
}

// inForce waits until a configuration with these sessions is: events come while
// Caddy is still starting it. It returns nil at the sessions' end, when there
// is or will be none.
func (em *emitter) inForce() *App {
	for {
		if app, err := running(); err == nil && app.shared.sessions == em.sessions && app.ctx.Err() == nil {
			return app
		}
		select {
		case <-em.over:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// emit emits an event as this app. A handler's panic must not end the server.
func (app *App) emit(e oauth.Event) {
	defer func() {
		if v := recover(); v != nil {
			app.lease.log.Error("a handler of events panicked", "event", eventName(e.Kind), "panic", fmt.Sprint(v))
		}
	}()
	if name := eventName(e.Kind); app.events.ShouldEmit(name) {
		data := eventData(e)
		if e.Kind == oauth.EventLoginRequired && app.portal != "" {
			data["portal"] = app.portal
		}
		app.events.Emit(app.ctx, name, data)
	}
}

func eventName(kind oauth.EventKind) string { return appName + "." + string(kind) }

// eventData is what handlers are told: texts, those that say nothing empty.
func eventData(e oauth.Event) map[string]any {
	data := map[string]any{
		"account": e.Key.Account, "user": e.Key.User, "state": string(e.State), "detail": e.Detail, "code": "",
	}
	if e.Err != nil {
		data["code"] = tokenProblem(e.Err, e.At).Code
	}
	switch e.Kind {
	case oauth.EventRefreshed:
		data["grant"], data["expires"] = e.Grant, e.Until.UTC().Format(time.RFC3339)
	case oauth.EventRefreshExpiring:
		data["expires"] = e.Until.UTC().Format(time.RFC3339)
	}
	return data
}
