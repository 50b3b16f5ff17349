package caddymodule

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func sandboxCommand() *cobra.Command {
	var faults strings.Builder
	for _, f := range sandbox.Faults() {
		fmt.Fprintf(&faults, "    %-26s %s\n", f.Name, f.Description)
	}
	cmd := &cobra.Command{
		Use:   "sandbox [--listen <address>] [--grant <type>] [--token-lifetime <duration>] [--fault <name>[:<times>]]...",
		Short: "Runs an authorization server, an API and a proxy to try it all",
		Long: `Runs, in this process and with nothing else to install, an authorization server
in the shape of Pagero Online's, an API behind it, and a site that proxies to the
API with a token. It prints a command to try. Nothing is kept. With the grants
authorization_code and device_code you are the person who signs in, on a portal.

A fault is played at each request that it fits, or so many times. Faults:

` + faults.String(),
		Example: `  caddy bearer sandbox
  caddy bearer sandbox --grant authorization_code
  caddy bearer sandbox --token-lifetime 10s --fault lost-reply:1`,
		RunE: run(0, func(fl caddycmd.Flags, _ []string) (int, error) { return runSandbox(fl) }),
	}
	cmd.Flags().String("listen", "127.0.0.1:8080", "Address of the proxy; on loopback")
	cmd.Flags().String("grant", "password", "Grant of the account: password, authorization_code or device_code")
	cmd.Flags().Duration("token-lifetime", 10*time.Minute, "Lifetime of access tokens")
	cmd.Flags().StringArray("fault", nil, "Fault to play, as name or name:times; may be repeated")
	var names []string
	for _, f := range sandbox.Faults() {
		names = append(names, string(f.Name)+"\t"+f.Description)
	}
	_ = cmd.RegisterFlagCompletionFunc("fault", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("grant", cobra.FixedCompletions(slices.Sorted(maps.Keys(sandboxGrants)), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runSandbox(fl caddycmd.Flags) (int, error) {
	listen := fl.String("listen")
	if host, _, err := net.SplitHostPort(listen); err != nil || !loopback(host) {
		return exitWrongUse, fmt.Errorf("--listen %s: it must be a loopback address with a port, such as 127.0.0.1:8080", listen)
	}
	if fl.Duration("token-lifetime") <= 0 {
		return exitWrongUse, fmt.Errorf("--token-lifetime %s: it must be above 0", fl.Duration("token-lifetime"))
	}
	grant, ok := sandboxGrants[fl.String("grant")]
	if !ok {
		return exitWrongUse, fmt.Errorf("--grant %s: it must be password, authorization_code or device_code", fl.String("grant"))
	}
	// Caddy shares a port with whoever else shares it; here that would be a
	// surprise.
	free, err := net.Listen("tcp", listen)
	if err != nil {
		return exitFailed, fmt.Errorf("%w; say another address with --listen", err)
	}
	_ = free.Close()
	sb := sandbox.New(sandbox.Config{TokenLifetime: fl.Duration("token-lifetime")})
	faults, err := fl.GetStringArray("fault")
	if err != nil {
		return exitWrongUse, err
	}
	for _, text := range faults {
		if err := playFault(sb, text); err != nil {
			return exitWrongUse, err
		}
	}
	servers, err := sb.Listen()
	if err != nil {
		return exitFailed, err
	}
	defer servers.Close()
	dir, err := os.MkdirTemp("", "caddy-bearer-sandbox")
	if err != nil {
		return exitFailed, err
	}
	caddy.OnExit(func(context.Context) { _ = os.RemoveAll(dir) })
	if err := startSandboxProxy(dir, listen, grant, servers); err != nil {
		_ = os.RemoveAll(dir)
		return exitFailed, fmt.Errorf("starting the proxy: %w", err)
	}
	fmt.Printf(sandboxText, servers.AuthorizationServerURL, fl.Duration("token-lifetime"), servers.APIURL, listen)
	if fl.String("grant") != "password" {
		fmt.Printf(sandboxPortalText, listen)
	}
	fmt.Printf(sandboxTryText, listen, "unix/"+filepath.Join(dir, "admin.sock"), servers.AuthorizationServerURL, servers.AuthorizationServerURL)
	caddy.TrapSignals()
	select {}
}

const sandboxText = `
  authorization server  %s (tokens live %s)
  API                   %s (refuses calls without a token)
  proxy                 http://%s (puts the token on)
`

const sandboxPortalText = `
Sign in first, as sandbox-user with sandbox-password:

http://%s/bearer
`

const sandboxTryText = `
Call the API as an application that knows nothing of OAuth:

curl http://%s/document/v1/documents

Look closer, or break something:

  caddy bearer status --address %s
  curl -s %s/sandbox/events
  curl -X POST '%s/sandbox/faults?name=lost-reply&times=1'

Ctrl-C ends it.
`

// playFault reads name or name:times.
func playFault(sb *sandbox.Sandbox, text string) error {
	name, count, counted := strings.Cut(text, ":")
	fault, err := sandbox.ParseFault(name)
	if err != nil {
		return err
	}
	times := -1
	if counted {
		if times, err = strconv.Atoi(count); err != nil || times < 1 {
			return fmt.Errorf("--fault %s: the number of times must be 1 or more", text)
		}
	}
	sb.Play(fault, times)
	return nil
}

// startSandboxProxy starts Caddy with a configuration as an operator writes it.
func startSandboxProxy(dir, listen, grant string, servers *sandbox.Servers) error {
	for name, secret := range map[string]string{"client_secret": "sandbox-secret", "password": "sandbox-password"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret), 0o600); err != nil {
			return err
		}
	}
	host, port, _ := net.SplitHostPort(listen)
	levels := "upper"
	if coloured(os.Stderr) {
		levels = "color"
	}
	config := strings.ReplaceAll(sandboxCaddyfile, "GRANT", grant)
	config = strings.NewReplacer("LEVELS", levels, "DIR", dir, "SERVER", servers.AuthorizationServerURL, "LISTEN", listen,
		"HOST", host, "PORT", port, "API", servers.APIURL, "UPSTREAM", strings.TrimPrefix(servers.APIURL, "http://")).Replace(config)
	json, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil {
		return err
	}
	return caddy.Load(json, true)
}

// sandboxGrants are the grants that can be tried, as they are written.
var sandboxGrants = map[string]string{
	"password": `grant password {
				username sandbox-user
				password {file.DIR/password}
			}`,
	"authorization_code": "grant authorization_code",
	"device_code":        "grant device_code",
}

const sandboxCaddyfile = `{
	admin unix/DIR/admin.sock
	persist_config off
	grace_period 5s
	log {
		format console {
			level_format LEVELS
		}
		include bearer http.handlers.bearer_guard http.handlers.bearer_portal http.log.error
	}
	servers {
		timeouts {
			read_header 10s
			idle 2m
		}
		max_header_size 64KiB
	}
	bearer {
		portal http://LISTEN/bearer
		store memory
		account sandbox {
			client_id sandbox-client
			client_secret {file.DIR/client_secret}
			GRANT
			authorize_endpoint SERVER/oauth/v2/oauth-authorize
			token_endpoint SERVER/oauth/v2/oauth-token
			revoke_endpoint SERVER/oauth/v2/oauth-revoke
			device_endpoint SERVER/oauth/v2/oauth-device
			issuer SERVER/oauth/v2/oauth-anonymous
			upstream UPSTREAM
		}
	}
}

http://:PORT {
	bind HOST
	bearer_portal
	bearer_proxy sandbox API
}
`
