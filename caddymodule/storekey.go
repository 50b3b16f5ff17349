package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// This file is the key of a store for which none is configured: one key in
// base64 on a line of its own in a file of mode 0600. Behind it may be former
// ones, while a change of the key is under way.

// keyFile is where the key is kept.
func keyFile() string { return filepath.Join(caddy.AppConfigDir(), "bearer", "store.key") }

// keptKeys reads the kept keys, or makes one if there is none and mayMake.
func keptKeys(mayMake bool) (store.Keys, error) {
	file := keyFile()
	text, err := store.ReadOwn(file)
	switch {
	case err == nil:
		keys, err := parseKeys(string(text))
		if err != nil {
			return keys, fmt.Errorf("reading %s: %w", file, err)
		}
		return keys, nil
	case !errors.Is(err, fs.ErrNotExist):
		return store.Keys{}, fmt.Errorf("reading the store's key %s: %w", file, err)
	case !mayMake:
		return store.Keys{}, fmt.Errorf("the store holds tokens, but its key %s is gone; bring it back or configure the store's key; "+
			"to start anew, move the database and its spill away", file)
	}
	keys := store.Keys{Current: store.NewKey()}
	if err := keepKeys(keys, os.Link); err != nil {
		return keys, fmt.Errorf("keeping the store's key: %w", err)
	}
	return keys, nil
}

func parseKeys(text string) (keys store.Keys, err error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if keys.Current, err = store.ParseKey(lines[0]); err != nil {
		return keys, err
	}
	for _, line := range lines[1:] {
		old, err := store.ParseKey(line)
		if err != nil {
			return keys, err
		}
		keys.Old = append(keys.Old, old)
	}
	return keys, nil
}

// keepKeys writes the keys so that their file is there whole or not at all.
// name gives it its name: os.Link replaces nothing, os.Rename does.
func keepKeys(keys store.Keys, name func(from, to string) error) error {
	file := keyFile()
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "store.key.*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	for _, key := range append([]store.Key{keys.Current}, keys.Old...) {
		if _, err = fmt.Fprintln(f, key.Text()); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := name(f.Name(), file); err != nil {
		return err
	}
	return store.SyncDirs(dir)
}

// Rekey seals every entry anew: with the configured key, so that old_key can go,
// or, where none is configured, with a new one that it makes and keeps. It says
// what it did. It can be cut short at any moment, and done again.
func (b *BoltStore) Rekey(ctx context.Context, s Store) (string, error) {
	d := s.(*store.Durable)
	if b.Key != "" {
		n, err := d.Reseal(ctx)
		return fmt.Sprintf("%d entries are sealed with the configured key; old_key isn't needed any more", n), err
	}
	keys, err := keptKeys(false)
	if err != nil {
		return "", err
	}
	if len(keys.Old) == 0 { // otherwise one was interrupted, whose key is new already
		keys = store.Keys{Current: store.NewKey(), Old: []store.Key{keys.Current}}
		if err := keepKeys(keys, os.Rename); err != nil {
			return "", fmt.Errorf("keeping the new key: %w", err)
		}
	}
	n := 0
	if err = d.UseKeys(ctx, keys); err == nil {
		n, err = d.Reseal(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("%w; %d entries have the new key, both keys are kept, and another rekey goes on", err, n)
	}
	keys.Old = nil
	// In this order: only what opens without the former key lets it go.
	if err := d.UseKeys(ctx, keys); err != nil {
		return "", err
	}
	if err := keepKeys(keys, os.Rename); err != nil {
		return "", fmt.Errorf("dropping the former key: %w", err)
	}
	return fmt.Sprintf("%d entries are sealed with a new key, which is in %s; keep a copy of it, and of the former one as long as you keep backups from before", n, keyFile()), nil
}
