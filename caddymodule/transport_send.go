package caddymodule

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is the way of one request through the transport.

// RoundTrip sends the request with a token.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.roundTrip(req)
	if t.Unguarded {
		t.app.countUnguarded(t.Account, req, res, err)
	}
	return res, err
}

func (t *Transport) roundTrip(req *http.Request) (*http.Response, error) {
	if refusedMethod(req.Method) {
		return refusal("method_refused", refusedMethods).response(req), nil
	}
	tls := t.tlsFor(req)
	pass := passageOf(req)
	if pass == nil && nobodys(req) {
		return t.check(req)
	}
	s, p := t.session(req, pass)
	if p != nil {
		return p.response(req), nil
	}
	if dial := dialled(req); !allowed(s.Account().Upstreams, dial, tls) || plainUpstream(dial, tls, t.unverified()) != nil {
		return refusal("upstream_not_allowed", "account "+s.Key().Account+": to send its token there, add the line: upstream "+printable(dial)).response(req), nil
	}
	token, err := tokenFor(req.Context(), s, t.waiters)
	if err != nil {
		return t.app.tokenProblem(err).response(req), nil
	}
	return t.send(req, pass, s, token)
}

// session finds whose token the request gets.
func (t *Transport) session(req *http.Request, pass *passage) (*oauth.Session, *problem) {
	switch {
	case pass == nil && !t.Unguarded:
		p := refusal("caller_refused", "no guard let this request pass; use bearer_proxy, put bearer_guard in front, or add the line: unguarded")
		return nil, &p
	case pass != nil && pass.session != nil && pass.account == t.Account && pass.user == t.User:
		return pass.session, nil
	}
	s, err := t.app.session(req, t.Account, t.User, t.UserFromHeader)
	if err != nil {
		p := t.app.tokenProblem(err)
		return nil, &p
	}
	if pass != nil && pass.account == "" {
		pass.session = s
	}
	return s, nil
}

// send makes the attempts: one, and one more if the token was refused and
// there is another.
func (t *Transport) send(req *http.Request, pass *passage, s *oauth.Session, token *oauth.Token) (*http.Response, error) {
	again := newReplay(req, t.replayBody)
	defer again.finish()
	pass.carry(token)
	res, status, err := t.attempt(again, pass, token.Authorization())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.Account().RejectStatus, status) {
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
	t.app.countReplay(s.Key().Account)
	pass.carry(next)
	if res, status, err = t.attempt(again, pass, next.Authorization()); err != nil {
		return nil, err
	}
	if slices.Contains(s.Account().RejectStatus, status) {
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
	res, _, err := t.attempt(again, nil, authorization)
	return res, err
}

// attempt sends the request once, and tells the status of the API's answer, also
// where another one takes its place. The scheme's own port is taken off the Host:
// picky servers compare it as text.
func (t *Transport) attempt(again *replay, pass *passage, authorization []string) (res *http.Response, status int, err error) {
	req := again.attempt(authorization)
	if t.tlsFor(req) {
		req.Host = strings.TrimSuffix(req.Host, ":443")
	} else {
		req.Host = strings.TrimSuffix(req.Host, ":80")
	}
	req.URL.RawPath = wellEscaped(req.URL)
	if pass == nil { // else the passageWriter does it, for less
		req = interimStripped(req, authorization)
	}
	if res, err = t.HTTPTransport.RoundTrip(req); err != nil {
		return nil, 0, quiet(err)
	}
	status = res.StatusCode
	if field := leaks(res.Header, authorization); field != "" {
		_ = res.Body.Close()
		field = shownField(field, authorization)
		if log := t.leaks.of("token_leak_stopped"); log != nil {
			log.Error("stopped an answer of the API that holds the access token in its header", "field", field, "upstream", dialled(req))
		}
		return refusal("token_leak_stopped", "the API answered with the access token in the field "+field+"; ask its operator why").response(req), status, nil
	}
	swallow(res.Header, t.PassResponseHeaders)
	watchTrailers(res, t.PassResponseHeaders, authorization)
	return res, status, nil
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
