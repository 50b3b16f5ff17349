package caddymodule

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A configuredSecret is an option that holds a secret, as it is written.
type configuredSecret struct {
	account, option, value string
	named                  bool // a value without placeholder is the name of a file
}

// secrets looks at how the secrets are kept.
func (x *examination) secrets() {
	seen := map[string]bool{}
	for _, s := range x.configuredSecrets() {
		if s.value == "" {
			continue
		}
		if literal(s.value) && !(s.named && !strings.Contains(s.value, "-----BEGIN")) {
			x.add(oauth.LevelWarn, s.account, "secret", s.option+" is written into the configuration, where its dump and its backups show it",
				fmt.Sprintf("put it into a file of its own: %s {file./run/credentials/%s} ({$NAME} is no help: it is filled in too early)", s.option, strings.ReplaceAll(s.option, " ", "_")))
			continue
		}
		for _, file := range filesOf(s) {
			if !seen[file] {
				seen[file] = true
				x.found = append(x.found, checkFile(s.account, s.option, file, oauth.LevelWarn)...)
			}
		}
	}
}

// secretsOf are those of an account.
func (x *examination) secretsOf(name string) []configuredSecret {
	c := x.app.Accounts[name]
	list := []configuredSecret{{name, "client_secret", c.ClientSecret, false}, {name, "client_key", c.ClientKey, true}}
	if c.Grant != nil {
		list = append(list, configuredSecret{name, "password", c.Grant.Password, false})
	}
	return list
}

// unreadSecret returns why a secret of an account can't be read, if its file is
// to blame: to Caddy, such a placeholder is empty.
func (x *examination) unreadSecret(name string) error {
	for _, s := range x.secretsOf(name) {
		for _, m := range filePlaceholder.FindAllStringSubmatch(s.value, -1) {
			f, err := os.Open(m[1])
			if err != nil {
				return fmt.Errorf("%s: %w", s.option, err)
			}
			_ = f.Close()
		}
	}
	return nil
}

func (x *examination) configuredSecrets() (list []configuredSecret) {
	for _, name := range slices.Sorted(maps.Keys(x.app.Accounts)) {
		list = append(list, x.secretsOf(name)...)
	}
	if b, ok := x.boltStore(); ok {
		list = append(list, configuredSecret{"", "key", b.Key, false}, configuredSecret{"", "old_key", b.OldKey, false})
	}
	for _, s := range x.sites {
		for _, g := range s.guards {
			for _, k := range g.CallerKeys {
				list = append(list, configuredSecret{"", "caller_key " + printable(k.Name), k.Secret, false})
			}
		}
	}
	return append(list, x.webhooks...)
}

// webhookSecrets are those of the events app: where to post to, as far as that
// is in a file, and with which credentials.
func webhookSecrets(config json.RawMessage) (list []configuredSecret) {
	var app any
	if json.Unmarshal(config, &app) != nil {
		return nil
	}
	each(app, func(object map[string]any) {
		text, err := json.Marshal(object)
		var w Webhook
		if object["handler"] != "bearer_webhook" || err != nil || json.Unmarshal(text, &w) != nil {
			return
		}
		if !literal(w.URL) {
			list = append(list, configuredSecret{"", "webhook", w.URL, false})
		}
		for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
			if value := w.Headers[name]; !literal(value) || strings.EqualFold(name, "Authorization") {
				list = append(list, configuredSecret{"", "webhook header " + printable(name), value, false})
			}
		}
	})
	return list
}

var filePlaceholder = regexp.MustCompile(`\{file\.([^{}]+)\}`)

// filesOf are the files that a secret is read from.
func filesOf(s configuredSecret) (files []string) {
	for _, m := range filePlaceholder.FindAllStringSubmatch(s.value, -1) {
		files = append(files, m[1])
	}
	if s.named {
		if name, err := resolve(s.value); err == nil && !strings.Contains(name, "-----BEGIN") && len(name) < 4096 {
			if _, err := os.Stat(name); err == nil {
				files = append(files, name)
			}
		}
	}
	return files
}

