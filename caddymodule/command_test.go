package caddymodule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

var statusNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// statusAccounts are accounts in every state.
var statusAccounts = []accountStatus{
	{Account: "pagero", State: oauth.StateReady, Grant: "password", Expires: statusNow.Add(9*time.Minute + 30*time.Second),
		HasRefreshToken: true, RefreshExpires: statusNow.AddDate(3, 0, 0), Refreshed: statusNow.Add(-30 * time.Second)},
	{Account: "idle", State: oauth.StateReady, Grant: "password", HasRefreshToken: true, Refreshed: statusNow.Add(-26 * time.Hour)},
	{Account: "starting", State: oauth.StateRefreshing, Grant: "password"},
	{Account: "full-disk", State: oauth.StateDegraded, Grant: "password", Expires: statusNow.Add(59 * time.Minute),
		HasRefreshToken: true, Refreshed: statusNow.Add(-90 * time.Minute), Unsaved: true},
	{Account: "away", State: oauth.StateAway, Grant: "password", HasRefreshToken: true, Refreshed: statusNow.Add(-72 * time.Hour),
		RetryAt: statusNow.Add(95 * time.Second), Detail: "the authorization server is not available: connection refused"},
	{Account: "latched", State: oauth.StateRefused, Grant: "password", Detail: "the authorization server refused the credentials: invalid_grant"},
	{Account: "person", State: oauth.StateLoginRequired, Grant: "authorization_code", RetryAt: statusNow.Add(-time.Second), Detail: "a person has to log in"},
	{Account: "new", State: oauth.StateUnknown, Grant: "password"},
	{Account: "ending", State: oauth.StateReady, Grant: "password", Expires: statusNow.Add(9*time.Minute + 30*time.Second),
		HasRefreshToken: true, RefreshExpires: time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC), Refreshed: statusNow.Add(-30 * time.Second)},
	{Account: "erp", State: oauth.StateReady, Grant: "device_code", Users: &manyUsers},
}

var manyUsers = 1200

const statusText = `ACCOUNT    STATE           TOKEN ENDS   REFRESH TOKEN     LAST REFRESH  GRANT
pagero     ready           in 9 min     until 2029-03-01  30 s ago      password
idle       ready           when needed  yes               26 h ago      password
starting   refreshing      none         none              never         password
  its first token is being fetched
full-disk  degraded        in 59 min    yes               90 min ago    password
  the newest tokens are in memory only, because the store can't be written; don't stop the server
away       away            none         yes               3 days ago    password
  the authorization server is not available: connection refused
  next attempt in 1 min 35 s
latched    refused         none         none              never         password
  the authorization server refused the credentials: invalid_grant
person     login_required  none         none              never         authorization_code
  a person has to log in
new        unknown         none         none              never         password
  nothing was tried yet; the next request fetches a token, or: caddy bearer refresh new
ending     ready           in 9 min     until 2026-03-20  30 s ago      password
  the refresh token ends in 18 days; log in before: caddy bearer login ending
erp/…      users: 1200                                                  device_code
  each user has a session; to see them: caddy bearer status erp

store: /var/lib/caddy/bearer.db, sealed with the configured key
`

func TestStatusText(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	st := statusJSON{Store: "/var/lib/caddy/bearer.db, sealed with the configured key", Accounts: statusAccounts}
	if err := writeStatus(&out, st, statusNow, false); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != statusText {
		t.Errorf("it is\n%s\nwant\n%s", got, statusText)
	}
}

// Without accounts, and with an account's name wider than the heading.
func TestStatusTextEdges(t *testing.T) {
	t.Parallel()
	for want, accounts := range map[string][]accountStatus{
		"ACCOUNT  STATE  TOKEN ENDS  REFRESH TOKEN  LAST REFRESH  GRANT\n\nstore: memory\n": nil,
		"ACCOUNT       STATE  TOKEN ENDS  REFRESH TOKEN     LAST REFRESH  GRANT\n" +
			"a-long-näme-  ready  in 0 s      until 2020-01-01  0 s ago       password\n" +
			"  the refresh token ends about now; log in before: caddy bearer login 'a-long-näme-'\n\nstore: memory\n": {
			{Account: "a-long-näme-", State: oauth.StateReady, Grant: "password", Expires: statusNow.Add(-time.Second), // as a clock that was set does it
				HasRefreshToken: true, RefreshExpires: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), Refreshed: statusNow.Add(time.Hour)},
		},
	} {
		var out strings.Builder
		if err := writeStatus(&out, statusJSON{Store: "memory", Accounts: accounts}, statusNow, false); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("it is\n%s\nwant\n%s", out.String(), want)
		}
	}
}

