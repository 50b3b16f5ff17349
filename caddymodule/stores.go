package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// What a [StoreModule] names, so that one can be written elsewhere.
type (
	// Store keeps tokens; its contract is with the type.
	Store = oauth.Store
	// StoreKey names a session in a [Store].
	StoreKey = oauth.Key
	// StoreEntry is what a [Store] keeps for a key.
	StoreEntry = oauth.Entry
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

// BoltStore keeps the tokens in a bbolt database: one file, sealed value by
// value with AES-256-GCM. One process at a time can have it open.
type BoltStore struct {
	// Path of the database. Default: `bearer/tokens.db` in Caddy's data
	// directory. The directory is made with mode 0700, the file with 0600; a
	// file that others may read is refused.
	Path string `json:"path,omitempty"`

	// Key that seals every value: 32 bytes in base64, best as a placeholder
	// such as `{file./run/credentials/bearer.key}`. Default: a key that is made
	// once and kept in Caddy's configuration directory (`bearer/store.key`,
	// mode 0600), but only while the store is empty.
	Key string `json:"key,omitempty"`

	// OldKey still opens what it has sealed. What is written is sealed with
	// Key.
	OldKey string `json:"old_key,omitempty"`

	path string
	keys store.Keys
}

func (*BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "bearer.stores.bbolt", New: func() caddy.Module { return new(BoltStore) }}
}

// Provision reads the keys. It doesn't open the store.
func (b *BoltStore) Provision(caddy.Context) error {
	repl := caddy.NewReplacer()
	path, err := repl.ReplaceOrErr(b.Path, true, true)
	if err != nil {
		return fmt.Errorf("store path: %w", err)
	}
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), "bearer", "tokens.db")
	}
	if b.path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("store path: %w", err)
	}
	if b.keys.Current, err = readKey(b.Key); err != nil {
		return fmt.Errorf("store key: %w", err)
	}
	if b.OldKey == "" {
		return nil
	}
	if b.Key == "" {
		return errors.New("store: old_key without key; say which key new values are sealed with")
	}
	old, err := readKey(b.OldKey)
	if err != nil {
		return fmt.Errorf("store old_key: %w", err)
	}
	b.keys.Old = []store.Key{old}
	return nil
}

// readKey resolves and parses a key; the zero key if none is configured.
func readKey(text string) (store.Key, error) {
	if text == "" {
		return store.Key{}, nil
	}
	text, err := resolve(text)
	if err != nil {
		return store.Key{}, err
	}
	return store.ParseKey(text)
}

// PoolKey is the clean absolute path.
func (b *BoltStore) PoolKey() string { return b.path }

// Open opens the database, and makes a key if it needs one.
func (b *BoltStore) Open(ctx context.Context) (Store, error) {
	db, err := store.OpenBolt(b.path)
	if err != nil {
		return nil, err
	}
	s := store.NewSealed(db, store.Keys{})
	if err := b.Configure(ctx, s); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Configure puts the keys in force, after it made sure that they open every
// record.
func (b *BoltStore) Configure(ctx context.Context, s Store) error {
	sealed := s.(*store.Sealed)
	keys := b.keys
	if keys.Current.IsZero() {
		empty, err := sealed.Empty(ctx)
		if err != nil {
			return err
		}
		if keys.Current, err = keptKey(empty); err != nil {
			return err
		}
	}
	return sealed.UseKeys(ctx, keys)
}

// Describe tells where the tokens and their key are.
func (b *BoltStore) Describe() string {
	if b.Key != "" {
		return b.path + ", sealed with the configured key"
	}
	return b.path + ", sealed with the key in " + keyFile()
}

// keyFile is where a key is kept that nobody configured.
func keyFile() string { return filepath.Join(caddy.AppConfigDir(), "bearer", "store.key") }

// keptKey reads the kept key, or makes one if mayMake.
func keptKey(mayMake bool) (store.Key, error) {
	file := keyFile()
	text, err := os.ReadFile(file)
	switch {
	case err == nil:
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
			return store.Key{}, fmt.Errorf("the store's key %s can be read by others; run: chmod 600 %s", file, file)
		}
		key, err := store.ParseKey(string(text))
		if err != nil {
			return key, fmt.Errorf("reading %s: %w", file, err)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return store.Key{}, fmt.Errorf("reading the store's key: %w", err)
	case !mayMake:
		return store.Key{}, fmt.Errorf("the store holds tokens, but its key %s is gone; bring it back or configure the store's key; to start anew, move the database away", file)
	}
	key := store.NewKey()
	if err := keepKey(file, key); err != nil {
		return key, fmt.Errorf("keeping the store's key: %w", err)
	}
	return key, nil
}

// keepKey writes a key so that its file is there whole or not at all, and is
// nobody else's already.
func keepKey(file string, key store.Key) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "store.key.*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintln(f, key.Text())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// UnmarshalCaddyfile reads
//
//	store bbolt {
//		path    <file>
//		key     <base64>
//		old_key <base64>
//	}
func (b *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, "store bbolt", map[string]func(*caddyfile.Dispenser) error{
		"path":    word(&b.Path),
		"key":     word(&b.Key),
		"old_key": word(&b.OldKey),
	}, nil)
}

// MemoryStore keeps the tokens in memory: they are gone when the process ends.
type MemoryStore struct{}

func (*MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "bearer.stores.memory", New: func() caddy.Module { return new(MemoryStore) }}
}

// PoolKey is the same for all: there is one memory.
func (*MemoryStore) PoolKey() string { return "memory" }

// Open makes an empty store.
func (*MemoryStore) Open(context.Context) (Store, error) { return store.NewMemory(), nil }

// Configure has nothing to do.
func (*MemoryStore) Configure(context.Context, Store) error { return nil }

// Describe tells that nothing is kept.
func (*MemoryStore) Describe() string { return "memory; the tokens are gone when the process ends" }

// UnmarshalCaddyfile reads
//
//	store memory
func (*MemoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() || d.NextBlock(0) {
		return d.Errf("store memory takes no options")
	}
	return nil
}

var (
	_ StoreModule           = (*BoltStore)(nil)
	_ caddy.Provisioner     = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
	_ StoreModule           = (*MemoryStore)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStore)(nil)
)
