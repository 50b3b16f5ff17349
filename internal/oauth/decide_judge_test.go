package oauth

import (
	"testing"
	"time"
)

// What an answer to a refresh does.
func TestJudgeRefresh(t *testing.T) {
	t.Parallel()
	type want struct {
		v       verdict // err, again, backOff, retryAfter, pause; detail is only checked for being there
		refresh string  // the refresh token that is kept
		intent  int     // its tries, 0 if it is resolved
		doubt   int
		dead    bool
		latch   bool
	}
	unclear := Answer{Outcome: ProbablyDead, Status: 400, Detail: "d"}
	gone := Answer{Outcome: Dead, Status: 400, Code: "invalid_grant", Detail: "d"}
	lostAnswer := Answer{Outcome: Lost, Detail: "d"}
	tests := []struct {
		name   string
		r      record
		before *intent
		a      Answer
		p      rule
		want   want
	}{
		{"a new refresh token replaces the old", held(), nil,
			Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2"), RefreshToken: NewSecret("RT2")}, Lifetime: time.Minute}, withLogin,
			want{refresh: "RT2"}},
		{"the same refresh token is kept", held(), nil,
			Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2"), RefreshToken: NewSecret("RT")}, Lifetime: time.Minute}, withLogin,
			want{refresh: "RT"}},
		{"no refresh token: the old is kept", held(), nil,
			Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2")}, Lifetime: time.Minute}, withLogin,
			want{refresh: "RT"}},
		{"granted after doubts and a refused password: that stays refused", held().but(doubted(5)).but(latched(false, false)), nil,
			Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2"), RefreshToken: NewSecret("RT2")}, Lifetime: time.Minute}, noLogin,
			want{refresh: "RT2", latch: true}},
		{"granted after a refused client: it is accepted again", held().but(latched(true, false)), nil,
			Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2"), RefreshToken: NewSecret("RT2")}, Lifetime: time.Minute}, noLogin,
			want{refresh: "RT2"}},
		{"only the refresh token is fine: it is kept, and used soon", held(), nil,
			Answer{Outcome: Unusable, Tokens: TokenSet{RefreshToken: NewSecret("RT2")}, Detail: "d"}, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true}, refresh: "RT2"}},

		{"invalid_grant: tombstone; password login where allowed, once", held(), nil, gone, withLogin,
			want{v: verdict{err: ErrUnavailable, again: true}, dead: true}},
		{"invalid_grant: else login_required", held(), nil, gone, noLogin,
			want{v: verdict{err: ErrLoginRequired}, dead: true}},
		{"invalid_grant with the password latched", held().but(latched(false, false)), nil, gone, wrongLogin,
			want{v: verdict{err: ErrCredentialsRejected}, dead: true, latch: true}},
		{"invalid_grant after a lost reply, stop: password login where allowed", held().but(doubted(1)), nil, gone, onStop,
			want{v: verdict{err: ErrUnavailable, again: true}, dead: true}},

		{"invalid_client: latched; refresh token kept; no login", held(), nil, Answer{Outcome: Refused, Status: 401, Code: "invalid_client", Detail: "d"}, withLogin,
			want{v: verdict{err: ErrCredentialsRejected}, refresh: "RT", latch: true}},
		{"unauthorized_client: latched; refresh token kept; no login", held(), nil, Answer{Outcome: Refused, Status: 400, Code: "unauthorized_client", Detail: "d"}, withLogin,
			want{v: verdict{err: ErrMisconfigured}, refresh: "RT", latch: true}},
		{"unsupported_grant_type: latched; refresh token kept; no login", held(), nil, Answer{Outcome: Refused, Status: 400, Code: "unsupported_grant_type", Detail: "d"}, withLogin,
			want{v: verdict{err: ErrMisconfigured}, refresh: "RT", latch: true}},
		{"invalid_scope: latched; refresh token kept; no login", held(), nil, Answer{Outcome: Refused, Status: 400, Code: "invalid_scope", Detail: "d"}, withLogin,
			want{v: verdict{err: ErrMisconfigured}, refresh: "RT", latch: true}},

		{"probably dead, first: tried again", held(), nil, unclear, withLogin,
			want{v: verdict{err: ErrUnavailable, pause: doubtPause}, refresh: "RT", doubt: 1}},
		{"probably dead, second: tried again", held().but(doubted(1)), nil, unclear, withLogin,
			want{v: verdict{err: ErrUnavailable, pause: doubtPause}, refresh: "RT", doubt: 2}},
		{"probably dead, third: one password login", held().but(doubted(2)), nil, unclear, withLogin,
			want{v: verdict{err: ErrUnavailable, again: true}, refresh: "RT", doubt: 3}},
		{"probably dead, third, no login: login_required, the token kept and tried every 10 min", held().but(doubted(2)), nil, unclear, noLogin,
			want{v: verdict{err: ErrLoginRequired, pause: 10 * time.Minute}, refresh: "RT", doubt: 3}},
		{"probably dead, 10th, no login: goes on", held().but(doubted(9)), nil, unclear, noLogin,
			want{v: verdict{err: ErrLoginRequired, pause: 10 * time.Minute}, refresh: "RT", doubt: 10}},

		{"away: token kept; back-off; no login", held(), nil, Answer{Outcome: Away, Status: 403, Detail: "d"}, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true}, refresh: "RT"}},
		{"away: an older lost reply stays one", held(), &intent{Grant: "refresh_token", Tries: 2}, Answer{Outcome: Away, Status: 404, Detail: "d"}, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true}, refresh: "RT", intent: 2}},
		{"not tried: token kept; back-off; Retry-After honoured", held(), nil, Answer{Outcome: NotTried, Status: 429, RetryAfter: time.Minute, Detail: "d"}, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true, retryAfter: time.Minute}, refresh: "RT"}},
		{"not tried: no doubt is added", held().but(doubted(2)), nil, Answer{Outcome: NotTried, Detail: "d"}, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true}, refresh: "RT", doubt: 2}},

		{"lost reply, replay: at once", held().but(asking("refresh_token", 1)), nil, lostAnswer, withLogin,
			want{v: verdict{err: ErrUnavailable, again: true}, refresh: "RT", intent: 1}},
		{"lost reply, replay: after 1 s", held().but(asking("refresh_token", 2)), nil, lostAnswer, withLogin,
			want{v: verdict{err: ErrUnavailable, again: true, pause: time.Second}, refresh: "RT", intent: 2}},
		{"lost reply, replay: after 5 s", held().but(asking("refresh_token", 3)), nil, lostAnswer, noLogin,
			want{v: verdict{err: ErrUnavailable, again: true, pause: 5 * time.Second}, refresh: "RT", intent: 3}},
		{"lost reply, replay: then back-off", held().but(asking("refresh_token", 4)), nil, lostAnswer, withLogin,
			want{v: verdict{err: ErrUnavailable, backOff: true}, refresh: "RT", intent: 4}},
		{"lost reply, login: password login at once", held().but(asking("refresh_token", 1)), nil, lostAnswer, onLogin,
			want{v: verdict{err: ErrUnavailable, again: true, backOff: true}, refresh: "RT", intent: 1}},
		{"lost reply, stop: login_required, no attempt", held().but(asking("refresh_token", 1)), nil, lostAnswer, onStop,
			want{v: verdict{err: ErrLoginRequired}, refresh: "RT", intent: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.r.Intent == nil { // the one for this move
				tt.r.Intent = &intent{Grant: "refresh_token", Started: someTime, Tries: 1}
			}
			r, v := judge(tt.r, moveRefresh, tt.before, tt.a, tt.p, someTime)
			if (v.detail == "") != (v.err == nil) {
				t.Errorf("error %v with the detail %q", v.err, v.detail)
			}
			v.detail = ""
			if v.again {
				v.backOff, tt.want.v.backOff = false, false // doesn't matter then
			}
			if v != tt.want.v {
				t.Errorf("verdict %+v, want %+v", v, tt.want.v)
			}
			if got := r.Tokens.RefreshToken.Reveal(); got != tt.want.refresh {
				t.Errorf("the refresh token is %q, want %q", got, tt.want.refresh)
			}
			tries, doubts := 0, 0
			if r.Intent != nil {
				tries = r.Intent.Tries
			}
			if r.Doubt != nil {
				doubts = r.Doubt.Count
			}
			if tries != tt.want.intent || doubts != tt.want.doubt {
				t.Errorf("%d tries without an outcome, %d doubts; want %d, %d", tries, doubts, tt.want.intent, tt.want.doubt)
			}
			if (r.Dead != nil) != tt.want.dead || (r.Latch != nil) != tt.want.latch {
				t.Errorf("tombstone %v, latch %v; want %v, %v", r.Dead, r.Latch, tt.want.dead, tt.want.latch)
			}
		})
	}
}