// The state has a colour where that is wanted, and nothing else changes.
func TestStatusColours(t *testing.T) {
	t.Parallel()
	st := statusJSON{Store: "/var/lib/caddy/bearer.db, sealed with the configured key", Accounts: statusAccounts}
	st.Accounts = append([]accountStatus{{Account: "ä/\x1b[31mred", State: oauth.StateAway}}, st.Accounts...)
	var out strings.Builder
	if err := writeStatus(&out, st, statusNow, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		red + "away" + plain, green + "ready" + plain, yellow + "refreshing" + plain, yellow + "degraded" + plain,
		red + "refused" + plain, red + "login_required" + plain, yellow + "unknown" + plain, `"ä/\x1b[31mred"  ` + red + "away",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q isn't in\n%q", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "\x1b"); n != 2*(len(st.Accounts)-1) { // the account with users has no state of its own
		t.Errorf("%d escape sequences", n)
	}
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "''", "erp/ada@x": "erp/ada@x", "a b": "'a b'", "$(id)": "'$(id)'", "it's": `'it'\''s'`, "a\nb": "'a\nb'",
	} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0 s", 400 * time.Millisecond: "0 s", 59 * time.Second: "59 s", 119 * time.Second: "119 s",
		2 * time.Minute: "2 min", 7*time.Minute + 59*time.Second: "7 min", 119 * time.Minute: "119 min", 2 * time.Hour: "2 h",
		47*time.Hour + 59*time.Minute: "47 h", 48 * time.Hour: "2 days", 3 * 365 * 24 * time.Hour: "1095 days",
	} {
		if got := about(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestStatusTextError(t *testing.T) {
	t.Parallel()
	if err := writeStatus(brokenWriter{}, statusJSON{}, statusNow, false); err == nil {
		t.Error("a broken pipe isn't told")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestExitOfStatus(t *testing.T) {
	t.Parallel()
	for states, want := range map[string]struct {
		code int
		text string
	}{
		"":                                 {0, ""},
		"ready":                            {0, ""},
		"ready refreshing degraded":        {0, ""},
		"away":                             {1, "can't serve: a0"},
		"refused":                          {1, "can't serve: a0"},
		"unknown":                          {1, "can't serve: a0"},
		"a_later_one":                      {1, "can't serve: a0"},
		"login_required":                   {3, "can't serve: a0"},
		"ready login_required away":        {3, "can't serve: a1, a2"},
		"away refused login_required away": {3, "can't serve: a0, a1, a2, a3"},
		"ready away degraded":              {1, "can't serve: a1"},
	} {
		var st statusJSON
		for i, state := range strings.Fields(states) {
			st.Accounts = append(st.Accounts, accountStatus{Account: fmt.Sprint("a", i), State: oauth.State(state)})
		}
		code, err := exitOf(st)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if code != want.code || text != want.text {
			t.Errorf("%q: %d, %q; want %d, %q", states, code, text, want.code, want.text)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour:                   "0 s",
		0:                            "0 s",
		400 * time.Millisecond:       "0 s",
		600 * time.Millisecond:       "1 s",
		59 * time.Second:             "59 s",
		59600 * time.Millisecond:     "1 min 0 s",
		time.Minute:                  "1 min 0 s",
		599 * time.Second:            "9 min 59 s",
		599999 * time.Millisecond:    "10 min 0 s",
		time.Hour - time.Second:      "59 min 59 s",
		time.Hour:                    "1 h 0 min",
		time.Hour + 59*time.Second:   "1 h 0 min",
		25*time.Hour + 5*time.Minute: "25 h 5 min",
		48*time.Hour - time.Second:   "47 h 59 min",
		48 * time.Hour:               "2 d",
		71 * time.Hour:               "2 d",
		3 * 365 * 24 * time.Hour:     "1095 d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestFaultFlag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // the end of the error
		"lost-reply":       "",
		"lost-reply:1":     "",
		"lost-reply:20":    "",
		"lost":             `unknown fault "lost"`,
		"":                 `unknown fault ""`,
		":1":               `unknown fault ""`,
		"lost-reply:":      "--fault lost-reply:: the number of times must be 1 or more",
		"lost-reply:0":     "--fault lost-reply:0: the number of times must be 1 or more",
		"lost-reply:-1":    "--fault lost-reply:-1: the number of times must be 1 or more",
		"lost-reply:x":     "--fault lost-reply:x: the number of times must be 1 or more",
		"lost-reply:1:2":   "--fault lost-reply:1:2: the number of times must be 1 or more",
		"lost-reply:1e3":   "--fault lost-reply:1e3: the number of times must be 1 or more",
		"lost-reply: 1":    "--fault lost-reply: 1: the number of times must be 1 or more",
		"lost-reply=1":     `unknown fault "lost-reply=1"`,
		"5xx-after-commit": "",
	} {
		err := playFault(sandbox.New(sandbox.Config{}), text)
		switch {
		case want == "" && err != nil, want != "" && err == nil, err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Every fault that the command's help names can be played.
func TestFaultHelp(t *testing.T) {
	t.Parallel()
	help := sandboxCommand().Long
	for _, f := range sandbox.Faults() {
		if !strings.Contains(help, "\n    "+string(f.Name)+" ") {
			t.Errorf("the help is silent on %s", f.Name)
		}
		if err := playFault(sandbox.New(sandbox.Config{}), string(f.Name)); err != nil {
			t.Error(err)
		}
	}
}
