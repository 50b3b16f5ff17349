package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// pool holds what outlives a configuration, by the store's pool key: a reload
// keeps the open store, the sessions and the refreshes under way.
var pool = caddy.NewUsagePool()

// shared is the state of one store. Provision makes it without side effects;
// the first lease that starts opens the store.
type shared struct {
	sessions *oauth.Sessions

	mu    sync.Mutex
	store Store
	// leases are those that were started and not released; the last is active.
	leases []*lease
}

// A lease is one configuration's hold on the shared state: what it makes of
// the accounts and of the store's keys.
type lease struct {
	module   StoreModule
	accounts []*oauth.Account
	log      *slog.Logger
}

func acquire(key string, log *slog.Logger) (*shared, error) {
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) {
		return &shared{sessions: oauth.NewSessions(log)}, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*shared), nil
}

// activate makes l the configuration in force, and opens the store if it is
// the first.
func (sh *shared) activate(ctx context.Context, l *lease) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.store == nil {
		store, err := l.module.Open(ctx)
		if err != nil {
			return fmt.Errorf("opening the token store: %w", err)
		}
		sh.store = store
		sh.sessions.Open(store)
	}
	if err := sh.apply(ctx, l); err != nil {
		return err
	}
	sh.leases = append(sh.leases, l)
	return nil
}

func (sh *shared) apply(ctx context.Context, l *lease) error {
	if err := l.module.Configure(ctx, sh.store); err != nil {
		return fmt.Errorf("configuring the token store: %w", err)
	}
	sh.sessions.LogTo(l.log)
	sh.sessions.Configure(ctx, l.accounts)
	return nil
}

// release ends a lease. If it was in force while an older one still lives, the
// older one is again: the reload that started l has failed elsewhere.
func (sh *shared) release(l *lease) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i := slices.Index(sh.leases, l)
	if i < 0 {
		return nil
	}
	active := i == len(sh.leases)-1
	sh.leases = slices.Delete(sh.leases, i, i+1)
	if !active || len(sh.leases) == 0 {
		return nil
	}
	return sh.apply(context.Background(), sh.leases[len(sh.leases)-1])
}

// drain is how long the end of the process waits for a refresh under way: the
// answer may hold the only copy of a one-time refresh token.
const drain = 10 * time.Second

// Destruct is called by the pool when the last configuration is gone.
func (sh *shared) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	return sh.sessions.Close(ctx)
}

// errNotConfigured tells that a configuration has no bearer app.
var errNotConfigured = errors.New("there is no bearer app in the configuration; add `bearer { … }` to the global options")

// running returns the app in force. It asks Caddy each time: what a module
// learnt when it was provisioned may belong to a configuration that never came
// into force.
func running() (*App, error) {
	ctx := caddy.ActiveContext()
	if ctx.Context == nil {
		return nil, errNotConfigured
	}
	app, err := ctx.AppIfConfigured(appName)
	if err != nil {
		return nil, errNotConfigured
	}
	return app.(*App), nil
}
