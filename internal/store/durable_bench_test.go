package store

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// G6: from the last byte of the answer to a durable token · p99 < 5 ms on SSD ·
// best one fsync. The token is durable when the spill has it; a caller gets it
// when the database has it, too.
//
//	go test -run '^$' -bench 'DurableSave|SpillSave|BoltSave' ./internal/store
func BenchmarkDurableSave(b *testing.B) {
	d, err := Open(Place{Database: filepath.Join(b.TempDir(), "data", "tokens.db"), Instance: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.UseKeys(b.Context(), Keys{Current: NewKey()}); err != nil {
		b.Fatal(err)
	}
	value := bytes.Repeat([]byte("v"), 2000)
	var took []time.Duration
	for g := uint64(1); b.Loop(); g++ {
		start := time.Now()
		if err := d.Save(b.Context(), testKey, oauth.Entry{Generation: g, Value: value}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
