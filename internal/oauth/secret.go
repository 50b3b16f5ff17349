package oauth

import (
	"fmt"
	"log/slog"
)

const masked = "[secret]"

// A Secret is text that must not be seen: a token, a password, a client
// secret. It prints as a fixed text in every format; [Secret.Reveal] is the
// only way to its value. The zero Secret is empty.
type Secret struct {
	// A function, because package fmt reads what lies in unexported fields,
	// behind pointers too, without asking the methods below.
	text func() string
}

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{func() string { return text }}
}

// Reveal returns the text. It must not reach a log, an error, a URL or a
// label.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s.text == nil }

// Equal reports whether two secrets are the same. It isn't meant for what a
// caller sent: the time that it takes depends on the texts.
func (s Secret) Equal(o Secret) bool { return s.Reveal() == o.Reveal() }

func (s Secret) String() string             { return masked }
func (s Secret) GoString() string           { return masked }
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(masked)) }
func (s Secret) LogValue() slog.Value       { return slog.StringValue(masked) }

// MarshalText masks the secret in JSON and every other text encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// What a session keeps, and how a login ends and begins, hold secrets as text:
// their contracts want it. They have no printable form either.

func (e Entry) Format(f fmt.State, _ rune)       { _, _ = f.Write([]byte(masked)) }
func (e Entry) LogValue() slog.Value             { return slog.StringValue(masked) }
func (l Login) Format(f fmt.State, _ rune)       { _, _ = f.Write([]byte(masked)) }
func (l Login) LogValue() slog.Value             { return slog.StringValue(masked) }
func (l LoginFinish) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(masked)) }
func (l LoginFinish) LogValue() slog.Value       { return slog.StringValue(masked) }

// A SecretFunc reads a secret anew, so that a rotated file is seen without a
// reload. It never fails: who makes one keeps the last good value.
type SecretFunc func() Secret

// Fixed is a SecretFunc that always gives text.
func Fixed(text string) SecretFunc {
	s := NewSecret(text)
	return func() Secret { return s }
}

// now reads the secret once for all later calls; nil stays nil.
func (f SecretFunc) now() SecretFunc {
	if f == nil {
		return nil
	}
	s := f()
	return func() Secret { return s }
}
