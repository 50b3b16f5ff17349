package oauth

import (
	"context"
	"errors"
	"slices"
	"time"
)

// An Adoption is what [Session.Adopt] would take over: stored tokens that
// aren't used, because they belong to another installation or to what the
// account was configured as before. It holds no secret.
type Adoption struct {
	Key Key
	// Foreign: another installation stored them, or the store was restored.
	Foreign bool
	// ClientID, Username, Scope and Host are those that the tokens were issued
	// for, where they differ from what is configured.
	ClientID, Username, Scope, Host string
	Refreshed                       time.Time
}

// ErrNothingToAdopt: the session has no stored refresh token but its own.
var ErrNothingToAdopt = errors.New("there is nothing to adopt: no refresh token is stored for it that it doesn't use")

// Adoptable tells what [Session.Adopt] would take over, or returns
// [ErrNothingToAdopt].
func (s *Session) Adoptable(ctx context.Context) (Adoption, error) {
	s, release, err := s.hold(ctx)
	if err != nil {
		return Adoption{}, err
	}
	defer release()
	state, err := s.read(ctx)
	if err != nil {
		return Adoption{}, err
	}
	f := s.account.Load().fingerprint()
	r, ok := adoptable(state.records, f)
	if !ok {
		return Adoption{}, ErrNothingToAdopt
	}
	a := Adoption{Key: s.key, Foreign: r.Holder != "", Refreshed: r.Refreshed}
	if r.Fingerprint != f {
		a.ClientID, a.Username, a.Scope, a.Host = r.Fingerprint.ClientID, r.Fingerprint.Username, r.Fingerprint.Scope, r.Fingerprint.Host
	}
	return a, nil
}

// adoptable picks the record whose refresh token an identity could take over:
// its own of another installation, else the one of another identity that was
// used last. There is none while it has a refresh token that it may use.
func adoptable(rs records, f fingerprint) (record, bool) {
	own := rs.of(f)
	switch {
	case !own.usable().RefreshToken.Empty():
		return record{}, false
	case !own.Tokens.RefreshToken.Empty():
		return own, true
	}
	rs = slices.DeleteFunc(slices.Clone(rs), func(r record) bool { return r.Tokens.RefreshToken.Empty() })
	if len(rs) == 0 {
		return record{}, false
	}
	return slices.MaxFunc(rs, func(a, b record) int { return a.Refreshed.Compare(b.Refreshed) }), true
}

// Adopt makes stored tokens the session's own that it doesn't use, because
// another installation stored them, or because the account's client id, user,
// scope or server were others then. If the refresh token is in use elsewhere,
// its next use there, or here, ends it for both at many servers: only who asked
// may know that it isn't. It returns [ErrNothingToAdopt] if there is none.
func (s *Session) Adopt(ctx context.Context) error {
	s, release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	a, rs := s.account.Load(), s.known().records
	f := a.fingerprint()
	r, ok := adoptable(rs, f)
	if !ok {
		return ErrNothingToAdopt
	}
	own := rs.of(f)
	rs = slices.DeleteFunc(slices.Clone(rs), func(o record) bool { return o.Fingerprint == r.Fingerprint })
	r.Fingerprint, r.Holder, r.Latch, r.LoggedOut, r.Dead = f, "", own.Latch, false, nil
	if err := s.saveOrFail(ctx, rs.with(r)); err != nil {
		return err
	}
	s.publish(a, s.tokenOf(a, r), false)
	s.renewed()
	s.log().Info("adopted the stored tokens")
	return nil
}
