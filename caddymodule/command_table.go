package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how a status looks on a terminal.

// stateNotes say in words what a state is, where there is no detail.
var stateNotes = map[oauth.State]string{
	oauth.StateRefreshing:    "its first token is being fetched",
	oauth.StateUnknown:       "nothing was tried yet; the next request fetches a token, or: caddy bearer refresh",
	oauth.StateAway:          "the authorization server can't be asked; it is tried again",
	oauth.StateRefused:       "the authorization server refused the credentials or the configuration",
	oauth.StateLoginRequired: "a person has to log in: caddy bearer login",
}

// writeStatus writes a table, in which what is to be said of an account is
// below its line.
func writeStatus(w io.Writer, st statusJSON, now time.Time, colour bool) error {
	var table bytes.Buffer
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ACCOUNT\tSTATE\tTOKEN ENDS\tREFRESH TOKEN\tLAST REFRESH\tGRANT")
	for _, a := range st.Accounts {
		fmt.Fprintln(tw, strings.Join(a.cells(now), "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
	column := strings.Index(lines[0], "STATE") // of runes: the heading is ASCII
	var out strings.Builder
	out.WriteString(lines[0] + "\n")
	for i, a := range st.Accounts {
		out.WriteString(paint(lines[i+1], column, a.State, colour && a.Users == nil) + "\n")
		for _, note := range a.notes(now) {
			out.WriteString("  " + note + "\n")
		}
	}
	fmt.Fprintf(&out, "\nstore: %s\n", st.Store)
	if st.StoreProblem != "" {
		fmt.Fprintf(&out, "store: DEGRADED: %s\n", st.StoreProblem)
	}
	for _, m := range st.StoreMended {
		fmt.Fprintf(&out, "store: mended: %s\n", m)
	}
	switch {
	case st.Total == nil:
	case *st.Total == 0:
		out.WriteString("users: none has logged in yet\n")
	case *st.Total > len(st.Accounts):
		fmt.Fprintf(&out, "users: %d, of which %d are shown\n", *st.Total, len(st.Accounts))
	default:
		fmt.Fprintf(&out, "users: %d\n", *st.Total)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// shownName is the name as a terminal may show it: users choose theirs.
func (st accountStatus) shownName() string {
	if name := st.name(); strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return st.name()
}

// cells are the line of an account.
func (st accountStatus) cells(now time.Time) []string {
	if st.Users != nil {
		return []string{st.Account + "/…", fmt.Sprintf("users: %d", *st.Users), "", "", "", st.Grant}
	}
	token := "none"
	switch {
	case !st.Expires.IsZero():
		token = "in " + about(st.Expires.Sub(now))
	case serves(st.State):
		token = "when needed" // idle: the next request fetches one
	}
	refresh := "none"
	if st.HasRefreshToken {
		refresh = "yes"
	}
	if !st.RefreshExpires.IsZero() {
		refresh = "until " + st.RefreshExpires.Format(time.DateOnly)
	}
	last := "never"
	if !st.Refreshed.IsZero() {
		last = about(now.Sub(st.Refreshed)) + " ago"
	}
	return []string{st.shownName(), string(st.State), token, refresh, last, st.Grant}
}

// why says why it is in its state, and what to do; empty if there is nothing.
func (st accountStatus) why() string {
	text := or(st.Detail, stateNotes[st.State])
	if strings.Contains(text, "caddy bearer ") && st.Detail == "" { // a note ends with a command
		text += " " + shellWord(st.name())
	}
	return text
}

// notes are what is to be said of an account besides.
func (st accountStatus) notes(now time.Time) (notes []string) {
	if st.Users != nil {
		return []string{"each user has a session; to see them: caddy bearer status " + st.Account}
	}
	if st.Unsaved {
		notes = append(notes, "the newest tokens are in memory only, because the store can't be written; don't stop the server")
	}
	if text := st.why(); text != "" {
		notes = append(notes, text)
	}
	if wait := st.RetryAt.Sub(now); wait > 0 {
		notes = append(notes, "next attempt in "+span(wait))
	}
	if left := st.RefreshExpires.Sub(now); !st.RefreshExpires.IsZero() && left < 30*24*time.Hour {
		notes = append(notes, "the refresh token ends "+ending(left)+"; log in before: caddy bearer login "+shellWord(st.name()))
	}
	return notes
}

func ending(left time.Duration) string {
	if left <= 0 {
		return "about now"
	}
	return "in " + about(left)
}

// coloured reports whether a file is a terminal whose user wants colours
// (no-color.org).
func coloured(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// paint colours the state in a line of the table.
func paint(line string, column int, state oauth.State, colour bool) string {
	text := []rune(line)
	end := column + len(state)
	if !colour || len(text) < end {
		return line
	}
	with := red
	switch state {
	case oauth.StateReady:
		with = green
	case oauth.StateDegraded, oauth.StateRefreshing, oauth.StateUnknown:
		with = yellow
	}
	return string(text[:column]) + with + string(text[column:end]) + plain + string(text[end:])
}

// shellWord quotes a text for a POSIX shell, if it has to be.
func shellWord(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// about is a length of time in one unit, as people say it.
func about(d time.Duration) string {
	switch d = max(d, 0).Round(time.Second); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// span is a length of time in two units.
func span(d time.Duration) string {
	switch d = max(d, 0).Round(time.Second); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
