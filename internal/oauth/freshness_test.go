package oauth

import (
	"fmt"
	"testing"
	"time"
)

func TestSpanOf(t *testing.T) {
	t.Parallel()
	const share = 0.2
	tests := []struct{ lifetime, ahead, last time.Duration }{
		{1 * time.Second, 200 * time.Millisecond, 50 * time.Millisecond},
		{2 * time.Second, 400 * time.Millisecond, 100 * time.Millisecond},
		{5 * time.Second, 1 * time.Second, 250 * time.Millisecond},
		{40 * time.Second, 8 * time.Second, 2 * time.Second},
		{60 * time.Second, 12 * time.Second, 2 * time.Second},
		{300 * time.Second, 60 * time.Second, 2 * time.Second},
		{600 * time.Second, 60 * time.Second, 2 * time.Second},
		{3600 * time.Second, 60 * time.Second, 2 * time.Second},
		{24 * time.Hour, 60 * time.Second, 2 * time.Second},
	}
	for _, tt := range tests {
		for _, random := range []float64{0, 0.5, 0.999} {
			t.Run(fmt.Sprintf("%v random %v", tt.lifetime, random), func(t *testing.T) {
				t.Parallel()
				s := spanOf(tt.lifetime, share, random)
				if want := tt.lifetime - tt.last; s.expired != want {
					t.Errorf("expires after %v, want %v", s.expired, want)
				}
				ahead := tt.lifetime - s.stale
				if random == 0 && ahead != tt.ahead {
					t.Errorf("stale %v ahead, want %v", ahead, tt.ahead)
				}
				if random > 0 && ahead <= tt.ahead {
					t.Errorf("stale %v ahead: jitter must make that more than %v", ahead, tt.ahead)
				}
				if ahead > tt.ahead+tt.ahead/4 {
					t.Errorf("stale %v ahead: more than a quarter earlier than %v", ahead, tt.ahead)
				}
			})
		}
	}
}

func TestSpanOfLimits(t *testing.T) {
	t.Parallel()
	for _, lifetime := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour} {
		for _, share := range []float64{0.0001, 0.01, 0.2, 0.45, 0.5} {
			for _, random := range []float64{0, 0.5, 0.999} {
				s := spanOf(lifetime, share, random)
				if s.stale < lifetime/2 {
					t.Errorf("spanOf(%v, %v, %v) is stale after %v, before half of its life", lifetime, share, random, s.stale)
				}
				if s.stale > s.expired || s.expired >= lifetime {
					t.Errorf("spanOf(%v, %v, %v) = %v: want stale <= expired < lifetime", lifetime, share, random, s)
				}
				if earliest := spanOf(lifetime, share, 0).stale; s.stale > earliest {
					t.Errorf("spanOf(%v, %v, %v) is stale after %v, jitter made that later than %v", lifetime, share, random, s.stale, earliest)
				}
			}
		}
	}
	if s := spanOf(0, 0.2, 0.5); s.freshness(0) != Expired {
		t.Error("a token without a lifetime can be used")
	}
}

func TestSpanFreshness(t *testing.T) {
	t.Parallel()
	s := spanOf(600*time.Second, 0.2, 0) // stale at 540 s, expired at 598 s
	tests := []struct {
		age  time.Duration
		want Freshness
	}{
		{-24 * time.Hour, Fresh},
		{0, Fresh},
		{540*time.Second - 1, Fresh},
		{540 * time.Second, Stale},
		{598*time.Second - 1, Stale},
		{598 * time.Second, Expired},
		{600 * time.Second, Expired},
		{1000 * time.Hour, Expired},
	}
	for _, tt := range tests {
		if got := s.freshness(tt.age); got != tt.want {
			t.Errorf("at the age of %v: %v, want %v", tt.age, got, tt.want)
		}
	}
}

var someTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(wall, mono time.Duration) instant { return instant{someTime.Add(wall), mono} }

