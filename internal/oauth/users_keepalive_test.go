package oauth_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

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
