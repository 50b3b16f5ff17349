//go:build linux

package reliability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// The test binary runs itself again, under strace, as the process whose power
// is cut. It tells what it does by lines to file descriptor 3, which strace
// sees in order with everything else:
//
//	open                        the store is open, and healed
//	try <key> <life> <gen>      a Save begins; with generation 0 a Delete
//	ack <key> <life> <gen>      it returned without an error
//	instance <id>               what the store says of itself
const (
	childRoot  = "RELIABILITY_POWER_ROOT" // the directory that everything is in
	childKey   = "RELIABILITY_POWER_KEY"
	childLife  = "RELIABILITY_POWER_LIFE"
	childSaves = "RELIABILITY_POWER_SAVES"
	childDies  = "RELIABILITY_POWER_DIES" // not 0 if it is going to be killed
)

// An init and no TestMain, because a package has only one of those.
func init() {
	root := os.Getenv(childRoot)
	if root == "" {
		return
	}
	if err := runChild(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// powerKeys are the sessions of the workload.
var powerKeys = []oauth.Key{
	{Account: "erp"}, {Account: "invoices", User: "anna"}, {Account: "invoices", User: "björn"},
	{Account: "spare"}, {Account: "x\x00y", User: "z"},
}

// powerValue is what generation g of a session has, if it was saved in a life.
// Most have the length of a record, some that of several pages.
func powerValue(key, life int, g uint64) []byte {
	text := fmt.Appendf(nil, "key %d life %d generation %d;", key, life, g)
	length := 40 + int(g*977)%1800
	if g%11 == 0 {
		length *= 9
	}
	return bytes.Repeat(text, length/len(text)+1)[:length]
}

func runChild(root string) error {
	life, _ := strconv.Atoi(os.Getenv(childLife))
	saves, _ := strconv.Atoi(os.Getenv(childSaves))
	key, err := store.ParseKey(os.Getenv(childKey))
	if err != nil {
		return err
	}
	c := &powerChild{life: life, out: os.NewFile(3, "messages"), keys: store.Keys{Current: key}}
	// Two or three openings, as restarts in between.
	for part := range 3 {
		workers := 1 + (life+part)%3 // now one after the other, now several at once
		if os.Getenv(childDies) != "0" {
			workers = 1 // or strace couldn't tell what the kill has kept from happening
		}
		if err := c.session(root, saves/3, workers); err != nil {
			return err
		}
	}
	return nil
}

type powerChild struct {
	life int
	keys store.Keys
	mu   sync.Mutex
	out  *os.File
}

func (c *powerChild) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(fmt.Appendf(nil, format+"\n", args...)) // one write each
}

// session opens the store, saves, and closes it.
func (c *powerChild) session(root string, saves, workers int) (err error) {
	s, err := openPlace(root, c.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c.say("instance %s", s.Instance())
	c.say("open")
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			var own []int // each session has one writer, as its lock sees to
			for k := w; k < len(powerKeys); k += workers {
				own = append(own, k)
			}
			errs[w] = c.work(s, own, saves/workers)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (c *powerChild) work(s powerStore, own []int, saves int) error {
	ctx := context.Background()
	for range saves {
		k := own[rand.IntN(len(own))]
		key := powerKeys[k]
		e, err := s.Load(ctx, key)
		// What an earlier cut has left may be damaged; a sign-in goes over it.
		if err != nil && !errors.Is(err, oauth.ErrNotFound) && !errors.Is(err, oauth.ErrUnreadable) {
			return err
		}
		if e.Generation > 0 && rand.IntN(9) == 0 {
			c.say("try %d %d 0", k, c.life)
			if err := s.Delete(ctx, key, e.Generation); err != nil {
				return err
			}
			c.say("ack %d %d 0", k, c.life)
			continue
		}
		g := e.Generation + 1
		c.say("try %d %d %d", k, c.life, g)
		if err := s.Save(ctx, key, oauth.Entry{Generation: g, Value: powerValue(k, c.life, g)}); err != nil {
			return err
		}
		c.say("ack %d %d %d", k, c.life, g)
	}
	return nil
}
