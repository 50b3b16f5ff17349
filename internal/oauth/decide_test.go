package oauth

import (
	"errors"
	"testing"
	"time"
)

// These tests have the rows of the rules of a session as their names.

var (
	withLogin  = rule{mayLogin: true, counted: true, onLostReply: LostReplay}
	noLogin    = rule{onLostReply: LostReplay}
	onLogin    = rule{mayLogin: true, counted: true, onLostReply: LostLogin}
	onStop     = rule{mayLogin: true, counted: true, onLostReply: LostStop}
	wrongLogin = rule{mayLogin: true, counted: true, latched: true, onLostReply: LostReplay}
)

func held() record {
	return record{Tokens: TokenSet{AccessToken: NewSecret("AT"), RefreshToken: NewSecret("RT"), Obtained: someTime, Lifetime: 600 * time.Second, RefreshObtained: someTime}, SignedIn: true}
}

// but returns a changed copy.
func (r record) but(change func(*record)) record {
	change(&r)
	return r
}

func doubted(n int) func(*record) {
	return func(r *record) { r.Doubt = &doubt{Count: n, First: someTime, Last: someTime} }
}

func asking(grant string, tries int) func(*record) {
	return func(r *record) { r.Intent = &intent{Grant: grant, Started: someTime, Tries: tries} }
}

func dead(r *record) {
	r.Tokens.RefreshToken = Secret{}
	r.Dead = &tombstone{At: someTime, Code: "invalid_grant"}
}

func latched(all, misconfigured bool) func(*record) {
	return func(r *record) { r.Latch = &latch{All: all, Misconfigured: misconfigured, Detail: "refused"} }
}

func TestNextMove(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		r    record
		p    rule
		move move
		wait time.Duration // after the last refusal
		err  error         // what a caller is told if there is no move, or until its time
	}{
		{"a refresh token: refresh", held(), withLogin, moveRefresh, 0, nil},
		{"a refresh token, no login: refresh", held(), noLogin, moveRefresh, 0, nil},
		{"a refresh token, the password latched: refresh", held().but(latched(false, false)), wrongLogin, moveRefresh, 0, nil},
		{"nothing yet: sign in", record{}, withLogin, moveLogin, 0, nil},
		{"nothing yet, a person is needed: login_required", record{}, noLogin, moveNone, 0, ErrLoginRequired},

		{"dead: password login where allowed", held().but(dead), withLogin, moveLogin, 0, nil},
		{"dead: else login_required", held().but(dead), noLogin, moveNone, 0, ErrLoginRequired},
		{"dead and the password latched", held().but(dead).but(latched(false, false)), wrongLogin, moveNone, 0, ErrCredentialsRejected},

		{"our registration is refused: latched, no refresh", held().but(latched(true, false)), wrongLogin, moveNone, 0, ErrCredentialsRejected},
		{"our configuration is wrong: latched, no refresh", held().but(latched(true, true)), wrongLogin, moveNone, 0, ErrMisconfigured},
		{"the scope of a sign-in is wrong: latched", record{}.but(latched(true, true)), wrongLogin, moveNone, 0, ErrMisconfigured},
		{"latched, but what it held has changed", held().but(latched(true, false)), withLogin, moveRefresh, 0, nil},
		{"password latched, but it has changed", record{}.but(latched(false, false)), withLogin, moveLogin, 0, nil},

		{"probably dead, once: tried again later", held().but(doubted(1)), withLogin, moveRefresh, doubtPause, ErrUnavailable},
		{"probably dead, twice: tried again later", held().but(doubted(2)), withLogin, moveRefresh, doubtPause, ErrUnavailable},
		{"probably dead, 3 tries: one password login where allowed", held().but(doubted(3)), withLogin, moveLogin, 0, nil},
		{"probably dead, 3 tries: else login_required, tried every 10 min", held().but(doubted(3)), noLogin, moveRefresh, 10 * time.Minute, ErrLoginRequired},
		{"probably dead, the 10th try: still every 10 min", held().but(doubted(10)), noLogin, moveRefresh, 10 * time.Minute, ErrLoginRequired},
		{"probably dead, the password latched: tried every 10 min", held().but(doubted(3)).but(latched(false, false)), wrongLogin, moveRefresh, 10 * time.Minute, ErrCredentialsRejected},

		{"lost reply, replay: the same token at once", held().but(asking("refresh_token", 1)), withLogin, moveRefresh, 0, nil},
		{"lost reply, replay, no login: the same token at once", held().but(asking("refresh_token", 9)), noLogin, moveRefresh, 0, nil},
		{"lost reply, login: no replay, password login", held().but(asking("refresh_token", 1)), onLogin, moveLogin, 0, nil},
		{"lost reply, login: no replay either when the login's reply is lost", held().but(asking("password", 1)), onLogin, moveLogin, 0, nil},
		{"lost reply, login: no replay while the password is latched", held().but(asking("refresh_token", 1)).but(latched(false, false)),
			rule{mayLogin: true, latched: true, onLostReply: LostLogin}, moveNone, 0, ErrCredentialsRejected},
		{"lost reply, stop: login_required", held().but(asking("refresh_token", 1)), onStop, moveNone, 0, ErrLoginRequired},
		{"a sign-in without an outcome: once more, 2 s later", record{}.but(asking("password", 1)), onStop, moveLogin, 2 * time.Second, ErrUnavailable},
		{"three without: 8 s later", record{}.but(asking("password", 3)), onStop, moveLogin, 8 * time.Second, ErrUnavailable},
		{"many without: 5 min later", record{}.but(asking("password", 40)), onStop, moveLogin, 5 * time.Minute, ErrUnavailable},
		{"no intent, login: refresh", held(), onLogin, moveRefresh, 0, nil},
		{"no intent, stop: refresh", held(), onStop, moveRefresh, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := nextMove(tt.r, tt.p)
			if c.move != tt.move {
				t.Fatalf("move %d, want %d (%v: %s)", c.move, tt.move, c.err, c.detail)
			}
			var want time.Time
			if tt.wait > 0 {
				want = someTime.Add(tt.wait)
			}
			if !c.notBefore.Equal(want) {
				t.Errorf("not before %v, want %v", c.notBefore, want)
			}
			if (tt.move == moveNone || tt.wait > 0) && (!errors.Is(c.err, tt.err) || tt.err == nil || c.detail == "") {
				t.Errorf("a caller is told %v (%q), want %v", c.err, c.detail, tt.err)
			}
		})
	}
	if 2*doubtPause < 30*time.Second {
		t.Error("3 tries are over in less than 30 s")
	}
}
