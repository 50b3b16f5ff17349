package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "bearer",
		Short: "Looks after the accounts of the bearer app",
		Long: `Looks after the accounts that a running Caddy acts as (app bearer).

The subcommands talk to the admin endpoint of the running server; none of them
opens the token store. Give --config (or --address) if its admin endpoint is not
the default one.

Exit codes: 0 fine, 1 it failed, 2 wrong use, 3 a person has to log in.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				return wrongUse(cmd, fmt.Errorf("there is no subcommand %s", args[0]))
			}
			cmd.SetFlagErrorFunc(wrongUse)
			cmd.AddCommand(statusCommand(), loginCommand(), logoutCommand(),
				actionCommand("refresh", "Gets an account a new token now", "/bearer/refresh", "has a new token"),
				actionCommand("forget", "Drops an account's tokens here; the server isn't told", "/bearer/forget", "has no tokens any more; the next request may log in again"),
				importCommand(), adoptCommand(), backupCommand(), rekeyCommand(), sandboxCommand())
		},
	})
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
	cmd.SilenceUsage = true
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
		return exitWrongUse, fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})(cmd, nil)
}

func adminFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("address", "", "Address of the admin endpoint")
	cmd.Flags().StringP("config", "c", "", "Configuration file that names the admin endpoint")
	cmd.Flags().StringP("adapter", "a", "", "Adapter of the configuration file")
	return cmd
}

// ask makes a request to the admin endpoint and decodes its answer.
func ask(fl caddycmd.Flags, method, uri string, body, answer any) error {
	res, err := send(fl, method, uri, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(answer)
}

// send makes a request to the admin endpoint. A status of 400 or more is an
// error. The caller closes the answer's body.
func send(fl caddycmd.Flags, method, uri string, body any) (*http.Response, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, fmt.Errorf("finding the admin endpoint: %w", err)
	}
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	res, err := caddycmd.AdminAPIRequest(address, method, uri, nil, r)
	if err != nil {
		if _, answer, ok := strings.Cut(err.Error(), "caddy responded with error: "); ok {
			return nil, errors.New(answerText(answer))
		}
		return nil, fmt.Errorf("asking the admin endpoint at %s: %w; is the server running, and its admin endpoint there? say where with --config or --address", address, err)
	}
	return res, nil
}

// answerText takes the message out of an admin endpoint's error, which is
// `HTTP <status>: {"error":"…"}`.
func answerText(text string) string {
	var answer struct {
		Error string `json:"error"`
	}
	_, body, _ := strings.Cut(text, ": ")
	if json.Unmarshal([]byte(body), &answer) != nil || answer.Error == "" {
		return strings.TrimSpace(text)
	}
	return answer.Error
}

// run wraps a command that takes n arguments; -1: none or one.
func run(n int, f func(caddycmd.Flags, []string) (int, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		return caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
			if len(args) != n && (n >= 0 || len(args) > 1) {
				return exitWrongUse, fmt.Errorf("wrong number of arguments; usage: %s", cmd.UseLine())
			}
			return f(fl, args)
		})(cmd, args)
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
	})
}

// act asks for an action and tells what came of it.
func act(fl caddycmd.Flags, uri string, body actionJSON, done string) (int, error) {
	var st accountStatus
	err := ask(fl, "POST", uri, body, &st)
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

func importCommand() *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   "import <account>[/<user>]",
		Short: "Gives an account a refresh token from elsewhere",
		Long: `Gives an account the refresh token of an integration that is moved here, in place
of what it has; if the server refuses it, the account keeps what it had. It is read from standard input, one line, and spent at once: stop
the other integration first, because from then on its token is dead.`,
		RunE: run(1, func(fl caddycmd.Flags, args []string) (int, error) {
			token, err := readSecret(os.Stdin, "Refresh token: ")
			if err != nil {
				return exitWrongUse, err
			}
			body := bodyOf(args[0])
			body.RefreshToken = token
			return act(fl, "/bearer/import", body, "has new tokens, and the imported refresh token is spent")
		}),
	})
}

// readSecret reads one line, from a terminal without showing it.
func readSecret(in *os.File, prompt string) (string, error) {
	var line []byte
	var err error
	if term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(os.Stderr, prompt)
		line, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(os.Stderr)
	} else {
		line, err = io.ReadAll(io.LimitReader(in, 64<<10))
	}
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	text := strings.TrimSpace(string(line))
	if text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", errors.New("standard input must hold one line, the refresh token")
	}
	return text, nil
}
