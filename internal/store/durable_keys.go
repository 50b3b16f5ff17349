package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is which keys a [Durable] is sealed with.

// UseKeys replaces the keys if they open every entry; otherwise it changes
// nothing and returns an error wrapping [oauth.ErrUnreadable]. It must be
// called once before the store is used; then the files are made to agree.
func (d *Durable) UseKeys(ctx context.Context, keys Keys) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.all(ctx)
	if err != nil {
		return err
	}
	r := newRing(keys)
	failpoint.Hit("keys-unchecked")
	if err := d.check(ctx, r, all); err != nil {
		return err
	}
	failpoint.Hit("keys-checked")
	first := d.ring.Swap(r) == nil
	if !first {
		return nil
	}
	for _, key := range all {
		d.differ[key] = struct{}{}
	}
	d.mend()
	return nil
}

// all lists the keys of both files.
func (d *Durable) all(ctx context.Context) ([]oauth.Key, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	keys, err := d.bolt.List(ctx, "")
	if err != nil {
		return nil, err
	}
	if d.spill != nil {
		keys = append(keys, d.spill.keys()...)
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys), nil
}

// check returns an error if there are entries which no key of r can have
// sealed, in either file: how many, and with which key they are sealed. An
// entry that is damaged, so that no key fits any more, shows when it is loaded.
func (d *Durable) check(ctx context.Context, r *ring, keys []oauth.Key) error {
	unknown := 0
	var reasons []string
	for _, key := range keys {
		reason := d.unknown(ctx, r, key)
		if reason == nil {
			continue
		}
		unknown++
		if text := reason.Error(); len(reasons) < 3 && !slices.Contains(reasons, text) {
			reasons = append(reasons, text)
		}
	}
	if unknown == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d entries: %s", oauth.ErrUnreadable, unknown, len(keys), strings.Join(reasons, "; "))
}

// unknown returns why no key of r fits what there is of a key, nil if one does.
func (d *Durable) unknown(ctx context.Context, r *ring, key oauth.Key) (reason error) {
	var values [][]byte
	if e, err := d.bolt.Load(ctx, key); err == nil {
		values = append(values, e.Value)
	}
	if d.spill != nil {
		for _, img := range d.spill.images(key) {
			values = append(values, img.value)
		}
	}
	for _, v := range values {
		_, _, err := r.keyOf(v)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errNotSealed) {
			reason = err
		}
	}
	return reason
}

// Empty reports whether the store has no entry at all, readable or not.
func (d *Durable) Empty(ctx context.Context) (bool, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all, err := d.all(ctx)
	return err == nil && len(all) == 0, err
}

// Reseal seals every entry anew with the current key, both images that the
// spill has of it, too, and tells how many there are. Generations stay as they
// are. What is cut short is done again with the next call; until then the old
// keys are needed. Damaged entries, which no key opens, stay as they are.
func (d *Durable) Reseal(ctx context.Context) (int, error) {
	d.mu.RLock()
	keys, err := d.all(ctx)
	d.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, key := range keys {
		switch err := d.reseal(ctx, key); {
		case errors.Is(err, oauth.ErrNotFound), errors.Is(err, oauth.ErrUnreadable): // deleted meanwhile, or damaged
		case err != nil:
			return n, fmt.Errorf("sealing %q anew: %w", key, err)
		default:
			n++
		}
	}
	return n, nil
}

func (d *Durable) reseal(ctx context.Context, key oauth.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := d.load(ctx, key)
	if err != nil {
		return err
	}
	d.differ[key] = struct{}{} // so that it is written over what is there
	for range 2 {
		d.sequence++
		e.sequence = d.sequence
		sealed, err := d.seal(key, e)
		if err != nil {
			return err
		}
		if err := errors.Join(d.toSpill(key, sealed, e.sequence), d.toDatabase(key, sealed, e.sequence)); err != nil {
			return err
		}
	}
	delete(d.differ, key)
	return nil
}
