package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func waitCommand() *cobra.Command {
	cmd := adminFlags(&cobra.Command{
		Use:   "wait [<account>[/<user>]...] [--timeout <duration>]",
		Short: "Waits until all accounts, or those named, can serve",
		Long: `Waits until all accounts, or those named, have a token or can get one, and says
nothing then: for what has to start after the server. A server that isn't there
yet is waited for, too. An account with sessions per user counts as ready, because
its users log in one by one; <account>/<user> waits for one of them.

When the time is over, there is a line for each account that can't serve, with
why. With --timeout 0 it looks once, as the health check of a container does.

Exit codes: 0 all can serve, 1 not in time, 2 wrong use, 3 not in time and a
person has to log in.`,
		Example: `  caddy bearer wait && start-erp
  caddy bearer wait erp --timeout 2m
  HEALTHCHECK CMD caddy bearer wait --timeout 0 --config /etc/caddy/Caddyfile`,
		RunE:              run(anyNumber, waitFor),
		ValidArgsFunction: completeAccounts,
	})
	cmd.Flags().Duration("timeout", 30*time.Second, "How long to wait; 0 looks once")
	return cmd
}

const (
	// lookAgain is how long is between the first two looks; it grows up to
	// lookSeldom, because the server logs each of them. lookAtMost is how long
	// one may take if there is no other limit.
	lookAgain  = 250 * time.Millisecond
	lookSeldom = time.Second
	lookAtMost = 5 * time.Second
)

func waitFor(fl caddycmd.Flags, names []string) (int, error) {
	timeout := fl.Duration("timeout")
	if timeout < 0 {
		return exitWrongUse, fmt.Errorf("--timeout %s: it must not be negative; 0 looks once", timeout)
	}
	address, err := adminAddress(fl)
	if err != nil {
		return exitFailed, err
	}
	ends := time.Now().Add(timeout)
	for pause := lookAgain; ; pause = min(pause*5/4, lookSeldom) {
		ctx, cancel := context.WithTimeout(context.Background(), lookFor(timeout, time.Until(ends)))
		absent, err := lookAt(ctx, address, names)
		cancel()
		var answer *adminError
		switch {
		case err == nil && len(absent) == 0:
			return exitFine, nil
		case errors.As(err, &answer) && answer.status == http.StatusNotFound && len(names) > 0, errors.As(err, new(useError)):
			return exitFailed, err // waiting doesn't help
		}
		if left := time.Until(ends); left > 0 {
			time.Sleep(min(pause, left))
			continue
		}
		if err != nil {
			if !errors.As(err, new(*adminError)) {
				err = fmt.Errorf("%w; %s", err, unreachable(err))
			}
			return exitFailed, fmt.Errorf("the server is not ready at %s: %w", address, err)
		}
		return tellAbsent(absent)
	}
}

// lookFor is how long a look may take that begins when so much of the time-out
// is left. A single one, as of a health check, has as long as any.
func lookFor(timeout, left time.Duration) time.Duration {
	if timeout == 0 {
		return lookAtMost
	}
	return min(lookAtMost, max(left, time.Second))
}

// tellAbsent prints why accounts can't serve.
func tellAbsent(absent []accountStatus) (int, error) {
	code := exitFailed
	for _, a := range absent {
		if a.State == oauth.StateLoginRequired {
			code = exitLogin
		}
		fmt.Printf("%s: %s: %s\n", a.shownName(), a.State, a.why())
	}
	return code, fmt.Errorf("can't serve: %d of the accounts that were waited for", len(absent))
}

// lookAt returns the accounts that can't serve now: of all, or of those named.
func lookAt(ctx context.Context, address string, names []string) (absent []accountStatus, err error) {
	uris := []string{"/bearer/status"}
	if len(names) > 0 {
		uris = nil
	}
	for _, name := range names {
		key := bodyOf(name)
		uris = append(uris, "/bearer/users?"+url.Values{"account": {key.Account}, "user": {key.User}, "limit": {"0"}}.Encode())
	}
	for _, uri := range uris {
		st, err := look(ctx, address, uri)
		if err != nil {
			return nil, err
		}
		for _, a := range st.Accounts {
			if !serves(a.State) {
				absent = append(absent, a)
			}
		}
	}
	return absent, nil
}
