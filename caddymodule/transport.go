package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Transport is Caddy's HTTP transport with an account's access token on every
// request, put there last: nothing that the caller sends can change or remove
// it. The caller's own Authorization is dropped.
//
// If the API refuses the token (401, or the account's reject_status), it is
// refreshed once, however many requests are refused, and the request is sent
// once more if its body allows. A request without a token is never sent: it is
// answered with a problem document, as the guard does.
//
// Of the API's answers Set-Cookie and Access-Control-* are dropped: the cookie
// of one caller would become that of all. An answer whose fields hold the token
// is stopped.
//
// The token goes only to the account's upstreams. All options of the transport
// `http` are options of this one, with other defaults where a byte stream or a
// secret is at stake: `compression` is off, no proxy is taken from the
// environment, and 512 idle connections per host are kept.
type Transport struct {
	reverseproxy.HTTPTransport

	// Name of the account; may hold placeholders. An account that isn't
	// configured is refused.
	Account string `json:"account,omitempty"`

	// The user whose token it is, as in the guard.
	User string `json:"user,omitempty"`

	// Header field that may name the user, as in the guard.
	UserFromHeader string `json:"user_from_header,omitempty"`

	// How many bytes of a request's body are kept, as they pass, to send it
	// once more after a refusal. 0 never sends a request with a body again.
	// Default: 1 MiB.
	ReplayBody *int64 `json:"replay_body,omitempty"`

	// Request fields that Caddy's reverse proxy adds and that reach the API all
	// the same: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via. With
	// bearer_guard in front, what the caller sends has to be named there, too.
	PassHeaders []string `json:"pass_headers,omitempty"`

	// Fields of answers that reach the caller although they are dropped by
	// default; `*` at the end stands for any rest.
	PassResponseHeaders []string `json:"pass_response_headers,omitempty"`

	// How many callers may wait for the same token, where no guard with an
	// account says so. Default: 2000.
	MaxWaiters int `json:"max_waiters,omitempty"`

	// Serve requests that no bearer_guard has let pass. Whoever reaches the
	// site is the account then.
	Unguarded bool `json:"unguarded,omitempty"`

	app        *App
	replayBody int64
	waiters    int
	leaks      seldomLog
}

const (
	defaultReplayBody = 1 << 20
	defaultIdleConns  = 512
)

func (*Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.bearer", New: func() caddy.Module { return new(Transport) }}
}

// Provision checks where the token would go, and sets our defaults.
func (t *Transport) Provision(ctx caddy.Context) (err error) {
	if t.Account == "" {
		return errors.New("transport bearer: which account? write `transport bearer <account>`")
	}
	if t.app, err = appOf(ctx); err != nil {
		return err
	}
	if err := t.app.use(t.Account, t.User != ""); err != nil {
		return err
	}
	if err := checkUser(ctx, t.User, t.UserFromHeader); err != nil {
		return err
	}
	if err := t.checkProxy(); err != nil {
		return err
	}
	if err := t.checkUpstreams(ctx); err != nil {
		return err
	}
	t.leaks.to = ctx.Slogger()
	t.replayBody = defaultReplayBody
	if t.ReplayBody != nil {
		t.replayBody = *t.ReplayBody
	}
	if t.replayBody < 0 {
		return errors.New("replay_body must not be negative; 0 turns replays off")
	}
	if err := t.checkFields(); err != nil {
		return err
	}
	if t.waiters, err = waiters(t.MaxWaiters); err != nil {
		return err
	}
	t.defaults()
	return t.HTTPTransport.Provision(ctx)
}

func (t *Transport) checkFields() error {
	if err := checkFields(t.PassHeaders, "Authorization"); err != nil {
		return fmt.Errorf("pass_headers %w", err)
	}
	if err := checkFields(t.PassResponseHeaders, errorHeader); err != nil {
		return fmt.Errorf("pass_response_headers %w", err)
	}
	return nil
}

func (t *Transport) defaults() {
	if t.Compression == nil {
		off := false
		t.Compression = &off
	}
	if t.KeepAlive == nil {
		t.KeepAlive = new(reverseproxy.KeepAlive)
	}
	if t.KeepAlive.MaxIdleConnsPerHost == 0 {
		t.KeepAlive.MaxIdleConnsPerHost = defaultIdleConns
	}
	if t.NetworkProxyRaw == nil && t.ForwardProxyURL == "" {
		t.NetworkProxyRaw = []byte(`{"from":"none"}`)
	}
}

// checkProxy refuses a proxy on the way to an upstream that is asked without
// TLS: the proxy would read the token.
func (t *Transport) checkProxy() error {
	var proxy struct {
		From string `json:"from"`
	}
	if t.NetworkProxyRaw != nil {
		if err := json.Unmarshal(t.NetworkProxyRaw, &proxy); err != nil {
			return fmt.Errorf("network_proxy: %w", err)
		}
	}
	proxied := t.ForwardProxyURL != "" || proxy.From != "" && proxy.From != "none"
	if proxied && (t.TLS == nil || len(t.TLS.ExceptPorts) > 0) {
		return errors.New("the token would go through the network proxy in clear; use an https:// upstream without tls_except_ports, or remove the proxy")
	}
	return nil
}

// checkUpstreams refuses the static upstreams of the reverse proxy around that
// the token may not go to. Dynamic ones are checked per request.
func (t *Transport) checkUpstreams(ctx caddy.Context) error {
	for _, m := range slices.Backward(ctx.Modules()) {
		h, ok := m.(*reverseproxy.Handler)
		if !ok {
			continue
		}
		for _, u := range h.Upstreams {
			if strings.Contains(u.Dial, "{") {
				continue
			}
			if err := t.checkDial(u.Dial); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

func (t *Transport) checkDial(dial string) error {
	_, port, _ := net.SplitHostPort(dial)
	tls := t.tlsAt(port)
	if err := plainUpstream(dial, tls, t.unverified()); err != nil {
		return err
	}
	a := t.app.account(t.Account)
	if a == nil || allowed(a.Upstreams, dial, tls) {
		return nil
	}
	return fmt.Errorf("the upstream %s is not among the hosts that the token of account %s may go to (%s); add `upstream %s` to the account",
		dial, a.Name, strings.Join(a.Upstreams, ", "), dial)
}

// RequestHeaderOps is applied before the operator's header_up.
func (t *Transport) RequestHeaderOps() *headers.HeaderOps {
	return requestOps(t.PassHeaders, t.Unguarded)
}

var (
	_ http.RoundTripper                                = (*Transport)(nil)
	_ caddy.Provisioner                                = (*Transport)(nil)
	_ caddy.CleanerUpper                               = (*Transport)(nil)
	_ caddyfile.Unmarshaler                            = (*Transport)(nil)
	_ reverseproxy.TLSTransport                        = (*Transport)(nil)
	_ reverseproxy.H2CTransport                        = (*Transport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*Transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport           = (*Transport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*Transport)(nil)
)
