package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The disk was full, there is room again, and the process ends before the next
// attempt to save.
func TestUnsavedTokensAreSavedAtTheEnd(t *testing.T) {
	play(t, sandbox.Config{}, func(r *rig) {
		f := r.flaky()
		a := r.noRelogin()
		s := r.start(a)
		r.token(s)
		f.onSave(full)
		r.stale(s)
		r.token(s)
		after(4 * time.Minute)
		if !s.Status().Unsaved {
			t.Fatal("the token was saved")
		}
		tok := r.token(s)
		f.onSave(nil)
		r.stop()
		s = r.start(a)
		defer r.stop()
		again, err := s.Token(r.Context())
		if err != nil || again.Authorization()[0] != tok.Authorization()[0] {
			t.Errorf("the token that was in memory is lost: %v", err)
		}
		after(10 * time.Minute)
		r.token(s)
		if n := r.sandbox.TokenRequests("password"); n != 1 {
			t.Errorf("%d logins", n)
		}
	})
}

// A store that tells of a conflict at every save doesn't keep a flight going.
func TestEndlessConflicts(t *testing.T) {
	play(t, sandbox.Config{}, func(r *rig) {
		f := r.flaky()
		s := r.start(r.account())
		r.token(s)
		saves := 0
		f.onSave(func(context.Context, oauth.Key, oauth.Entry) error {
			if saves++; saves > 1000 {
				return errDisk
			}
			return fmt.Errorf("always: %w", oauth.ErrConflict)
		})
		r.stale(s)
		_, _ = s.Token(r.Context())
		after(time.Second)
		if saves > 100 {
			t.Errorf("%d saves", saves)
		}
		f.onSave(nil)
		r.stop()
	})
}

// What an import that is refused takes the place of isn't lost when it can't be
// put back into the store.
func TestRefusedImportOnAFullDisk(t *testing.T) {
	play(t, sandbox.Config{}, func(r *rig) {
		f := r.flaky()
		a := r.noRelogin()
		s := r.start(a)
		r.token(s)
		saves := 0
		f.onSave(func(ctx context.Context, k oauth.Key, e oauth.Entry) error {
			if saves++; saves <= 2 {
				return f.Store.Save(ctx, k, e)
			}
			return errDisk
		})
		if err := s.Import(r.Context(), oauth.NewSecret("mistyped")); !errors.Is(err, oauth.ErrImportRefused) {
			t.Errorf("Import: %v", err)
		}
		r.token(s)
		f.onSave(nil)
		r.stop()
		s = r.start(a)
		defer r.stop()
		after(20 * time.Minute)
		r.token(s)
	})
}
