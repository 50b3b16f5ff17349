package oauth_test

import (
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is what the model makes of what the client stores and sends.

// saving notes what a life wants to store. Of a broken answer only this tells
// what the client could keep.
func (w *world) saving(l *process, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rs, err := decodeStored(value)
	if err != nil {
		w.violated("what is saved can't be decoded", err)
	}
	for _, r := range rs {
		b := w.belief(r.Fingerprint.Username)
		old, now := w.refresh[b.now.token], w.refresh[r.RefreshToken]
		if now.seq > old.seq && !l.dead() {
			b.now.token, b.now.lost, b.now.signedIn = r.RefreshToken, r.lost(), r.SignedIn
			if r.Latch == nil {
				w.letGo(r.Fingerprint.Username, true)
			}
		}
	}
}

// saved notes what became durable.
func (w *world) saved(value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rs, _ := decodeStored(value)
	for _, r := range rs {
		k := knowledge{token: r.RefreshToken, lost: r.lost(), signedIn: r.SignedIn}
		if r.Doubt != nil {
			k.doubt = r.Doubt.Count
		}
		user := r.Fingerprint.Username
		b := w.belief(user)
		if b.now.token != "" && b.now.token != r.RefreshToken && !b.now.unsure && !w.operator {
			w.violated("another refresh token is stored than the newest good one")
		}
		b.stored = k
		w.tell("stored", user, k, "latch", r.Latch != nil)
		w.stored[r.AccessToken] = true
		if is, ok := w.refresh[r.RefreshToken]; ok {
			f := w.family(is.family)
			f.durable = max(f.durable, is.generation)
		}
		for _, f := range w.refusals {
			f.stored = f.stored || f.user == user && r.Latch != nil
		}
	}
}

// sending looks at a token request that is about to leave.
func (w *world) sending(_ *process, s *posted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() {
		if w.belief(s.user).stored.lost == "" && w.out == (outage{}) {
			w.violated("a token request leaves, and the store doesn't know")
		}
	}()
	w.tell("sent", s.grant, s.user, s.password, s.refreshToken)
	if s.grant == "refresh_token" {
		is, ok := w.refresh[s.refreshToken]
		if !ok {
			var none bool
			if s.user, none = strings.CutPrefix(s.refreshToken, nonsense); !none {
				w.violated("a refresh token is presented that nobody gave out")
			}
			return
		}
		s.user = is.user
		if f := w.family(is.family); !f.gone && max(f.held, f.durable) > is.generation {
			w.violated("an older refresh token is presented than the client has", is.generation, " of ", *f)
		}
		w.judgeReplay(w.belief(s.user).now)
		return
	}
	b := w.belief(s.user).now
	if w.refusals[s.key()] != nil {
		w.violated("a refused password is sent again")
	}
	if b.unsure || w.changing() {
		return
	}
	if b.signedIn && !w.relogin {
		w.violated("a password is sent again although relogin is off", b)
	}
	if b.token != "" && (b.lost == "" || w.policy != oauth.LostLogin) && b.doubt < 3 {
		w.violated("a password is sent although there is a refresh token", b)
	}
}

// judgeReplay looks at a refresh where the outcome of the request before isn't
// known.
func (w *world) judgeReplay(k knowledge) {
	switch {
	case k.unsure || w.changing():
	case k.lost == "refresh_token" && w.policy == oauth.LostStop:
		w.violated("a refresh token is presented again although on_lost_reply is stop", k)
	case k.lost != "" && w.policy == oauth.LostLogin && len(w.refusals) == 0 && !w.sour:
		w.violated("a refresh token is presented again although on_lost_reply is login", k)
	}
}

// changing reports whether a flight may have begun before the last change.
func (w *world) changing() bool { return time.Since(w.changedAt) < 10*time.Second }

// letGo notes that the server gave tokens: then a sign-in no longer counts as
// refused that was refused for the client's sake, and after another none does.
func (w *world) letGo(user string, signedIn bool) {
	maps.DeleteFunc(w.refusals, func(_ string, r *refusal) bool { return r.user == user && (signedIn || r.all) })
}

// key is what a refused sign-in is known by.
func (s *posted) key() string { return s.user + "\n" + s.password + "\n" + s.client }

var (
	inAnswer = regexp.MustCompile(`"(refresh_token|access_token)":"([^"]*)"`)
	inError  = regexp.MustCompile(`"error":"([^"]*)"`)
)

// answered learns from an answer what the client learns from it.
func (w *world) answered(_ *process, s *posted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := &w.belief(s.user).now
	defer func() { w.tell("answered", s.grant, s.status, "whole", s.whole, *k) }()
	password, refused := s.grant == "password", s.status == 400 || s.status == 401
	code := ""
	if m := inError.FindSubmatch(s.body); m != nil {
		code = string(m[1])
	}
	token := ""
	for _, m := range inAnswer.FindAllSubmatch(s.body, -1) {
		if string(m[1]) == "refresh_token" {
			token = string(m[2])
		}
	}
	switch {
	case s.status == 200 && !s.html && !s.whole && token != "":
		w.hold(token)
		k.lost = s.grant // saving tells
	case s.status == 200 && !s.html && s.whole:
		if token == "" {
			token = s.refreshToken // it stays (RFC 6749 §6); empty of a sign-in
		}
		w.hold(token)
		k.token = token
		k.lost, k.doubt, k.unsure, k.signedIn = "", 0, false, true // an import counts
		w.letGo(s.user, password)
	case s.status == 200 && s.html || s.status == 429 || s.status == 503 || s.status/100 == 3: // not tried
	case password && (refused || s.status == 403):
		w.refusals[s.key()] = &refusal{user: s.user, all: code == "invalid_client" || code == "invalid_scope"}
		if k.lost == "password" {
			k.lost = ""
		}
	case refused:
		k.lost = ""
		w.refusedRefresh(s.refreshToken, k, code)
	case s.status == 0, s.status == 200, s.status >= 500:
		k.lost = s.grant
	}
}

func (w *world) refusedRefresh(token string, k *knowledge, code string) {
	f := new(family)
	if is, ok := w.refresh[token]; ok {
		f = w.family(is.family)
	}
	switch code {
	case "invalid_grant":
		f.gone = true
		if old := w.refresh[k.token].seq > w.refresh[token].seq; !old { // else it was tried for want of a better one
			k.token, k.doubt = "", 0
		}
	case "", "invalid_request":
		k.doubt++
		f.gone = f.gone || k.doubt == 3 // then what came before it may be tried
	default:
		w.sour = true
	}
}
