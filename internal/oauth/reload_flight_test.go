package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What a refresh under way comes to is decided by the configuration at its end:
// the failure that a reload mended isn't held.
func TestReloadWhileARefreshIsUnderWay(t *testing.T) {
	t.Parallel()
	lost := func(p oauth.OnLostReply) func(*rig) *oauth.Account {
		return func(r *rig) *oauth.Account {
			a := r.account()
			a.OnLostReply = p
			return a
		}
	}
	for name, tt := range map[string]struct {
		before, then      func(*rig) *oauth.Account
		fault             sandbox.Fault
		password, refresh int
		waits             bool // for a person
	}{
		"relogin on, the refresh token is dead":       {(*rig).noRelogin, (*rig).account, sandbox.Dead401, 2, 1, false},
		"relogin off, the refresh token is dead":      {(*rig).account, (*rig).noRelogin, sandbox.Dead401, 1, 1, true},
		"the same, the refresh token is dead":         {(*rig).noRelogin, (*rig).noRelogin, sandbox.Dead401, 1, 1, true},
		"on_lost_reply stop to replay, a lost reply":  {lost(oauth.LostStop), lost(oauth.LostReplay), sandbox.ServerError, 1, 2, false},
		"on_lost_reply stop to login, a lost reply":   {lost(oauth.LostStop), lost(oauth.LostLogin), sandbox.ServerError, 2, 1, false},
		"on_lost_reply stop, as before, a lost reply": {lost(oauth.LostStop), lost(oauth.LostStop), sandbox.ServerError, 1, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
				s := r.start(tt.before(r))
				defer r.stop()
				r.token(s)
				r.sandbox.Play(tt.fault, 1)
				r.underWay(s)
				r.configure(tt.then(r))
				after(20 * time.Second)
				r.requests(tt.password, tt.refresh)
				if err := s.Status().Err; errors.Is(err, oauth.ErrLoginRequired) != tt.waits {
					t.Errorf("what stands is %v", err)
				}
			})
		})
	}
}
