package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// An examination is a configuration under a doctor's eyes.
type examination struct {
	admin    *caddy.AdminConfig
	app      App
	accounts []*oauth.Account
	sites    []site
	webhooks []configuredSecret
	broken   []string // what is wrong with other accounts
	found    []finding
}

// examine looks at a configuration. What is about all accounts comes first,
// then one account after the other.
func examine(ctx context.Context, config []byte) []finding {
	var c struct {
		Admin *caddy.AdminConfig         `json:"admin"`
		Apps  map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return []finding{{oauth.LevelFail, "", "config", "the configuration is no object of Caddy's: " + err.Error(), "is it the right file?"}}
	}
	if c.Apps[appName] == nil {
		return []finding{{oauth.LevelFail, "", "config", "there is no bearer app in the configuration", "add the global option `bearer { … }`"}}
	}
	x := examination{admin: c.Admin}
	if err := json.Unmarshal(c.Apps[appName], &x.app); err != nil {
		return []finding{{oauth.LevelFail, "", "config", err.Error(), "compare it with the documentation of the app bearer"}}
	}
	x.sites, x.webhooks = sitesOf(c.Apps["http"]), webhookSecrets(c.Apps["events"])
	x.provision()
	x.load(config)
	x.toolchain(runtime.Version())
	x.adminEndpoint()
	x.store()
	x.listeners()
	x.secrets()
	x.redirectURIs()
	x.ask(ctx)
	slices.SortStableFunc(x.found, func(a, b finding) int { return cmp.Compare(a.Account, b.Account) })
	return x.found
}

func (x *examination) add(level oauth.Level, account, check, what, fix string) {
	x.found = append(x.found, finding{level, account, check, what, fix})
}

// provision makes the accounts one by one, so that one that is wrong doesn't
// hide the others.
func (x *examination) provision() {
	quiet := slog.New(slog.DiscardHandler)
	if portal, err := portalURL(x.app.Portal); x.app.Portal != "" && err == nil {
		x.app.portal = portal
	}
	for _, name := range slices.Sorted(maps.Keys(x.app.Accounts)) {
		a, err := x.app.Accounts[name].provision(name, x.app.portal, quiet)
		if err == nil {
			x.accounts = append(x.accounts, a)
			continue
		}
		what, fix := err.Error(), "correct the account; its endpoints are not looked at until then"
		if unread := x.unreadSecret(name); unread != nil {
			what, fix = unread.Error(), "write the file, or correct its name in the configuration"
			if errors.Is(unread, fs.ErrPermission) {
				fix = "run this as the server's user (sudo -u caddy caddy bearer check …), or let that user read the file"
			}
		}
		x.broken = append(x.broken, err.Error())
		x.add(oauth.LevelFail, name, "config", what, fix)
	}
}

// load loads the whole as `caddy validate` does, and starts nothing.
func (x *examination) load(config []byte) {
	err := validate(config)
	if err == nil {
		x.add(oauth.LevelOK, "", "config", "the configuration can be loaded", "")
		return
	}
	if slices.ContainsFunc(x.broken, func(told string) bool { return strings.Contains(err.Error(), told) }) {
		return
	}
	x.add(oauth.LevelFail, "", "config", err.Error(), "the server would refuse to start with it; correct what it says")
}

// validate provisions a configuration. Its logs and its storage are replaced:
// as another user than the server's, this would make files that the server
// can't write to.
func validate(config []byte) error {
	var c *caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(config), &c); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	dir, err := os.MkdirTemp("", "caddy-bearer-check")
	if err != nil { // a container's root may have nothing but memory to write to
		dir, err = os.MkdirTemp("/dev/shm", "caddy-bearer-check")
	}
	if err != nil {
		return fmt.Errorf("making a directory for what is only tried: %w; set TMPDIR to one that can be written to", err)
	}
	defer os.RemoveAll(dir)
	if c.StorageRaw, err = json.Marshal(map[string]string{"module": "file_system", "root": dir}); err != nil {
		return err
	}
	c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}},
	}}
	return caddy.Validate(c)
}

func (x *examination) toolchain(v string) {
	if oldToolchain(v) {
		x.add(oauth.LevelWarn, "", "toolchain", "this binary was built with "+v+", which has CVE-2026-56866",
			"build it with "+safeGo+" or newer: GOTOOLCHAIN="+safeGo+" go build …, or xcaddy.sh")
		return
	}
	x.add(oauth.LevelOK, "", "toolchain", "built with "+v, "")
}

