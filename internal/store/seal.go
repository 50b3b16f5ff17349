package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A sealed value is
//
//	version (1 byte) | key id (8) | nonce (12) | ciphertext | tag (16)
//
// AES-256-GCM under a key of the session's own, which HKDF derives from the
// sealing key. Authenticated with it are the names of product and version, the
// key id, account, user and generation: a value taken to another place, or to
// another generation, doesn't open.
const (
	product     = "caddy-bearer"
	sealVersion = "1"
	sealByte    = 1
	headerSize  = 1 + len(keyID{})
)

// Sealed seals every value before it goes to the store inside. Names and
// generations are not secret there. Rolling the whole store back to an older
// copy can't be noticed.
type Sealed struct {
	inner oauth.Store
	ring  atomic.Pointer[ring]
}

var _ oauth.Store = (*Sealed)(nil)

// ring is a set of keys, ready for use; it doesn't change.
type ring struct {
	current Key
	byID    map[keyID]Key
}

// NewSealed returns inner with its values sealed. Without a current key nothing
// can be saved.
func NewSealed(inner oauth.Store, keys Keys) *Sealed {
	s := &Sealed{inner: inner}
	s.SetKeys(keys)
	return s
}

// SetKeys replaces the keys. Calls under way finish with those that they
// started with.
func (s *Sealed) SetKeys(keys Keys) { s.ring.Store(newRing(keys)) }

func newRing(keys Keys) *ring {
	r := &ring{current: keys.Current, byID: make(map[keyID]Key)}
	for _, k := range append([]Key{keys.Current}, keys.Old...) {
		if !k.IsZero() {
			r.byID[k.id()] = k
		}
	}
	return r
}

// UseKeys replaces the keys as SetKeys does, if they open every entry;
// otherwise it changes nothing and returns the error of Check.
func (s *Sealed) UseKeys(ctx context.Context, keys Keys) error {
	if err := NewSealed(s.inner, keys).Check(ctx); err != nil {
		return err
	}
	s.SetKeys(keys)
	return nil
}

// Load implements [oauth.Store]. If the error wraps [oauth.ErrUnreadable], the
// generation may be set nevertheless, so that the entry can be deleted.
func (s *Sealed) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	e, err := s.inner.Load(ctx, key)
	if err != nil {
		return e, err
	}
	e.Value, err = s.ring.Load().open(key, e)
	if err != nil {
		return oauth.Entry{Generation: e.Generation}, fmt.Errorf("loading %q: %w", key, err)
	}
	return e, nil
}

// Save implements [oauth.Store].
func (s *Sealed) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	value, err := s.ring.Load().seal(key, e)
	if err != nil {
		return fmt.Errorf("saving %q: %w", key, err)
	}
	return s.inner.Save(ctx, key, oauth.Entry{Generation: e.Generation, Value: value})
}

// Delete implements [oauth.Store]. No key is needed for it.
func (s *Sealed) Delete(ctx context.Context, key oauth.Key, generation uint64) error {
	return s.inner.Delete(ctx, key, generation)
}

// List implements [oauth.Store]. No key is needed for it.
func (s *Sealed) List(ctx context.Context, account string) ([]oauth.Key, error) {
	return s.inner.List(ctx, account)
}

// Lock implements [oauth.Store].
func (s *Sealed) Lock(ctx context.Context, key oauth.Key) (unlock func(), err error) {
	return s.inner.Lock(ctx, key)
}

// Close closes the store inside.
func (s *Sealed) Close() error { return s.inner.Close() }

// Empty reports whether the store has no entry at all, readable or not.
func (s *Sealed) Empty(ctx context.Context) (bool, error) {
	keys, err := s.inner.List(ctx, "")
	return err == nil && len(keys) == 0, err
}

// Check returns an error wrapping [oauth.ErrUnreadable] if entries are sealed
// with a key that isn't configured, or in another way: it says how many and
// with which. It looks at names of keys only; an entry that is damaged shows at
// its Load.
func (s *Sealed) Check(ctx context.Context) error {
	keys, err := s.inner.List(ctx, "")
	if err != nil {
		return err
	}
	r := s.ring.Load()
	unknown := 0
	var reasons []string
	for _, key := range keys {
		e, err := s.inner.Load(ctx, key)
		if errors.Is(err, oauth.ErrNotFound) || errors.Is(err, oauth.ErrUnreadable) {
			continue // deleted meanwhile, or damaged
		}
		if err != nil {
			return err
		}
		if _, _, err := r.keyOf(e.Value); err != nil {
			unknown++
			reason := err.Error()
			if len(reasons) < 3 && !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
	}
	if unknown == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d entries: %s", oauth.ErrUnreadable, unknown, len(keys), strings.Join(reasons, "; "))
}

// seal returns the sealed form of an entry's value.
func (r *ring) seal(key oauth.Key, e oauth.Entry) ([]byte, error) {
	if r.current.IsZero() {
		return nil, errors.New("no key is configured to seal it with")
	}
	id := r.current.id()
	aead := r.current.forSession(key)
	sealed := make([]byte, 0, headerSize+len(e.Value)+aead.Overhead())
	sealed = append(sealed, sealByte)
	sealed = append(sealed, id[:]...)
	return aead.Seal(sealed, nil, e.Value, authenticated(id, key, e.Generation)), nil
}

// open is the inverse of seal.
func (r *ring) open(key oauth.Key, e oauth.Entry) ([]byte, error) {
	k, id, err := r.keyOf(e.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", oauth.ErrUnreadable, err)
	}
	value, err := k.forSession(key).Open(nil, nil, e.Value[headerSize:], authenticated(id, key, e.Generation))
	if err != nil {
		return nil, fmt.Errorf("%w: it is damaged, or was copied here from another entry", oauth.ErrUnreadable)
	}
	return value, nil
}

// keyOf finds the key that a value says it is sealed with.
func (r *ring) keyOf(sealed []byte) (Key, keyID, error) {
	if len(sealed) < headerSize || sealed[0] != sealByte {
		return Key{}, keyID{}, errors.New("not sealed, sealed by a newer release, or damaged")
	}
	id := keyID(sealed[1:headerSize])
	k, ok := r.byID[id]
	if !ok {
		return Key{}, id, fmt.Errorf("sealed with another key (id %s); configure it as old_key to read it",
			hex.EncodeToString(id[:]))
	}
	return k, id, nil
}

// forSession returns the cipher for the values of one session.
func (k Key) forSession(key oauth.Key) cipher.AEAD {
	secret := k.derive(lengthPrefixed("session key", product, sealVersion, key.Account, key.User), 32)
	defer clear(secret)
	block, err := aes.NewCipher(secret)
	if err != nil { // only for other lengths
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil { // only for other ciphers
		panic(err)
	}
	return aead
}

// authenticated returns what a sealed value is bound to.
func authenticated(id keyID, key oauth.Key, generation uint64) []byte {
	g := string(binary.BigEndian.AppendUint64(nil, generation))
	return []byte(lengthPrefixed("value", product, sealVersion, string(id[:]), key.Account, key.User, g))
}

// lengthPrefixed joins fields so that no other fields give the same.
func lengthPrefixed(fields ...string) string {
	var b []byte
	for _, f := range fields {
		b = binary.BigEndian.AppendUint64(b, uint64(len(f)))
		b = append(b, f...)
	}
	return string(b)
}
