package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:      "bearer",
		Short:     "Looks after the accounts of the bearer app",
		CobraFunc: setUp,
	})
	cobra.OnInitialize(refuseSecondRun) // before any command
}

// setUp makes the command and its subcommands.
func setUp(cmd *cobra.Command) {
	cmd.Use = "bearer"
	cmd.Long = `Looks after the accounts that a running Caddy acts as (app bearer).

Most subcommands talk to the admin endpoint of the running server; none of them
opens the token store. Where the admin endpoint is, they read in the file of
--config, or in the Caddyfile of the working directory; --address names it.

Exit codes: 0 fine, 1 it failed, 2 wrong use, 3 a person has to log in.`
	cmd.Example = `  caddy bearer check --config /etc/caddy/Caddyfile
  caddy bearer status
  caddy bearer login erp`
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		meant := ""
		if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
			meant = " (did you mean " + strings.Join(names, " or ") + "?)"
		}
		return wrongUse(cmd, fmt.Errorf("there is no subcommand %s%s", args[0], meant))
	}
	cmd.SetFlagErrorFunc(wrongUse)
	cmd.AddCommand(statusCommand(), waitCommand(), checkCommand(), loginCommand(), logoutCommand(), renewCommand(), dropCommand(),
		importCommand(), adoptCommand(), backupCommand(), rekeyCommand(), sandboxCommand())
	if len(os.Args) > 1 && os.Args[1] == "manpage" {
		writeForManPages(cmd.Commands())
	}
}

// writeForManPages keeps <account> in man pages: they are made by way of
// Markdown, which takes it for a tag, except in its blocks of code.
func writeForManPages(commands []*cobra.Command) {
	for _, cmd := range commands {
		cmd.Use = strings.ReplaceAll(cmd.Use, "<", `\<`)
		lines := strings.Split(cmd.Long, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "    ") {
				lines[i] = strings.ReplaceAll(line, "<", `\<`)
			}
		}
		cmd.Long = strings.Join(lines, "\n")
	}
}

// Exit codes.
const (
	exitFine     = 0
	exitFailed   = 1
	exitWrongUse = 2
	exitLogin    = 3
)

// wrongUse ends a command that was not understood.
func wrongUse(cmd *cobra.Command, err error) error {
	return finish(cmd, exitWrongUse, fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
}

// A useError is one of whoever typed the command.
type useError struct{ error }

func (e useError) Unwrap() error { return e.error }

// An exitError ends the process with a code. Its text has been printed.
type exitError struct {
	ExitCode int
	Err      error
	caddys   error // by which Caddy's main function knows the code
}

func (e *exitError) Error() string { return fmt.Sprint(e.Err) }

func (e *exitError) Unwrap() error { return e.caddys }

// finish ends a command. What there is to say, it says as programs do, and not
// as a line of a log.
func finish(cmd *cobra.Command, code int, err error) error {
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.CommandPath(), err)
	}
	if code == exitFine {
		return nil
	}
	// Only Caddy can make the error that its main function reads a code from.
	caddys := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
	return &exitError{code, err, caddys}
}

// How many arguments a command takes, besides a fixed number.
const (
	noneOrOne = -1
	anyNumber = -2
)

// run wraps a command that takes n arguments.
func run(n int, f func(caddycmd.Flags, []string) (int, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if n >= 0 && len(args) != n || n == noneOrOne && len(args) > 1 {
			return finish(cmd, exitWrongUse, fmt.Errorf("wrong number of arguments; usage: %s", cmd.UseLine()))
		}
		code, err := f(caddycmd.Flags{FlagSet: cmd.Flags()}, args)
		if _, ok := errors.AsType[useError](err); ok {
			code = exitWrongUse
		}
		return finish(cmd, code, err)
	}
}

// actionCommand is one that does something with an account.
func actionCommand(name, short, uri, done string) *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   name + " <account>[/<user>]",
		Short: short,
		RunE: run(1, func(fl caddycmd.Flags, args []string) (int, error) {
			return act(fl, uri, bodyOf(args[0]), done)
		}),
		ValidArgsFunction: completeAccounts,
	})
}

func renewCommand() *cobra.Command {
	cmd := actionCommand("refresh", "Gets an account a new token now", "/bearer/refresh", "has a new token")
	cmd.Long = `Gets an account a new token now, by its refresh token or as its grant does. Requests
go on with the former token until the new one is there.`
	cmd.Example = `  caddy bearer refresh erp
  caddy bearer refresh erp/ada`
	return cmd
}

func dropCommand() *cobra.Command {
	cmd := actionCommand("forget", "Drops an account's tokens here; the server isn't told", "/bearer/forget", "has no tokens any more; the next request may log in again")
	cmd.Long = `Drops an account's tokens here, from memory and from the store. The server isn't
told: what was issued lives on there until it expires; 'caddy bearer logout' ends
it. The next request may log in again, where that needs no person.`
	cmd.Example = `  caddy bearer forget erp`
	return cmd
}

// act asks for an action and tells what came of it.
func act(fl caddycmd.Flags, uri string, body actionJSON, done string) (int, error) {
	var st accountStatus
	err := ask(context.Background(), fl, http.MethodPost, uri, body, &st)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "login_required: "):
		return exitLogin, err
	case err != nil:
		return exitFailed, err
	}
	switch st.State {
	case oauth.StateRefused:
		done = "has no tokens any more; its credentials stay refused until they change"
	case oauth.StateLoginRequired:
		done = "has no tokens any more; a person has to log in"
	}
	fmt.Printf("%s %s\n", st.name(), done)
	return exitFine, nil
}
