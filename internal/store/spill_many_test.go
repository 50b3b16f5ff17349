package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A spill of 10,000 users must be read quickly.
func TestSpillManyKeys(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	const users = 10_000
	missing := int64(2*users) - s.layout.blocks + 2
	do(t, s.grow(missing))
	for i := range users {
		im := image{oauth.Key{Account: "pagero", User: fmt.Sprint(i)}, 1, uint64(i), []byte(strings.Repeat("v", 1500))}
		p, missing := s.layout.place(&im)
		if missing > 0 {
			t.Fatalf("no room for key %d", i)
		}
		s.layout.placed(im.key, p)
		if _, err := s.file.WriteAt(encodeImage(&im, p.at, s.header.salt), p.at.start*spillBlock); err != nil {
			t.Fatal(err)
		}
	}
	do(t, s.close())
	start := time.Now()
	again := reopenSpill(t, s.path)
	took := time.Since(start)
	t.Logf("opened in %v", took)
	if got := len(again.keys()); got != users || again.sequence() != users-1 {
		t.Errorf("%d keys, sequence %d", got, again.sequence())
	}
	if took > 10*time.Second { // under the race detector, on a busy machine
		t.Errorf("opening a file with %d keys took %v", users, took)
	}
	wantImages(t, again, oauth.Key{Account: "pagero", User: "77"},
		image{oauth.Key{Account: "pagero", User: "77"}, 1, 77, []byte(strings.Repeat("v", 1500))})
}
