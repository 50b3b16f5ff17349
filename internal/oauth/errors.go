package oauth

import (
	"errors"
	"slices"
	"time"
)

// Why there is no token. Each asks for a different reaction; a [Failure]
// carries one of them.
var (
	// ErrUnavailable: the authorization server can't be asked now. Waiting helps.
	ErrUnavailable = errors.New("the authorization server is not available")
	// ErrLoginRequired: a person has to log in.
	ErrLoginRequired = errors.New("a person has to log in")
	// ErrCredentialsRejected: the client or the password was refused. No
	// further attempt is made until they change.
	ErrCredentialsRejected = errors.New("the authorization server refused the credentials")
	// ErrMisconfigured: the scope, the grant type or the endpoint is wrong. No
	// further attempt is made until they change.
	ErrMisconfigured = errors.New("the account is misconfigured")
	// ErrTokenTimeout: the caller waited for a token as long as it may.
	ErrTokenTimeout = errors.New("waiting for a token took too long")
	// ErrBusy: too many callers wait for the same token.
	ErrBusy = errors.New("too many callers wait for a token")
	// ErrStoreUnavailable: the store can't be read, so that nothing is known
	// about the session.
	ErrStoreUnavailable = errors.New("the token store is not available")
	// ErrUnknownAccount: no account of this name is configured.
	ErrUnknownAccount = errors.New("no such account")
	// ErrUnknownUser: the account has sessions per user, and no user was named;
	// or a user, and it has none.
	ErrUnknownUser = errors.New("no such user")
	// ErrClosed: the program is ending.
	ErrClosed = errors.New("the sessions are closed")
)

// A Failure says why a session has no token to give. It wraps one of the
// sentinels above.
type Failure struct {
	Err error
	// Detail is what an operator reads: what happened and what to do. It holds
	// no secret and no text of the server but a checked error code.
	Detail string
	// Hint says how a person gets the session tokens; only with
	// ErrLoginRequired.
	Hint string
	// RetryAt is when the next attempt is due; zero if waiting doesn't help.
	RetryAt time.Time
}

func (f *Failure) Error() string {
	text := f.Err.Error()
	if f.Detail != "" {
		text += ": " + f.Detail
	}
	if f.Hint != "" {
		text += "; " + f.Hint
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// is reports whether f is of a kind; none is, if there is no failure.
func (f *Failure) is(kinds ...error) bool {
	return f != nil && slices.Contains(kinds, f.Err)
}
