package oauth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A flaky store fails as it is told.
type flaky struct {
	oauth.Store
	mu sync.Mutex
	// save and load replace the methods if they are not nil.
	save func(ctx context.Context, key oauth.Key, e oauth.Entry) error
	load func(ctx context.Context, key oauth.Key) (oauth.Entry, error)
}

var errDisk = errors.New("no space left on the device")

func (f *flaky) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	f.mu.Lock()
	save := f.save
	f.mu.Unlock()
	if save == nil {
		save = f.Store.Save
	}
	return save(ctx, key, e)
}

func (f *flaky) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	f.mu.Lock()
	load := f.load
	f.mu.Unlock()
	if load == nil {
		load = f.Store.Load
	}
	return load(ctx, key)
}

func (f *flaky) onSave(save func(context.Context, oauth.Key, oauth.Entry) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.save = save
}

func (f *flaky) onLoad(load func(context.Context, oauth.Key) (oauth.Entry, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.load = load
}

func full(context.Context, oauth.Key, oauth.Entry) error { return errDisk }

func broken(context.Context, oauth.Key) (oauth.Entry, error) { return oauth.Entry{}, errDisk }

// flaky puts one between the rig's sessions and its store.
func (r *rig) flaky() *flaky {
	f := &flaky{Store: r.store}
	r.store = f
	return f
}

func TestStoreThatCannotSave(t *testing.T) {
	t.Parallel()
	t.Run("tokens are served, and saved when it recovers", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.account())
			r.token(s)
			f.onSave(full)
			for range 180 { // 3 h, in use
				after(time.Minute)
				r.token(s)
			}
			// A refresh each 9 min, as ever.
			if n := r.sandbox.TokenRequests("refresh_token"); n < 18 || n > 22 {
				t.Errorf("%d refreshes in 3 h", n)
			}
			r.state(s, oauth.StateDegraded)
			if !s.Status().Unsaved {
				t.Error("the status does not tell that the tokens are not saved")
			}
			requests := r.sandbox.TokenRequests("")
			f.onSave(nil)
			after(15 * time.Second)
			r.state(s, oauth.StateReady)
			tok := r.token(s)
			r.stop()
			s = r.start(r.account())
			defer r.stop()
			if again := r.token(s); again.Authorization()[0] != tok.Authorization()[0] {
				t.Error("after the restart there is another token")
			}
			if n := r.sandbox.TokenRequests("") - requests; n > 1 {
				t.Errorf("%d token requests after the recovery", n)
			}
			after(time.Hour)
			r.token(s)
			if n := r.sandbox.TokenRequests("password"); n != 1 {
				t.Errorf("%d password logins: the newest refresh token was lost", n)
			}
		})
	})
	t.Run("an idle session asks for nothing", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			f.onSave(full)
			s := r.start(r.account())
			defer r.stop()
			after(3 * time.Hour)
			r.requests(1, 0)
			f.onSave(nil)
			after(15 * time.Second)
			r.requests(1, 0)
			if s.Status().Unsaved {
				t.Error("the tokens are still not saved")
			}
		})
	})
	t.Run("nor does one whose credentials are refused, and the latch is saved in the end", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			f.onSave(full)
			r.sandbox.Play(sandbox.WrongPassword, -1)
			s := r.start(r.account())
			after(time.Hour)
			r.fails(s, oauth.ErrCredentialsRejected)
			f.onSave(nil)
			after(15 * time.Second)
			r.stop()
			s = r.start(r.account())
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(1, 0)
		})
	})
	t.Run("a person is needed, and the tombstone is saved in the end", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.noRelogin())
			r.token(s)
			r.sandbox.RevokeRefreshTokens()
			f.onSave(full)
			r.stale(s)
			after(time.Hour)
			r.fails(s, oauth.ErrLoginRequired)
			f.onSave(nil)
			after(15 * time.Second)
			r.stop()
			s = r.start(r.noRelogin())
			defer r.stop()
			r.fails(s, oauth.ErrLoginRequired)
			r.requests(1, 1)
		})
	})
}

func TestStoreThatErrsButSaves(t *testing.T) {
	t.Parallel()
	for name, unreadable := range map[string]bool{"and can be read": false, "and can't be read": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				f := r.flaky()
				s := r.start(r.account())
				r.token(s)
				f.onSave(func(ctx context.Context, key oauth.Key, e oauth.Entry) error {
					if unreadable {
						f.onLoad(broken)
					}
					if err := f.Store.Save(ctx, key, e); err != nil {
						return err
					}
					return errDisk
				})
				r.stale(s)
				r.requests(1, 1)
				if unreadable {
					r.state(s, oauth.StateDegraded)
					unreadable = false
					f.onLoad(nil)
					after(15 * time.Second)
				}
				r.requests(1, 1)
				r.state(s, oauth.StateReady)
				if s.Status().Unsaved {
					t.Error("what was saved counts as unsaved")
				}
				tok := r.token(s)
				requests := r.sandbox.TokenRequests("")
				r.stop()
				s = r.start(r.account())
				defer r.stop()
				if again := r.token(s); again.Authorization()[0] != tok.Authorization()[0] {
					t.Error("after the restart there is another token")
				}
				if n := r.sandbox.TokenRequests("") - requests; n != 0 {
					t.Errorf("%d token requests after the restart", n)
				}
			})
		})
	}
}

