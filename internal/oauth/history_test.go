package oauth_test

import (
	"slices"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// day24 returns the refreshes and the failures by the hour, and checks the
// hours themselves.
func (r *rig) day24(s *oauth.Session) (refreshes, failures [24]int) {
	r.Helper()
	h := s.History()
	for i, hour := range h.Hours {
		refreshes[i], failures[i] = hour.Refreshes, hour.Failures
		want := r.clocks.now().UTC().Truncate(time.Hour).Add(time.Duration(i-23) * time.Hour)
		if !hour.Start.Equal(want) || hour.Start.Location() != time.UTC {
			r.Fatalf("hour %d starts at %v, want %v", i, hour.Start, want)
		}
	}
	return refreshes, failures
}

func sum(n [24]int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

func TestHistory(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) { // virtual time begins at a full hour
		r.sandbox.Play(sandbox.Unavailable, 3)
		s := r.start(r.account())
		defer r.stop()
		if h := s.History(); h.Recent != nil {
			t.Errorf("something happened: %+v", h.Recent)
		}
		after(30 * time.Minute)
		refreshes, failures := r.day24(s)
		if refreshes[23] != 1 || failures[23] != 3 || sum(refreshes) != 1 || sum(failures) != 3 {
			t.Errorf("the first hour: %v, %v", refreshes, failures)
		}
		after(30 * time.Minute)
		for range 2 * 60 {
			r.token(s)
			after(time.Minute)
		}
		refreshes, failures = r.day24(s)
		if refreshes[20] != 1 || refreshes[21] < 6 || refreshes[22] < 6 || failures[20] != 3 || sum(failures) != 3 {
			t.Errorf("after three hours: %v, %v", refreshes, failures)
		}
		after(21 * time.Hour)
		if refreshes, failures = r.day24(s); refreshes[0] < 6 || refreshes[1] < 6 || sum(failures) != 0 {
			t.Errorf("after 24 hours: %v, %v", refreshes, failures)
		}
		after(48 * time.Hour) // the keep-alive only
		if refreshes, _ = r.day24(s); sum(refreshes) < 1 || sum(refreshes) > 2 {
			t.Errorf("after days: %v", refreshes)
		}
	})
}

func TestHistoryRecent(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		kinds := func() (kinds []oauth.EventKind) {
			last := time.Time{}
			for _, e := range s.History().Recent {
				kinds = append(kinds, e.Kind)
				if e.At.Before(last) || e.At.After(r.clocks.now()) || e.At.Location() != time.UTC {
					t.Fatalf("%v after %v", e.At, last)
				}
				last = e.At
			}
			return kinds
		}
		for range 60 { // in use: refreshes in a row are one
			r.token(s)
			after(time.Minute)
		}
		if got := kinds(); !slices.Equal(got, []oauth.EventKind{oauth.EventRefreshed}) {
			t.Errorf("%v", got)
		}
		if e := s.History().Recent[0]; e.Detail != "refresh_token" || time.Since(e.At) > 10*time.Minute {
			t.Errorf("%+v", e)
		}
		for range 7 {
			r.sandbox.Play(sandbox.Unavailable, -1)
			after(time.Hour)
			_, _ = s.Token(r.Context())
			after(time.Second)
			r.sandbox.Clear()
			after(10 * time.Minute)
			r.token(s)
		}
		got, at := kinds(), 0
		for i, kind := range got {
			if kind == oauth.EventDegraded && i+2 < len(got) {
				at = i
			}
		}
		if len(got) != 10 || !slices.Equal(got[at:at+3], []oauth.EventKind{oauth.EventDegraded, oauth.EventRefreshed, oauth.EventRecovered}) {
			t.Errorf("%v", got)
		}
		if e := s.History().Recent[at]; e.Detail == "" {
			t.Errorf("%+v", e)
		}
		first := s.History()
		first.Recent[0].Detail = "changed" // the caller's
		if s.History().Recent[0].Detail == "changed" {
			t.Error("the history is shared")
		}
	})
}

// A clock that is set, and a machine that sleeps, don't undo what happened.
func TestHistoryClocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		wall, mono time.Duration
		wait       time.Duration
		hour       int // where the sign-in is then
		age        time.Duration
	}{
		{name: "the wall clock is set back", wall: -3 * time.Hour, hour: 23},
		{name: "and time goes on", wall: -3 * time.Hour, wait: 2*time.Hour + time.Minute, hour: 21, age: 2*time.Hour + time.Minute},
		{name: "the machine sleeps", mono: -5 * time.Hour, wait: 5 * time.Hour, hour: 18, age: 5 * time.Hour},
		{name: "the wall clock is set ahead", wall: 4 * time.Hour, hour: 19, age: 4 * time.Hour},
		{name: "by years", wall: 10 * year, hour: -1, age: 10 * year},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				a := r.account()
				a.KeepAlive = 100 * year
				s := r.start(a)
				defer r.stop()
				after(time.Second)
				r.clocks.set(c.wall)
				r.clocks.mono.Store(int64(c.mono))
				after(c.wait)
				refreshes, _ := r.day24(s)
				want := [24]int{}
				if c.hour >= 0 {
					want[c.hour] = 1
				}
				if refreshes != want {
					t.Errorf("%v, want hour %d", refreshes, c.hour)
				}
				e := s.History().Recent[0]
				if age := r.clocks.now().Sub(e.At); age < c.age || age > c.age+time.Minute {
					t.Errorf("it was %v ago, want %v", age, c.age)
				}
			})
		})
	}
}

func TestHistoryIsSmall(t *testing.T) {
	t.Parallel()
	if oauth.PastBytes > 1400 {
		t.Errorf("%d bytes for a session", oauth.PastBytes)
	}
}