// checkFile looks at who may read or replace a file that holds a secret. level
// is what it means that others can. A file that isn't there is no finding.
func checkFile(account, what, file string, level oauth.Level) []finding {
	info, err := os.Stat(file)
	if err != nil {
		return nil
	}
	who, mode := fmt.Sprintf("%s %s", what, file), info.Mode().Perm()
	uid, gid, ok := store.Owner(info)
	whose := "its owner's alone"
	switch {
	case ok && level == oauth.LevelWarn && handedOver(uid, gid, os.Getegid(), mode):
		whose = fmt.Sprintf("root's, for group %d to read", gid)
	case mode&0o077 != 0:
		return []finding{{level, account, "file", fmt.Sprintf("%s can be read by others (mode %04o)", who, mode), "chmod 600 " + shellWord(file)}}
	}
	if ok && uid != 0 && os.Geteuid() != 0 && uid != os.Geteuid() {
		return []finding{{oauth.LevelWarn, account, "file", fmt.Sprintf("%s belongs to user %d, who can change it", who, uid), "chown root " + shellWord(file) + ", or run this as the server's user"}}
	}
	dir := filepath.Dir(file)
	info, err = os.Stat(dir)
	if err == nil && ok && level == oauth.LevelFail {
		if whose, _, _ := store.Owner(info); whose != 0 && whose != uid {
			return []finding{{level, account, "file", fmt.Sprintf("%s can be replaced by user %d, whose directory %s is", who, whose, dir), fmt.Sprintf("chown %d %s", uid, shellWord(dir))}}
		}
	}
	if err == nil && info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return []finding{{oauth.LevelWarn, account, "file", fmt.Sprintf("%s can be replaced by others, who may write to %s (mode %04o)", who, dir, info.Mode().Perm()), "chmod go-w " + shellWord(dir)}}
	}
	return []finding{{oauth.LevelOK, account, "file", who + " is " + whose, ""}}
}

// handedOver reports whether root has given a file to the server's own group to
// read, as Kubernetes does with secrets.
func handedOver(uid, gid, own int, mode fs.FileMode) bool {
	return uid == 0 && gid != 0 && gid == own && mode&0o077 == 0o040
}

// storeKind is the name of the configured store; empty if that can't be read.
func (x *examination) storeKind() string {
	kind := struct {
		Store string `json:"store"`
	}{}
	if x.app.StoreRaw == nil {
		return "bbolt"
	}
	_ = json.Unmarshal(x.app.StoreRaw, &kind) // load tells
	return kind.Store
}

// boltStore is the configured store, if it is that one.
func (x *examination) boltStore() (b BoltStore, ok bool) {
	if x.storeKind() != "bbolt" {
		return b, false
	}
	return b, x.app.StoreRaw == nil || json.Unmarshal(x.app.StoreRaw, &b) == nil
}

// store looks at where the tokens will be, without opening or making anything.
func (x *examination) store() {
	b, ok := x.boltStore()
	if !ok {
		if x.storeKind() == "memory" {
			x.add(oauth.LevelWarn, "", "store", "the tokens are kept in memory only: after a restart, everybody has to log in again", "remove `store memory`, or name a file: `store bbolt` with `path /var/lib/caddy/bearer.db` in its block")
		}
		return
	}
	if err := b.locate(); err != nil {
		return // told as one of the configuration
	}
	db := b.place.Database
	if err := store.CheckFS(b.place); err != nil {
		level, fix := oauth.LevelFail, "put the store on a local disk: `store bbolt` with `path /var/lib/caddy/bearer.db` in its block"
		if b.AllowNetworkFS {
			level = oauth.LevelWarn
		}
		x.add(level, "", "store", err.Error(), fix)
	}
	if b.Key == "" {
		x.add(oauth.LevelOK, "", "store", "the tokens are in "+db+", sealed with a key that is made and kept in "+keyFile(), "")
		x.ownFiles("the store's key", keyFile())
	} else {
		x.add(oauth.LevelOK, "", "store", "the tokens are in "+db+", sealed with the configured key", "")
	}
	x.ownFiles("the store", db, b.place.Spill)
}

// ownFiles looks at files that the server refuses to use if others may read
// them.
func (x *examination) ownFiles(what string, files ...string) {
	for _, file := range files {
		for _, f := range checkFile("", what, file, oauth.LevelFail) {
			f.Check = "store"
			x.found = append(x.found, f)
		}
	}
}
