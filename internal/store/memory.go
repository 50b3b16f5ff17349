package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Memory is a store that ends with the process: nothing is written to disk, so
// that a restart needs a new login for every session.
type Memory struct {
	locks *keyLocks

	mu      sync.RWMutex
	entries map[oauth.Key]oauth.Entry // nil once closed
}

var _ oauth.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{locks: newKeyLocks(), entries: make(map[oauth.Key]oauth.Entry)}
}

// Load implements [oauth.Store].
func (m *Memory) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return oauth.Entry{}, fmt.Errorf("loading %q: %w", key, err)
	}
	e, ok := m.entries[key]
	if !ok {
		return oauth.Entry{}, fmt.Errorf("loading %q: %w", key, oauth.ErrNotFound)
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

// Save implements [oauth.Store].
func (m *Memory) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return fmt.Errorf("saving %q: %w", key, err)
	}
	old := m.entries[key] // generation 0 if absent
	if err := mayFollow(old.Generation, e.Generation); err != nil {
		return fmt.Errorf("saving %q: %w", key, err)
	}
	e.Value = bytes.Clone(e.Value)
	m.entries[key] = e
	clear(old.Value)
	return nil
}

// Delete implements [oauth.Store].
func (m *Memory) Delete(ctx context.Context, key oauth.Key, generation uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	old := m.entries[key]
	if err := mayDelete(old.Generation, generation); err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	delete(m.entries, key)
	clear(old.Value)
	return nil
}

// List implements [oauth.Store].
func (m *Memory) List(ctx context.Context, account string) ([]oauth.Key, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return nil, fmt.Errorf("listing the store: %w", err)
	}
	var keys []oauth.Key
	for key := range m.entries {
		if account == "" || key.Account == account {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys, nil
}

func compareKeys(a, b oauth.Key) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.User, b.User))
}

// Lock implements [oauth.Store]. Close sends those away who wait.
func (m *Memory) Lock(ctx context.Context, key oauth.Key) (unlock func(), err error) {
	return m.locks.lock(ctx, key)
}

// Close forgets everything. It waits for the calls under way, not for the
// holders of locks.
func (m *Memory) Close() error {
	m.locks.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		return fmt.Errorf("closing the store: %w", oauth.ErrStoreClosed)
	}
	for _, e := range m.entries {
		clear(e.Value)
	}
	m.entries = nil
	return nil
}

// usable says why a call can't go ahead, if it can't.
func (m *Memory) usable(ctx context.Context) error {
	if m.entries == nil {
		return oauth.ErrStoreClosed
	}
	return ctx.Err()
}

// mayFollow decides about a save: next must be the generation after stored,
// which is 0 if there is no entry. Generation 0 follows nothing: it must not
// come round after the greatest.
func mayFollow(stored, next uint64) error {
	if next == 0 || stored != next-1 {
		return fmt.Errorf("%w: generation %d can't follow %d", oauth.ErrConflict, next, stored)
	}
	return nil
}

// mayDelete decides about a delete of the entry with generation stored, which
// is 0 if there is none.
func mayDelete(stored, asked uint64) error {
	switch {
	case stored == 0:
		return oauth.ErrNotFound
	case stored != asked:
		return fmt.Errorf("%w: it has generation %d, not %d", oauth.ErrConflict, stored, asked)
	}
	return nil
}
