package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func statusCommand() *cobra.Command {
	cmd := adminFlags(&cobra.Command{
		Use:   "status [<account>[/<user>]] [--json]",
		Short: "Shows the condition of every account, or of one",
		RunE: run(-1, func(fl caddycmd.Flags, args []string) (int, error) {
			var st statusJSON
			uri := "/bearer/status"
			if len(args) > 0 {
				key := bodyOf(args[0])
				uri += "?" + url.Values{"account": {key.Account}, "user": {key.User}}.Encode()
			}
			if err := ask(fl, "GET", uri, nil, &st); err != nil {
				return exitFailed, err
			}
			if fl.Bool("json") {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				if err := enc.Encode(st); err != nil {
					return exitFailed, err
				}
			} else if err := printStatus(os.Stdout, st, time.Now()); err != nil {
				return exitFailed, err
			}
			return exitOf(st)
		}),
	})
	cmd.Flags().Bool("json", false, "Print JSON")
	return cmd
}

// exitOf is the exit code of a status.
func exitOf(st statusJSON) (int, error) {
	code, bad := exitFine, []string{}
	for _, a := range st.Accounts {
		switch a.State {
		case oauth.StateReady, oauth.StateRefreshing, oauth.StateDegraded:
			continue
		case oauth.StateLoginRequired:
			code = exitLogin
		default:
			code = max(code, exitFailed)
		}
		bad = append(bad, a.name())
	}
	if code == exitFine {
		return code, nil
	}
	return code, errors.New("can't serve: " + strings.Join(bad, ", "))
}

// printStatus writes a table, and below it what is to be said of an account.
func printStatus(w io.Writer, st statusJSON, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ACCOUNT\tSTATE\tTOKEN\tREFRESH TOKEN\tLAST REFRESH\tGRANT")
	for _, a := range st.Accounts {
		if a.Users != nil {
			fmt.Fprintf(tw, "%s/…\tusers: %d\t\t\t\t%s\n", a.Account, *a.Users, a.Grant)
			continue
		}
		token := "none"
		if !a.Expires.IsZero() {
			token = "for " + span(a.Expires.Sub(now))
		}
		refresh := "none"
		if a.HasRefreshToken {
			refresh = "yes"
		}
		if !a.RefreshExpires.IsZero() {
			refresh = "until " + a.RefreshExpires.Format(time.DateOnly)
		}
		last := "never"
		if !a.Refreshed.IsZero() {
			last = span(now.Sub(a.Refreshed)) + " ago"
		}
		fmt.Fprintln(tw, strings.Join([]string{a.name(), string(a.State), token, refresh, last, a.Grant}, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nstore: %s\n", st.Store)
	if st.StoreProblem != "" {
		fmt.Fprintf(w, "store: DEGRADED: %s\n", st.StoreProblem)
	}
	for _, m := range st.StoreMended {
		fmt.Fprintf(w, "store: mended: %s\n", m)
	}
	for _, a := range st.Accounts {
		if a.Unsaved {
			fmt.Fprintf(w, "%s: the newest tokens are in memory only, because the store can't be written; don't stop the server\n", a.name())
		}
		if a.Detail != "" {
			fmt.Fprintf(w, "%s: %s\n", a.name(), a.Detail)
		}
		if wait := a.RetryAt.Sub(now); wait > 0 {
			fmt.Fprintf(w, "%s: next attempt in %s\n", a.name(), span(wait))
		}
	}
	return nil
}

// span is a length of time as people say it.
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