func TestJudgePasswordLogin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		a    Answer
		err  error
		all  bool // refreshes are held back, too
	}{
		{"any 400 latches: invalid_grant", Answer{Outcome: Dead, Status: 400, Code: "invalid_grant", Detail: "d"}, ErrCredentialsRejected, false},
		{"any 400 latches: empty", Answer{Outcome: ProbablyDead, Status: 400, Detail: "d"}, ErrCredentialsRejected, false},
		{"any 400 latches: HTML", Answer{Outcome: Away, Status: 400, Detail: "d"}, ErrCredentialsRejected, false},
		{"any 401 latches: invalid_grant", Answer{Outcome: Dead, Status: 401, Code: "invalid_grant", Detail: "d"}, ErrCredentialsRejected, false},
		{"any 401 latches: empty", Answer{Outcome: ProbablyDead, Status: 401, Detail: "d"}, ErrCredentialsRejected, false},
		{"any 403 latches: JSON", Answer{Outcome: Away, Status: 403, Code: "invalid_grant", Detail: "d"}, ErrCredentialsRejected, false},
		{"any 403 latches: HTML", Answer{Outcome: Away, Status: 403, Detail: "d"}, ErrCredentialsRejected, false},
		{"invalid_client latches", Answer{Outcome: Refused, Status: 401, Code: "invalid_client", Detail: "d"}, ErrCredentialsRejected, true},
		{"invalid_scope latches", Answer{Outcome: Refused, Status: 400, Code: "invalid_scope", Detail: "d"}, ErrMisconfigured, true},
		{"unsupported_grant_type latches", Answer{Outcome: Refused, Status: 400, Code: "unsupported_grant_type", Detail: "d"}, ErrMisconfigured, true},
		{"200 with an error latches", Answer{Outcome: ProbablyDead, Status: 200, Detail: "d"}, ErrCredentialsRejected, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, v := judge(record{}.but(asking("password", 1)), moveLogin, nil, tt.a, withLogin, someTime)
			if v.err != tt.err || v.again || v.backOff || v.pause != 0 || v.detail == "" {
				t.Errorf("verdict %+v, want %v and no further attempt", v, tt.err)
			}
			if r.Latch == nil || r.Latch.All != tt.all || r.Intent != nil || r.SignedIn {
				t.Errorf("record %+v with the latch %+v", r, r.Latch)
			}
		})
	}
	// What made the sign-in necessary stays known: a refresh without an outcome,
	// a token that is probably dead and tried on every 10 min.
	wrong := Answer{Outcome: Dead, Status: 400, Code: "invalid_grant", Detail: "d"}
	r, v := judge(held().but(asking("password", 1)), moveLogin, &intent{Grant: "refresh_token", Tries: 1}, wrong, onLogin, someTime)
	if r.Intent == nil || r.Intent.Grant != "refresh_token" || v.err != ErrCredentialsRejected {
		t.Errorf("a sign-in refused after a lost reply: intent %+v, verdict %+v", r.Intent, v)
	}
	r, v = judge(held().but(asking("password", 1)).but(doubted(3)), moveLogin, nil, wrong, withLogin, someTime)
	if r.Tokens.RefreshToken.Empty() || v.err != ErrCredentialsRejected || v.pause != 10*time.Minute {
		t.Errorf("a sign-in refused after 3 doubts: verdict %+v, want a pause of 10 min", v)
	}
	for _, a := range []Answer{
		{Outcome: Away, Status: 404, Detail: "d"}, {Outcome: Away, Status: 302, Detail: "d"}, {Outcome: NotTried, Status: 429, Detail: "d"},
		{Outcome: NotTried, Detail: "d"}, {Outcome: Lost, Status: 500, Detail: "d"}, {Outcome: Lost, Detail: "d"},
	} {
		r, v := judge(record{}.but(asking("password", 1)), moveLogin, nil, a, withLogin, someTime)
		if v.err != ErrUnavailable || !v.backOff || v.again || r.Latch != nil {
			t.Errorf("%v %d: verdict %+v, latch %v; want back-off", a.Outcome, a.Status, v, r.Latch)
		}
	}
}

