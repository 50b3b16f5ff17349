package oauth

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A fingerprint names the identity whose tokens a record holds. Secrets are
// not in it: a new password doesn't make another identity.
type fingerprint struct {
	ClientID string `json:"client_id"`
	Username string `json:"username,omitempty"`
	Scope    string `json:"scope,omitempty"`
	// Host of the token endpoint, or the issuer where endpoints are discovered.
	Host string `json:"host"`
}

func (a *Account) fingerprint() fingerprint {
	f := fingerprint{ClientID: a.Client.ID, Username: a.Grant.Username(), Scope: a.Scope}
	if a.Client.Discover {
		f.Host = a.Client.Issuer
	} else if u, err := url.Parse(a.Client.TokenEndpoint); err == nil {
		f.Host = strings.ToLower(u.Host)
	}
	return f
}

// A record is what is known of one identity of a session. A session has more
// than one only if its account's configuration was changed: the tokens of the
// former identity are kept, unused, until it is configured again.
type record struct {
	Fingerprint fingerprint
	Tokens      TokenSet
	// Holder is the installation that the tokens belong to if it isn't this one:
	// the store was copied or restored. Then they may be spent, or be somebody
	// else's to spend, and aren't used.
	Holder string
	// Fallback is the refresh token that was spent for an answer that isn't
	// wholly well-formed. The one which that answer shows is in Tokens but only
	// a candidate; if the server doesn't know it, this one may be good yet.
	Fallback Secret
	// Intent is there while a token request is under way. One that is found in
	// the store belongs to a request whose outcome isn't known.
	Intent *intent
	// Dead tells of the refresh token that was refused for good.
	Dead *tombstone
	// Doubt counts refusals that may mean a dead refresh token.
	Doubt *doubt
	// Latch forbids attempts with credentials that were refused.
	Latch *latch
	// SignedIn: there was a sign-in, the last at SignedInAt as far as known.
	SignedIn   bool
	SignedInAt time.Time
	// LoggedOut: no token request is made until a person logs in.
	LoggedOut bool
	// Refreshed is when the last answer with tokens came.
	Refreshed time.Time
}

// usable are the tokens that may be used.
func (r record) usable() TokenSet {
	if r.Holder != "" {
		return TokenSet{}
	}
	return r.Tokens
}

// An intent is written before a token request, so that a later start can tell
// "unknown outcome" from "clean".
type intent struct {
	Grant   string    `json:"grant"` // value of grant_type
	Started time.Time `json:"started"`
	// Tries counts the requests without a known outcome, this one included.
	Tries int `json:"tries"`
}

// A tombstone is what is left of a refresh token.
type tombstone struct {
	At   time.Time `json:"at"`
	Code string    `json:"code"`
}

type doubt struct {
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// A latch holds attempts back until what they prove themselves with changes.
type latch struct {
	// Key is the keyed hash of all that the attempt depended on.
	Salt []byte `json:"salt"`
	Key  []byte `json:"key"`
	// Former are the keys of earlier refusals, newest last: what they stand
	// for is not tried again when it comes back.
	Former [][]byte `json:"former,omitempty"`
	// All: refreshes are held back too, not only sign-ins.
	All bool `json:"all,omitempty"`
	// Misconfigured: the registration or the configuration was refused, not
	// the credentials.
	Misconfigured bool      `json:"misconfigured,omitempty"`
	At            time.Time `json:"at"`
	Detail        string    `json:"detail"`
}

const maxFormer = 16

// newLatch makes a latch for what the account has now, after was.
func newLatch(a *Account, was *latch) latch {
	l := latch{Salt: make([]byte, 32)}
	_, _ = rand.Read(l.Salt) // never fails
	if was != nil {
		l.Salt = was.Salt
		l.Former = append(slices.Clone(was.Former), was.Key)
		l.Former = l.Former[max(0, len(l.Former)-maxFormer):]
	}
	l.Key = a.latchKey(l.Salt)
	return l
}

// holds reports whether the account still has what was refused.
func (l *latch) holds(a *Account) bool {
	if l == nil {
		return false
	}
	key := a.latchKey(l.Salt)
	return hmac.Equal(l.Key, key) || slices.ContainsFunc(l.Former, func(f []byte) bool { return hmac.Equal(f, key) })
}

// latchKey hashes what a token request proves itself with and to whom; each
// part is led by its length, so that no two lists of parts look alike.
func (a *Account) latchKey(salt []byte) []byte {
	c := &a.Client
	parts := []string{c.server(), c.ID, c.secret().Reveal(), string(c.Auth), a.Grant.Type(), a.Scope, c.TokenParams.Encode()}
	for _, s := range a.Grant.Secrets() {
		parts = append(parts, s.Reveal())
	}
	mac := hmac.New(sha256.New, salt)
	for _, p := range parts {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(p)))
		mac.Write([]byte(p))
	}
	return mac.Sum(nil)
}

