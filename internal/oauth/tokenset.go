package oauth

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// A TokenSet is what a token answer gave (RFC 6749 §5.1). Its times are wall
// clock times. An empty RefreshToken means that there is none.
type TokenSet struct {
	AccessToken, RefreshToken Secret
	// Scope that was granted; empty where the server doesn't tell.
	Scope string
	// Obtained is when the access token came, Lifetime how long it lives.
	Obtained time.Time
	Lifetime time.Duration
	// RefreshObtained is when the refresh token came.
	RefreshObtained time.Time
}

// A Token is one access token in use. It has no printable form.
type Token struct {
	header     []string // shared, never changed
	generation uint64
	obtained   instant
	lifetime   time.Duration
	span       span
	// successor: it replaced a token that the upstream had rejected.
	successor bool
	rejected  atomic.Bool // a refresh is under way because of it
	accepted  atomic.Bool // the upstream took it
}

// Authorization returns the field values of the Authorization header (RFC 6750
// §2.1). The slice is shared and must not be changed.
func (t *Token) Authorization() []string { return t.header }

// Generation counts the saves of the session's record; a newer token has a
// higher one.
func (t *Token) Generation() uint64 { return t.generation }

func (t *Token) String() string             { return masked }
func (t *Token) GoString() string           { return masked }
func (t *Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(masked)) }
func (t *Token) LogValue() slog.Value       { return slog.StringValue(masked) }

// MarshalText masks the token in JSON and every other text encoding.
func (t *Token) MarshalText() ([]byte, error) { return []byte(masked), nil }

// newToken puts a stored access token into use at now; nil if the set has
// none. One that was obtained in the future counts as expired: a clock is
// wrong.
func newToken(ts TokenSet, generation uint64, now instant, share, random float64) *Token {
	if ts.AccessToken.Empty() || ts.Obtained.After(now.wall) {
		return nil
	}
	return &Token{
		header:     []string{"Bearer " + ts.AccessToken.Reveal()},
		generation: generation,
		obtained:   now.at(ts.Obtained),
		lifetime:   ts.Lifetime,
		span:       spanOf(ts.Lifetime, share, random),
	}
}

// freshness decides what the token can be used for at now.
func (t *Token) freshness(now instant) Freshness {
	if t == nil {
		return Expired
	}
	return t.span.freshness(now.sub(t.obtained))
}
