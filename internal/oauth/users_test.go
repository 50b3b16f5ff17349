package oauth_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// logInAs is a whole login of a user of the sandbox.
func (r *loginRig) logInAs(name string) *oauth.Session {
	r.Helper()
	s := r.user(name)
	q := r.approveAs(r.begin(s, by(name)), name)
	if _, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by(name).Browser, By: name}); err != nil {
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
		_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by("bob").Browser, By: "bob"})
		r.refused(err, oauth.ErrLoginForeign)
		got, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by("ann").Browser, By: "ann"})
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
