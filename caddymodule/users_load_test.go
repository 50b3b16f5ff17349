package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A crowd is the callers of one user, who count what they got.
type crowd struct {
	user           string
	right, dropped atomic.Int64
}

// call makes a request with a body and checks whose token it carried and that
// the answer is its own. Connections that a reload resets are tried again.
func (c *crowd) call(r *portalRig, client *http.Client, mark string) {
	for range 50 {
		req, err := http.NewRequestWithContext(r.Context(), "PUT", r.origin()+"/echo/"+mark, strings.NewReader(mark))
		if err != nil {
			r.Error(err)
			return
		}
		req.SetBasicAuth(c.user, c.user+"-password")
		req.Header.Set("X-Mark", mark)
		res, err := client.Do(req)
		if err != nil {
			c.dropped.Add(1)
			time.Sleep(5 * time.Millisecond)
			continue
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			c.dropped.Add(1)
			continue
		}
		if res.StatusCode != 200 {
			r.Errorf("%s: %d %s %s", c.user, res.StatusCode, res.Header.Get(errorHeader), text)
			return
		}
		if got := tokenUser(r, string(text)); got != idpUser(c.user) || !strings.Contains(string(text), `"X-Mark":["`+mark+`"]`) {
			r.Errorf("a request of %s carried the token of %q, or the answer is another's: %s", c.user, got, text)
			return
		}
		c.right.Add(1)
		return
	}
	r.Errorf("%s: no answer after 50 attempts", c.user)
}

// Two users of one account, on shared connections, while tokens are refused
// and replaced and the configuration is loaded anew: each request carries its
// own user's token, always.
func TestUsersUnderLoad(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.global = "log {\n\t\toutput discard\n\t}"
	r.proxy += " {\n\t\ttransport http {\n\t\t\tdial_timeout 30s\n\t\t}\n\t}"
	r.start()
	crowds := []*crowd{{user: "ada"}, {user: "alan"}}
	for _, c := range crowds {
		r.browser(c.user).signIn("erp/" + c.user)
	}
	shared := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32, MaxConnsPerHost: 32}}
	defer shared.CloseIdleConnections()
	const callers, calls = 50, 30
	var wg sync.WaitGroup
	for _, c := range crowds {
		for i := range callers {
			wg.Go(func() {
				for n := range calls {
					c.call(r, shared, fmt.Sprintf("%s-%d-%d", c.user, i, n))
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	disturbed := disturb(r, crowds, done)
	<-done
	for _, c := range crowds {
		if n := c.right.Load(); n != callers*calls {
			t.Errorf("%s: %d of %d requests carried the right token", c.user, n, callers*calls)
		}
		if st := r.status("erp/" + c.user); st.State != oauth.StateReady {
			t.Errorf("%s is %s", c.user, st.State)
		}
	}
	refreshes := r.sandbox.TokenRequests("refresh_token")
	if disturbed < 2 || refreshes < disturbed || refreshes > 2*disturbed {
		t.Errorf("%d refreshes after %d times that all tokens were refused, want one per user and time", refreshes, disturbed)
	}
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindToken && e.Grant == "refresh_token" && !e.Committed {
			t.Errorf("a refresh was refused: %+v", e)
		}
	}
	t.Logf("%d times refused; %d and %d connections reset by reloads", disturbed, crowds[0].dropped.Load(), crowds[1].dropped.Load())
}

// disturb makes the API refuse all tokens, and loads the configuration, each
// time when both users have been served again. It returns how often.
func disturb(r *portalRig, crowds []*crowd, done chan struct{}) (times int) {
	for {
		var marks []int64
		for _, c := range crowds {
			marks = append(marks, c.right.Load())
		}
		for i, c := range crowds {
			for c.right.Load() < marks[i]+250 {
				select {
				case <-done:
					return times
				case <-time.After(time.Millisecond):
				}
			}
		}
		if times%2 == 0 {
			if err := r.load(r.caddyfile()); err != nil {
				r.Error(err)
			}
		}
		r.sandbox.RevokeAccessTokens()
		times++
	}
}
