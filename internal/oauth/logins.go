package oauth

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/url"
	"sync"
	"time"
)

const (
	// loginLifetime is how long a person has to come back.
	loginLifetime = 10 * time.Minute
	// maxLogins are kept at most, maxLoginsBy of one who begins them; the
	// oldest give way.
	maxLogins   = 10_000
	maxLoginsBy = 16
)

// logins are the logins that people have begun. They outlive configurations.
type logins struct {
	mu      sync.Mutex
	byID    map[string]*list.Element
	byState map[[32]byte]*list.Element // of those whose callback is to come
	by      map[string]*list.List      // who began them, in the order of the beginning
	order   list.List                  // of all, likewise
}

// A pendingLogin is one login. Only its state changes.
type pendingLogin struct {
	id      string
	session *Session
	account *Account // as it was when the login began, its client resolved
	by      string
	browser [32]byte // hash
	// terminal: a command line waits for the callback's address.
	terminal bool
	ends     time.Time // nobody can finish it later
	expires  time.Time // what came of it is known until then

	authorization
	arrives string // the redirect URI, whether it is sent or not
	prompt  *DevicePrompt
	cancel  context.CancelFunc // of what polls for a device

	own  *list.Element // in logins.by
	done bool
	err  error
}

func newID() string { return rand.Text() }

// add keeps p, and drops those that are too old or too many.
func (ls *logins) add(p *pendingLogin, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.byID == nil {
		ls.byID, ls.byState, ls.by = map[string]*list.Element{}, map[[32]byte]*list.Element{}, map[string]*list.List{}
	}
	ls.expire(now)
	if own := ls.by[p.by]; p.by != "" && own != nil && own.Len() >= maxLoginsBy {
		ls.drop(own.Front().Value.(*list.Element))
	}
	for ls.order.Len() >= maxLogins {
		ls.drop(ls.order.Front())
	}
	e := ls.order.PushBack(p)
	ls.byID[p.id] = e
	if !p.state.Empty() {
		ls.byState[hash(p.state)] = e
	}
	if ls.by[p.by] == nil {
		ls.by[p.by] = list.New()
	}
	p.own = ls.by[p.by].PushBack(e)
}

func (ls *logins) expire(now time.Time) {
	for e := ls.order.Front(); e != nil && !now.Before(e.Value.(*pendingLogin).expires); e = ls.order.Front() {
		ls.drop(e)
	}
}

func (ls *logins) drop(e *list.Element) {
	p := ls.order.Remove(e).(*pendingLogin)
	delete(ls.byID, p.id)
	if !p.state.Empty() {
		delete(ls.byState, hash(p.state))
	}
	own := ls.by[p.by]
	if own.Remove(p.own); own.Len() == 0 {
		delete(ls.by, p.by)
	}
	if p.cancel != nil {
		p.cancel()
	}
}

// take gives the login of a state to the one who began it, once.
func (ls *logins) take(state string, f LoginFinish, now time.Time) (*pendingLogin, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.expire(now)
	key := sha256.Sum256([]byte(state))
	e := ls.byState[key]
	if e == nil {
		return nil, &LoginError{ErrLoginUnknown, "the login isn't known: it has expired, was used, or began elsewhere"}
	}
	p, theirs := e.Value.(*pendingLogin), hash(f.Browser)
	switch {
	case subtle.ConstantTimeCompare(p.browser[:], theirs[:]) != 1 || p.by != f.By:
		// It stays for the one who began it: it may be waiting in a terminal.
		return p, &LoginError{ErrLoginForeign, "the login was begun in another browser or by another user"}
	case f.May != nil && !f.May(p.session.key):
		return nil, &LoginError{ErrLoginForeign, "the login was begun by somebody who may not do that any more"}
	case f.At != "" && placeOf(f.At) != placeOf(p.arrives):
		// Which server it comes from is told by where it arrives (RFC 9700 §4.4.2.2).
		return nil, &LoginError{ErrCallbackMalformed, "it came to the redirect URI of another login"}
	}
	delete(ls.byState, key)
	return p, nil
}

// placeOf is the host and path of a URL, in one spelling.
func placeOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return hostOf(text) + u.Path
}

// end notes what came of a login.
func (ls *logins) end(p *pendingLogin, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p.done, p.err = true, err
}

// find returns a login as it is.
func (ls *logins) find(id string, now time.Time) (p pendingLogin, ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.expire(now)
	e := ls.byID[id]
	if e == nil {
		return p, false
	}
	return *e.Value.(*pendingLogin), true
}

func hash(s Secret) [32]byte { return sha256.Sum256([]byte(s.Reveal())) }
