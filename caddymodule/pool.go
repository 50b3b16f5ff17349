package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	emitter  *emitter

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
		sessions := oauth.NewSessions(log)
		sh := &shared{sessions: sessions, emitter: newEmitter(sessions)}
		sessions.Observe(sh.emitter.observe)
		return sh, nil
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

var errNotStarted = errors.New("the token store isn't open; the server is starting or at its end")

// opened returns the open store and the module of the configuration in force.
func (sh *shared) opened() (StoreModule, Store, error) {
	if sh.store == nil || len(sh.leases) == 0 {
		return nil, nil, errNotStarted
	}
	return sh.leases[len(sh.leases)-1].module, sh.store, nil
}

// backup writes a copy of the store, or returns an error wrapping
// [errUnsupported].
func (sh *shared) backup(ctx context.Context, w io.Writer) error {
	sh.mu.Lock()
	module, store, err := sh.opened()
	sh.mu.Unlock()
	if err != nil {
		return err
	}
	b, ok := store.(BackupStore)
	if !ok {
		return fmt.Errorf("%w: it can't copy itself (%s)", errUnsupported, module.Describe())
	}
	return b.Backup(ctx, w)
}

// rekey seals the store anew and says what it did, or returns an error wrapping
// [errUnsupported]. Configurations wait meanwhile: each says which keys there
// are.
func (sh *shared) rekey(ctx context.Context) (done string, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	module, store, err := sh.opened()
	if err != nil {
		return "", err
	}
	m, ok := module.(RekeyModule)
	if !ok {
		return "", fmt.Errorf("%w: it has no key that could be changed here (%s)", errUnsupported, module.Describe())
	}
	return m.Rekey(ctx, store)
}

// errUnsupported tells of a store that can do no more than [Store] asks.
var errUnsupported = errors.New("not with this store")

// drain is how long the end of the process waits for a refresh under way: the
// answer may hold the only copy of a one-time refresh token.
const drain = 10 * time.Second

// Destruct is called by the pool when the last configuration is gone.
func (sh *shared) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	defer close(sh.emitter.over)
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
