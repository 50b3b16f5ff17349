package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// logInAs is a whole login of a user of the sandbox.
func (r *loginRig) logInAs(name string) *oauth.Session {
	r.Helper()
	s := r.user(name)
	q := r.approveAs(r.begin(s, by(name)), name)
	if _, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by(name).Browser, name); err != nil {
		r.Fatalf("FinishLogin: %v", err)
	}
	return s
}

// refreshes counts those that were granted to each user of the sandbox.
func (r *loginRig) refreshes() map[string]int {
	n := map[string]int{}
	for _, e := range r.tokenEvents("refresh_token") {
		if e.Committed {
			n[e.Username]++
		}
	}
	return n
}

var annAndBob = sandbox.Config{Users: map[string]string{"ann": "anns", "bob": "bobs"}}

// Two users of an account have nothing of each other.
func TestUsersAreApart(t *testing.T) {
	t.Parallel()
	playLogin(t, annAndBob, func(r *loginRig) {
		r.users(r.person())
		ann := r.logInAs("ann")
		bob := r.user("bob")
		r.fails(bob, oauth.ErrLoginRequired)
		r.logInAs("bob")
		anns, bobs := r.family(ann), r.family(bob)
		if anns == bobs || r.token(ann).Authorization()[0] == r.token(bob).Authorization()[0] {
			t.Fatal("both have the same tokens")
		}
		if err := ann.Refresh(r.Context()); err != nil {
			t.Error(err)
		}
		if got := r.refreshes(); got["ann"] != 1 || got["bob"] != 0 {
			t.Errorf("refreshes %v", got)
		}
		after(2 * time.Hour)
		if r.family(bob) != bobs || r.family(ann) != anns {
			t.Error("another's tokens are in use")
		}
		// A login or logout of one is none of the other.
		r.logInAs("bob")
		r.logsOut(ann, true, "")
		r.fails(ann, oauth.ErrLoginRequired)
		if f := r.family(bob); f == bobs {
			t.Error("Bob has his former tokens")
		}
		r.stop()
		r.users(r.person())
		defer r.stop()
		r.fails(r.user("ann"), oauth.ErrLoginRequired)
		r.token(r.user("bob"))

		// A dead refresh token of one, too.
		carl := r.user("carl")
		r.fails(carl, oauth.ErrLoginRequired)
		r.logInAs("ann")
		r.sandbox.SetInactive("bob", true)
		if err := r.user("bob").Refresh(r.Context()); !errors.Is(err, oauth.ErrLoginRequired) {
			t.Errorf("Refresh: %v", err)
		}
		if err := r.user("ann").Refresh(r.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
	})
}

// One who begins a login for a user can't end it for another.
func TestLoginIsForItsUser(t *testing.T) {
	t.Parallel()
	playLogin(t, annAndBob, func(r *loginRig) {
		r.users(r.person())
		defer r.stop()
		l := r.begin(r.user("ann"), by("ann"))
		if l.Key != (oauth.Key{Account: "erp", User: "ann"}) {
			t.Errorf("the login is for %s", l.Key)
		}
		q := r.approveAs(l, "ann")
		_, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by("bob").Browser, "bob")
		r.refused(err, oauth.ErrLoginForeign)
		got, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by("ann").Browser, "ann")
		if err != nil || got.Key != l.Key {
			t.Errorf("FinishLogin: %+v, %v", got, err)
		}
		r.token(r.user("ann"))
		r.fails(r.user("bob"), oauth.ErrLoginRequired)
	})
}

