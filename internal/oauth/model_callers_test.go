package oauth_test

import (
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is what the model makes of what callers and operators see.

// handedOut looks at a token that a caller got.
func (w *world) handedOut(l *process, tok *oauth.Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	token := bearer(tok)
	is, ok := w.access[token]
	switch {
	case !ok:
		w.violated("a token is handed out that nobody gave out")
	case is.user != w.user:
		w.violated("a token of another identity is handed out")
	case is.seq <= w.forgot:
		w.violated("a forgotten token is handed out")
	case !w.stored[token] && w.storeIsWell():
		w.violated("a token is handed out that isn't stored")
	}
	w.last = lastToken{token, l, is.at.Add(570 * time.Second)}
}

// storeIsWell reports whether what should be stored is; a request under way
// may keep that back for minutes.
func (w *world) storeIsWell() bool {
	return w.out == outage{} && time.Since(w.mended) > 10*time.Minute
}

func bearer(tok *oauth.Token) string {
	return strings.TrimPrefix(tok.Authorization()[0], "Bearer ")
}

// refusedByAPI notes a token that need not be handed out any more.
func (w *world) refusedByAPI(tok *oauth.Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rejected[bearer(tok)] = true
}

// notServed looks at a caller's failure.
func (w *world) notServed(l *process, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.operator && w.last.life == l && time.Now().Before(w.last.until) && !w.rejected[w.last.token] {
		w.violated("a live token is not served", err)
	}
}

// personNeeded looks at a session that waits for a person.
func (w *world) personNeeded(detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch k := w.belief(w.user).now; {
	case k.unsure, w.policy == oauth.LostStop && k.lost != "":
	case w.relogin:
		w.violated("a person has to log in although there is a password", detail, k)
	case !k.signedIn:
		w.violated("a person has to log in although the password was never used", detail, k)
	case k.token != "" && k.doubt < 3:
		w.violated("a person has to log in although the refresh token is good", detail, k)
	}
}

// revoked notes that all refresh tokens so far were revoked.
func (w *world) revoked() {
	events := w.sandbox.Events()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		if e.Family != "" {
			w.family(e.Family).gone = true
		}
	}
}

// forgetting notes that an operator's forget begins.
func (w *world) forgetting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.operator = lastToken{}, true
	for _, b := range w.beliefs {
		b.now.unsure = true
	}
}

// forgotten notes what came of an operator's forget, which began after so many
// events.
func (w *world) forgotten(events int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.operator = false
	for _, b := range w.beliefs {
		if b.now.unsure = true; err == nil {
			b.now = knowledge{}
		}
	}
	if err == nil {
		w.forgot = events
	}
}

// importing notes that an import begins, and returns what is known before it.
func (w *world) importing() knowledge {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.operator = lastToken{}, true
	k := &w.belief(w.user).now
	before := *k
	k.unsure = true
	return before
}

// imported notes that an import is over, which began after so many events;
// back: it changed nothing.
func (w *world) imported(before knowledge, events int, back bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.operator = lastToken{}, false
	k := &w.belief(w.user).now
	switch {
	case back:
		*k = before
	case w.refresh[k.token].seq <= events:
		k.unsure = true
	}
}

// configured notes what is configured from now on.
func (w *world) configured(user string, policy oauth.OnLostReply, relogin bool) {
	w.disturb()
	w.mu.Lock()
	defer w.mu.Unlock()
	if user != w.user {
		w.last = lastToken{}
	}
	w.tell("configured", user, policy, "relogin", relogin)
	w.user, w.policy, w.relogin, w.changedAt = user, policy, relogin, time.Now()
}

// lost reports whether the outcome of a request isn't known.
func (w *world) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.belief(w.user)
	return b.now.lost != "" || b.stored.lost != "" || b.now.unsure
}

func (w *world) setOutage(out outage) {
	w.disturb()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell("outage", out)
	w.out, w.mended = out, time.Now()
}

// latched reports whether anything was refused that is held until it changes.
func (w *world) latched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sour || len(w.refusals) > 0
}
