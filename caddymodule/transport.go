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
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
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

// RoundTrip sends the request with a token.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if refusedMethod(req.Method) {
		return refusal("method_refused", "CONNECT, TRACE and TRACK are never passed").response(req), nil
	}
	tls := t.tlsFor(req)
	s, p, ok := t.session(req)
	if !ok {
		if p == nil {
			return t.check(req)
		}
		return p.response(req), nil
	}
	if dial := dialled(req); !allowed(s.Account().Upstreams, dial, tls) || plainUpstream(dial, tls, t.unverified()) != nil {
		return refusal("upstream_not_allowed", "account "+s.Key().Account+": to send its token there, add the line: upstream "+printable(dial)).response(req), nil
	}
	token, err := s.TokenAmong(req.Context(), t.waiters)
	if err != nil {
		return t.app.tokenProblem(err).response(req), nil
	}
	return t.send(req, s, token)
}

// session finds whose token the request gets. Without a problem and without
// ok, it is a health check: nobody's request.
func (t *Transport) session(req *http.Request) (*oauth.Session, *problem, bool) {
	vars, _ := req.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	pass, _ := vars[passageVar].(*passage)
	switch {
	case vars == nil:
		return nil, nil, false
	case pass == nil && !t.Unguarded:
		p := refusal("caller_refused", "no guard let this request pass; use bearer_proxy, put bearer_guard in front, or add the line: unguarded")
		return nil, &p, false
	case pass != nil && pass.session != nil && pass.account == t.Account && pass.user == t.User:
		return pass.session, nil, true
	}
	s, err := t.app.session(req, t.Account, t.User, t.UserFromHeader)
	if err != nil {
		p := t.app.tokenProblem(err)
		return nil, &p, false
	}
	if pass != nil && pass.account == "" {
		pass.session = s
	}
	return s, nil, true
}

// send makes the attempts: one, and one more if the token was refused and
// there is another.
func (t *Transport) send(req *http.Request, s *oauth.Session, token *oauth.Token) (*http.Response, error) {
	again := newReplay(req, t.replayBody)
	defer again.finish()
	res, err := t.attempt(again, token.Authorization())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.Account().RejectStatus, res.StatusCode) {
		s.Accept(token, false)
		return res, nil
	}
	s.Reject(token, false)
	if !again.canReplay() {
		return res, nil
	}
	next, err := s.TokenAmong(req.Context(), t.waiters)
	if err != nil && s.Current() == nil && req.Context().Err() == nil {
		discard(res) // the refusal of a token that is no more says less
		return t.app.tokenProblem(err).response(req), nil
	}
	if err != nil || next == token || !again.canReplay() {
		return res, nil
	}
	discard(res)
	if res, err = t.attempt(again, next.Authorization()); err != nil {
		return nil, err
	}
	if slices.Contains(s.Account().RejectStatus, res.StatusCode) {
		s.Reject(next, true)
	} else {
		s.Accept(next, true)
	}
	return res, nil
}

// check sends an active health check: with a token if there is one, without
// otherwise. It never asks for one, and its answer says nothing of the token.
func (t *Transport) check(req *http.Request) (*http.Response, error) {
	var authorization []string
	dial, tls := dialled(req), t.tlsFor(req)
	s := t.app.shared.sessions.All()[t.Account]
	if s != nil && t.User == "" && allowed(s.Account().Upstreams, dial, tls) && plainUpstream(dial, tls, t.unverified()) == nil {
		if token := s.Current(); token != nil {
			authorization = token.Authorization()
		}
	}
	again := newReplay(req, 0)
	defer again.finish()
	return t.attempt(again, authorization)
}

// attempt sends the request once. The scheme's own port is taken off the Host:
// picky servers compare it as text.
func (t *Transport) attempt(again *replay, authorization []string) (*http.Response, error) {
	req := again.attempt(authorization)
	if t.tlsFor(req) {
		req.Host = strings.TrimSuffix(req.Host, ":443")
	} else {
		req.Host = strings.TrimSuffix(req.Host, ":80")
	}
	res, err := t.HTTPTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if field := leaks(res.Header, authorization); field != "" {
		_ = res.Body.Close()
		if log := t.leaks.of("token_leak_stopped"); log != nil {
			log.Error("stopped an answer of the API that holds the access token in its header", "field", printable(field), "upstream", dialled(req))
		}
		return refusal("token_leak_stopped", "the API answered with the access token in the field "+printable(field)+"; ask its operator why").response(req), nil
	}
	swallow(res.Header, t.PassResponseHeaders)
	return res, nil
}

// dialled is the address that a request goes to, as an upstream is written: the
// URL's host may be another (PROXY protocol, Unix sockets).
func dialled(req *http.Request) string {
	di, ok := reverseproxy.GetDialInfo(req.Context())
	switch {
	case !ok:
		return req.URL.Host
	case caddy.IsUnixNetwork(di.Network):
		return di.Network + "/" + di.Address
	}
	return di.Address
}

// tlsFor reports whether the upstream of a request is asked over TLS.
func (t *Transport) tlsFor(req *http.Request) bool {
	if req.URL.Scheme != "" {
		return req.URL.Scheme == "https"
	}
	return t.tlsAt(req.URL.Port())
}

// unverified reports whether anybody's certificate would do.
func (t *Transport) unverified() bool { return t.TLS != nil && t.TLS.InsecureSkipVerify }

func (t *Transport) tlsAt(port string) bool {
	return t.TLS != nil && !slices.Contains(t.TLS.ExceptPorts, port)
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