// records are all identities of a session, in the order of their first use.
type records []record

// of returns the record of an identity, a new one if there is none.
func (rs records) of(f fingerprint) record {
	if i := slices.IndexFunc(rs, func(r record) bool { return r.Fingerprint == f }); i >= 0 {
		return rs[i]
	}
	return record{Fingerprint: f}
}

// with returns the records with r in the place of its predecessor.
func (rs records) with(r record) records {
	rs = slices.Clone(rs)
	if i := slices.IndexFunc(rs, func(o record) bool { return o.Fingerprint == r.Fingerprint }); i >= 0 {
		rs[i] = r
		return rs
	}
	return append(rs, r)
}

// storedRecord is the form of a record in a store: the only place where
// secrets are written out. The store seals it.
type storedRecord struct {
	Fingerprint     fingerprint `json:"fingerprint"`
	Holder          string      `json:"holder,omitempty"`
	AccessToken     string      `json:"access_token,omitempty"`
	RefreshToken    string      `json:"refresh_token,omitempty"`
	Fallback        string      `json:"fallback_refresh_token,omitempty"`
	Scope           string      `json:"scope,omitempty"`
	Obtained        time.Time   `json:"obtained,omitzero"`
	LifetimeSeconds float64     `json:"lifetime_seconds,omitempty"`
	RefreshObtained time.Time   `json:"refresh_obtained,omitzero"`
	Intent          *intent     `json:"intent,omitempty"`
	Dead            *tombstone  `json:"dead,omitempty"`
	Doubt           *doubt      `json:"doubt,omitempty"`
	Latch           *latch      `json:"latch,omitempty"`
	SignedIn        bool        `json:"signed_in,omitempty"`
	SignedInAt      time.Time   `json:"signed_in_at,omitzero"`
	LoggedOut       bool        `json:"logged_out,omitempty"`
	Refreshed       time.Time   `json:"refreshed,omitzero"`
}

// storedRecords leads with its version, so that a later form can be told.
type storedRecords struct {
	Version int            `json:"version"`
	Records []storedRecord `json:"records"`
}

const recordVersion = 1

// encode writes records out; those of no other holder belong to instance.
func (rs records) encode(instance string) ([]byte, error) {
	out := storedRecords{Version: recordVersion}
	for _, r := range rs {
		out.Records = append(out.Records, storedRecord{
			Fingerprint:     r.Fingerprint,
			Holder:          cmp.Or(r.Holder, instance),
			AccessToken:     r.Tokens.AccessToken.Reveal(),
			RefreshToken:    r.Tokens.RefreshToken.Reveal(),
			Scope:           r.Tokens.Scope,
			Obtained:        r.Tokens.Obtained,
			LifetimeSeconds: r.Tokens.Lifetime.Seconds(),
			RefreshObtained: r.Tokens.RefreshObtained,
			Fallback:        r.Fallback.Reveal(),
			Intent:          r.Intent, Dead: r.Dead, Doubt: r.Doubt, Latch: r.Latch,
			SignedIn: r.SignedIn, SignedInAt: r.SignedInAt, LoggedOut: r.LoggedOut, Refreshed: r.Refreshed,
		})
	}
	return json.Marshal(out)
}

// decodeRecords is the inverse of encode. Without an instance, or a holder,
// nobody knows better than that they are ours.
func decodeRecords(value []byte, instance string) (records, error) {
	var in storedRecords
	if err := json.Unmarshal(value, &in); err != nil {
		// The JSON error may quote what it choked on.
		return nil, fmt.Errorf("decoding records: %w", ErrUnreadable)
	}
	if in.Version != recordVersion {
		return nil, fmt.Errorf("records have form %d, this program knows form %d; use a newer one: %w", in.Version, recordVersion, ErrUnreadable)
	}
	var rs records
	for _, s := range in.Records {
		if s.Holder == instance || instance == "" {
			s.Holder = ""
		}
		rs = append(rs, record{
			Fingerprint: s.Fingerprint,
			Holder:      s.Holder,
			Tokens: TokenSet{
				AccessToken:     NewSecret(s.AccessToken),
				RefreshToken:    NewSecret(s.RefreshToken),
				Scope:           s.Scope,
				Obtained:        s.Obtained,
				Lifetime:        time.Duration(s.LifetimeSeconds * float64(time.Second)),
				RefreshObtained: s.RefreshObtained,
			},
			Fallback: NewSecret(s.Fallback),
			Intent:   s.Intent, Dead: s.Dead, Doubt: s.Doubt, Latch: s.Latch,
			SignedIn: s.SignedIn, SignedInAt: s.SignedInAt, LoggedOut: s.LoggedOut, Refreshed: s.Refreshed,
		})
	}
	return rs, nil
}