func TestInstant(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	tests := []struct {
		name       string
		begin, end instant
		want       time.Duration
	}{
		{"both clocks go", at(0, 0), at(time.Minute, time.Minute), time.Minute},
		{"the wall clock jumps forward", at(0, 0), at(day+time.Minute, time.Minute), day + time.Minute},
		{"the wall clock jumps back", at(0, 0), at(-day+time.Minute, time.Minute), time.Minute},
		{"the machine sleeps, the monotonic clock stands", at(0, time.Hour), at(8*time.Hour, time.Hour), 8 * time.Hour},
		{"an instant to come", at(time.Hour, time.Hour), at(0, 0), -time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.end.sub(tt.begin); got != tt.want {
				t.Errorf("sub gives %v, want %v", got, tt.want)
			}
			if got := tt.end.before(tt.begin); got != (tt.want < 0) {
				t.Errorf("before gives %v at a distance of %v", got, tt.want)
			}
		})
	}
	if i := at(0, time.Hour).add(time.Minute); i != at(time.Minute, time.Hour+time.Minute) {
		t.Errorf("add gives %v: both clocks must move", i)
	}
	// A wall clock time an hour ago, seen by a process that started just now.
	if i := at(0, 5*time.Second).at(someTime.Add(-time.Hour)); i != at(-time.Hour, 5*time.Second-time.Hour) {
		t.Errorf("at gives %v", i)
	}
}

// A token in use lives through what the clocks do.
func TestTokenFreshness(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	ts := TokenSet{AccessToken: NewSecret("abc"), Obtained: someTime, Lifetime: 600 * time.Second}
	tests := []struct {
		name string
		now  instant
		want Freshness
	}{
		{"at once", at(0, 0), Fresh},
		{"stale", at(545*time.Second, 545*time.Second), Stale},
		{"expired", at(599*time.Second, 599*time.Second), Expired},
		{"wall +1 day", at(day, time.Second), Expired},
		{"wall -1 day", at(-day, time.Second), Fresh},
		{"wall -1 day does not make it live longer", at(-day, 599*time.Second), Expired},
		{"suspended for 8 h", at(8*time.Hour, 0), Expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tok := newToken(ts, 1, at(0, 0), 0.2, 0)
			if got := tok.freshness(tt.now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestNewToken(t *testing.T) {
	t.Parallel()
	ts := TokenSet{AccessToken: NewSecret("abc"), Obtained: someTime, Lifetime: 600 * time.Second}
	tok := newToken(ts, 7, at(100*time.Second, 3*time.Second), 0.2, 0)
	if got := tok.Authorization(); len(got) != 1 || got[0] != "Bearer abc" || tok.Generation() != 7 {
		t.Errorf("Authorization %q, generation %d", got, tok.Generation())
	}
	// Stored 100 s before this process began: its age counts on.
	if f := tok.freshness(at(545*time.Second, 448*time.Second)); f != Stale {
		t.Errorf("545 s after it was obtained it is %v", f)
	}
	if tok := newToken(ts, 1, at(-time.Second, 0), 0.2, 0); tok != nil {
		t.Error("a token that was obtained in the future is in use")
	}
	if tok := newToken(ts, 1, at(0, 0), 0.2, 0); tok.freshness(at(0, 0)) != Fresh {
		t.Error("a token that was obtained at this moment is not fresh")
	}
	if tok := newToken(TokenSet{Obtained: someTime, Lifetime: time.Hour}, 1, at(0, 0), 0.2, 0); tok != nil {
		t.Error("a set without an access token gives a token")
	}
	if (*Token)(nil).freshness(at(0, 0)) != Expired {
		t.Error("no token is not expired")
	}
}

func TestKeepAliveAfter(t *testing.T) {
	t.Parallel()
	for _, random := range []float64{0, 0.5, 0.999} {
		got := keepAliveAfter(24*time.Hour, random)
		if got > 24*time.Hour || got < 24*time.Hour*9/10 || random > 0 && got == 24*time.Hour {
			t.Errorf("keepAliveAfter(24h, %v) = %v: want at most a tenth earlier", random, got)
		}
	}
}
