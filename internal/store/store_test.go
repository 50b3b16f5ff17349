package store_test

import (
	"path/filepath"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
	"github.com/caddy-bearer/caddy-bearer/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	openBolt := func(t *testing.T) oauth.Store {
		s, err := store.OpenBolt(filepath.Join(t.TempDir(), "data", "tokens.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	openDurable := func(t *testing.T) oauth.Store {
		dir := t.TempDir()
		d, err := store.Open(store.Place{Database: filepath.Join(dir, "data", "tokens.db"), Instance: filepath.Join(dir, "config")})
		if err == nil {
			err = d.UseKeys(t.Context(), store.Keys{Current: store.NewKey()})
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	openMemory := func(*testing.T) oauth.Store { return store.NewMemory() }
	for name, open := range map[string]func(*testing.T) oauth.Store{
		"Bolt":    openBolt,
		"Durable": openDurable,
		"Memory":  openMemory,
	} {
		t.Run(name, func(t *testing.T) { storetest.Run(t, open) })
	}
}