func TestUsersAndAccounts(t *testing.T) {
	t.Parallel()
	playLogin(t, annAndBob, func(r *loginRig) {
		each, own := r.person(), r.person()
		each.PerUser, own.Name = true, "own"
		r.start(own, each)
		defer r.stop()
		for _, tt := range []struct {
			key  oauth.Key
			want error
		}{
			{oauth.Key{Account: "erp"}, oauth.ErrUnknownUser},
			{oauth.Key{Account: "own", User: "ann"}, oauth.ErrUnknownUser},
			{oauth.Key{Account: "other"}, oauth.ErrUnknownAccount},
			{oauth.Key{Account: "other", User: "ann"}, oauth.ErrUnknownAccount},
			{oauth.Key{User: "erp"}, oauth.ErrUnknownAccount}, // where the store keeps what it knows of the server
			{oauth.Key{}, oauth.ErrUnknownAccount},
			{oauth.Key{Account: "erp", User: "ann"}, nil},
			{oauth.Key{Account: "own"}, nil},
		} {
			s, err := r.sessions.Session(r.Context(), tt.key)
			if !errors.Is(err, tt.want) || (s == nil) != (tt.want != nil) || s != nil && s.Key() != tt.key {
				t.Errorf("Session(%+v): %v, want %v", tt.key, err, tt.want)
			}
			if _, err := r.sessions.StatusOf(r.Context(), tt.key); tt.key.User != "" && !errors.Is(err, tt.want) {
				t.Errorf("StatusOf(%+v): %v, want %v", tt.key, err, tt.want)
			}
		}
		// Names are opaque: none of these is another's.
		names := []string{"ann", "Ann", "ann ", "ann/", "a/nn", "äöü", "..", "%61nn", "ann\x00"}
		r.logInAs("ann")
		for _, name := range names[1:] {
			r.fails(r.user(name), oauth.ErrLoginRequired)
		}
		if got, err := r.sessions.Users(r.Context(), "erp"); err != nil || !slices.Equal(got, []string{"ann"}) {
			t.Errorf("Users: %q, %v", got, err)
		}
	})
}

// A look at a user's status leaves nothing behind.
func TestStatusOfAStoredUser(t *testing.T) {
	t.Parallel()
	playLogin(t, annAndBob, func(r *loginRig) {
		r.users(r.person())
		r.logInAs("ann")
		r.stop()
		r.users(r.person())
		defer r.stop()
		key := oauth.Key{Account: "erp", User: "ann"}
		st, err := r.sessions.StatusOf(r.Context(), key)
		if err != nil || st.State != oauth.StateReady || st.Key != key || st.Expires.IsZero() || !st.HasRefreshToken {
			t.Errorf("%+v, %v", st, err)
		}
		if st, err := r.sessions.StatusOf(r.Context(), oauth.Key{Account: "erp", User: "bob"}); err != nil || st.State != oauth.StateLoginRequired {
			t.Errorf("%+v, %v", st, err)
		}
		after(24 * time.Hour)
		if n := r.sandbox.TokenRequests("refresh_token"); n > 1 { // the keep-alive
			t.Errorf("%d refreshes", n)
		}
	})
}

// A reload keeps the users' sessions whose account stays, with what they do,
// and ends those of accounts that go.
func TestUsersOverReloads(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		playLogin(t, annAndBob, func(r *loginRig) {
			r.users(r.person())
			defer r.stop()
			ann := r.logInAs("ann")
			tok := r.token(ann)
			for range 50 {
				a := r.person()
				a.PerUser = true
				r.configure(a)
			}
			if r.user("ann") != ann || r.token(ann) != tok {
				t.Error("the session or its token changed")
			}
			a := r.person() // another identity, and back
			a.PerUser, a.Client.ID = true, "other"
			r.configure(a)
			if ann.Current() != nil {
				t.Error("the former identity's token is current")
			}
			r.fails(r.user("ann"), oauth.ErrLoginRequired)
			b := r.person()
			b.PerUser = true
			r.configure(b)
			if r.token(r.user("ann")).Authorization()[0] != tok.Authorization()[0] {
				t.Error("back again, it has another token")
			}
			if n := r.sandbox.TokenRequests(""); n != 1 {
				t.Errorf("%d token requests", n)
			}
		})
	})
	for name, change := range map[string]func(*oauth.Account){
		"removed":                  nil,
		"no sessions per user now": func(a *oauth.Account) { a.PerUser = false },
	} {
		for _, atWork := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a refresh under way: %v", name, atWork), func(t *testing.T) {
				t.Parallel()
				playLogin(t, annAndBob, func(r *loginRig) {
					r.users(r.person())
					defer r.stop()
					ann := r.logInAs("ann")
					r.token(ann)
					refreshes := 0
					if atWork {
						r.wire.slow("refresh_token", 5*time.Second)
						go func() { _ = ann.Refresh(r.Context()) }()
						after(time.Second)
						refreshes = 1
					}
					var accounts []*oauth.Account
					if change != nil {
						a := r.person()
						change(a)
						accounts = append(accounts, a)
					}
					r.configure(accounts...)
					if _, err := r.sessions.Session(r.Context(), ann.Key()); err == nil {
						t.Error("there is still a session")
					}
					after(7 * 24 * time.Hour)
					if n := r.sandbox.TokenRequests("refresh_token"); n != refreshes {
						t.Errorf("%d refreshes for an account that is no more, want %d", n, refreshes)
					}
					a := r.person()
					a.PerUser = true
					r.configure(a) // back again
					r.token(r.user("ann"))
					if n := r.sandbox.TokenRequests("refresh_token"); n != refreshes+1 {
						t.Errorf("%d refreshes, want %d", n, refreshes+1)
					}
					r.codes(1)
				})
			})
		}
	}
}

