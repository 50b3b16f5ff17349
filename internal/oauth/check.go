package oauth

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// This file looks at an authorization server before an account is used: it asks
// for no token, spends no password and no refresh token, and stores nothing.

// A Level says how bad a finding is.
type Level string

const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn" // it works, or may work, but somebody should look
	LevelFail Level = "fail" // it will not work
)

// A Finding is one thing that a check found. It holds no secret and nothing of
// an answer but a checked error code.
type Finding struct {
	Level Level
	// Check is what was looked at, in one stable word.
	Check string
	// What was found, and Fix what to do about it; Fix is empty if all is well.
	What, Fix string
}

// checkTimeout bounds what is asked of one endpoint.
const checkTimeout = 10 * time.Second

// Checks looks at one account after the other, or at many at a time. What a
// server says of a client is asked once, however many accounts are that client:
// some lock a client that they have refused too often. The zero value is ready.
type Checks struct {
	mu    sync.Mutex
	tried map[attempt]func() (authVerdict, string)
}

// Check asks the authorization server of an account what can be asked without
// a grant: whether its endpoints answer, with which certificate and at what
// time; whether the metadata of its issuer agree with the account (RFC 8414);
// and, where there is a revocation endpoint (RFC 7009), whether it takes the
// client's credentials, for a token that nobody has. If it doesn't, those ways
// of authentication are tried too that are in others and are for the same
// secret. Each endpoint is asked for 10 s at most, all at a time.
func (done *Checks) Check(ctx context.Context, a *Account, others []ClientAuth) []Finding {
	a = a.now()
	c, found := a.Client.checkMetadata(ctx)
	endpoints := checkedEndpoints(a, c)
	probes := make([]probed, len(endpoints))
	var auth []Finding
	var work sync.WaitGroup
	for i, e := range endpoints {
		work.Go(func() { probes[i] = e.probe(ctx, c.Transport) })
	}
	work.Wait()
	if i := slices.IndexFunc(probes, func(p probed) bool { return p.option == "revoke_endpoint" }); i < 0 || probes[i].err == nil {
		auth = done.clientAuth(ctx, c, others)
	}
	seen := map[string]bool{}
	for _, p := range together(probes) {
		found = append(found, p.reached())
		if u, err := url.Parse(p.endpoint); err == nil && p.state != nil && !seen[u.Host] {
			seen[u.Host] = true
			found = append(found, CheckCertificate(u.Host, p.state, time.Now()))
		}
	}
	if i := slices.IndexFunc(probes, func(p probed) bool { return !p.date.IsZero() }); i >= 0 {
		found = append(found, checkClock(probes[i].skew()))
	}
	return append(found, auth...)
}

// checkedEndpoints are those that the account's grant needs, or that are there.
func checkedEndpoints(a *Account, c *Client) (list []probed) {
	_, code := a.Grant.(*AuthorizationCode)
	password, _ := a.Grant.(*Password)
	for _, e := range []struct {
		option, endpoint string
		used             bool
	}{
		{"token_endpoint", c.TokenEndpoint, true},
		{"authorize_endpoint", c.AuthorizeEndpoint, code || password != nil && password.SecureCode != ""},
		{"device_endpoint", c.DeviceEndpoint, a.Grant.Type() == DeviceCode{}.Type()},
		{"revoke_endpoint", c.RevokeEndpoint, true},
	} {
		if e.used && e.endpoint != "" {
			list = append(list, probed{option: e.option, endpoint: e.endpoint})
		}
	}
	return list
}

// probed is what came of a GET of an endpoint, which is no token request: those
// are POST (RFC 6749 §3.2).
type probed struct {
	option, endpoint string
	err              error
	status           int
	state            *tls.ConnectionState // nil without TLS
	began            time.Time
	took             time.Duration
	date             time.Time // what the server says that it is; zero if it doesn't
}

func (p probed) probe(ctx context.Context, transport http.RoundTripper) probed {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var connected time.Time
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { connected = time.Now() }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.endpoint, nil)
	if err != nil {
		p.err = err
		return p
	}
	req.Header.Set("User-Agent", userAgent)
	p.began = time.Now()
	reply, err := transport.RoundTrip(req)
	if p.err = err; err != nil {
		return p
	}
	_ = reply.Body.Close()
	p.took, p.status, p.state = time.Since(p.began), reply.StatusCode, reply.TLS
	if !connected.IsZero() {
		p.began = connected // the answer's date is of after that
	}
	p.date, _ = http.ParseTime(reply.Header.Get("Date"))
	return p
}

// together makes one of endpoints of one host that can't be reached for one
// reason.
func together(probes []probed) (list []probed) {
	for _, p := range probes {
		i := slices.IndexFunc(list, func(o probed) bool {
			return p.err != nil && o.err != nil && hostOf(o.endpoint) == hostOf(p.endpoint) && wireError(o.err) == wireError(p.err)
		})
		if i < 0 {
			list = append(list, p)
			continue
		}
		list[i].option += ", " + p.option
	}
	return list
}

// skew is how much the server's clock is ahead of ours. Its date is of some
// moment between request and answer, and cut to a second.
func (p probed) skew() time.Duration {
	arrived := p.began.Round(0).Add(p.took)
	switch {
	case p.date.Add(time.Second).Before(p.began):
		return p.date.Add(time.Second).Sub(p.began.Round(0))
	case p.date.After(arrived):
		return p.date.Sub(arrived)
	}
	return 0
}

func (p probed) reached() Finding {
	name := p.option + " at " + hostOf(p.endpoint)
	if p.err != nil {
		return Finding{LevelFail, "endpoint", name + ": " + WireError(p.err),
			Advice(p.err, "tls { ca /path/to/ca.pem }", "http_proxy http://proxy.example.com:3128")}
	}
	f := Finding{LevelOK, "endpoint", fmt.Sprintf("%s answers, in %d ms", name, p.took.Milliseconds()), ""}
	switch {
	case p.status >= 500:
		f.Level, f.Fix = LevelWarn, "ask the server's operator; accounts wait for it and try again"
	case p.status == http.StatusNotFound || p.status == http.StatusGone:
		f.Level, f.Fix = LevelWarn, "compare the path of "+p.option+" with the server's documents; some servers answer so to a GET of the right one"
	case p.status == http.StatusProxyAuthRequired:
		f.Level, f.Fix = LevelFail, "the proxy wants to be signed in at: http_proxy http://user:password@proxy:3128"
	case p.status/100 == 3 && p.option != "authorize_endpoint":
		f.Level, f.Fix = LevelWarn, "redirects are not followed with credentials; set "+p.option+" to where it leads, if that is the server's"
	default:
		return f
	}
	f.What = fmt.Sprintf("%s answers %d to a GET", name, p.status)
	return f
}
