package oauth

import (
	"testing"
	"time"
)

// candidateHeld has a candidate and the token that was spent for it.
func candidateHeld() record {
	r := held()
	r.Tokens.RefreshToken, r.Fallback = NewSecret("RT2"), NewSecret("RT")
	return r
}

func TestNextMoveWithFallback(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		r    record
		p    rule
		want move
	}{
		{"the candidate first", candidateHeld(), withLogin, moveRefresh},
		{"probably dead, twice: the candidate again", candidateHeld().but(doubted(2)), withLogin, moveRefresh},
		{"three times: the fallback, before a login", candidateHeld().but(doubted(3)), withLogin, moveFallback},
		{"three times, no login: the fallback", candidateHeld().but(doubted(3)), noLogin, moveFallback},
		{"three times, the password latched: the fallback", candidateHeld().but(doubted(3)).but(latched(false, false)), wrongLogin, moveFallback},
		{"the fallback probably dead, too: login", candidateHeld().but(doubted(4)), withLogin, moveLogin},
		{"the fallback probably dead, too, no login: the candidate on and on", candidateHeld().but(doubted(4)), noLogin, moveRefresh},
		{"logged out", record{Fallback: NewSecret("RT"), LoggedOut: true}, withLogin, moveNone},
		{"of another installation", candidateHeld().but(func(r *record) { r.Holder = "other" }), noLogin, moveNone},
	} {
		if c := nextMove(tt.r, tt.p); c.move != tt.want {
			t.Errorf("%s: move %d, want %d", tt.name, c.move, tt.want)
		}
	}
}

func TestJudgeWithFallback(t *testing.T) {
	t.Parallel()
	answer := func(o Outcome, access, refresh string) Answer {
		return Answer{Outcome: o, Status: 200, Detail: "d", Tokens: TokenSet{AccessToken: NewSecret(access), RefreshToken: NewSecret(refresh)}, Lifetime: time.Minute}
	}
	gone, unclear := Answer{Outcome: Dead, Status: 400, Detail: "d"}, Answer{Outcome: ProbablyDead, Status: 400, Detail: "d"}
	for _, tt := range []struct {
		name              string
		r                 record
		m                 move
		a                 Answer
		p                 rule
		refresh, fallback string
		again, dead       bool
		doubt             int
		pause             time.Duration
	}{
		{"unusable: the spent one is kept", held(), moveRefresh, answer(Unusable, "", "RT2"), withLogin, "RT2", "RT", false, false, 0, 0},
		{"unusable with the same one: there is nothing to fall back to", held(), moveRefresh, answer(Unusable, "", "RT"), withLogin, "RT", "", false, false, 0, 0},
		{"unusable twice: the last that was spent", candidateHeld(), moveRefresh, answer(Unusable, "", "RT3"), withLogin, "RT3", "RT2", false, false, 0, 0},
		{"unusable, the candidate again: the fallback stays", candidateHeld(), moveRefresh, answer(Unusable, "", "RT2"), withLogin, "RT2", "RT", false, false, 0, 0},
		{"an unusable sign-in: nothing was spent for it", candidateHeld(), moveLogin, answer(Unusable, "", "RT9"), withLogin, "RT9", "", false, false, 0, 0},
		{"granted: the fallback goes", candidateHeld(), moveRefresh, answer(Granted, "AT2", "RT3"), withLogin, "RT3", "", false, false, 0, 0},
		{"granted without a refresh token: the candidate is the one", candidateHeld(), moveRefresh, answer(Granted, "AT2", ""), withLogin, "RT2", "", false, false, 0, 0},
		{"a sign-in: the fallback goes", candidateHeld(), moveLogin, answer(Granted, "AT2", ""), withLogin, "", "", false, false, 0, 0},

		{"the candidate is dead: the fallback at once, no tombstone", candidateHeld(), moveRefresh, gone, withLogin, "RT", "", true, false, 0, 0},
		{"dead after doubts, no login: the same", candidateHeld().but(doubted(5)), moveRefresh, gone, noLogin, "RT", "", true, false, 0, 0},
		{"probably dead, twice: the candidate stays", candidateHeld().but(doubted(1)), moveRefresh, unclear, withLogin, "RT2", "RT", false, false, 2, doubtPause},
		{"three times: the fallback at once", candidateHeld().but(doubted(2)), moveRefresh, unclear, noLogin, "RT2", "RT", true, false, 3, 0},

		{"the fallback is granted", candidateHeld().but(doubted(3)), moveFallback, answer(Granted, "AT2", "RT3"), noLogin, "RT3", "", false, false, 0, 0},
		{"granted without a refresh token: it is the one", candidateHeld().but(doubted(3)), moveFallback, answer(Granted, "AT2", ""), noLogin, "RT", "", false, false, 0, 0},
		{"its answer is unusable, too", candidateHeld().but(doubted(3)), moveFallback, answer(Unusable, "", "RT3"), noLogin, "RT3", "RT", false, false, 0, 0},
		{"the fallback is dead: login", candidateHeld().but(doubted(3)), moveFallback, gone, withLogin, "RT2", "", true, false, 3, 0},
		{"the fallback is dead, no login: the candidate every 10 min", candidateHeld().but(doubted(3)), moveFallback, gone, noLogin, "RT2", "", false, false, 3, doubtProbe},
		{"the fallback is probably dead: login", candidateHeld().but(doubted(3)), moveFallback, unclear, withLogin, "RT2", "RT", true, false, 4, 0},
		{"the fallback is probably dead, no login: the candidate every 10 min", candidateHeld().but(doubted(3)), moveFallback, unclear, noLogin, "RT2", "RT", false, false, 4, doubtProbe},
		{"both are dead", held(), moveRefresh, gone, noLogin, "", "", false, true, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.r.Intent = &intent{Grant: "refresh_token", Started: someTime, Tries: 1}
			r, v := judge(tt.r, tt.m, nil, tt.a, tt.p, someTime)
			if got, fallback := r.Tokens.RefreshToken.Reveal(), r.Fallback.Reveal(); got != tt.refresh || fallback != tt.fallback {
				t.Errorf("refresh token %q, fallback %q; want %q, %q", got, fallback, tt.refresh, tt.fallback)
			}
			doubts := 0
			if r.Doubt != nil {
				doubts = r.Doubt.Count
			}
			if v.again != tt.again || (r.Dead != nil) != tt.dead || doubts != tt.doubt || v.pause != tt.pause || r.Intent != nil {
				t.Errorf("verdict %+v, tombstone %v, %d doubts, intent %v", v, r.Dead, doubts, r.Intent)
			}
			if tt.a.Outcome == Unusable && (v.err != ErrUnavailable || !v.backOff) {
				t.Errorf("verdict %+v, want a refresh soon", v)
			}
		})
	}
	// A lost answer to the fallback: it is replayed, not the candidate.
	r, v := judge(candidateHeld().but(doubted(3)).but(asking("refresh_token", 1)), moveFallback, nil, Answer{Outcome: Lost, Detail: "d"}, withLogin, someTime)
	if c := nextMove(r, withLogin); !v.again || c.move != moveFallback {
		t.Errorf("lost: verdict %+v, then move %d", v, c.move)
	}
}
