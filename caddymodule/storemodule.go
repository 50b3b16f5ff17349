package caddymodule

import (
	"context"
	"io"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// What a [StoreModule] names, so that one can be written elsewhere.
type (
	// Store keeps tokens; its contract is with the type.
	Store = oauth.Store
	// StoreKey names a session in a [Store].
	StoreKey = oauth.Key
	// StoreEntry is what a [Store] keeps for a key.
	StoreEntry = oauth.Entry
	// WatchedStore is a [Store] that tells what is wrong with it and whether it
	// was copied. A store needn't be one.
	WatchedStore = oauth.WatchedStore
	// StoreNotice is what a [WatchedStore] tells.
	StoreNotice = oauth.StoreNotice
)

// Errors of a [Store], by its contract.
var (
	ErrNotFound    = oauth.ErrNotFound
	ErrConflict    = oauth.ErrConflict
	ErrStoreClosed = oauth.ErrStoreClosed
	ErrStoreInUse  = oauth.ErrStoreInUse
	ErrUnreadable  = oauth.ErrUnreadable
)

// A StoreModule is a guest module in the namespace bearer.stores: it says
// where tokens are kept. It is provisioned as any module, without touching the
// store: configurations are provisioned to be validated, too.
type StoreModule interface {
	caddy.Module

	// PoolKey identifies the store in this process: two configurations with
	// the same key share one open store. Nothing that may change by a reload
	// belongs into it.
	PoolKey() string

	// Open opens the store. It is called when a configuration starts and no
	// store of its pool key is open.
	Open(ctx context.Context) (Store, error)

	// Configure applies what the configuration says of the store, keys for
	// instance, to a store that Open of this or of an earlier configuration
	// with the same pool key has returned. If it returns an error, the store
	// must serve as before.
	Configure(ctx context.Context, s Store) error

	// Describe tells an operator in a few words where the tokens are kept. It
	// holds no secret.
	Describe() string
}

// A BackupStore is a [Store] that can make a copy of itself. A store needn't be
// one.
type BackupStore interface {
	Store

	// Backup writes a copy of all that the store holds at one moment, while it is
	// in use. What is sealed in the store is sealed in the copy. Saves may wait
	// until it returns, so w is as fast as a local file. If the copy would lack
	// what a Save has stored before, it is an error and no copy.
	Backup(ctx context.Context, w io.Writer) error
}

// A RekeyModule is a [StoreModule] that can change what the values of an open
// store are sealed with. A module needn't be one.
type RekeyModule interface {
	StoreModule

	// Rekey seals all that s holds anew, and tells in a sentence what it did. No
	// Configure and no other Rekey runs at the same time, other calls of s do. It
	// can be cut short at any moment, by the end of the process, too: then all can
	// be read after the next Open, and another Rekey ends what was begun.
	Rekey(ctx context.Context, s Store) (done string, err error)
}
