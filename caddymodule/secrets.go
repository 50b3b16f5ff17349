package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// resolve fills in the placeholders of a configured value. An unknown one, an
// absent file and an empty result are errors, which don't quote the value.
func resolve(text string) (string, error) {
	v, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return "", err
	}
	if v == "" {
		return "", errors.New("it is empty")
	}
	return v, nil
}

// resolveSome is resolve for a value that may be left out.
func resolveSome(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return resolve(text)
}

// literal reports whether a value has no placeholder: then it is in the
// configuration in clear.
func literal(text string) bool { return !strings.Contains(text, "{") }

// secret resolves a configured secret now, and again each time it is needed: a
// rotated file works without a reload. If it can't be read later, the last
// good value stays, and a warning is logged once.
func secret(name, text string, log *slog.Logger) (oauth.SecretFunc, error) {
	v, err := resolve(text)
	if err != nil {
		return nil, err
	}
	if literal(text) {
		log.Warn(name+" is written into the configuration, where its dump and its backups show it; "+
			"use {file./path/to/file} or {env.NAME} ({$NAME} is filled in too early)", "option", name)
		return oauth.Fixed(v), nil
	}
	return rereading(name, log, func() (string, error) { return resolve(text) })
}

// pemSecret is a secret in PEM form: the name of a file, or the text itself.
func pemSecret(name, text string, log *slog.Logger) (oauth.SecretFunc, error) {
	if literal(text) && strings.Contains(text, "-----BEGIN") {
		return secret(name, text, log)
	}
	return rereading(name, log, func() (string, error) {
		v, err := resolve(text)
		if err != nil || strings.Contains(v, "-----BEGIN") {
			return v, err
		}
		pem, err := os.ReadFile(v)
		var unread *fs.PathError
		switch {
		case errors.As(err, &unread) && !literal(text): // v may be a key in another form, or another secret
			err = fmt.Errorf("what the placeholder holds is neither PEM nor the name of a file that can be read: %w", unread.Err)
		case err == nil && len(pem) == 0:
			err = errors.New("it is empty")
		}
		return string(pem), err
	})
}

// rereading reads a secret now, and again each time.
func rereading(name string, log *slog.Logger, read func() (string, error)) (oauth.SecretFunc, error) {
	v, err := read()
	if err != nil {
		return nil, err
	}
	var last atomic.Pointer[string]
	var warned atomic.Bool
	last.Store(&v)
	return func() oauth.Secret {
		v, err := read()
		if err == nil {
			last.Store(&v)
			warned.Store(false)
		} else if !warned.Swap(true) {
			log.Warn("reading a secret again; its last value stays in use", "option", name, "error", err)
		}
		return oauth.NewSecret(*last.Load())
	}, nil
}
