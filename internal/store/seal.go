package store

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A sealed value is
//
//	version (1 byte) | key id (8) | nonce (12) | ciphertext | tag (16)
//
// AES-256-GCM under a key of the session's own, which HKDF derives from the
// sealing key. Authenticated with it are the names of product and version, the
// key id, account, user and generation: a value taken to another place, or to
// another generation, doesn't open. Names and generations are not secret. An
// older copy of a whole store opens; what tells it is the marker.
const (
	product     = "caddy-bearer"
	sealVersion = "1"
	sealByte    = 1
	headerSize  = 1 + len(keyID{})

	lastSealByte = 31 // of the versions to come; no text begins so
)

// errNotSealed is for what no release has sealed.
var errNotSealed = errors.New("not sealed, or damaged")

// ring is a set of keys, ready for use; it doesn't change. Without a current
// key it seals nothing.
type ring struct {
	current Key
	byID    map[keyID]Key
}

func newRing(keys Keys) *ring {
	r := &ring{current: keys.Current, byID: make(map[keyID]Key)}
	for _, k := range append([]Key{keys.Current}, keys.Old...) {
		if !k.IsZero() {
			r.byID[k.id()] = k
		}
	}
	return r
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

// Unseal returns what is sealed in an entry as a file has it, apart from any
// store. An error wraps [oauth.ErrUnreadable].
func Unseal(keys Keys, key oauth.Key, e oauth.Entry) ([]byte, error) {
	return newRing(keys).open(key, e)
}

// open is the inverse of seal. An error wraps [oauth.ErrUnreadable] and holds
// nothing of the value.
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
	switch {
	case len(sealed) < headerSize || sealed[0] == 0 || sealed[0] > lastSealByte:
		return Key{}, keyID{}, errNotSealed
	case sealed[0] != sealByte:
		return Key{}, keyID{}, errors.New("sealed by a newer release, or damaged; use the release that wrote it, or a newer one")
	}
	id := keyID(sealed[1:headerSize])
	if id == (keyID{}) { // what was not written is zeros
		return Key{}, id, errNotSealed
	}
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
