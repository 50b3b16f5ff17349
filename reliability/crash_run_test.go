//go:build linux

package reliability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A bench is a victim and its server, for one run after another: what a run
// starts anew is what the next one kills.
type bench struct {
	*authority
	*victim
	password bool // there is a second authority
}

// newBench returns a bench whose session is good.
func newBench(t *testing.T, grant string, grace time.Duration) *bench {
	t.Helper()
	b := &bench{authority: newAuthority(t, grace), password: grant == "password"}
	b.victim = newVictim(t, b.authority, grant)
	if err := b.victim.start(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.answer(); err != nil {
		t.Fatal(err)
	}
	if err := b.mend(); err != nil {
		t.Fatal(err)
	}
	return b
}

// mend gives a session that was lost a new login, as a person would.
func (b *bench) mend() error {
	if b.password {
		return nil
	}
	token, err := b.login()
	if err != nil {
		return err
	}
	return b.spend(token)
}

// An outcome is what came of a run.
type outcome struct {
	crash  crash
	landed bool
	seen   window // where the refresh stood, as one could tell from outside
	// kills is how often the process died.
	kills int
	// unavoidable counts the deaths after which the server's current refresh
	// token was in no file; last: so it was after the last.
	unavoidable int
	last        bool
	// lost: there was no good refresh token when all was over.
	lost   bool
	logins int
	took   time.Duration
}

// run kills the process as c says, starts the next one, and sees what it makes
// of it.
func (b *bench) run(c crash) (out outcome, err error) {
	out.crash = c
	begun, base := time.Now(), b.last()
	defer func() { out.took = time.Since(begun) }()
	out.landed, err = b.crash(c, &out)
	if err = errors.Join(err, b.arm("")); err != nil {
		return out, err
	}
	if out.landed {
		if err := b.victim.start(); err != nil {
			return out, err
		}
	}
	if _, err := b.answer(); err != nil {
		return out, err
	}
	good, err := b.works()
	if err != nil {
		return out, err
	}
	out.lost = !good
	out.logins = len(b.since(base, "password"))
	if out.lost {
		err = b.mend()
	}
	return out, err
}

// crash kills the process, and reports whether it could.
func (b *bench) crash(c crash, out *outcome) (landed bool, err error) {
	switch c.window {
	case starting:
		return b.crashAtStart(c, out)
	case stopping, reloaded:
		return b.crashAtStop(c, out)
	}
	return b.crashAtRefresh(c, out)
}

// crashAtRefresh kills during a refresh that it causes.
func (b *bench) crashAtRefresh(c crash, out *outcome) (landed bool, err error) {
	base := b.last()
	if c.signin {
		b.RevokeRefreshTokens()
	}
	var h *hold
	if c.hold != "" {
		h = b.holdAt(c.hold)
		defer func() { b.end(h, c.acts) }()
	}
	if !c.outside {
		if err := b.arm(c.point); err != nil {
			return false, err
		}
	}
	answered := make(chan reply, 1)
	go func() {
		r, _ := b.refresh()
		answered <- r
	}()
	switch {
	case c.window == anywhere:
		time.Sleep(rand.N(12 * time.Millisecond))
		_ = b.process.Process.Signal(syscall.SIGKILL)
	case c.outside:
		select {
		case <-h.reached:
			_ = b.process.Process.Signal(syscall.SIGKILL)
		case r := <-answered:
			return false, fmt.Errorf("the server never had to wait: %v", r)
		}
	}
	select {
	case <-b.dead:
	case <-answered:
		if b.ended(time.Second) != nil {
			return false, nil // it never came by
		}
	}
	if err := b.died(patience); err != nil {
		return false, err
	}
	if h != nil {
		b.end(h, c.acts)
	}
	seen, err := b.judge(base, out)
	out.seen = seen
	if c.window == done && seen == beforeSend {
		return true, err // the flight of the start came by before this one
	}
	if err == nil && !c.signin && c.window != anywhere && seen != c.window.class() {
		err = fmt.Errorf("it died in %s", seen)
	}
	return true, err
}

// class is the window as one can tell it from outside.
func (w window) class() window {
	switch w {
	case inMemory:
		return acted
	case done:
		return durable
	}
	return w
}

// crashAtStop kills while the process ends by SIGTERM, or while it gets another
// configuration, with a refresh under way.
func (b *bench) crashAtStop(c crash, out *outcome) (landed bool, err error) {
	base := b.last()
	h := b.holdAt(sandbox.Received)
	go func() { _, _ = b.refresh() }()
	select {
	case <-h.reached:
	case <-time.After(patience):
		b.end(h, true)
		return false, errors.New("the refresh doesn't begin")
	}
	if err := b.arm(c.point); err != nil {
		return false, err
	}
	want := sent
	switch {
	case c.window == reloaded:
		go func() { _ = b.reload() }()
	case c.point == "drain-begun":
		_ = b.process.Process.Signal(syscall.SIGTERM)
	default:
		_ = b.process.Process.Signal(syscall.SIGTERM)
		b.end(h, true)
		want = durable
	}
	if err := b.died(patience); err != nil {
		b.end(h, false)
		return false, err
	}
	b.end(h, false)
	seen, err := b.judge(base, out)
	out.seen = seen
	if err == nil && seen != want {
		err = fmt.Errorf("it died in %s, not in %s", seen, want)
	}
	return true, err
}

// crashAtStart kills, and then kills the next process at its start.
func (b *bench) crashAtStart(c crash, out *outcome) (landed bool, err error) {
	if c.after == "" {
		if err := b.kill(syscall.SIGKILL); err != nil {
			return false, err
		}
		out.kills++
	} else if landed, err := b.crashAtRefresh(crashAt(c.after), out); !landed || err != nil {
		return landed, err
	}
	if err := b.spoil(c.finds); err != nil {
		return false, err
	}
	base := b.last()
	if err := errors.Join(b.arm(c.point), b.victim.start()); err != nil {
		return false, err
	}
	if err := b.died(patience); err != nil {
		return false, err
	}
	_, err = b.judge(base, out)
	return true, err
}

// spoil does to the files of a dead process what the next one is to find.
func (v *victim) spoil(what string) error {
	database, spill := v.dir+"/data/tokens.db", v.dir+"/data/tokens.db.spill"
	switch what {
	case noStore:
		return os.RemoveAll(v.dir + "/data")
	case noDatabase:
		return os.Remove(database)
	case noSpill:
		return os.Remove(spill)
	case damagedDatabase:
		return os.Truncate(database, 8192)
	case damagedSpill:
		return os.WriteFile(spill, bytes.Repeat([]byte("damaged "), 16384), 0o600)
	}
	return nil
}

// judge looks at what a dead process left, and at the server.
func (b *bench) judge(base int, out *outcome) (window, error) {
	out.kills++
	if err := b.settle(); err != nil {
		return "", err
	}
	found, err := kept(b.victim, b.TokenName)
	if err != nil {
		return "", err
	}
	out.last = !found[b.current()]
	if out.last {
		out.unavoidable++
	}
	requests := b.since(base, "")
	switch {
	case len(requests) == 0:
		return beforeSend, nil
	case requests[len(requests)-1].Issued == "":
		return sent, nil
	case out.last:
		return acted, nil
	}
	return durable, nil
}
