package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func adoptCommand() *cobra.Command {
	cmd := adminFlags(&cobra.Command{
		Use:   "adopt <account>[/<user>] [--yes]",
		Short: "Takes over stored tokens that aren't used, after a copy or a restore",
		Long: `Takes over stored tokens that are not used: because the token store was copied
from elsewhere or restored from a backup, or because they were issued for another
client, user, scope or server than the account has now. It shows them first and
asks. Without a user, an account with sessions per user adopts those of all users.

A refresh token works once. If such a token is in use elsewhere too, its next use,
there or here, may end it for both: only you can know that it isn't.`,
		Example: `  caddy bearer adopt erp
  caddy bearer adopt erp/ada --yes`,
		RunE:              run(1, adopt),
		ValidArgsFunction: completeAccounts,
	})
	cmd.Flags().Bool("yes", false, "Don't ask")
	return cmd
}

const adoptWarning = `
A refresh token works once. If one of these is in use elsewhere too (by the
installation that the store was copied from, for instance), its next use, there
or here, may end it for both, and somebody has to log in again. One that was
spent since the copy was made is refused. Nothing is asked of the server now: the
next request spends the token.
`

func adopt(fl caddycmd.Flags, args []string) (int, error) {
	key := bodyOf(args[0])
	body := adoptBody{Account: key.Account, User: key.User}
	var found, done adoptJSON
	if err := ask(context.Background(), fl, http.MethodPost, "/bearer/adopt", body, &found); err != nil {
		return exitFailed, err
	}
	fmt.Println("These tokens are stored and not used:")
	for _, a := range found.Sessions {
		fmt.Println("  " + a.describe(time.Now()))
	}
	fmt.Print(adoptWarning)
	if !fl.Bool("yes") {
		yes, err := confirmed("Take over what is listed?")
		if err != nil {
			return exitWrongUse, err
		}
		if !yes {
			return exitFailed, errors.New("nothing was adopted")
		}
	}
	body.Confirm = true
	if err := ask(context.Background(), fl, http.MethodPost, "/bearer/adopt", body, &done); err != nil {
		return exitFailed, err
	}
	fmt.Printf("adopted: %d; `caddy bearer refresh <account>[/<user>]` tells whether the server still takes the token\n", done.Adopted)
	return exitFine, nil
}

// describe says whose tokens they are, and why they aren't used.
func (a adoptionJSON) describe(now time.Time) string {
	text := accountStatus{Account: a.Account, User: a.User}.name()
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) { // users choose their names
		text = strconv.Quote(text)
	}
	text += ": "
	if a.Refreshed.IsZero() {
		text += "got at a time that isn't known"
	} else {
		text += "got " + span(now.Sub(a.Refreshed)) + " ago (" + a.Refreshed.Format(time.RFC3339) + ")"
	}
	if a.Foreign {
		text += ", stored by another installation or before the store was restored"
	}
	var other []string
	for _, is := range []struct{ what, value string }{
		{"client", a.ClientID}, {"user", a.Username}, {"scope", a.Scope}, {"server", a.Host},
	} {
		if is.value != "" {
			other = append(other, is.what+" "+is.value)
		}
	}
	if len(other) > 0 {
		text += ", issued for " + strings.Join(other, ", ") + ", which isn't what is configured now"
	}
	return text
}

// confirmed asks a question at the terminal.
func confirmed(question string) (bool, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false, errors.New("standard input is no terminal that could be asked; say --yes if you are sure")
	}
	fmt.Print("\n" + question + " [y/N] ")
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1<<10)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Println()
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

func backupCommand() *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   "backup <file>",
		Short: "Writes a copy of the token store, while it is in use",
		Long: `Writes a copy of the token store to a file, which must not exist; its mode is
0600. Values in it are sealed as in the store, and the key isn't in it.

Refresh tokens that work once are spent soon after: a restored store needs
'caddy bearer adopt' or a login, and the key.`,
		Example: `  caddy bearer backup /var/backups/bearer-$(date +%F).db`,
		RunE:    run(1, backup),
	})
}

func backup(fl caddycmd.Flags, args []string) (int, error) {
	file := args[0]
	if _, err := os.Lstat(file); err == nil {
		return exitWrongUse, fmt.Errorf("%s is there already; give the name of a new file", file)
	}
	var st statusJSON
	if err := ask(context.Background(), fl, http.MethodGet, "/bearer/status", nil, &st); err != nil {
		return exitFailed, err
	}
	answer, err := send(context.Background(), fl, http.MethodPost, "/bearer/backup", struct{}{})
	if err != nil {
		return exitFailed, err
	}
	defer answer.Body.Close()
	size, err := writeNew(file, answer.Body)
	if failed, ok := errors.AsType[*fs.PathError](err); ok { // about a file of another name
		err = fmt.Errorf("%w; name a file in a directory that is there and that you may write to", failed.Err)
	}
	if err != nil {
		return exitFailed, fmt.Errorf("writing the backup to %s: %w", file, err)
	}
	fmt.Printf("%s: a copy of the token store, %d bytes, for its owner only\n", file, size)
	fmt.Printf("copied from: %s\n", st.Store)
	fmt.Println("The key isn't in it, and without the key nobody can read it: keep a copy of that in another place.")
	return exitFine, nil
}

// writeNew makes a file that is there whole or not at all, of mode 0600, and
// replaces none.
func writeNew(path string, from io.Reader) (size int64, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name())
	size, err = io.Copy(tmp, from)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return 0, err
	}
	if err = os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Lstat(path); errors.Is(there, fs.ErrNotExist) { // a file system without links
			err = os.Rename(tmp.Name(), path)
		}
	}
	if err != nil {
		return 0, err
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // not every system can
		_ = dir.Close()
	}
	return size, nil
}

func rekeyCommand() *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   "rekey",
		Short: "Seals the token store with a new key",
		Long: `Seals every value of the token store anew: with the configured key, so that
old_key can go; or, if none is configured, with a new one that is made and kept.
It may be interrupted at any moment; then both keys are kept, and another
'caddy bearer rekey' finishes it.

Backups from before open with the former key only: keep it as long as them. If it
is known to others, get new tokens as well, with 'caddy bearer refresh'.`,
		Example: `  caddy bearer rekey --config /etc/caddy/Caddyfile`,
		RunE: run(0, func(fl caddycmd.Flags, _ []string) (int, error) {
			var done rekeyJSON
			if err := ask(context.Background(), fl, http.MethodPost, "/bearer/rekey", struct{}{}, &done); err != nil {
				return exitFailed, err
			}
			fmt.Println(done.Message)
			return exitFine, nil
		}),
	})
}
