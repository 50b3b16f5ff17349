package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

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

	// Spill is a small file that has the newest tokens once more: a full disk, a
	// damaged database or one that a power cut set back loses nothing. Best on
	// another file system, in a directory that only Caddy may write to. Default:
	// the database's path with `.spill` behind it. A reload can't change it.
	Spill string `json:"spill,omitempty"`

	// Instance is the directory of a marker by which a copied or restored store
	// is noticed: its refresh tokens may be spent and aren't used until `caddy
	// bearer adopt`. It must last as long as the store does, and must not be
	// copied with it. Default: `bearer` in Caddy's configuration directory. A
	// reload can't change it.
	Instance string `json:"instance,omitempty"`

	// AllowNetworkFS takes a path on NFS, SMB, FUSE or the like, where another
	// machine may reach the file and its lock may not hold.
	AllowNetworkFS bool `json:"allow_network_fs,omitempty"`

	place store.Place
	keys  store.Keys
	log   *slog.Logger
}

func (*BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "bearer.stores.bbolt", New: func() caddy.Module { return new(BoltStore) }}
}

// Provision resolves the paths and reads the keys. It doesn't open the store.
func (b *BoltStore) Provision(ctx caddy.Context) error {
	b.log = ctx.Slogger()
	if err := b.locate(); err != nil {
		return err
	}
	return b.readKeys()
}

// locate finds out where the files are.
func (b *BoltStore) locate() error {
	repl := caddy.NewReplacer()
	place := store.Place{NetworkFS: b.AllowNetworkFS}
	for _, p := range []struct {
		what, path, fallback string
		to                   *string
	}{
		{"path", b.Path, filepath.Join(caddy.AppDataDir(), "bearer", "tokens.db"), &place.Database},
		{"spill", b.Spill, "", &place.Spill},
		{"instance", b.Instance, filepath.Join(caddy.AppConfigDir(), "bearer"), &place.Instance},
	} {
		path, err := repl.ReplaceOrErr(p.path, true, true)
		if path = cmp.Or(path, p.fallback); err == nil && path != "" {
			*p.to, err = filepath.Abs(path)
		}
		if err != nil {
			return fmt.Errorf("store %s: %w", p.what, err)
		}
	}
	if place.Spill = cmp.Or(place.Spill, place.Database+".spill"); place.Spill == place.Database {
		return fmt.Errorf("store spill: it is the database, %s; give it a path of its own", place.Database)
	}
	b.place = place
	return nil
}

func (b *BoltStore) readKeys() (err error) {
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
func (b *BoltStore) PoolKey() string { return b.place.Database }

// Open opens the database, and makes a key if it needs one.
func (b *BoltStore) Open(ctx context.Context) (Store, error) {
	d, err := store.Open(b.place)
	if err != nil {
		return nil, err
	}
	if err := b.Configure(ctx, d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Configure puts the keys in force, after it made sure that they open every
// record.
func (b *BoltStore) Configure(ctx context.Context, s Store) error {
	d := s.(*store.Durable)
	if is := d.Place(); is.Spill != b.place.Spill || is.Instance != b.place.Instance {
		return fmt.Errorf("the store is open with spill %s and instance %s; a reload can't change them: stop the server, move the files and start it",
			is.Spill, is.Instance)
	}
	keys := b.keys
	if keys.Current.IsZero() {
		empty, err := d.Empty(ctx)
		if err != nil {
			return err
		}
		if keys, err = keptKeys(empty); err != nil {
			return err
		}
		if len(keys.Old) > 0 {
			b.log.Warn("a change of the store's key was interrupted; all tokens can be read, and `caddy bearer rekey` finishes it", "key", keyFile())
		}
	}
	return d.UseKeys(ctx, keys)
}

// Describe tells where the tokens and their key are.
func (b *BoltStore) Describe() string {
	if b.Key != "" {
		return b.place.Database + ", sealed with the configured key"
	}
	return b.place.Database + ", sealed with the key in " + keyFile()
}

// UnmarshalCaddyfile reads
//
//	store bbolt {
//		path    <file>
//		key     <base64>
//		old_key <base64>
//		spill   <file>
//		instance <directory>
//		allow_network_fs
//	}
func (b *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, "store bbolt", map[string]func(*caddyfile.Dispenser) error{
		"path":             word(&b.Path),
		"key":              word(&b.Key),
		"old_key":          word(&b.OldKey),
		"spill":            word(&b.Spill),
		"instance":         word(&b.Instance),
		"allow_network_fs": toggle(&b.AllowNetworkFS),
	})
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
	_ RekeyModule           = (*BoltStore)(nil)
	_ BackupStore           = (*store.Durable)(nil)
	_ caddy.Provisioner     = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
	_ StoreModule           = (*MemoryStore)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStore)(nil)
)