func TestJudgeGranted(t *testing.T) {
	t.Parallel()
	now := someTime.Add(time.Hour)
	a := Answer{Outcome: Granted, Tokens: TokenSet{AccessToken: NewSecret("AT2"), RefreshToken: NewSecret("RT2"), Scope: "s"}, Lifetime: time.Minute}
	r, _ := judge(record{}.but(asking("password", 1)), moveLogin, nil, a, withLogin, now)
	if !r.SignedIn || !r.Refreshed.Equal(now) || !r.Tokens.Obtained.Equal(now) || !r.Tokens.RefreshObtained.Equal(now) || r.Tokens.Lifetime != time.Minute || r.Tokens.Scope != "s" {
		t.Errorf("after a sign-in: %+v", r)
	}
	// The clock of a refresh token's lifetime runs on if it stays the same.
	for _, same := range []string{"", "RT"} {
		a.Tokens.RefreshToken = NewSecret(same)
		r, _ = judge(held(), moveRefresh, nil, a, withLogin, now)
		if !r.Tokens.RefreshObtained.Equal(someTime) {
			t.Errorf("refresh token %q in the answer: obtained %v, want %v", same, r.Tokens.RefreshObtained, someTime)
		}
	}
	// A sign-in begins anew: the former refresh token is not of its family.
	a.Tokens.RefreshToken = Secret{}
	if r, _ = judge(held().but(doubted(3)), moveLogin, nil, a, withLogin, now); !r.Tokens.RefreshToken.Empty() {
		t.Error("a sign-in without a refresh token keeps the former one")
	}
}

