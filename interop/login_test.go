package interop

import (
	"errors"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	exchanged    = "authorization_code OK"
	revoked      = Revocation + " OK"
	untilRefresh = 3 * time.Second // lifetime of tokens in a test that waits for refreshes
)

// A person logs in once. From then on tokens are refreshed, under calls from
// several sides, and outlive the proxy's sudden end.
func TestLogin(t *testing.T) {
	onLogins(t, untilRefresh, func(r *rig) {
		p := newLoginProxy(r)
		p.run()
		p.needsPerson()
		r.want()
		p.loggedIn()
		p.works()
		if access, _ := r.Issued(); r.user(access) != r.Username {
			r.Errorf("the token's user is %q", r.user(access))
		}

		callUntilEvents(p, 3)
		time.Sleep(200 * time.Millisecond) // let it commit: this is not about a lost reply
		p.restart()
		p.works()
		callUntilEvents(p, 5)

		presented := map[string]bool{}
		for n, e := range r.TokenEvents() {
			if e.Status != http.StatusOK || (e.Grant == "refresh_token") != (n > 0) || presented[e.Presented] {
				r.Errorf("token request %d must not be there: %+v", n, e)
			}
			presented[e.Presented] = true
		}
	})
}

// callUntilEvents calls the API from four sides until there were n token
// requests. No call may fail.
func callUntilEvents(p *proxy, n int) {
	p.Helper()
	var callers sync.WaitGroup
	end := time.Now().Add(patience)
	for range 4 {
		callers.Go(func() {
			for len(p.rig.TokenEvents()) < n {
				if status, code, err := p.call(application, "a body"); err != nil || status != http.StatusOK {
					p.Errorf("%d %s %v", status, code, err)
				}
				if time.Now().After(end) {
					p.Errorf("there are no %d token requests", n)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	callers.Wait()
	p.works() // waits for the refresh, if there was one
}

// Somebody plays an old refresh token of ours back: the server ends the family,
// only a person can mend it, and nothing is tried meanwhile.
func TestLoginAfterTheft(t *testing.T) {
	onLogins(t, 10*time.Minute, func(r *rig) {
		p := newLoginProxy(r)
		p.run()
		p.loggedIn()
		p.works()
		if out, err := p.bearer("refresh", "erp"); err != nil {
			r.Fatalf("%v\n%s", err, out)
		}
		p.works()
		r.refused("the thief", r.ask(refresh(r.Spent())))

		for range 3 {
			p.needsPerson()
		}
		p.restart()
		p.needsPerson()
		want := []string{exchanged, refreshed, dead, dead}
		r.want(want...)

		p.loggedIn()
		p.works()
		p.restart()
		p.works()
		r.want(append(want, exchanged)...)
	})
}

// Logging out ends the tokens at the server, here, and for good.
func TestLogout(t *testing.T) {
	onLogins(t, 10*time.Minute, func(r *rig) {
		p := newLoginProxy(r)
		p.run()
		p.loggedIn()
		p.works()
		access, token := r.Issued()
		if out, err := p.bearer("logout", "erp"); err != nil {
			r.Fatalf("%v\n%s", err, out)
		}
		p.needsPerson()
		p.restart()
		p.needsPerson()
		if got := r.requests(); len(got) < 2 || len(got) > 3 || got[0] != exchanged ||
			slices.ContainsFunc(got[1:], func(request string) bool { return request != revoked }) {
			r.Errorf("the token requests were %q, want %q and one or two %q", got, exchanged, revoked)
		}
		if r.accepts(access) {
			r.Error("the access token outlived the logout")
		}
		r.refused("the refresh token", r.ask(refresh(token)))
		p.loggedIn()
		p.works()
	})
}

// The person says no: the command says so, nothing is asked for, and the next
// login is as good as the first.
func TestLoginDenied(t *testing.T) {
	onLogins(t, 10*time.Minute, func(r *rig) {
		p := newLoginProxy(r)
		p.run()
		who := newPerson(r.Username, r.Password)
		who.refuses = true
		o := p.login("erp", who)
		if exit := new(exec.ExitError); !errors.As(o.exit, &exit) || o.trip != nil {
			r.Errorf("bearer login: %v, want a failure; the person: %v", o.exit, o.trip)
		}
		if !strings.Contains(o.out, "access_denied") {
			r.Errorf("bearer login doesn't say why:\n%s", o.out)
		}
		p.needsPerson()
		r.want()
		p.loggedIn()
		p.works()
	})
}

// A client without credentials logs in too; its tokens rotate and are revoked.
func TestLoginPublicClient(t *testing.T) {
	onLogins(t, 10*time.Minute, func(r *rig) {
		p := newLoginProxy(r, "client_auth none", "client_id "+PublicClient)
		p.run()
		p.loggedIn()
		p.works()
		if out, err := p.bearer("refresh", "erp"); err != nil {
			r.Fatalf("%v\n%s", err, out)
		}
		p.works()
		r.want(exchanged, refreshed)
		access, _ := r.Issued()
		if out, err := p.bearer("logout", "erp"); err != nil {
			r.Fatalf("%v\n%s", err, out)
		}
		if r.accepts(access) {
			r.Error("the access token outlived the logout")
		}
	})
}
