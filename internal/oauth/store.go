package oauth

import (
	"context"
	"errors"
)

// A Key names one session in a store: the account and, where the account has
// one session per user, the user. User is empty for the account's own session.
// Both are opaque text of any characters; two keys are equal only if both
// fields are.
type Key struct{ Account, User string }

// String returns the key as operators write it: account or account/user.
func (k Key) String() string {
	if k.User == "" {
		return k.Account
	}
	return k.Account + "/" + k.User
}

// An Entry is what a store keeps for a key. Its value is opaque to the store.
type Entry struct {
	// Generation counts the saves of this key, from 1.
	Generation uint64
	Value      []byte
}

// A Store keeps one entry per session and serializes the session's refreshes.
// It is safe for concurrent use. Its contract leaves room for engines that are
// shared and remote: the lock keeps holders apart as well as it can, and the
// generation makes sure that one who lost the lock can't overwrite another.
//
// An error that wraps none of the sentinels below means that the store could
// not be asked; after a failed Save or Delete the caller doesn't know whether
// it took effect, and must Load to find out.
type Store interface {
	// Load returns the entry of a key, or an error wrapping [ErrNotFound].
	// The caller owns the value.
	Load(ctx context.Context, key Key) (Entry, error)

	// Save stores e, durably before it returns, if the generation stored so
	// far is e.Generation-1 (0 if the key is absent); otherwise it changes
	// nothing and returns an error wrapping [ErrConflict]. It doesn't keep
	// e.Value after it returned.
	Save(ctx context.Context, key Key, e Entry) error

	// Delete removes the entry of a key, durably before it returns, if it has
	// this generation; otherwise it changes nothing and returns an error
	// wrapping [ErrConflict], or [ErrNotFound] if there is no entry.
	Delete(ctx context.Context, key Key, generation uint64) error

	// List returns the keys of an account, or of all accounts if account is
	// empty, ordered by account and then by user.
	List(ctx context.Context, account string) ([]Key, error)

	// Lock waits until the caller holds the key's lock or ctx ends; then it
	// returns the context's error. The lock is for a refresh, not for a read:
	// after it was given, Load again. It excludes every other holder of the
	// key, in this process and, where the engine is shared, in others; a
	// shared engine may take it back from a holder that seems dead. unlock
	// must be called once and doesn't block.
	Lock(ctx context.Context, key Key) (unlock func(), err error)

	// Close releases what the store holds. Calls that come later fail with an
	// error wrapping [ErrStoreClosed].
	Close() error
}

// A WatchedStore can do more than the contract asks: it goes on serving while
// a part of it fails, and it knows whether it was copied. A store needn't be
// one.
type WatchedStore interface {
	Store

	// Watch has tell called at each change of what is wrong, and once for what
	// there was to tell before. tell must not call the store.
	Watch(tell func(StoreNotice))

	// Instance names this installation, for ever; another one that works with a
	// copy of the store has another name, and this one gets a new name if the
	// store is found rolled back. Empty means that nobody knows.
	Instance() string
}

// A StoreNotice is what an operator has to know of a store. It holds no secret.
type StoreNotice struct {
	// Problem is what is wrong now, in a sentence; empty if nothing is.
	Problem string
	// Mended says what was found wrong since the last notice and what became of
	// it, a sentence each.
	Mended []string
}

var (
	// ErrNotFound means that the store has no entry for the key.
	ErrNotFound = errors.New("no such entry in the store")
	// ErrConflict means that the entry changed since it was loaded.
	ErrConflict = errors.New("the entry was changed by someone else")
	// ErrStoreClosed means that the store was closed.
	ErrStoreClosed = errors.New("the store is closed")
	// ErrStoreInUse means that another process has the store open.
	ErrStoreInUse = errors.New("the store is in use")
	// ErrUnreadable means that an entry is there but can't be read: it is
	// sealed with another key, or damaged. The entry is left as it is.
	ErrUnreadable = errors.New("the entry can't be read")
)