// once runs before before the next save, and the save then.
func (f *flaky) once(before func()) {
	f.onSave(func(ctx context.Context, key oauth.Key, e oauth.Entry) error {
		f.onSave(nil)
		before()
		return f.Store.Save(ctx, key, e)
	})
}

// A lockless store is what another process sees if an engine takes a lock back.
type lockless struct{ oauth.Store }

func (lockless) Lock(context.Context, oauth.Key) (func(), error) { return func() {}, nil }
func (lockless) Close() error                                    { return nil }

func TestStoreConflict(t *testing.T) {
	t.Parallel()
	t.Run("another one refreshed: its token is used", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			other := oauth.NewSessions(r.log)
			other.Open(lockless{f.Store})
			other.Configure(r.Context(), []*oauth.Account{r.account()})
			theirs, err := other.Session(r.Context(), oauth.Key{Account: "erp"})
			if err != nil {
				t.Fatal(err)
			}
			f.once(func() {
				if err := theirs.Refresh(r.Context()); err != nil {
					t.Error(err)
				}
			})
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			r.requests(1, 1)
			if r.token(s).Authorization()[0] != theirs.Current().Authorization()[0] {
				t.Error("the other one's token is not used")
			}
			if err := other.Close(r.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("a result wins over what is there", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Delay: time.Second}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.account())
			r.token(s)
			go func() {
				time.Sleep(500 * time.Millisecond) // the intent is saved, the answer under way
				f.once(func() {
					e, err := f.Store.Load(r.Context(), s.Key())
					if err == nil {
						e.Generation++
						err = f.Store.Save(r.Context(), s.Key(), e)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}()
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			r.state(s, oauth.StateReady)
			tok := r.token(s)
			r.stop()
			s = r.start(r.account())
			defer r.stop()
			if again := r.token(s); again.Authorization()[0] != tok.Authorization()[0] {
				t.Error("the result was lost")
			}
			r.requests(1, 1)
		})
	})
}

func TestStoreThatCannotLoad(t *testing.T) {
	t.Parallel()
	t.Run("it recovers", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			r.token(s)
			r.stop()
			f := r.flaky()
			f.onLoad(broken)
			s = r.start(r.account())
			defer r.stop()
			for range 60 {
				after(10 * time.Second)
				if f := r.failure(s, oauth.ErrStoreUnavailable); f.RetryAt.IsZero() {
					t.Fatal("no retry is announced")
				}
			}
			r.state(s, oauth.StateUnknown)
			r.requests(1, 0) // without the store nobody knows which token to spend
			f.onLoad(nil)
			r.within(s, time.Minute)
			r.requests(1, 1)
		})
	})
	t.Run("it breaks while a token lives", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			f.onLoad(broken)
			for range 59 {
				after(10 * time.Second)
				r.token(s)
			}
			after(10 * time.Second)
			r.fails(s, oauth.ErrStoreUnavailable)
			f.onLoad(nil)
			r.within(s, time.Minute)
			if n := r.sandbox.TokenRequests("password"); n != 1 {
				t.Errorf("%d password logins", n)
			}
		})
	})
	t.Run("a damaged entry is left as it is", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			key := oauth.Key{Account: "erp"}
			damaged := oauth.Entry{Generation: 1, Value: []byte(`{"version":1,"records":[{"refresh_token":7}]}`)}
			if err := r.store.Save(r.Context(), key, damaged); err != nil {
				t.Fatal(err)
			}
			s := r.start(r.account())
			defer r.stop()
			after(time.Hour)
			r.fails(s, oauth.ErrStoreUnavailable)
			r.requests(0, 0)
			if e, err := r.store.Load(r.Context(), key); err != nil || string(e.Value) != string(damaged.Value) {
				t.Errorf("the entry is %q now (%v)", e.Value, err)
			}
		})
	})
}

// Somebody else holds the session's lock for long.
func TestStoreLockIsHeld(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		unlock, err := r.store.Lock(r.Context(), oauth.Key{Account: "erp"})
		if err != nil {
			t.Fatal(err)
		}
		s := r.start(r.account())
		defer r.stop()
		begin := time.Now()
		r.fails(s, oauth.ErrTokenTimeout)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("the caller waited %v, want 10 s", took)
		}
		r.requests(0, 0)
		unlock()
		r.token(s)
		r.requests(1, 0)
	})
}
