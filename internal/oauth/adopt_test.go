package oauth_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// installed is a store that knows which installation has it.
type installed struct {
	lasting
	instance string
	tell     func(oauth.StoreNotice)
}

func (i *installed) Instance() string                     { return i.instance }
func (i *installed) Watch(tell func(n oauth.StoreNotice)) { i.tell = tell }

// startAt begins with what the store holds as an installation does.
func (r *rig) startAt(instance string, accounts ...*oauth.Account) *oauth.Session {
	r.Helper()
	r.sessions = oauth.NewSessions(r.log)
	r.sessions.Open(&installed{lasting: lasting{r.store}, instance: instance})
	r.sessions.Configure(r.Context(), accounts)
	s, err := r.sessions.Session(r.Context(), oauth.Key{Account: accounts[0].Name})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// The refresh token of another installation isn't spent, and its access token
// not used, until somebody says so.
func TestForeignTokensWaitForAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		a := r.account()
		a.Grant.(*oauth.Password).Relogin = false
		s := r.startAt("one", a)
		r.token(s)
		r.stop()
		r.requests(1, 0)

		s = r.startAt("one", a)
		r.token(s)
		r.stop()
		r.requests(1, 0)

		s = r.startAt("two", a)
		time.Sleep(48 * time.Hour) // nor does keep-alive
		r.fails(s, oauth.ErrLoginRequired)
		r.state(s, oauth.StateLoginRequired)
		if d := s.Status().Detail; !strings.Contains(d, "caddy bearer adopt") {
			t.Errorf("the operator is told %q", d)
		}
		if err := s.Refresh(t.Context()); !errors.Is(err, oauth.ErrLoginRequired) {
			t.Errorf("Refresh: %v", err)
		}
		r.stop()
		r.requests(1, 0)

		s = r.startAt("two", a)
		ad, err := s.Adoptable(t.Context())
		if err != nil || !ad.Foreign || ad.ClientID != "" || ad.Refreshed.IsZero() {
			t.Errorf("Adoptable: %+v, %v", ad, err)
		}
		r.requests(1, 0)
		if err := s.Adopt(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.token(s)
		r.requests(1, 1)
		if err := s.Adopt(t.Context()); !errors.Is(err, oauth.ErrNothingToAdopt) {
			t.Errorf("a second time: %v", err)
		}
		r.stop()

		s = r.startAt("two", a)
		defer r.stop()
		r.token(s)
		r.requests(1, 1)
	})
}

// Who can sign in with nobody at hand does, and leaves the other's alone.
func TestForeignTokensAreReplacedByALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.startAt("one", r.account())
		r.token(s)
		r.stop()
		s = r.startAt("two", r.account())
		defer r.stop()
		r.token(s)
		r.requests(2, 0)
		time.Sleep(90 * time.Minute)
		r.token(s)
		if n := r.sandbox.TokenRequests("password"); n != 2 {
			t.Errorf("%d logins, want one for each installation", n)
		}
	})
}

// Without a marker, and for records from before there were any, nothing is
// foreign.
func TestNobodysTokensAreOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		for _, instance := range []string{"", "one", "", "two", "two"} {
			s := r.startAt(instance, r.account())
			r.token(s)
			r.forceSave(s)
			r.stop()
		}
		r.requests(1, 5)
	})
}

func (r *rig) forceSave(s *oauth.Session) {
	r.Helper()
	if err := s.Refresh(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// Tokens of another client id are kept and can be taken over.
func TestAdoptAfterChangeOfIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		a := r.account()
		s := r.start(a)
		r.token(s)
		if _, err := s.Adoptable(t.Context()); !errors.Is(err, oauth.ErrNothingToAdopt) {
			t.Errorf("Adoptable: %v", err)
		}
		moved := r.account()
		moved.Client.TokenEndpoint = "http://as2.test/oauth/v2/oauth-token"
		moved.Grant = oauth.RefreshToken{}
		r.sessions.Configure(t.Context(), []*oauth.Account{moved})
		r.fails(s, oauth.ErrLoginRequired)
		ad, err := s.Adoptable(t.Context())
		if err != nil || ad.Foreign || ad.Host != "as.test" || ad.ClientID != "sandbox-client" || ad.Username != "sandbox-user" {
			t.Errorf("Adoptable: %+v, %v", ad, err)
		}
		if err := s.Adopt(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.token(s)
		r.requests(1, 0)
		r.forceSave(s)
		r.requests(1, 1)
		r.stop()
	})
}

// What the store tells of itself reaches the log and the status.
func TestStoreNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		ss := oauth.NewSessions(slog.New(slog.NewTextHandler(&log, nil)))
		st := &installed{}
		r := newRig(t, sandbox.Config{})
		st.lasting = lasting{r.store}
		ss.Open(st)
		ss.Configure(t.Context(), nil)
		st.tell(oauth.StoreNotice{Mended: []string{"this was mended"}})
		st.tell(oauth.StoreNotice{Problem: "no space"})
		st.tell(oauth.StoreNotice{Problem: "still no space"}) // that isn't logged again
		st.tell(oauth.StoreNotice{Problem: "no space"})
		if n := ss.Store(); n.Problem != "no space" || len(n.Mended) != 1 {
			t.Errorf("%+v", n)
		}
		st.tell(oauth.StoreNotice{})
		if n := ss.Store(); n.Problem != "" || len(n.Mended) != 1 {
			t.Errorf("%+v", n)
		}
		for _, want := range []string{"this was mended", "no space", "well again"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("the log doesn't say %q once: %s", want, &log)
			}
		}
		if err := ss.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
