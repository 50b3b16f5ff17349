package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check --config <file> [--adapter <name>] [--json]",
		Short: "Looks for what would not work with a configuration, before it is used",
		Long: `Looks for what would not work with a configuration, before it is used. It loads the
configuration as 'caddy validate' does, asks the authorization servers and APIs
whether they are there, and says what is wrong and what to do. No server has to
run, and none is disturbed: the token store isn't opened. Nothing is spent: no
password is tried, no token is asked for, no refresh token is used. Each endpoint
is asked for 10 s at most, all at a time.

Where there is a revocation endpoint (RFC 7009), it is asked to end a token that
nobody has, which shows whether the client is accepted; if it isn't, the other ways
of client_auth that send the same secret are tried, two at most.

Run it as the user that the server runs as, with the same environment: otherwise it
sees other files and other secrets.

    sudo -u caddy caddy bearer check --config /etc/caddy/Caddyfile

There is a line for each finding: ok, warn or fail, the account (- if it is about
all), and what was found; below it what to do. --json prints an object with

    findings        a list (always there) of
      level, check, what  ok, warn or fail; what was looked at, in one word; what was
                          found (always there)
      account, fix        if it is about one account; what to do
    failed, warned  how many there are of these (always there)

What was looked at: config, toolchain, admin, store, file, secret,
endpoint, certificate, clock, metadata, client_auth, redirect_uri, listener,
upstream.

Exit codes: 0 nothing failed, 1 something failed, 2 wrong use.`,
		Example: `  caddy bearer check --config /etc/caddy/Caddyfile
  caddy bearer check --json | jq -r '.findings[] | select(.level != "ok") | .fix'`,
		RunE:              run(0, checkUp),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, "Configuration file to check (default ./Caddyfile)")
	cmd.Flags().Bool("json", false, "Print JSON")
	return cmd
}

// finding is a finding as it is printed.
type finding struct {
	Level oauth.Level `json:"level"`
	// Account is empty if it is about all of them.
	Account string `json:"account,omitempty"`
	// Check is what was looked at, in one word.
	Check string `json:"check"`
	What  string `json:"what"`
	Fix   string `json:"fix,omitempty"`
}

// checkJSON is what `caddy bearer check --json` prints. Its members keep their
// names and meaning; there may be more some day.
type checkJSON struct {
	Findings []finding `json:"findings"`
	Failed   int       `json:"failed"`
	Warned   int       `json:"warned"`
}

func checkUp(fl caddycmd.Flags, _ []string) (int, error) {
	file, adapter, err := configFile(fl)
	if err != nil {
		return exitWrongUse, err
	}
	if file == "" {
		return exitWrongUse, errors.New("which configuration? there is no Caddyfile here; say --config <file>")
	}
	config, warnings, err := readConfig(file, adapter)
	if errors.As(err, new(useError)) {
		return exitWrongUse, err
	}
	var answer checkJSON
	if err != nil {
		answer.add([]finding{{oauth.LevelFail, "", "config", err.Error(), "correct this line; until then nothing else is looked at"}})
	} else {
		for _, w := range warnings {
			if w.Directive != "" || w.Line > 0 && !strings.Contains(w.Message, "caddy fmt") {
				answer.add([]finding{{oauth.LevelWarn, "", "config", w.String(), "look at this line"}})
			}
		}
		_, _, _ = caddy.BufferedLog() // what Caddy would log is in the findings
		answer.add(examine(context.Background(), config))
	}
	if fl.Bool("json") {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(answer)
	} else {
		err = answer.print(os.Stdout, coloured(os.Stdout))
	}
	if err != nil || answer.Failed > 0 {
		return exitFailed, err
	}
	return exitFine, nil
}

func (c *checkJSON) add(list []finding) {
	for _, f := range list {
		switch f.Level {
		case oauth.LevelFail:
			c.Failed++
		case oauth.LevelWarn:
			c.Warned++
		}
		c.Findings = append(c.Findings, f)
	}
}

// print writes a line for each finding, and what to do below it.
func (c *checkJSON) print(w io.Writer, colour bool) error {
	var out strings.Builder
	width := 1
	for _, f := range c.Findings {
		width = max(width, len([]rune(f.Account)))
	}
	for _, f := range c.Findings {
		level := fmt.Sprintf("%-4s", f.Level)
		if colour {
			level = levelColours[f.Level] + level + plain
		}
		name := or(f.Account, "-")
		fmt.Fprintf(&out, "%s  %s%s  %s\n", level, name, strings.Repeat(" ", width-len([]rune(name))), f.What)
		if f.Fix != "" {
			fmt.Fprintf(&out, "%s  to do: %s\n", strings.Repeat(" ", 6+width), f.Fix)
		}
	}
	fine := len(c.Findings) - c.Failed - c.Warned
	fmt.Fprintf(&out, "\n%d ok, %d to look at, %d failed\n", fine, c.Warned, c.Failed)
	_, err := io.WriteString(w, out.String())
	return err
}

var levelColours = map[oauth.Level]string{oauth.LevelOK: green, oauth.LevelWarn: yellow, oauth.LevelFail: red}
