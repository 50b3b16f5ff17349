package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// token asks for one as a caller does; nil if there is none.
func (m *machine) token() *oauth.Token {
	l := m.life
	tok, err := l.session.Token(context.Background())
	if l.dead() {
		return nil
	}
	if err == nil {
		m.handedOut(l, tok)
		return tok
	}
	if errors.Is(err, oauth.ErrLoginRequired) {
		m.personNeeded(err.Error())
	}
	m.notServed(l, err)
	return nil
}

// call is one of a caller, as the proxy plays it: a refused request is sent
// once more with another token. It reports whether the API took it.
func (m *machine) call() bool {
	s := m.life.session
	tok := m.token()
	if tok == nil {
		return false
	}
	status := m.use(tok)
	if status != 401 {
		s.Accept(tok, false)
		return status == 200
	}
	m.refusedByAPI(tok)
	s.Reject(tok, false)
	again := m.token()
	switch {
	case again == nil || again == tok:
	case m.use(again) == 401:
		m.refusedByAPI(again)
		s.Reject(again, true)
	default:
		s.Accept(again, true)
		return true
	}
	return false
}

// use asks the API.
func (m *machine) use(tok *oauth.Token) int { return (&rig{sandbox: m.sandbox}).call(tok) }

func (m *machine) crowd(*rapid.T) {
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			time.Sleep(time.Duration(i) * 12 * time.Millisecond) // one comes at each moment of a refresh
			m.call()
		})
	}
	callers.Wait()
}

func (m *machine) wait(t *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{
		time.Second, 10 * time.Second, time.Minute, 9*time.Minute + 10*time.Second, 10 * time.Minute, time.Hour, 25 * time.Hour,
	}).Draw(t, "pause"))
}

// tokenFaults are all of the token endpoint.
var tokenFaults = func() (faults []sandbox.Fault) {
	for _, f := range sandbox.Faults() {
		if f.Endpoint == "token" {
			faults = append(faults, f.Name)
		}
	}
	return faults
}()

func (m *machine) fault(t *rapid.T) {
	m.sandbox.Play(rapid.SampledFrom(tokenFaults).Draw(t, "fault"), rapid.SampledFrom([]int{1, 2, 3, -1}).Draw(t, "times"))
}

func (m *machine) refuse(t *rapid.T) {
	switch rapid.SampledFrom([]string{"once", "revoked", "always", "403"}).Draw(t, "how") {
	case "once":
		m.sandbox.Play(sandbox.RejectAccessToken, 1)
	case "revoked":
		m.sandbox.RevokeAccessTokens()
	case "always":
		m.sandbox.Play(sandbox.RejectAccessToken, -1)
	default:
		m.sandbox.Play(sandbox.Reject403, 1)
	}
}

func (m *machine) revoke(*rapid.T) {
	m.sandbox.RevokeRefreshTokens()
	m.revoked()
}

func (m *machine) forget(t *rapid.T) {
	m.forgetting()
	l, events := m.life, len(m.sandbox.Events())
	err := l.session.Forget(t.Context())
	if l.dead() {
		err = errKilled
	}
	m.forgotten(events, err)
}

func (m *machine) importToken(t *rapid.T) {
	token := nonsense + m.user
	if rapid.Bool().Draw(t, "good") {
		token = m.loginElsewhere()
	}
	// What comes of a refresh under way would be the model's guess.
	if unlock, err := m.life.store.Lock(t.Context(), oauth.Key{Account: "erp"}); err == nil {
		unlock()
	}
	synctest.Wait()
	before, l, events := m.importing(), m.life, len(m.sandbox.Events())
	var callers sync.WaitGroup
	beside := rapid.Bool().Draw(t, "beside calls")
	if beside {
		callers.Go(func() { m.crowd(t) })
	}
	err := l.session.Import(t.Context(), oauth.NewSecret(token))
	callers.Wait()
	m.imported(before, events, !beside && !l.dead() && errors.Is(err, oauth.ErrImportRefused) && !errors.Is(err, errDisk))
}

