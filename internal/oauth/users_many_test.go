package oauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// copies stores a user's entry under other names.
func (r *loginRig) copies(of *oauth.Session, n int) {
	r.Helper()
	e, err := r.store.Load(r.Context(), of.Key())
	if err != nil {
		r.Fatal(err)
	}
	e.Generation = 1
	for i := range n {
		if err := r.store.Save(r.Context(), oauth.Key{Account: "erp", User: fmt.Sprint("copy", i)}, e); err != nil {
			r.Fatal(err)
		}
	}
}

// 100,000 stored users, of whom tens of thousands are asked for: what is in
// memory stays bounded, in bytes and in goroutines.
func TestManyUsers(t *testing.T) {
	// Not parallel: it measures memory.
	playLogin(t, annAndBob, func(r *loginRig) {
		a := r.person()
		a.KeepAlive = 365 * 24 * time.Hour
		r.users(a)
		ann := r.logInAs("ann")
		want := r.token(ann).Authorization()[0]
		const stored, asked = 100_000, 13_000
		r.copies(ann, stored)
		before, goroutines := heap(), runtime.NumGoroutine()
		var most int64
		for i := range asked {
			s := r.user(fmt.Sprint("copy", i*7))
			if tok := s.Current(); tok == nil || tok.Authorization()[0] != want {
				t.Fatalf("user %d has no token", i*7)
			}
			if i%4_000 == 3_999 {
				most = max(most, heap())
			}
		}
		if grown := most - before; grown > 10_000*4<<10 {
			t.Errorf("the sessions take %d bytes", grown)
		}
		if n := runtime.NumGoroutine() - goroutines; n > 0 {
			t.Errorf("%d goroutines more", n)
		}
		r.stop()
		if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
			t.Errorf("%d refreshes", n)
		}
	})
}

// Who is dropped from memory loses nothing: not a refresh, not a login that is
// pending, not a change that is still to be saved.
func TestEvictedUsers(t *testing.T) {
	t.Parallel()
	config := sandbox.Config{Users: map[string]string{}}
	for _, name := range []string{"resting", "working", "beginning", "exchanging", "unsaved", "leaving", "television"} {
		config.Users[name] = "x"
	}
	playLogin(t, config, func(r *loginRig) {
		f := r.flaky()
		television := r.device()
		television.Name = "television"
		r.users(r.person(), television)
		defer r.stop()
		finish := func(name string, q url.Values) error {
			_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by(name).Browser, By: name})
			return err
		}

		resting, working, unsaved, leaving := r.logInAs("resting"), r.logInAs("working"), r.logInAs("unsaved"), r.logInAs("leaving")
		if err := resting.Refresh(r.Context()); err != nil {
			t.Fatal(err)
		}
		f.onSave(func(ctx context.Context, key oauth.Key, e oauth.Entry) error {
			if key.User == "unsaved" {
				return errDisk
			}
			return f.Store.Save(ctx, key, e)
		})
		if err := unsaved.Refresh(r.Context()); err != nil {
			t.Fatal(err)
		}
		beginning := r.user("beginning")
		callback := r.approveAs(r.begin(beginning, by("beginning")), "beginning")
		other := r.approveAs(r.begin(r.user("exchanging"), by("exchanging")), "exchanging")
		watcher, err := r.sessions.Session(r.Context(), oauth.Key{Account: "television", User: "television"})
		if err != nil {
			t.Fatal(err)
		}
		device := r.begin(watcher, by("television"))

		after(time.Second) // they are the oldest
		r.wire.answers(func(s sent) *http.Response {
			if g := s.Form.Get("grant_type"); g == "refresh_token" || g == "authorization_code" {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		refreshed, exchanged := make(chan error, 1), make(chan error, 1)
		working.Reject(r.token(working), false) // a request in flight, and no operator
		go func() {
			_, err := working.Token(r.Context())
			refreshed <- err
		}()
		go func() { exchanged <- finish("exchanging", other) }()
		synctest.Wait()
		for i := range 10_001 { // more than there is room for
			r.user(fmt.Sprint("visitor", i))
		}
		synctest.Wait()

		// These are gone from memory, or this test proves nothing.
		for name, s := range map[string]*oauth.Session{"resting": resting, "beginning": beginning, "leaving": leaving} {
			if r.user(name) == s {
				t.Errorf("%s was not evicted", name)
			}
		}
		for name, s := range map[string]*oauth.Session{"working": working, "unsaved": unsaved} {
			if r.user(name) != s {
				t.Errorf("%s was evicted", name)
			}
		}
		if err := <-refreshed; err != nil {
			t.Errorf("working: %v", err)
		}
		if err := <-exchanged; err != nil {
			t.Errorf("exchanging: %v", err)
		}
		r.wire.answers(nil)
		if err := finish("beginning", callback); err != nil {
			t.Errorf("beginning: %v", err)
		}
		if err := r.sandbox.ApproveDevice(device.Device.UserCode, "television"); err != nil {
			t.Fatal(err)
		}
		r.state(unsaved, oauth.StateDegraded)
		f.onSave(nil)
		after(15 * time.Second)
		if look := r.ended(device); look.Err != nil {
			t.Errorf("television: %v", look.Err)
		}

		before := r.refreshes()
		for _, name := range []string{"resting", "working", "beginning", "exchanging", "unsaved"} {
			r.token(r.user(name))
			if err := r.user(name).Refresh(r.Context()); err != nil {
				t.Errorf("%s: the newest refresh token is lost: %v", name, err)
			}
			if n := r.refreshes()[name] - before[name]; n != 1 {
				t.Errorf("%s: %d refreshes", name, n)
			}
		}
		// Who still holds the former session can go on, too.
		after(time.Hour)
		var both sync.WaitGroup
		for _, s := range []*oauth.Session{resting, r.user("resting")} {
			both.Go(func() { r.token(s) })
		}
		both.Wait()
		if n := r.refreshes()["resting"] - before["resting"]; n != 2 {
			t.Errorf("resting: %d refreshes", n)
		}
		r.token(r.user("leaving"))
		r.logsOut(leaving, true, "") // the one in use is logged out
		r.fails(r.user("leaving"), oauth.ErrLoginRequired)
		r.empty(r.user("leaving"))
		r.codes(6)
	})
}
