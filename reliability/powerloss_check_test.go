//go:build linux

package reliability

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// opened is what there is after an opening.
type opened struct {
	is       []saved
	instance string
	said     bool // it told of something that it mended
	strange  int  // entries of no session of ours, which say of themselves that they are damaged
}

// reopen opens the store and reads everything. What it can't explain is an
// error: a value that nobody ever saved under this key and generation.
func (rig *powerRig) reopen() (o opened, err error) {
	s, err := openPlace(rig.root, store.Keys{Current: rig.key})
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	o.instance = s.Instance()
	s.Watch(func(n oauth.StoreNotice) { o.said = o.said || len(n.Mended) > 0 })
	var listed []oauth.Key
	for k, key := range powerKeys {
		e, err := s.Load(rig.Context(), key)
		is := saved{generation: e.Generation}
		switch {
		case errors.Is(err, oauth.ErrNotFound):
		case errors.Is(err, oauth.ErrUnreadable):
			is = unreadable
			listed = append(listed, key)
		case err != nil:
			return o, err
		default:
			listed = append(listed, key)
			if _, err := fmt.Sscanf(string(e.Value[:min(len(e.Value), 40)]), "key %d life %d", &k, &is.life); err != nil ||
				!bytes.Equal(e.Value, powerValue(k, is.life, e.Generation)) || powerKeys[k] != key {
				return o, fmt.Errorf("%q has generation %d with the value %.60q", key, e.Generation, e.Value)
			}
		}
		o.is = append(o.is, is)
	}
	keys, err := s.List(rig.Context(), "")
	if err != nil {
		return o, err
	}
	keys = slices.DeleteFunc(keys, func(key oauth.Key) bool {
		_, err := s.Load(rig.Context(), key)
		strange := !slices.Contains(powerKeys, key) && errors.Is(err, oauth.ErrUnreadable)
		if strange {
			o.strange++
		}
		return strange
	})
	slices.SortFunc(listed, func(a, b oauth.Key) int { return strings.Compare(a.String(), b.String()) })
	slices.SortFunc(keys, func(a, b oauth.Key) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(keys, listed) {
		return o, fmt.Errorf("the list is %q, but %q can be loaded", keys, listed)
	}
	return o, nil
}

// reopenTwice opens the store twice: what it heals must stay healed.
func (rig *powerRig) reopenTwice() (opened, error) {
	first, err := rig.reopen()
	if err != nil {
		return first, err
	}
	again, err := rig.reopen()
	if err == nil && (!slices.Equal(first.is, again.is) || first.instance != again.instance) {
		err = fmt.Errorf("it was %+v when it was opened first, and %+v the second time", first, again)
	}
	again.said = first.said
	return again, err
}

// honest checks what a disk that keeps its word has after a cut: every session
// as it was acknowledged, or as the call under way wanted it, and nobody is
// told that something is missing.
func (rig *powerRig) honest(d *disk, c cut) []saved {
	rig.Helper()
	v := rig.view(d, c.at)
	o, err := rig.reopenTwice()
	for k := range o.is {
		if err == nil && o.is[k] != v.is[k] && !(v.under[k] && o.is[k] == v.next[k]) {
			err = fmt.Errorf("%q is %+v; acknowledged was %+v (under way: %v %+v)", powerKeys[k], o.is[k], v.is[k], v.under[k], v.next[k])
		}
	}
	if err == nil && o.strange > 0 {
		err = fmt.Errorf("there are %d entries that nobody saved", o.strange)
	}
	if err == nil && v.instance != "" && o.instance != v.instance {
		err = fmt.Errorf("the store takes itself for another one (%s, was %s), though nothing is missing", o.instance, v.instance)
	}
	if err != nil {
		rig.broken(d, c, err)
		return nil
	}
	rig.count(d, c)
	return o.is
}

// setAside counts the files that were given another name.
func (rig *powerRig) setAside() int {
	names, _ := filepath.Glob(filepath.Join(rig.root, "data", "*", "*", "*.damaged-*"))
	return len(names)
}

func (rig *powerRig) count(d *disk, c cut) {
	n := 0
	for _, m := range d.messages {
		if m.begin < c.at && strings.HasPrefix(m.text, "ack") {
			n++
		}
	}
	rig.figures.acknowledged += n
	rig.figures.most = max(rig.figures.most, n)
	if rig.setAside() > rig.before {
		rig.figures.renamed++
	}
}

// broken reports a cut that went wrong and keeps what it left.
func (rig *powerRig) broken(d *disk, c cut, err error) {
	rig.Helper()
	kept, kerr := os.MkdirTemp("", "powerloss-kept-*")
	if kerr == nil {
		kerr = d.image(kept, c)
	}
	rig.Errorf("life %d, cut %+v: %v\nthe disk is in %s (%v), sealed with %s", rig.life, c, err, kept, kerr, rig.key.Text())
	for i, m := range d.messages {
		if m.begin >= c.at {
			for _, m := range d.messages[max(0, i-8):i] {
				rig.Logf("%d %s", m.begin, m.text)
			}
			break
		}
	}
	for _, path := range slices.Sorted(maps.Keys(d.tree())) {
		rig.Logf("%s: %s", path, d.tree()[path])
	}
}
