package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func importCommand() *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   "import <account>[/<user>]",
		Short: "Gives an account a refresh token from elsewhere",
		Long: `Gives an account the refresh token of an integration that is moved here, in place
of what it has; if the server refuses it, the account keeps what it had. It is
read from standard input, one line, and spent at once: stop the other integration
first, because from then on its token is dead. The admin endpoint must be on this
machine: to another one, the token would go in the clear.`,
		Example: `  caddy bearer import erp < /run/credentials/refresh_token`,
		RunE: run(1, func(fl caddycmd.Flags, args []string) (int, error) {
			if err := onThisMachine(fl); err != nil {
				return exitFailed, err
			}
			token, err := readSecret(os.Stdin, "Refresh token: ")
			if err != nil {
				return exitWrongUse, err
			}
			body := bodyOf(args[0])
			body.RefreshToken = token
			return act(fl, "/bearer/import", body, "has new tokens, and the imported refresh token is spent")
		}),
		ValidArgsFunction: completeAccounts,
	})
}

// onThisMachine returns an error if a secret for the admin endpoint would leave
// this machine, where nothing encrypts it.
func onThisMachine(fl caddycmd.Flags) error {
	address, err := adminAddress(fl)
	if err != nil {
		return err
	}
	network, dial, _, err := dialed(address)
	if err != nil || strings.HasPrefix(network, "unix") {
		return err
	}
	host, _, err := net.SplitHostPort(dial)
	if ip, _ := netip.ParseAddr(host); err == nil && (host == "" || ip.IsValid() && ip.IsUnspecified() || loopback(host)) {
		return nil
	}
	return fmt.Errorf("the admin endpoint at %s is on another machine, and the secret would go there in the clear; run this on that machine", address)
}

// readSecret reads one line, from a terminal without showing it.
func readSecret(in *os.File, prompt string) (string, error) {
	var line []byte
	var err error
	if term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(os.Stderr, prompt)
		line, err = readUnseen(in)
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

// readUnseen reads a line from a terminal that doesn't show it. Ctrl-C ends the
// process with the terminal as it was, not with one that shows nothing.
func readUnseen(in *os.File) ([]byte, error) {
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	interrupts, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer close(done)
	defer signal.Stop(interrupts)
	go func() {
		select {
		case <-interrupts:
			_ = term.Restore(int(in.Fd()), before)
			fmt.Fprintln(os.Stderr)
			os.Exit(exitFailed)
		case <-done:
		}
	}()
	return term.ReadPassword(int(in.Fd()))
}
