package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// errorHeader tells our errors from the API's. It is taken off the API's own
// answers.
const errorHeader = "Caddy-Bearer-Error"

// A problem is an answer of ours (RFC 9457).
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	// Detail says what to do.
	Detail string `json:"detail,omitempty"`
	// Portal is where a person can log in.
	Portal string `json:"portal,omitempty"`

	retryAfter time.Duration // told if above 0
	header     http.Header   // further fields
}

// problems are the answers that need nothing but a detail.
var problems = map[string]problem{
	"unknown_account":      {Status: 403, Title: "No such account"},
	"caller_refused":       {Status: 403, Title: "This caller may not use the proxy"},
	"host_refused":         {Status: 421, Title: "The proxy doesn't answer to this host name"},
	"method_refused":       {Status: 405, Title: "The proxy doesn't pass this method"},
	"upgrade_refused":      {Status: 403, Title: "The proxy doesn't pass upgrades of the protocol"},
	"origin_refused":       {Status: 403, Title: "The proxy doesn't serve this web page"},
	"key_refused":          {Status: 401, Title: "The proxy serves those who show a key"},
	"path_refused":         {Status: 400, Title: "The proxy doesn't pass ambiguous paths"},
	"token_leak_stopped":   {Status: 502, Title: "The API's answer holds the access token"},
	"upstream_not_allowed": {Status: 502, Title: "The account's token may not go to this upstream"},
}

// refusal is the problem of a code.
func refusal(code, detail string) problem {
	p := problems[code]
	p.Code, p.Detail = code, detail
	switch p.Status {
	case http.StatusMethodNotAllowed: // RFC 9110 §15.5.6
		p.header = http.Header{"Allow": {"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}}
	case http.StatusUnauthorized: // RFC 9110 §15.5.2
		p.header = http.Header{"Www-Authenticate": {`Basic realm="caddy-bearer", charset="UTF-8"`}}
	}
	return p
}

// tokenProblem is the one place that maps why there is no token to HTTP.
func tokenProblem(err error, now time.Time) problem {
	var f *oauth.Failure
	if !errors.As(err, &f) {
		f = &oauth.Failure{Err: err}
	}
	p := problem{Status: 503, Detail: f.Detail}
	switch {
	case errors.Is(err, oauth.ErrUnavailable), errors.Is(err, oauth.ErrClosed):
		p.Code, p.Title = "authorization_server_unavailable", "The authorization server is not available"
		p.retryAfter = max(f.RetryAt.Sub(now), time.Second)
	case errors.Is(err, oauth.ErrLoginRequired):
		p.Code, p.Title = "login_required", "A person has to log in"
		if f.Hint != "" {
			p.Detail = strings.TrimPrefix(p.Detail+"; "+f.Hint, "; ")
		}
	case errors.Is(err, oauth.ErrCredentialsRejected):
		p.Code, p.Title = "credentials_rejected", "The authorization server refused the credentials"
	case errors.Is(err, oauth.ErrMisconfigured):
		p.Code, p.Title = "account_misconfigured", "The account is misconfigured"
	case errors.Is(err, oauth.ErrTokenTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p.Status, p.Code, p.Title = 504, "token_timeout", "Waiting for a token took too long"
	case errors.Is(err, oauth.ErrBusy):
		p.Code, p.Title, p.retryAfter = "busy", "Too many callers wait for a token", time.Second
	case errors.Is(err, oauth.ErrUnknownAccount):
		return refusal("unknown_account", "the account is not configured; configured ones are listed by `caddy bearer status`")
	case errors.Is(err, oauth.ErrUnknownUser):
		return refusal("unknown_account", "the account has one session per user, and the proxy doesn't know who this is; put basic_auth, forward_auth or a client certificate in front")
	default: // oauth.ErrStoreUnavailable: its detail names files
		p.Code, p.Title, p.Detail = "store_unavailable", "The token store is not available", "the server's log and `caddy bearer status` say why"
	}
	return p
}

// tokenProblem is the problem with where a person can mend it.
func (app *App) tokenProblem(err error) problem {
	p := tokenProblem(err, time.Now())
	if p.Code == "login_required" && app.portal != "" {
		p.Portal = app.portal + "/"
	}
	return p
}

func (p problem) fields(body []byte) http.Header {
	h := p.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff") // the detail may quote what a caller sent
	h.Set(errorHeader, p.Code)
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	return h
}

func (p problem) body() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // it's no HTML, and people read it
	_ = enc.Encode(p)        // plain fields: can't fail
	return b.Bytes()
}

// write answers a request.
func (p problem) write(w http.ResponseWriter) {
	body := p.body()
	for name, values := range p.fields(body) {
		w.Header()[name] = values
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// response is the answer as a transport gives it: a response of the upstream's
// kind, so that it doesn't count as the upstream's failure.
func (p problem) response(req *http.Request) *http.Response {
	body := p.body()
	return &http.Response{
		Status:     strconv.Itoa(p.Status) + " " + http.StatusText(p.Status),
		StatusCode: p.Status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        p.fields(body),
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       req,
	}
}
