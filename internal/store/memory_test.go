package store

import (
	"errors"
	"math"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func TestMayFollow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		stored, next uint64
		ok           bool
	}{
		{0, 1, true}, {1, 2, true}, {math.MaxUint64 - 1, math.MaxUint64, true},
		{0, 0, false}, {0, 2, false}, {1, 1, false}, {2, 1, false}, {1, 3, false},
		{math.MaxUint64, 0, false}, {math.MaxUint64, math.MaxUint64, false}, {0, math.MaxUint64, false},
	} {
		err := mayFollow(test.stored, test.next)
		if test.ok && err != nil || !test.ok && !errors.Is(err, oauth.ErrConflict) {
			t.Errorf("mayFollow(%d, %d) = %v", test.stored, test.next, err)
		}
	}
}

func TestMemoryClearsWhatItDrops(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	other := oauth.Key{Account: "other"}
	mustSave(t, m, testKey, 1, "one")
	mustSave(t, m, other, 1, "one")
	first := m.entries[testKey].Value
	mustSave(t, m, testKey, 2, "two")
	second := m.entries[testKey].Value
	do(t, m.Delete(t.Context(), testKey, 2))
	last := m.entries[other].Value
	mustClose(t, m)
	for _, v := range [][]byte{first, second, last} {
		if string(v) != "\x00\x00\x00" {
			t.Errorf("%q lingers in memory", v)
		}
	}
}
