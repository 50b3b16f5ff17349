package oauth_test

import (
	"sync/atomic"
	"time"
)

// Clocks are those of a machine that may be wrong, and may sleep. As they are
// they go right.
type clocks struct{ wall, mono atomic.Int64 }

func (c *clocks) turn(wall time.Time, mono time.Duration) (time.Time, time.Duration) {
	return wall.Add(time.Duration(c.wall.Load())), mono + time.Duration(c.mono.Load())
}

// set makes the wall clock go wrong by d, now and until it is set again.
func (c *clocks) set(d time.Duration) { c.wall.Store(int64(d)) }

// now is what the wall clock shows.
func (c *clocks) now() time.Time {
	now, _ := c.turn(time.Now().Round(0), 0)
	return now
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)
