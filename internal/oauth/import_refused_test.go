package oauth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A refused import takes nothing away, whatever goes on meanwhile: the account
// goes on with its own newest refresh token.
func TestRefusedImportLosesNothing(t *testing.T) {
	t.Parallel()
	for name, try := range map[string]func(r *rig, s *oauth.Session) error{
		"while a refresh is under way": func(r *rig, s *oauth.Session) error {
			r.sandbox.Play(sandbox.Slow, 1) // commits, then takes its time
			go func() { _ = s.Refresh(r.Context()) }()
			time.Sleep(time.Second)
			return s.Import(r.Context(), oauth.NewSecret("not-a-token"))
		},
		"without a reason": func(r *rig, s *oauth.Session) error {
			r.sandbox.Play(sandbox.Dead400Empty, 1)
			return s.Import(r.Context(), oauth.NewSecret("not-a-token"))
		},
		"after the caller left": func(r *rig, s *oauth.Session) error {
			r.sandbox.Play(sandbox.Slow, 1)
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			if err := s.Import(ctx, oauth.NewSecret("not-a-token")); !errors.Is(err, context.DeadlineExceeded) {
				r.Errorf("Import: %v", err)
			}
			time.Sleep(time.Minute)
			return oauth.ErrImportRefused
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				a := r.account()
				a.Grant.(*oauth.Password).Relogin = false
				s := r.start(a)
				defer r.stop()
				r.token(s)
				if err := try(r, s); !errors.Is(err, oauth.ErrImportRefused) {
					t.Errorf("Import: %v", err)
				}
				time.Sleep(2 * time.Hour)
				r.token(s)
			})
		})
	}
}
