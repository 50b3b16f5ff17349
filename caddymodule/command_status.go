package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func statusCommand() *cobra.Command {
	cmd := adminFlags(&cobra.Command{
		Use:   "status [<account>[/<user>]] [--json]",
		Short: "Shows the condition of every account, or of one",
		Long: `Shows the condition of every account; of one; or, of an account with sessions per
user, of its users, in order of their names. What is to be done about an account is
below its line. States:

    ready           requests get a token
    degraded        they do, but the store can't be written
    refreshing      there is no token yet; it is being fetched
    away            no token: the authorization server can't be asked; tried again
    refused         no token: it refused the credentials or the configuration
    login_required  no token: a person has to log in
    unknown         nothing was tried yet, or the store can't be read

--json prints an object. Times are RFC 3339 in UTC; what isn't known or is false is
left out, unless it says otherwise here:

    store          where the tokens are kept (always there)
    store_problem  what is wrong there now
    store_mended   what was wrong there and was made good, oldest first
    portal         URL where people log in
    total, next    how many users the account has, and after which one the next
                   page begins (--after)
    accounts       a list (always there) of
      account, state, grant  as in the table (always there)
      user                 whose session it is
      users                number of users; then only account, state and grant are there
      detail               why it is so, and what to do
      generation           number of saves of its record (always there)
      obtained, expires    of the access token
      has_refresh_token    true or false (always there)
      refresh_expires      until when the refresh token lives
      refreshed            when the last token answer came
      signed_in            when the last sign-in was
      retry_at             when the next attempt is due after a failure
      unsaved              true: the newest tokens are in memory only
      redirect_uri         where the answer to a login arrives
      terminal             true: it arrives at 'caddy bearer login'

Exit codes: 0 all that is shown can serve or will in a moment, 1 something can't, 2
wrong use, 3 a person has to log in.`,
		Example: `  caddy bearer status
  caddy bearer status erp/ada
  caddy bearer status --json | jq -r '.accounts[] | select(.state == "away").account'`,
		RunE:              run(noneOrOne, status),
		ValidArgsFunction: completeAccounts,
	})
	cmd.Flags().Bool("json", false, "Print JSON")
	cmd.Flags().Int("limit", 100, "How many users to show, up to 1000")
	cmd.Flags().String("after", "", "Show the users whose names come after this one")
	return cmd
}

func status(fl caddycmd.Flags, args []string) (int, error) {
	uri := "/bearer/status"
	if limit := fl.Int("limit"); limit < 0 || limit > maxUsersListed {
		return exitWrongUse, fmt.Errorf("--limit %d: it must be from 0 to %d", limit, maxUsersListed)
	}
	if len(args) == 0 && (fl.Changed("after") || fl.Changed("limit")) {
		return exitWrongUse, errors.New("--after and --limit are for the users of one account; name it: caddy bearer status <account>")
	}
	if len(args) > 0 {
		key := bodyOf(args[0])
		uri = "/bearer/users?" + url.Values{
			"account": {key.Account}, "user": {key.User}, "limit": {strconv.Itoa(fl.Int("limit"))}, "after": {fl.String("after")},
		}.Encode()
	}
	var st statusJSON
	if err := ask(context.Background(), fl, http.MethodGet, uri, nil, &st); err != nil {
		return exitFailed, err
	}
	if fl.Bool("json") {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(st); err != nil {
			return exitFailed, err
		}
		return exitOf(st)
	}
	if err := writeStatus(os.Stdout, st, time.Now(), coloured(os.Stdout)); err != nil {
		return exitFailed, err
	}
	if st.Next != "" {
		fmt.Printf("\nthere are more users; go on with: caddy bearer status %s --after %s\n", args[0], shellWord(st.Next))
	}
	return exitOf(st)
}

// exitOf is the exit code of a status.
func exitOf(st statusJSON) (int, error) {
	code, bad := exitFine, []string{}
	for _, a := range st.Accounts {
		switch {
		case serves(a.State), a.State == oauth.StateRefreshing:
			continue
		case a.State == oauth.StateLoginRequired:
			code = exitLogin
		default:
			code = max(code, exitFailed)
		}
		bad = append(bad, a.shownName())
	}
	if code == exitFine {
		return code, nil
	}
	return code, errors.New("can't serve: " + strings.Join(bad, ", "))
}
