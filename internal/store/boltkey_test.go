package store

import (
	"bytes"
	"cmp"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func TestDecodeKeyRefuses(t *testing.T) {
	t.Parallel()
	for _, b := range []string{"", "a", "\x00", "a\x00", "a\x00\x02b", "a\x00\x00\x01", "a\x00\xff", "a\x00\xff\x00"} {
		if key, err := decodeKey([]byte(b)); err == nil {
			t.Errorf("decodeKey(%q) = %q, want an error", b, key)
		}
	}
}

// FuzzKeyEncoding checks that keys survive the encoding and keep their order,
// and that only keys of the account have its prefix.
func FuzzKeyEncoding(f *testing.F) {
	f.Add("a", "", "a\x00", "")
	f.Add("a", "b", "ab", "")
	f.Add("a\x00\x01b", "c", "a", "b\x00\x01c")
	f.Add("a\x00\xff", "", "a\x00", "\xff")
	f.Add("", "\x00", "\x00", "")
	f.Fuzz(func(t *testing.T, a1, u1, a2, u2 string) {
		k1, k2 := oauth.Key{Account: a1, User: u1}, oauth.Key{Account: a2, User: u2}
		e1, e2 := encodeKey(k1), encodeKey(k2)
		if back, err := decodeKey(e1); err != nil || back != k1 {
			t.Fatalf("decodeKey(encodeKey(%q)) = %q, %v", k1, back, err)
		}
		want := cmp.Or(cmp.Compare(a1, a2), cmp.Compare(u1, u2))
		if got := bytes.Compare(e1, e2); got != want {
			t.Errorf("order of %q and %q is %d, want %d", k1, k2, got, want)
		}
		if got := bytes.HasPrefix(e1, accountPrefix(a2)); got != (a1 == a2) {
			t.Errorf("%q has the prefix of account %q: %v", k1, a2, got)
		}
	})
}

// FuzzDecodeKey checks that what is accepted has one encoding only.
func FuzzDecodeKey(f *testing.F) {
	f.Add([]byte("a\x00\x01b"))
	f.Add([]byte("a\x00\xff\x00\x01"))
	f.Add([]byte("\x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := decodeKey(bytes.Clone(b))
		if err == nil && !bytes.Equal(encodeKey(key), b) {
			t.Errorf("decodeKey(%q) = %q, which is encoded as %q", b, key, encodeKey(key))
		}
	})
}
