package caddymodule

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A CallerKey is what an application shows to be served.
type CallerKey struct {
	// Name of the application, as logs, `{http.auth.user.id}` and the API's
	// users know it. Two keys may have one name while they are exchanged.
	Name string `json:"name"`

	// The key: a field X-API-Key, or the password of Basic authentication, with
	// any user name. At least 16 bytes; a placeholder, such as
	// `{file./run/credentials/erp.key}`, is read again every 10 s.
	Secret string `json:"secret"`
}

const (
	keyField     = "X-Api-Key"
	minCallerKey = 16
	// rereadKeys is how long an exchanged key may go on to work; a key that
	// isn't known is looked for anew at once, but not more often than rereadMiss.
	rereadKeys = 10 * time.Second
	rereadMiss = time.Second
)

// callerKeys tells applications apart by what they show. The zero value knows
// none.
type callerKeys struct {
	names   []string
	secrets []oauth.SecretFunc

	mu      sync.Mutex // of reading anew
	current atomic.Pointer[keyDigests]
}

// keyDigests are the keys as last read, by the same index as the names.
// Digests are of one length, so that comparing them tells nothing.
type keyDigests struct {
	read time.Time
	of   [][sha256.Size]byte
}

// add takes a configured key.
func (ks *callerKeys) add(k CallerKey, log *slog.Logger) error {
	if k.Name == "" || printable(k.Name) != k.Name {
		return fmt.Errorf("caller_key %q: the name must be visible ASCII, without quotes and braces, up to 100 bytes", k.Name)
	}
	s, err := secret("caller_key", k.Secret, log)
	if err != nil {
		return fmt.Errorf("caller_key %s: %w", k.Name, err)
	}
	if len(s().Reveal()) < minCallerKey {
		return fmt.Errorf("caller_key %s: the key must have %d bytes or more; make one with `openssl rand -hex 24`", k.Name, minCallerKey)
	}
	for i, other := range ks.secrets {
		if ks.names[i] != k.Name && other().Equal(s()) {
			return fmt.Errorf("caller_key %s: %s has the same key; give each its own", k.Name, ks.names[i])
		}
	}
	ks.names, ks.secrets = append(ks.names, k.Name), append(ks.secrets, s)
	return nil
}

// digests are those of the keys, read anew if they are older than age.
func (ks *callerKeys) digests(age time.Duration) *keyDigests {
	if d := ks.current.Load(); d != nil && time.Since(d.read) < age {
		return d
	}
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if d := ks.current.Load(); d != nil && time.Since(d.read) < age {
		return d
	}
	d := &keyDigests{read: time.Now()}
	for _, s := range ks.secrets {
		d.of = append(d.of, sha256.Sum256([]byte(s().Reveal())))
	}
	ks.current.Store(d)
	return d
}

// owner names whose key a request shows, and takes it off. A field X-API-Key
// that is none of ours may be for the API, beside ours as a password.
func (ks *callerKeys) owner(r *http.Request) (string, bool) {
	if shown := r.Header[keyField]; len(shown) == 1 {
		if name, ok := ks.ownerOf(shown[0]); ok {
			delete(r.Header, keyField)
			return name, true
		}
	}
	if _, password, ok := r.BasicAuth(); ok {
		if name, ok := ks.ownerOf(password); ok {
			delete(r.Header, "Authorization")
			return name, true
		}
	}
	return "", false
}

func (ks *callerKeys) ownerOf(key string) (string, bool) {
	digest := sha256.Sum256([]byte(key))
	i := ks.digests(rereadKeys).find(digest)
	if i < 0 {
		i = ks.digests(rereadMiss).find(digest)
	}
	if i < 0 {
		return "", false
	}
	return ks.names[i], true
}

// find is the index of the key with a digest, or -1; it takes as long for each.
func (d *keyDigests) find(digest [sha256.Size]byte) int {
	found := -1
	for i := range d.of {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(d.of[i][:], digest[:]), i, found)
	}
	return found
}

// identify makes the owner of a key the request's user, as Caddy's own
// authentication does.
func identify(r *http.Request, name string) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", name)
	}
}
