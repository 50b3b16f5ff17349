package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file makes the two files of a [Durable] agree again.

// Watch implements [oauth.WatchedStore].
func (d *Durable) Watch(tell func(oauth.StoreNotice)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.health.tell = tell
	if n := d.health.notice; n.Problem != "" || len(n.Mended) > 0 {
		tell(n)
		d.health.notice.Mended = nil
	}
}

// health is what is wrong with a store that goes on nevertheless.
type health struct {
	notice oauth.StoreNotice
	tell   func(oauth.StoreNotice)
	behind bool        // the database lacks something
	timer  *time.Timer // until the next attempt to mend, nil if there is none
}

// mended takes note of what was made good.
func (h *health) mended(format string, args ...any) {
	h.notice.Mended = append(h.notice.Mended, fmt.Sprintf(format, args...))
}

// say tells what is wrong now, if that is news.
func (h *health) say(problem string) {
	if h.notice.Problem == problem && len(h.notice.Mended) == 0 {
		return
	}
	h.notice.Problem = problem
	if h.tell != nil {
		h.tell(h.notice)
		h.notice.Mended = nil
	}
}

func (h *health) stop() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

var errNoSpill = errors.New("the spill can't be opened")

// suffer takes note of what failed, and sees to it that it is tried again.
// d.mu is held for writing.
func (d *Durable) suffer(boltErr, spillErr error) {
	d.health.behind = boltErr != nil || d.health.behind && len(d.differ) > 0
	if boltErr == nil && spillErr == nil && len(d.differ) == 0 {
		d.health.say("")
		return
	}
	switch {
	case boltErr != nil && spillErr != nil:
		d.health.say(fmt.Sprintf("neither the database (%v) nor its spill (%v) can be written: new tokens are in memory only", boltErr, spillErr))
	case boltErr != nil:
		d.health.say(fmt.Sprintf("the database can't be written (%v): new tokens are kept in %s meanwhile", boltErr, d.place.Spill))
	case spillErr != nil:
		d.health.say(fmt.Sprintf("the spill %s can't be written (%v): tokens are kept in the database alone", d.place.Spill, spillErr))
	}
	if d.health.timer == nil && !d.closed {
		d.health.timer = time.AfterFunc(again, d.mendLater)
	}
}

// mendFor is how long saves may have to wait for mending.
const mendFor = time.Second

func (d *Durable) mendLater() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.health.timer = nil
	if !d.closed {
		d.mend()
	}
}

// mend makes the files agree where they may not. d.mu is held for writing.
func (d *Durable) mend() {
	failpoint.Hit("mend-begun")
	boltErr, spillErr := d.repair(), d.reopenSpill()
	restored := 0
	begun := time.Now()
	for key := range d.differ {
		if boltErr != nil && spillErr != nil || time.Since(begun) > mendFor {
			break // the rest later: until then each is looked for in both files
		}
		h, b, s := d.heal(key)
		boltErr, spillErr = errors.Join(boltErr, b), errors.Join(spillErr, s)
		if b == nil && s == nil {
			delete(d.differ, key)
		}
		if h {
			restored++
		}
	}
	if restored > 0 {
		d.health.mended("%d entries in the database were missing, damaged or not the newest; they were restored from the spill", restored)
	}
	failpoint.Hit("mend-ended")
	d.suffer(boltErr, spillErr)
}

// repair starts the database anew from the spill if it is damaged.
func (d *Durable) repair() error {
	_, err := d.bolt.List(context.Background(), "")
	begun := errors.Is(err, oauth.ErrStoreClosed) // here, but the new one couldn't be made
	if err == nil || !begun && !errors.Is(err, errDamaged) || d.spill == nil {
		return err
	}
	_ = d.bolt.Close()
	bolt, note, err := renewDatabase(d.place.Database, d.spill.id())
	if err != nil {
		return err
	}
	d.bolt = bolt
	d.health.mended("%s", note)
	for _, key := range d.spill.keys() {
		d.differ[key] = struct{}{}
	}
	return nil
}

// reopenSpill opens the spill if it couldn't be before, or was damaged since.
func (d *Durable) reopenSpill() error {
	if d.spill != nil {
		err := d.spill.settle()
		if !errors.Is(err, errDamaged) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = d.spill.close() // it is set aside, or gone
		d.spill = nil
	}
	s, note, err := d.openOrRenewSpill(d.bolt.id)
	if err != nil {
		return err
	}
	keys, err := d.bolt.List(context.Background(), "")
	if err != nil {
		return errors.Join(err, s.close())
	}
	d.spill = s
	d.sequence = max(d.sequence, s.sequence())
	d.health.notice.Mended = append(d.health.notice.Mended, note...)
	for _, key := range append(keys, s.keys()...) {
		d.differ[key] = struct{}{}
	}
	return nil
}

// heal puts the newest entry of a key into the file that lacks it. It reports
// whether the database got it, and the error of each file.
func (d *Durable) heal(key oauth.Key) (restored bool, boltErr, spillErr error) {
	if d.spill == nil {
		return false, nil, errNoSpill
	}
	e, err := d.inDatabase(context.Background(), key)
	if err != nil && !errors.Is(err, oauth.ErrUnreadable) && !errors.Is(err, oauth.ErrNotFound) {
		return false, err, nil
	}
	spilled, ok := d.inSpill(key)
	switch {
	case ok && (err != nil || spilled.sequence > e.sequence):
		sealed, err := d.seal(key, spilled)
		failpoint.Hit("heal-database-due")
		if err == nil {
			err = d.toDatabase(key, sealed, spilled.sequence)
			failpoint.Hit("heal-database-done")
		}
		return err == nil, err, nil
	case err != nil, ok && spilled.sequence == e.sequence:
		return false, nil, nil // nothing to be had, or nothing to do
	}
	sealed, err := d.seal(key, e)
	failpoint.Hit("heal-spill-due")
	if err == nil {
		err = d.toSpill(key, sealed, e.sequence)
		failpoint.Hit("heal-spill-done")
	}
	if errors.Is(err, oauth.ErrConflict) { // of a session that was deleted since, or not ours
		if err = d.spill.remove(key); err == nil {
			err = d.toSpill(key, sealed, e.sequence)
		}
	}
	return false, nil, err
}