// loginElsewhere gets a refresh token of the account's user without the proxy,
// or nonsense if the server is in no mood.
func (m *machine) loginElsewhere() (token string) {
	defer func() {
		if recover() != nil { // a fault of the server cut the answer
			token = nonsense + m.user
		}
	}()
	m.logins++
	form := url.Values{"grant_type": {"password"}, "username": {m.user}, "password": {m.passwordOf(m.user)}, "scope": {"all"}}
	req := httptest.NewRequest("POST", "http://as.test/oauth/v2/oauth-token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("sandbox-client", m.secret)
	req.RemoteAddr = fmt.Sprintf("elsewhere:%d", m.logins)
	rec := httptest.NewRecorder()
	m.sandbox.AuthorizationServer().ServeHTTP(&overheard{ResponseWriter: rec, world: m.world, conn: req.RemoteAddr}, req)
	if rec.Code != 200 {
		return nonsense + m.user
	}
	for _, part := range inAnswer.FindAllStringSubmatch(rec.Body.String(), -1) {
		if part[1] == "refresh_token" {
			return part[2]
		}
	}
	return nonsense + m.user
}

// passwordOf is the right one of a user.
func (m *machine) passwordOf(user string) string {
	if user == "bob" {
		return "bob-password"
	}
	return m.right
}

// reload hands over the same again, which costs no token request.
func (m *machine) reload(t *rapid.T) {
	synctest.Wait()
	busy, before := m.life.busy(), m.sandbox.TokenRequests("")
	err := m.life.session.Status().Err // what a latch holds may have changed while a request was under way
	refused := errors.Is(err, oauth.ErrCredentialsRejected) || errors.Is(err, oauth.ErrMisconfigured)
	m.configure()
	synctest.Wait()
	if n := m.sandbox.TokenRequests(""); !busy && !refused && n != before {
		t.Fatal("a reload of the same makes a token request")
	}
}

// change hands over something else.
func (m *machine) change(t *rapid.T) {
	user := rapid.SampledFrom([]string{"sandbox-user", "bob"}).Draw(t, "user")
	password := rapid.SampledFrom([]string{"right", "wrong", "as wrong"}).Draw(t, "password")
	if password == "right" {
		password = m.passwordOf(user)
	}
	policy := rapid.SampledFrom([]oauth.OnLostReply{oauth.LostReplay, oauth.LostLogin, oauth.LostStop}).Draw(t, "on_lost_reply")
	relogin := policy == oauth.LostLogin || rapid.Bool().Draw(t, "relogin")
	m.password = password
	m.configured(user, policy, relogin)
	m.configure()
}

// changePassword is one at the server, of which the account needn't know.
func (m *machine) changePassword(t *rapid.T) {
	m.right += "+"
	m.sandbox.SetPassword(m.right)
	if m.user == "sandbox-user" && rapid.Bool().Draw(t, "told") {
		m.password = m.right
		m.disturb()
		m.configure()
	}
}

// crash kills the life now or some steps later, alone or in a refresh.
func (m *machine) crash(t *rapid.T) {
	steps := rapid.IntRange(0, 12).Draw(t, "steps")
	m.downtime = rapid.SampledFrom([]time.Duration{0, 10 * time.Second, time.Minute, time.Hour}).Draw(t, "downtime")
	if steps == 0 {
		m.disturb()
		m.life.kill()
		return
	}
	m.life.blow(steps)
	if rapid.Bool().Draw(t, "in a refresh") {
		_ = m.life.session.Refresh(brief(t))
	}
}

func (m *machine) restart(t *rapid.T) {
	m.stop(t, rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Minute}).Draw(t, "patience"))
	time.Sleep(rapid.SampledFrom([]time.Duration{0, 10 * time.Second, time.Hour}).Draw(t, "downtime"))
	m.start(t)
}

// stop ends a life in order.
func (m *machine) stop(t *rapid.T, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.disturb()
	begin := time.Now()
	err := m.life.sessions.Close(ctx)
	switch {
	case m.life.dead(): // it was killed meanwhile
		_ = m.life.store.(*processStore).Store.Close()
	case err != nil:
		t.Fatalf("Close: %v", err)
	case time.Since(begin) > patience+time.Second:
		t.Fatal("Close takes longer than it may")
	}
	m.disturb()
	m.life.kill()
	m.died()
}

func (m *machine) secondOpener(t *rapid.T) {
	if other, err := store.OpenBolt(m.path); !errors.Is(err, oauth.ErrStoreInUse) {
		if err == nil {
			_ = other.Close()
		}
		t.Fatalf("a second opener: %v", err)
	}
}

func (m *machine) storeOutage(t *rapid.T) {
	m.setOutage(rapid.SampledFrom([]outage{{save: true}, {late: true}, {load: true}, {load: true, save: true}, {load: true, late: true}}).Draw(t, "outage"))
}

// renew sets the right password; what was refused is held until it changes.
func (m *machine) renew(all bool) {
	if all {
		m.right += "+"
		m.secret += "+"
		m.sandbox.SetPassword(m.right)
		m.sandbox.SetClientSecret(m.secret)
	}
	m.password = m.passwordOf(m.user)
	m.configured(m.user, m.policy, m.relogin)
	m.configure()
}

// recovery is what must follow once all is in order: within minutes there is a
// token that the API takes, unless only a person can help.
func (m *machine) recover(t *rapid.T) {
	m.sandbox.Clear()
	m.setOutage(outage{})
	m.life.blow(0)
	m.renew(m.latched())
	renewed := false
	for begin := time.Now(); !m.call(); time.Sleep(15 * time.Second) {
		if !renewed && time.Since(begin) > time.Minute && m.latched() { // by a request that was under way
			renewed = true
			m.renew(true)
		}
		if time.Since(begin) > 12*time.Minute {
			if st := m.life.session.Status(); strings.Contains(st.Detail, oauth.ErrLoginRequired.Error()) {
				m.personNeeded(st.Detail) // is it so?
				return
			}
			t.Logf("%+v", m.life.session.Status())
			t.Fatal("it doesn't recover")
		}
	}
	for begin := time.Now(); m.life.session.Status().Unsaved; time.Sleep(5 * time.Second) {
		if time.Since(begin) > 5*time.Minute { // a request under way has the lock
			t.Fatal("the tokens are still not saved")
		}
	}
}