// The keep-alive of users who are in the store alone: once per keep_alive, four
// at a time, and nobody's who is in use.
func TestKeepAliveOfStoredUsers(t *testing.T) {
	t.Parallel()
	const users = 40
	config := sandbox.Config{Users: map[string]string{}}
	for i := range users {
		config.Users[fmt.Sprintf("user%02d", i)] = "x"
	}
	playLogin(t, config, func(r *loginRig) {
		r.users(r.person())
		for name := range config.Users {
			r.logInAs(name)
		}
		r.stop()

		var mu sync.Mutex
		now, most := 0, 0
		r.wire.answers(func(s sent) *http.Response {
			if s.Form.Get("grant_type") != "refresh_token" {
				return nil
			}
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		})
		r.users(r.person())
		defer r.stop()
		live := r.user("user00")
		begun := time.Now()
		for range 24 * 6 { // user00 is in use
			r.token(live)
			after(10 * time.Minute)
		}
		for name := range config.Users {
			if n := r.refreshes()[name]; n != 1 && name != "user00" {
				t.Errorf("%d refreshes of %s in a day", n, name)
			}
		}
		if n := r.refreshes()["user00"]; n > 24*3600/525 { // one per life of a token
			t.Errorf("%d refreshes of the one in use, which the keep-alive leaves alone", n)
		}
		mu.Lock()
		if most > 4+1 || most < 2 { // and one for the one in use
			t.Errorf("%d refreshes at a time", most)
		}
		mu.Unlock()
		after(6 * 24 * time.Hour)
		for _, name := range []string{"user01", "user20", "user39"} {
			if n := r.refreshes()[name]; n < 6 || n > 8 {
				t.Errorf("%d refreshes of %s in a week", n, name)
			}
		}
		if first := r.tokenEvents("refresh_token")[0].At.Sub(begun); first < 0 {
			t.Error(first)
		}
		for name := range config.Users {
			r.token(r.user(name))
		}
		r.codes(users) // nobody had to log in again
	})
}

// A keep-alive that failed is made up for: otherwise a server that is away at
// that moment costs a login years later.
func TestKeepAliveOfUsersRecovers(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"in memory": false, "in the store alone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, annAndBob, func(r *loginRig) {
				r.users(r.person())
				r.logInAs("ann")
				if restart {
					r.stop()
					r.users(r.person())
				}
				defer r.stop()
				r.sandbox.Play(sandbox.Unavailable, -1)
				after(30 * time.Hour)
				tried := r.sandbox.TokenRequests("refresh_token")
				if tried == 0 || tried > 30*60 {
					t.Fatalf("%d keep-alives", tried)
				}
				r.sandbox.Clear()
				after(24 * time.Hour)
				if n := r.refreshes()["ann"]; n < 1 || n > 3 {
					t.Errorf("%d refreshes in the day after the outage", n)
				}
				r.token(r.user("ann"))
			})
		})
	}
}

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
			_, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by(name).Browser, name)
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
