package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is what operators do when a store was copied, restored or is to be
// copied, and when its key is to be changed.

// adoptBody is the body of POST /bearer/adopt.
type adoptBody struct {
	Account string `json:"account"`
	// User may be left out for an account with sessions per user: then all users
	// are meant that are stored.
	User    string `json:"user,omitempty"`
	Confirm bool   `json:"confirm,omitempty"`
}

// adoptJSON is the answer.
type adoptJSON struct {
	// Sessions are those that would be adopted, or were.
	Sessions []adoptionJSON `json:"sessions"`
	Adopted  int            `json:"adopted"`
}

// adoptionJSON says whose tokens a session would take over.
type adoptionJSON struct {
	Account string `json:"account"`
	User    string `json:"user,omitempty"`
	// Foreign: another installation stored them, or the store was restored.
	Foreign bool `json:"foreign,omitempty"`
	// The identity that they were issued for, if that isn't the one which is
	// configured now.
	ClientID  string    `json:"client_id,omitempty"`
	Username  string    `json:"username,omitempty"`
	Scope     string    `json:"scope,omitempty"`
	Host      string    `json:"host,omitempty"`
	Refreshed time.Time `json:"refreshed,omitzero"`
}

func serveAdopt(w http.ResponseWriter, r *http.Request) error {
	var body adoptBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, err := inForce()
	if err != nil {
		return err
	}
	sessions, err := app.adoptees(r.Context(), oauth.Key{Account: body.Account, User: body.User})
	if err != nil {
		return err
	}
	answer := adoptJSON{Sessions: []adoptionJSON{}}
	var failed []error
	for _, s := range sessions {
		a, err := s.Adoptable(r.Context())
		if err == nil && body.Confirm {
			err = s.Adopt(r.Context())
		}
		switch {
		case errors.Is(err, oauth.ErrNothingToAdopt):
		case err != nil: // of one user; the others aren't to wait for it
			failed = append(failed, fmt.Errorf("%s: %w", s.Key(), err))
		default:
			answer.Sessions = append(answer.Sessions, adoptionJSON{
				Account: a.Key.Account, User: a.Key.User, Foreign: a.Foreign,
				ClientID: a.ClientID, Username: a.Username, Scope: a.Scope, Host: a.Host, Refreshed: a.Refreshed.UTC(),
			})
			if body.Confirm {
				answer.Adopted++
			}
		}
	}
	switch {
	case len(failed) > 0:
		return actionError(fmt.Errorf("%d adopted; %w", answer.Adopted, errors.Join(failed...)))
	case len(answer.Sessions) == 0:
		return actionError(oauth.ErrNothingToAdopt)
	}
	return writeJSON(w, answer)
}

// adoptees are the sessions that a key means: one, or those of all stored
// users.
func (app *App) adoptees(ctx context.Context, key oauth.Key) ([]*oauth.Session, error) {
	keys := []oauth.Key{key}
	if a := app.account(key.Account); a != nil && a.PerUser && key.User == "" {
		users, err := app.shared.sessions.Users(ctx, key.Account)
		if err != nil {
			return nil, actionError(err)
		}
		keys = nil
		for _, user := range users {
			keys = append(keys, oauth.Key{Account: key.Account, User: user})
		}
	}
	var sessions []*oauth.Session
	for _, key := range keys {
		s, err := app.shared.sessions.Session(ctx, key)
		if err != nil {
			return nil, noSession(key, err)
		}
		sessions = append(sessions, s)
	}
	return sessions, nil
}

func serveBackup(w http.ResponseWriter, r *http.Request) error {
	var body struct{}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, err := inForce()
	if err != nil {
		return err
	}
	// Whoever fetches it may be slow, and the store mustn't wait for that.
	file, remove, err := unnamedFile()
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusInternalServerError, Err: fmt.Errorf("making a temporary file: %w", err)}
	}
	defer remove()
	if err := app.shared.backup(r.Context(), file); err != nil {
		return storeError(err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, err = io.Copy(w, file)
	return err
}

// unnamedFile makes a file of mode 0600 that is gone after remove, and, where
// the system can do that, after a crash.
func unnamedFile() (file *os.File, remove func(), err error) {
	if file, err = os.CreateTemp("", "caddy-bearer-backup-*"); err != nil {
		dir := caddy.AppDataDir() // can be written where nothing else can
		if mkErr := os.MkdirAll(dir, 0o700); mkErr != nil {
			return nil, nil, errors.Join(err, mkErr)
		}
		if file, err = os.CreateTemp(dir, "caddy-bearer-backup-*"); err != nil {
			return nil, nil, err
		}
	}
	removeErr := os.Remove(file.Name())
	return file, func() {
		_ = file.Close()
		if removeErr != nil { // not while it is open
			_ = os.Remove(file.Name())
		}
	}, nil
}

// rekeyJSON is the answer of POST /bearer/rekey.
type rekeyJSON struct {
	Message string `json:"message"`
}

func serveRekey(w http.ResponseWriter, r *http.Request) error {
	var body struct{}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, err := inForce()
	if err != nil {
		return err
	}
	// Who asked may leave: half of it would only have to be done again.
	message, err := app.shared.rekey(context.WithoutCancel(r.Context()))
	if err != nil {
		return storeError(err)
	}
	return writeJSON(w, rekeyJSON{message})
}

// storeError is the answer to what a store can't do, or not now.
func storeError(err error) error {
	status := http.StatusServiceUnavailable
	if errors.Is(err, errUnsupported) {
		status = http.StatusUnprocessableEntity
	}
	return caddy.APIError{HTTPStatus: status, Err: err}
}
