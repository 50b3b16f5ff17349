package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/pflag"
)

// refuseSecondRun keeps a second `caddy run` with the same configuration from
// taking the admin socket away from a server that is at work. Caddy removes the
// socket's file and makes its own before it looks at anything else; the second
// server then fails at the store that the first one has open, and the first one
// serves on, but nobody reaches its admin endpoint any more.
func refuseSecondRun() {
	if address := secondRun(os.Args); address != "" {
		fmt.Fprintf(os.Stderr, "caddy run: another server answers at the admin endpoint of this configuration, %s; stop that one first, or give it the configuration with `caddy reload`\n", address)
		os.Exit(exitFailed)
	}
}

// secondRun returns the admin socket of `caddy run` if somebody answers there
// already, otherwise nothing. What it doesn't understand, Caddy will judge.
func secondRun(args []string) string {
	if len(args) < 2 || args[1] != "run" {
		return ""
	}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	file := flags.StringP("config", "c", "", "")
	adapter := flags.StringP("adapter", "a", "", "")
	help := flags.BoolP("help", "h", false, "")
	if flags.Parse(args[2:]) != nil || *help || *file == "-" || slices.ContainsFunc(args, func(a string) bool { return a == "--resume" || a == "-r" }) {
		return ""
	}
	if *file == "" {
		*file = "Caddyfile"
	}
	config, _, err := readConfig(*file, *adapter)
	if err != nil {
		return ""
	}
	var c struct {
		Apps map[string]json.RawMessage `json:"apps"`
	}
	if json.Unmarshal(config, &c) != nil || c.Apps[appName] == nil {
		return ""
	}
	address, err := configuredAdmin(config)
	if err != nil {
		return ""
	}
	at, err := caddy.ParseNetworkAddress(address)
	if err != nil || !at.IsUnixNetwork() {
		return "" // a TCP port can't be taken away
	}
	path, _, _ := strings.Cut(at.Host, "|")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, at.Network, path)
	if err != nil {
		return ""
	}
	_ = conn.Close()
	return address
}
