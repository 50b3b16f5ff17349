package oauth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A loginRig is a rig whose accounts send their requests over a wire that is
// listened to.
type loginRig struct {
	*rig
	wire *tap
	// endpoints are the sandbox's.
	endpoints sandbox.Endpoints
}

// playLogin runs f in virtual time.
func playLogin(t *testing.T, c sandbox.Config, f func(r *loginRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &loginRig{rig: newRig(t, c)}
		r.wire = &tap{next: r.dial()}
		r.endpoints = r.sandbox.Endpoints(base)
		f(r)
		r.wire.check(t)
	})
}

// base is the server's: without TLS, metadata and pages for a person may only
// be on this machine.
const base = "http://127.0.0.1:8081"

const callbackURI = "https://proxy.test/bearer/callback"

// person is an account whose user logs in with a browser.
func (r *loginRig) person() *oauth.Account {
	a := r.account()
	r.at(a)
	a.Client.PinIssuer = true
	a.Grant = &oauth.AuthorizationCode{RedirectURI: callbackURI, PKCE: true}
	return a
}

// at gives an account the sandbox's endpoints.
func (r *loginRig) at(a *oauth.Account) {
	c, e := &a.Client, r.endpoints
	c.AuthorizeEndpoint, c.TokenEndpoint, c.RevokeEndpoint, c.DeviceEndpoint = e.Authorize, e.Token, e.Revoke, e.DeviceAuthorization
	c.Transport = r.wire
}

// anns is the start of the login of Ann, who uses the portal.
func anns() oauth.LoginStart {
	return oauth.LoginStart{Browser: oauth.NewSecret("anns-browser"), By: "ann"}
}

func (r *loginRig) begin(s *oauth.Session, start oauth.LoginStart) *oauth.Login {
	r.Helper()
	l, err := s.BeginLogin(r.Context(), start)
	if err != nil {
		r.Fatalf("BeginLogin: %v", err)
	}
	return l
}

// approve plays the person, and returns the query of the callback.
func (r *loginRig) approve(l *oauth.Login) url.Values {
	r.Helper()
	return r.approveAs(l, "sandbox-user")
}

func (r *loginRig) approveAs(l *oauth.Login, user string) url.Values {
	r.Helper()
	back, err := r.sandbox.Approve(l.URL, user)
	if err != nil {
		r.Fatalf("the authorization server: %v", err)
	}
	u, err := url.Parse(back)
	if err != nil {
		r.Fatal(err)
	}
	return u.Query()
}

// finish brings the callback of Ann's login.
func (r *loginRig) finish(query url.Values) (*oauth.Login, error) {
	return r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: query.Encode(), Browser: anns().Browser, By: anns().By})
}

// logIn is a whole login of Ann's.
func (r *loginRig) logIn(s *oauth.Session) {
	r.Helper()
	if _, err := r.finish(r.approve(r.begin(s, anns()))); err != nil {
		r.Fatalf("FinishLogin: %v", err)
	}
}

// refused checks why a login came to nothing.
func (r *loginRig) refused(err, want error) *oauth.LoginError {
	r.Helper()
	e := new(oauth.LoginError)
	if !errors.Is(err, want) || !errors.As(err, &e) {
		r.Fatalf("the login: %v, want a LoginError that is %v", err, want)
	}
	return e
}

// codes checks how many codes were sent to the token endpoint.
func (r *loginRig) codes(want int) {
	r.Helper()
	if n := r.sandbox.TokenRequests("authorization_code"); n != want {
		r.Errorf("%d codes were sent, want %d", n, want)
	}
}

// revoked checks how many revocations the server has seen, all of live tokens.
func (r *loginRig) revoked(want int) {
	r.Helper()
	n := 0
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindRevoke && e.Committed {
			n++
		}
	}
	if n != want {
		r.Errorf("%d tokens were revoked, want %d", n, want)
	}
}

// stored returns what the store has of a session; empty if it has nothing.
func (r *loginRig) stored(key oauth.Key) string {
	r.Helper()
	e, err := r.store.Load(r.Context(), key)
	if err != nil && !errors.Is(err, oauth.ErrNotFound) {
		r.Fatal(err)
	}
	return string(e.Value)
}

// empty checks that the session has no tokens, here and in the store.
func (r *loginRig) empty(s *oauth.Session) {
	r.Helper()
	if s.Current() != nil || s.Status().HasRefreshToken {
		r.Error("the session has tokens")
	}
	if text := r.stored(s.Key()); strings.Contains(text, "_token\":") {
		r.Error("the store has tokens of the session")
	}
}

// called asks the API with the session's token, and returns what it noted.
func (r *loginRig) called(s *oauth.Session) sandbox.Event {
	r.Helper()
	r.token(s)
	events := r.sandbox.Events()
	for i := len(events) - 1; i >= 0; i-- { // a refresh may be under way as well
		if events[i].Kind == sandbox.KindAPI {
			return events[i]
		}
	}
	r.Fatal("the API saw no token")
	return sandbox.Event{}
}

// family is the login at the server that the session's token comes from.
func (r *loginRig) family(s *oauth.Session) string {
	r.Helper()
	return r.called(s).Family
}

// users begins with an account that has sessions per user.
func (r *loginRig) users(accounts ...*oauth.Account) {
	r.Helper()
	for _, a := range accounts {
		a.PerUser = true
	}
	r.sessions = oauth.NewSessions(r.log)
	r.sessions.Turn(r.clocks.turn)
	r.sessions.Open(lasting{r.store})
	r.sessions.Configure(r.Context(), accounts)
}

// user returns a user's session.
func (r *loginRig) user(name string) *oauth.Session {
	r.Helper()
	s, err := r.sessions.Session(r.Context(), oauth.Key{Account: "erp", User: name})
	if err != nil {
		r.Fatal(err)
	}
	return s
}
