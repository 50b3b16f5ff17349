//go:build linux

package reliability

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// powerStore is what these tests need of a store.
type powerStore interface {
	oauth.Store
	Instance() string
	Watch(func(oauth.StoreNotice))
}

// openPlace opens the store below root as the sidecar does.
func openPlace(root string, keys store.Keys) (powerStore, error) {
	d, err := store.Open(store.Place{
		Database: filepath.Join(root, "data", "caddy", "bearer", "tokens.db"),
		Instance: filepath.Join(root, "config", "caddy", "bearer"),
	})
	if err != nil {
		return nil, err
	}
	if err := d.UseKeys(context.Background(), keys); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
