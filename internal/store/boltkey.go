package store

import (
	"bytes"
	"errors"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A key in the database is the account with every NUL byte escaped, a
// terminator, and the user as it is:
//
//	account with 00 written as 00 FF | 00 01 | user
//
// The terminator can't occur in an escaped account, so that any bytes may be in
// a name; and it sorts before every byte that could go on with the account, so
// that the database's order is that of account, then user.
const (
	escapedNUL    = "\x00\xff"
	endOfAccount  = "\x00\x01"
	longestDBKey  = 32768 // bbolt's MaxKeySize
	longestRecord = 16 << 20
)

var errKeyEncoding = errors.New("malformed key in the database")

// accountPrefix returns what the database keys of an account begin with, and no
// others.
func accountPrefix(account string) []byte {
	return []byte(strings.ReplaceAll(account, "\x00", escapedNUL) + endOfAccount)
}

func encodeKey(key oauth.Key) []byte {
	return append(accountPrefix(key.Account), key.User...)
}

// decodeKey is the inverse of encodeKey; it refuses what encodeKey can't have
// written. The result doesn't refer to b.
func decodeKey(b []byte) (oauth.Key, error) {
	var account []byte
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 == len(b) {
			return oauth.Key{}, errKeyEncoding
		}
		account = append(account, b[:i]...)
		mark := b[i : i+2]
		b = b[i+2:]
		switch string(mark) {
		case endOfAccount:
			return oauth.Key{Account: string(account), User: string(b)}, nil
		case escapedNUL:
			account = append(account, 0)
		default:
			return oauth.Key{}, errKeyEncoding
		}
	}
}
