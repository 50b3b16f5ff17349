package oauth_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// by is the start of a login that somebody begins.
func by(name string) oauth.LoginStart {
	return oauth.LoginStart{Browser: oauth.NewSecret(name + "s-browser"), By: name}
}

// known reports whether a login is still looked up.
func (r *loginRig) known(l *oauth.Login) bool {
	_, err := r.sessions.LookUpLogin(l.ID)
	if err != nil {
		r.refused(err, oauth.ErrLoginUnknown)
	}
	return err == nil
}

// One person has 16 logins at most; the oldest gives way, and nobody else's.
func TestPendingLoginsOfOne(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		bobs := r.begin(s, by("bob"))
		nobodys := r.begin(s, oauth.LoginStart{Browser: oauth.NewSecret("x"), Terminal: true})
		var anns []*oauth.Login
		for range 20 {
			anns = append(anns, r.begin(s, by("ann")))
		}
		for i, l := range anns {
			if r.known(l) != (i >= 4) {
				t.Errorf("Ann's login %d of 20 is known: %v", i, r.known(l))
			}
		}
		_, err := r.finish(r.approve(anns[3]))
		r.refused(err, oauth.ErrLoginUnknown)
		r.codes(0)
		if _, err := r.finish(r.approve(anns[4])); err != nil {
			t.Error(err)
		}
		if !r.known(bobs) || !r.known(nobodys) {
			t.Error("another's login gave way")
		}
		for range 20 { // the command line's have no such bound
			r.begin(s, oauth.LoginStart{Browser: oauth.NewSecret("x"), Terminal: true})
		}
		if !r.known(nobodys) {
			t.Error("the command line's first login gave way")
		}
	})
}

// There are 10,000 pending logins at most, of a bounded size; the oldest give
// way, and all of them go after 10 minutes.
func TestPendingLoginsAreBounded(t *testing.T) {
	// Not parallel: it measures memory.
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		const bound = 10_000
		first := r.begin(s, by("first"))
		r.begin(s, by("second"))
		before, goroutines := heap(), runtime.NumGoroutine()
		var last *oauth.Login
		for i := range bound - 1 {
			last = r.begin(s, by(fmt.Sprint("user ", i)))
		}
		full := heap()
		if each := (full - before) / bound; each > 4<<10 {
			t.Errorf("a pending login takes %d bytes", each)
		}
		if n := runtime.NumGoroutine() - goroutines; n > 0 {
			t.Errorf("%d goroutines more", n)
		}
		if r.known(first) {
			t.Error("the oldest login is still there")
		}
		if !r.known(last) {
			t.Error("the newest login isn't there")
		}
		for i := range bound / 2 {
			last = r.begin(s, by(fmt.Sprint("later ", i)))
		}
		if now := heap(); now > full+full/4 {
			t.Errorf("%d bytes, and with more logins %d", full, now)
		}
		after(10*time.Minute - time.Second)
		if !r.known(last) {
			t.Error("the newest login went early")
		}
		after(time.Second)
		if r.known(last) {
			t.Error("the newest login is still there")
		}
		if now := heap(); now > before+(full-before)/4 {
			t.Errorf("%d bytes before, %d full, and %d after all have expired", before, full, now)
		}
	})
}

// heap is what is allocated.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
