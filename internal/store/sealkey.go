package store

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// KeySize is the length of a sealing key in bytes.
const KeySize = 32

// masked is what a key looks like wherever it is printed.
const masked = "[sealing key]"

// A Key seals the values of a store; the zero Key is none. However it is
// printed, logged or marshaled, it shows nothing of itself; [Key.Text] alone
// does.
type Key struct {
	// A closure, because no printing by reflection looks into one. fmt can't call
	// the methods of what is in an unexported field of somebody's struct; bytes
	// it would print then, and for some verbs those behind a pointer, too.
	secret func() *[KeySize]byte
}

func keyFrom(secret [KeySize]byte) Key {
	return Key{func() *[KeySize]byte { return &secret }}
}

// NewKey returns a random key.
func NewKey() Key {
	var secret [KeySize]byte
	_, _ = rand.Read(secret[:]) // never fails: it ends the program first
	return keyFrom(secret)
}

var errKeyText = errors.New("the key must be 32 bytes in base64, as this prints them: openssl rand -base64 32")

// ParseKey reads a key from text: 32 bytes in base64, of the standard or the
// URL alphabet, padded or not, with white space around. Its errors don't quote
// the text.
func ParseKey(text string) (Key, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	// The decoder would skip line ends within the text and drop stray bits.
	if strings.ContainsAny(text, "\r\n") {
		return Key{}, errKeyText
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != KeySize {
		clear(b)
		return Key{}, errKeyText // not err: it quotes a part of the text
	}
	defer clear(b)
	return keyFrom([KeySize]byte(b)), nil
}

// Text returns the key itself, in base64, for writing a key file. It is empty
// for the zero Key.
func (k Key) Text() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.secret()[:])
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.secret == nil }

// ID returns what sealed values name the key by: 16 hexadecimal digits from
// which the key can't be found.
func (k Key) ID() string {
	id := k.id()
	return hex.EncodeToString(id[:])
}

// String returns a mask.
func (k Key) String() string { return masked }

// GoString returns a mask.
func (k Key) GoString() string { return masked }

// Format writes a mask, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(masked)) }

// MarshalText returns a mask.
func (k Key) MarshalText() ([]byte, error) { return []byte(masked), nil }

// MarshalJSON returns a mask.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(masked) }

// LogValue returns a mask.
func (k Key) LogValue() slog.Value { return slog.StringValue(masked) }

// keyID is a short name of a key, derived from it one way.
type keyID [8]byte

func (k Key) id() keyID {
	var id keyID
	if !k.IsZero() {
		copy(id[:], k.derive(lengthPrefixed("key id", product, sealVersion), len(id)))
	}
	return id
}

// derive returns n bytes for one purpose by HKDF (RFC 5869) with SHA-256. The
// same info gives the same bytes; other info tells nothing about them.
func (k Key) derive(info string, n int) []byte {
	b, err := hkdf.Key(sha256.New, k.secret()[:], nil, info, n)
	if err != nil { // only for n above 8160
		panic(err)
	}
	return b
}

// Keys are the keys of a store: Current seals and opens, Old only open what
// was sealed with them before.
type Keys struct {
	Current Key
	Old     []Key
}