const adminSocket = "admin unix//run/caddy/admin.sock"

// adminEndpoint looks at who can reach the admin endpoint: whoever does may
// change the configuration and use every account.
func (x *examination) adminEndpoint() {
	listen := caddy.DefaultAdminListen
	if x.admin != nil {
		listen = cmp.Or(x.admin.Listen, listen)
		if x.admin.Disabled {
			x.add(oauth.LevelWarn, "", "admin", "the admin endpoint is off: `caddy bearer status`, `login`, `wait` and the others don't work, nor does `caddy reload`", adminSocket)
			return
		}
	}
	listen = caddy.NewReplacer().ReplaceKnown(listen, "")
	at, err := caddy.ParseNetworkAddress(listen)
	switch {
	case err != nil:
		x.add(oauth.LevelFail, "", "admin", "the admin endpoint's address "+listen+" can't be read: "+err.Error(), adminSocket)
	case at.IsUnixNetwork():
		_, mode, _ := strings.Cut(at.Host, "|")
		if mode != "" && strings.ContainsAny(mode[len(mode)-1:], "2367") {
			x.add(oauth.LevelWarn, "", "admin", "every user of this machine may use the admin socket (mode "+mode+")", "leave the mode out: admin unix/"+strings.TrimSuffix(at.Host, "|"+mode))
			return
		}
		x.add(oauth.LevelOK, "", "admin", "the admin endpoint is a Unix socket", "")
	case at.IsFdNetwork():
		x.add(oauth.LevelOK, "", "admin", "the admin endpoint's socket is given by whoever starts the server", "")
	case !loopback(at.Host):
		x.add(oauth.LevelFail, "", "admin", "the admin endpoint at "+listen+" is open to other machines: who reaches it can use every account", adminSocket)
	default:
		x.add(oauth.LevelWarn, "", "admin", "the admin endpoint at "+listen+" is open to every user and program of this machine, who can so use every account", adminSocket)
	}
}

// redirectURIs looks at where people come back to from a sign-in.
func (x *examination) redirectURIs() {
	served := slices.ContainsFunc(x.sites, func(s site) bool { return len(s.portals) > 0 })
	if x.app.portal != "" && !served {
		x.add(oauth.LevelWarn, "", "redirect_uri", "there is a portal's URL, "+x.app.portal+", but no site with bearer_portal; sign-ins by a browser end nowhere",
			"put `bearer_portal` into the site of that URL")
	}
	for _, a := range x.accounts {
		code, ok := a.Grant.(*oauth.AuthorizationCode)
		if !ok {
			continue
		}
		registered := "; register it at the server as it is written here"
		switch u, _ := url.Parse(code.RedirectURI); {
		case x.app.terminalLogin(code):
			port := ""
			if u != nil && u.Port() == "" {
				port = ", on any port (RFC 8252 §7.3)"
			}
			x.add(oauth.LevelOK, a.Name, "redirect_uri", code.RedirectURI+" is answered by `caddy bearer login`"+port+registered, "")
		case x.app.onPortal(code.RedirectURI) && served:
			x.add(oauth.LevelOK, a.Name, "redirect_uri", code.RedirectURI+" is on the portal"+registered, "")
		default:
			fix := "add a portal (global option `portal`, and `bearer_portal` in a site), or use http://127.0.0.1/callback"
			if x.app.portal != "" {
				fix = "redirect_uri " + x.app.portal + "/callback, registered at the server, too"
			}
			x.add(oauth.LevelWarn, a.Name, "redirect_uri", code.RedirectURI+" is neither on the portal nor on loopback: only `caddy bearer login --paste` can finish a sign-in", fix)
		}
	}
}

// atOnce is how many servers are asked at a time.
const atOnce = 16

// ask asks the servers, and puts what they say in the order of the accounts.
func (x *examination) ask(ctx context.Context) {
	lists := make([][]finding, len(x.accounts))
	slots := make(chan struct{}, atOnce)
	var checks oauth.Checks
	var work sync.WaitGroup
	for i, a := range x.accounts {
		work.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var others []oauth.ClientAuth
			if p, err := x.app.Accounts[a.Name].preset(); err == nil {
				others = p.ClientAuths
			}
			for _, f := range checks.Check(ctx, a, others) {
				lists[i] = append(lists[i], finding{f.Level, a.Name, f.Check, f.What, f.Fix})
			}
			lists[i] = append(lists[i], x.upstreams(ctx, a)...)
		})
	}
	work.Wait()
	for _, list := range lists {
		x.found = append(x.found, list...)
	}
}
