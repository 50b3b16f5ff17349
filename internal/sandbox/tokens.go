package sandbox

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// keptPairs is how many issued pairs are remembered at least, so that a soak
// test doesn't grow. A spent token older than that is unknown, not reused.
const keptPairs = 8192

type digest [sha256.Size]byte

// A family is one login and every token that came of it.
type family struct {
	number     int
	user       string // who logged in; empty: the client for itself
	scope      string // as granted at the login
	refreshes  int
	generation int  // token answers so far
	ended      bool // reuse or revocation: nothing of it is valid
	refresh    *refreshToken
	access     *accessToken
}

func (f *family) name() string { return fmt.Sprintf("f%d", f.number) }

func tokenName(f *family, generation int) string {
	return fmt.Sprintf("f%d.g%d", f.number, generation)
}

type refreshToken struct {
	family     *family
	generation int
	parent     *refreshToken // what it was exchanged for; nil once it is used
	spent      time.Time     // zero: it is the current one
	succeeded  bool          // a token that it was exchanged for has been used
	revoked    bool
}

type accessToken struct {
	family     *family
	generation int
	expires    time.Time
	revoked    bool
}

func (a *accessToken) live(now time.Time) bool {
	return !a.revoked && !a.family.ended && now.Before(a.expires)
}

// A tokenState is all that the server knows about tokens; it holds digests,
// not tokens. Its owner's lock guards it.
type tokenState struct {
	families int
	refresh  map[digest]*refreshToken
	access   map[digest]*accessToken
	order    []pairKey // oldest first
}

type pairKey struct{ access, refresh digest }

// A refreshMode is what an answer says about the refresh token.
type refreshMode int

const (
	rotate    refreshMode = iota // a new one; the presented one is spent. Of a fault: as the provider does
	keepSame                     // the presented one, which stays valid
	keepMute                     // no such member; the presented one stays valid
	keepEmpty                    // an empty one; the presented one stays valid
)

// A pair is what a token request was granted.
type pair struct {
	family          *family
	generation      int
	access, refresh string
	expiresIn       int64 // seconds
	mode            refreshMode
	idToken         string // empty: none
}

func (ts *tokenState) newFamily() *family {
	ts.families++
	return &family{number: ts.families}
}

func (ts *tokenState) findRefresh(token string) *refreshToken {
	return ts.refresh[sha256.Sum256([]byte(token))]
}

func (ts *tokenState) findAccess(token string) *accessToken {
	return ts.access[sha256.Sum256([]byte(token))]
}

// spend says whether t may be exchanged now. The reuse of a spent one ends its
// family: the server can't know who of the two holders is the thief
// (RFC 9700 §4.14.2).
func (t *refreshToken) spend(now time.Time, grace time.Duration) (ok, reused bool) {
	switch {
	case t.revoked || t.family.ended:
		return false, false
	case t.spent.IsZero():
	case !t.succeeded && now.Before(t.spent.Add(grace)):
	default:
		t.family.ended = true
		return false, true
	}
	if t.parent != nil {
		t.parent.succeeded = true
		t.parent = nil // else a family's whole past stays in memory
	}
	return true, false
}

// issue grants the next pair of a family. presented is the refresh token that
// it is exchanged for, nil at a login.
func (ts *tokenState) issue(f *family, presented *refreshToken, p pair, c Config, now time.Time) pair {
	f.generation++
	p.family, p.generation = f, f.generation
	p.expiresIn = int64(c.TokenLifetime / time.Second)
	key := pairKey{access: sha256.Sum256([]byte(p.access))}

	if c.OneAccessToken && f.access != nil {
		f.access.revoked = true
	}
	f.access = &accessToken{family: f, generation: f.generation, expires: now.Add(c.TokenLifetime)}
	if ts.access == nil {
		ts.access, ts.refresh = map[digest]*accessToken{}, map[digest]*refreshToken{}
	}
	ts.access[key.access] = f.access

	if p.mode == rotate {
		// The newest token is the only current one, also after a replay within
		// the grace time.
		if f.refresh != nil && f.refresh.spent.IsZero() {
			f.refresh.spent = now
		}
		f.refresh = &refreshToken{family: f, generation: f.generation, parent: presented}
		key.refresh = sha256.Sum256([]byte(p.refresh))
		ts.refresh[key.refresh] = f.refresh
	}
	ts.order = append(ts.order, key)
	ts.prune(now)
	return p
}

// prune forgets the oldest pair if there are too many, unless it is in use.
func (ts *tokenState) prune(now time.Time) {
	if len(ts.order) <= keptPairs {
		return
	}
	key := ts.order[0]
	ts.order = ts.order[1:]
	a, t := ts.access[key.access], ts.refresh[key.refresh]
	if a != nil && a.live(now) || t != nil && !t.revoked && !t.family.ended && t.spent.IsZero() {
		ts.order = append(ts.order, key)
		return
	}
	delete(ts.access, key.access)
	delete(ts.refresh, key.refresh)
}
