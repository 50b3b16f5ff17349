package store

import (
	"bytes"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// The two write to the same file system, durably; compare them in one run:
//
//	go test -run '^$' -bench 'SpillSave|BoltSave' -count 10 ./internal/store
func BenchmarkSpillSave(b *testing.B) {
	s := newSpill(b)
	value := bytes.Repeat([]byte("v"), 2000)
	for g := uint64(1); b.Loop(); g++ {
		if err := s.save(image{testKey, g, g, value}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBoltSave(b *testing.B) {
	s := newBolt(b)
	value := bytes.Repeat([]byte("v"), 2000)
	for g := uint64(1); b.Loop(); g++ {
		if err := s.Save(b.Context(), testKey, oauth.Entry{Generation: g, Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}
