package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// This file is how the command line finds the admin endpoint.

func adminFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("address", "", "Address of the admin endpoint")
	configFlags(cmd, "Configuration file that names the admin endpoint (default ./Caddyfile, if it is there)")
	return cmd
}

func configFlags(cmd *cobra.Command, what string) {
	cmd.Flags().StringP("config", "c", "", what)
	cmd.Flags().StringP("adapter", "a", "", "Adapter of the configuration file")
}

// configFile is the file of --config, or the Caddyfile in the working
// directory, as `caddy run` and `caddy reload` have it; empty if there is none.
func configFile(fl caddycmd.Flags) (file, adapter string, err error) {
	file, adapter = fl.String("config"), fl.String("adapter")
	switch {
	case file != "":
		return file, adapter, nil
	case adapter != "":
		return "", "", useError{errors.New("--adapter without --config; say which file it is for")}
	}
	if _, err := os.Stat("Caddyfile"); errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	return "Caddyfile", "", nil
}

// readConfig reads a configuration file and adapts it, without the log lines
// that Caddy's own function writes.
func readConfig(file, adapter string) (config []byte, warnings []caddyconfig.Warning, err error) {
	var text []byte
	if file == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, nil, useError{fmt.Errorf("reading the configuration: %w", err)}
	}
	base := strings.ToLower(filepath.Base(file))
	if adapter == "" && filepath.Ext(base) != ".json" && (strings.HasPrefix(base, "caddyfile") || strings.HasSuffix(base, ".caddyfile")) {
		adapter = "caddyfile"
	}
	if adapter == "" {
		if !json.Valid(text) {
			return nil, nil, fmt.Errorf("reading %s: it is no JSON; if it is a Caddyfile, add: --adapter caddyfile", file)
		}
		return text, nil, nil
	}
	a := caddyconfig.GetAdapter(adapter)
	if a == nil {
		return nil, nil, useError{fmt.Errorf("there is no adapter %s; for a Caddyfile it is caddyfile", adapter)}
	}
	if config, warnings, err = a.Adapt(text, map[string]any{"filename": file}); err != nil {
		return nil, nil, fmt.Errorf("adapting the configuration: %w", err)
	}
	return config, warnings, nil
}

// adminAddress finds the admin endpoint.
func adminAddress(fl caddycmd.Flags) (string, error) {
	if address := fl.String("address"); address != "" {
		return address, nil
	}
	file, adapter, err := configFile(fl)
	if err != nil || file == "" {
		return caddy.DefaultAdminListen, err
	}
	config, _, err := readConfig(file, adapter)
	if err != nil {
		return "", fmt.Errorf("finding the admin endpoint: %w; --address names it without a configuration", err)
	}
	return configuredAdmin(config)
}

// configuredAdmin is the address of the admin endpoint in a configuration,
// without the mode of a socket: it is shown, and pasted into shells.
func configuredAdmin(config []byte) (string, error) {
	var c struct {
		Admin caddy.AdminConfig `json:"admin"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return "", fmt.Errorf("finding the admin endpoint in the configuration: %w", err)
	}
	if c.Admin.Disabled {
		return "", errors.New("the configuration turns the admin endpoint off, which this command needs; in place of `admin off` write `admin unix//run/caddy/admin.sock`")
	}
	address, err := caddy.NewReplacer().ReplaceOrErr(c.Admin.Listen, true, true)
	if err != nil {
		return "", fmt.Errorf("finding the admin endpoint in the configuration: %w", err)
	}
	address, _, _ = strings.Cut(address, "|")
	return cmp.Or(address, caddy.DefaultAdminListen), nil
}

// completeAccounts completes the name of an account by asking the server. It
// doesn't wait for one that is busy.
func completeAccounts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "wait" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	address, err := adminAddress(caddycmd.Flags{FlagSet: cmd.Flags()})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	st, err := look(ctx, address, "/bearer/status")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, directive := []string{}, cobra.ShellCompDirectiveNoFileComp
	for _, a := range st.Accounts {
		name := a.Account
		if a.Users != nil && cmd.Name() != "status" && cmd.Name() != "wait" && cmd.Name() != "adopt" {
			name, directive = name+"/", directive|cobra.ShellCompDirectiveNoSpace
		}
		names = append(names, name+"\t"+string(a.State))
	}
	return names, directive
}