func TestReplayPause(t *testing.T) {
	t.Parallel()
	for tries, want := range map[int]time.Duration{1: 0, 2: time.Second, 3: 5 * time.Second} {
		if got, ok := replayPause(tries); !ok || got != want {
			t.Errorf("after %d tries: %v, %v; want %v", tries, got, ok, want)
		}
	}
	for _, tries := range []int{-1, 0, 4, 1 << 30} {
		if _, ok := replayPause(tries); ok {
			t.Errorf("after %d tries there is still a quick replay", tries)
		}
	}
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	tests := []struct {
		failures    int
		least, most time.Duration
		retryAfter  time.Duration
	}{
		{1, 0, time.Second, 0},
		{2, 0, 2 * time.Second, 0},
		{5, 0, 16 * time.Second, 0},
		{6, 0, 30 * time.Second, 0},
		{1 << 30, 0, 30 * time.Second, 0},
		{1, 2 * time.Second, 3 * time.Second, 2 * time.Second},
		{100, 5 * time.Minute, 5*time.Minute + 6*time.Second, 5 * time.Minute},
	}
	for _, tt := range tests {
		last := time.Duration(-1)
		for _, random := range []float64{0, 0.25, 0.5, 0.999} {
			got := backOff(tt.failures, tt.retryAfter, random)
			if got < tt.least || got > tt.most || got <= last {
				t.Errorf("backOff(%d, %v, %v) = %v, want within %v and %v and growing with random", tt.failures, tt.retryAfter, random, got, tt.least, tt.most)
			}
			last = got
		}
		if tt.retryAfter == 0 && last < tt.most*9/10 {
			t.Errorf("backOff(%d) is at most %v, want nearly %v", tt.failures, last, tt.most)
		}
	}
}

func TestNextBrake(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for _, want := range []time.Duration{60, 120, 240, 480, 600, 600} {
		if last = nextBrake(last); last != want*time.Second {
			t.Fatalf("%v, want %v", last, want*time.Second)
		}
	}
}

// What is refused says what to correct.
func TestLatchedChoice(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]latch{
		"401 invalid_client: correct the client's credentials; no further attempt until they change":                          {All: true, Detail: "401 invalid_client"},
		"400 invalid_grant: correct the grant's credentials, such as user and password; no further attempt until they change": {Detail: "400 invalid_grant"},
		"400 invalid_scope; no further attempt until the configuration changes":                                               {All: true, Misconfigured: true, Detail: "400 invalid_scope"},
	} {
		if c := latchedChoice(&l); c.detail != want || (c.err == ErrMisconfigured) != l.Misconfigured || c.move != moveNone {
			t.Errorf("%+v, want %q", c, want)
		}
	}
}
