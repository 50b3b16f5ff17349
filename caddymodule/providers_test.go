package caddymodule

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// TestProviders takes each account block out of the README, by its name, and
// leads it through its life. Table, blocks and rows are the same accounts.
func TestProviders(t *testing.T) {
	blocks := providerBlocks(t)
	for _, table := range readmeTable(t) {
		i := slices.IndexFunc(providerRows, func(row providerRow) bool { return row.account == table.account })
		if i < 0 {
			t.Errorf("account %s of the README's table has no test", table.account)
			continue
		}
		t.Run(table.account, func(t *testing.T) {
			newProviderRig(t, providerRows[i], table, blocks[table.account]).live()
		})
	}
}

// live is the life of a session: a sign-in, the end of its access token, a
// restart, and a logout.
func (r *providerRig) live() {
	r.start()
	r.Cleanup(r.stop)
	sent := r.row.signIn
	r.signIn()
	r.serves()
	r.sent(sent, "the sign-in", false)

	time.Sleep(time.Until(r.firstToken().Add(shortLife)))
	r.serves()
	sent = append(slices.Clone(sent), r.row.renew...)
	r.sent(sent, "the end of the access token", true)
	r.newest("the end of the access token")

	r.restart()
	r.serves()
	r.sent(sent, "a restart", true)
	r.newest("a restart")

	// The refresh token that survived is the newest.
	again := r.row.again
	if again == nil {
		again = r.row.renew
	}
	if err := r.admin("/bearer/refresh", actionJSON{Account: r.row.account}, new(accountStatus)); err != nil {
		r.Error(err)
	}
	r.serves()
	sent = append(sent, again...)
	r.sent(sent, "a refresh after the restart", true)
	r.newest("a refresh")
	r.refreshTokens()
	r.logOut(sent)
}

func (r *providerRig) logOut(sent []string) {
	r.Helper()
	var out logoutJSON
	if err := r.admin("/bearer/logout", actionJSON{Account: r.row.account}, &out); err != nil {
		r.Fatal(err)
	}
	if r.row.logout == "" {
		if out.Revoked || !strings.Contains(out.Detail, "no revocation endpoint") {
			r.Errorf("the logout is told as %+v", out)
		}
	} else {
		sent = append(sent, r.row.logout)
		if last := r.last(sandbox.KindRevoke); !out.Revoked || !last.Committed {
			r.Errorf("the logout is told as %+v; at the server: %+v", out, last)
		}
	}
	r.fails(503, "login_required")
	if selfSufficient(r.table.grant) {
		r.restart()
		r.fails(503, "login_required")
	}
	r.sent(sent, "the logout", true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := map[bool]int{true: 1}[r.table.provider == "oidc"]; r.discovery != want { // once in all, the restart included
		r.Errorf("the metadata were asked for %d times, want %d", r.discovery, want)
	}
}

// serves checks that a call is served with a token of the right user.
func (r *providerRig) serves() {
	r.Helper()
	var echo struct {
		User *string `json:"token_user"`
	}
	want := "sandbox-user"
	if r.table.grant == "client_credentials" {
		want = "" // the client's own
	}
	if err := json.Unmarshal([]byte(r.get("/echo")), &echo); err != nil || echo.User == nil || *echo.User != want {
		r.Errorf("the API saw a token of %v, want %q (%v)", echo.User, want, err)
	}
}

// sent checks what the server was sent so far, and that it took it.
func (r *providerRig) sent(want []string, after string, all bool) {
	r.Helper()
	r.mu.Lock()
	got := slices.Clone(r.lines)
	r.mu.Unlock()
	if !all { // on a slow machine the next token may be under way
		got = got[:min(len(got), len(want))]
	}
	if !slices.Equal(got, want) {
		r.Fatalf("after %s the server was sent\n%s\nwant\n%s", after, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// refreshTokens checks that each refresh brought the newest refresh token, as
// the account's client.
func (r *providerRig) refreshTokens() {
	r.Helper()
	want := ""
	for _, e := range r.sandbox.Events() {
		if e.Kind != sandbox.KindToken {
			continue
		}
		if e.Grant == "refresh_token" && e.Presented != want {
			r.Errorf("a refresh brought %s, want %s", e.Presented, want)
		}
		if how := strings.Fields(r.row.signIn[0])[2]; e.Committed && e.ClientAuth != strings.Trim(how, ":") {
			r.Errorf("by the server's account the client authenticated by %s, want %s", e.ClientAuth, how)
		}
		if e.Committed && (e.Grant != "refresh_token" || !r.row.keeps) {
			want = e.Issued
		}
	}
}

func (r *providerRig) last(kind string) (last sandbox.Event) {
	r.Helper()
	for _, e := range r.sandbox.Events() {
		if e.Kind == kind {
			last = e
		}
	}
	if last.Kind == "" {
		r.Fatalf("no event of kind %s", kind)
	}
	return last
}

// newest checks that the API's last request had the newest access token.
func (r *providerRig) newest(after string) {
	r.Helper()
	want := ""
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindToken && e.Committed {
			want = e.Issued
		}
	}
	if e := r.last(sandbox.KindAPI); e.Presented != want {
		r.Errorf("after %s the API is called with %s, want %s", after, e.Presented, want)
	}
}

func (r *providerRig) firstToken() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.granted
}
