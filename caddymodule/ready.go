package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Ready is the handler that answers probes of readiness: 200 if requests of
// all its accounts get a token, else 503, with those that don't as JSON:
//
//	{"ready":false,"accounts":[{"account":"erp","state":"away","code":"authorization_server_unavailable"}]}
//
// A server that lives isn't ready while its authorization server is away or a
// person has to log in; it starts all the same, and becomes ready by itself.
// An account counts as ready if the next request will fetch its token.
// Sessions per user don't count.
//
// The answer says nothing that isn't for everybody on the listener; put it on
// one of its own, so that the API's paths stay the API's.
type Ready struct {
	// Names of the accounts. Default: all.
	Accounts []string `json:"accounts,omitempty"`

	app *App
}

func (*Ready) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bearer_ready", New: func() caddy.Module { return new(Ready) }}
}

// Provision checks the names.
func (h *Ready) Provision(ctx caddy.Context) (err error) {
	if h.app, err = appOf(ctx); err != nil {
		return err
	}
	for _, name := range h.Accounts {
		if h.app.account(name) == nil {
			return fmt.Errorf("bearer_ready: %s", notConfigured(name))
		}
	}
	return nil
}

func notConfigured(account string) string {
	return fmt.Sprintf("account %s is not configured; add `account %s { … }` to the global option bearer", account, account)
}

// readyJSON is the answer.
type readyJSON struct {
	Ready    bool       `json:"ready"`
	Accounts []notReady `json:"accounts,omitempty"`
}

// notReady is an account without a token, and why, as the code of the problem
// that its requests get; empty while the reason isn't known.
type notReady struct {
	Account string      `json:"account"`
	State   oauth.State `json:"state"`
	Code    string      `json:"code,omitempty"`
}

// ServeHTTP answers the probe.
func (h *Ready) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	absent := h.absent()
	body, err := json.Marshal(readyJSON{Ready: len(absent) == 0, Accounts: absent})
	if err != nil {
		return err
	}
	body = append(body, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	if len(absent) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, err = w.Write(body)
	return err
}

// absent are the accounts without a token, in order.
func (h *Ready) absent() (absent []notReady) {
	sessions := h.app.shared.sessions.All()
	for _, a := range h.app.lease.accounts { // in order
		if len(h.Accounts) > 0 && !slices.Contains(h.Accounts, a.Name) {
			continue
		}
		s := sessions[a.Name]
		if s == nil { // Caddy is starting, or at its end
			absent = append(absent, notReady{Account: a.Name, State: oauth.StateUnknown})
			continue
		}
		st, _ := stateOf(s)
		if serves(st.State) {
			continue
		}
		n := notReady{Account: a.Name, State: st.State}
		if st.Err != nil && st.State != oauth.StateRefreshing {
			n.Code = tokenProblem(st.Err, time.Now()).Code
		}
		absent = append(absent, n)
	}
	return absent
}

// serves reports whether requests get a token: there is one, or the next
// request fetches it.
func serves(s oauth.State) bool { return s == oauth.StateReady || s == oauth.StateDegraded }

// parseReady reads the directive:
//
//	bearer_ready [<matcher>] [<accounts...>]
func parseReady(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	ready := new(Ready)
	h.Next() // bearer_ready
	configured, known := h.Option(appName).(httpcaddyfile.App)
	var app App
	if known {
		if err := json.Unmarshal(configured.Value, &app); err != nil {
			return nil, h.WrapErr(err)
		}
	}
	for h.NextArg() {
		name := h.Val()
		switch {
		case slices.Contains(ready.Accounts, name):
			return nil, h.Errf("bearer_ready: %s is there twice; remove one", name)
		case known && app.Accounts[name] == nil:
			return nil, h.Errf("bearer_ready: %s", notConfigured(name))
		}
		ready.Accounts = append(ready.Accounts, name)
	}
	if h.NextBlock(0) {
		return nil, h.Errf("bearer_ready: it takes no block; write `bearer_ready [<matcher>] [<accounts...>]`")
	}
	return ready, nil
}

var (
	_ caddyhttp.MiddlewareHandler = (*Ready)(nil)
	_ caddy.Provisioner           = (*Ready)(nil)
)
