//go:build linux

package reliability

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// kept names the refresh tokens that the files of a dead process hold. It works
// on copies, and knows nothing of what the program makes of what it finds.
func kept(v *victim, name func(token string) string) (map[string]bool, error) {
	files, err := v.files()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(v.dir, "copy")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for file, content := range files {
		var values [][]byte
		switch file {
		case "tokens.db":
			copied := filepath.Join(dir, file)
			if err := os.WriteFile(copied, content, 0o600); err != nil {
				return nil, err
			}
			values = databaseValues(copied)
		case "tokens.db.spill":
			values = spillValues(content)
		}
		for _, value := range values {
			for _, text := range texts(value) {
				if n := name(text); n != "" {
					found[n] = true
				}
			}
		}
	}
	return found, nil
}

// databaseValues opens every value of a database; a damaged one has none.
func databaseValues(path string) (values [][]byte) {
	db, err := store.OpenBolt(path)
	if err != nil {
		return nil
	}
	defer db.Close()
	keys, err := db.List(context.Background(), "")
	if err != nil {
		return nil
	}
	for _, k := range keys {
		if e, err := db.Load(context.Background(), k); err == nil {
			values = append(values, unsealed(k, e))
		}
	}
	return values
}

// spillValues opens every image in a spill. It reads the form of the file anew,
// knows one session, and leaves it to the seal whether an image is whole.
func spillValues(content []byte) (values [][]byte) {
	const block, head = 4096, 96
	for ; len(content) >= block; content = content[block:] {
		if string(content[:8]) != "CBSPILLI" {
			continue
		}
		number := binary.BigEndian.Uint32
		from := head + int(number(content[56:]))
		to := from + int(number(content[60:]))
		if to > len(content) {
			continue
		}
		e := oauth.Entry{Generation: binary.BigEndian.Uint64(content[40:]), Value: content[from:to]}
		values = append(values, unsealed(oauth.Key{Account: "erp"}, e))
	}
	return values
}

// unsealed opens one value, or returns nothing.
func unsealed(k oauth.Key, e oauth.Entry) []byte {
	key, err := store.ParseKey(crashKey)
	if err != nil {
		panic(err)
	}
	value, err := store.Unseal(store.Keys{Current: key}, k, e)
	if err != nil {
		return nil
	}
	if len(value) >= 9 && value[0] == 1 { // the number of the save comes first
		value = value[9:]
	}
	return value
}

// texts returns all strings in a JSON text.
func texts(value []byte) (list []string) {
	var any any
	if json.Unmarshal(value, &any) != nil {
		return nil
	}
	return stringsIn(any)
}

func stringsIn(value any) (list []string) {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			list = append(list, stringsIn(e)...)
		}
	case map[string]any:
		for _, e := range v {
			list = append(list, stringsIn(e)...)
		}
	}
	return list
}
