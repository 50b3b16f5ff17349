package oauth

import "time"

// Turn has the sessions see other clocks than the machine's. Call it before
// Open.
func (ss *Sessions) Turn(turn func(wall time.Time, mono time.Duration) (time.Time, time.Duration)) {
	ss.turn = func(now instant) instant {
		wall, mono := turn(now.wall, now.mono)
		return instant{wall, mono}
	}
}

// Counted is what the transport of token requests makes of a dial.
var Counted = counted
