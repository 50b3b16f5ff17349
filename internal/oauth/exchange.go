package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// An exchange is the one HTTP request of a token request.
type exchange struct {
	client *Client
	params url.Values  // what is sent
	json   bool        // send a JSON object
	sent   func() bool // whether anything of the request may have left, nil without a connection
	err    error
	reply  *http.Response
	body   []byte
	whole  bool
}

// RoundTrip sends the request and keeps the reply. What it returns to x/oauth2
// has the body that was read.
func (e *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { e.sent = written(info.Conn); failpoint.Hit("connection-got") }}
	trace.WroteHeaders = func() { failpoint.Hit("headers-written") }
	trace.WroteRequest = func(httptrace.WroteRequestInfo) { failpoint.Hit("request-written") }
	trace.GotFirstResponseByte = func() { failpoint.Hit("answer-begun") }
	req = req.Clone(httptrace.WithClientTrace(req.Context(), trace))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if e.json {
		if e.err = toJSON(req); e.err != nil {
			return nil, e.err
		}
	}
	if e.client.Auth == AuthBasicRaw {
		plain := e.client.ID + ":" + e.client.secret().Reveal()
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(plain)))
	}
	failpoint.Hit("request-prepared")
	e.reply, e.err = e.client.Transport.RoundTrip(req)
	if e.err != nil {
		return nil, e.err
	}
	failpoint.Hit("answer-headers-read")
	defer e.reply.Body.Close()
	var err error
	e.body, err = io.ReadAll(failpoint.Reader("answer-half-read", io.LimitReader(e.reply.Body, maxAnswer+1)))
	failpoint.Hit("answer-body-read")
	e.whole = err == nil && len(e.body) <= maxAnswer
	e.reply.Body = io.NopCloser(bytes.NewReader(e.body))
	return e.reply, nil
}

// toJSON puts the parameters of a request into a JSON object.
func toJSON(req *http.Request) error {
	form, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	params, err := url.ParseQuery(string(form))
	if err != nil {
		return err
	}
	object := map[string]any{}
	for name, values := range params {
		object[name] = values
		if len(values) == 1 {
			object[name] = values[0]
		}
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Body, req.GetBody, req.ContentLength = io.NopCloser(bytes.NewReader(body)), nil, int64(len(body))
	return nil
}

// answer decides what the exchange came to.
func (e *exchange) answer() Answer {
	switch {
	case e.reply != nil:
		a := readAnswer(e.reply.StatusCode, e.reply.Header.Get("Content-Type"), e.body, e.whole)
		if e.repeats(a.Code) {
			a.Code, a.Detail = "other", strings.ReplaceAll(a.Detail, a.Code, "other")
		}
		a.RetryAfter = retryAfter(e.reply.Header.Get("Retry-After"), time.Now())
		return a
	case e.err == nil:
		return Answer{Outcome: Away, Detail: "the token request could not be made: is token_endpoint right?"}
	case e.sent != nil && e.sent():
		return Answer{Outcome: Lost, Detail: "the token endpoint did not answer: " + wireError(e.err)}
	}
	return Answer{Outcome: NotTried, Detail: "the token endpoint could not be reached: " + wireError(e.err)}
}

// registeredCodes are what the RFCs 6749 and 8628 know, and we decide by.
var registeredCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "server_error", "temporarily_unavailable", "authorization_pending", "slow_down", "expired_token",
}

// repeats reports whether an error code holds a secret that was sent: a server
// may put into it what it didn't understand.
func (e *exchange) repeats(code string) bool {
	if code == "" || slices.Contains(registeredCodes, code) {
		return false
	}
	secrets := []string{e.client.secret().Reveal()}
	for _, name := range []string{"refresh_token", "password", "code", "code_verifier", "device_code", "client_assertion", "token"} {
		secrets = append(secrets, e.params[name]...)
	}
	return slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= 6 && strings.Contains(code, s) })
}

// wireError describes an error of the transport without the URL and without
// bytes that the other side sent.
func wireError(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "time-out"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &dns):
		return "looking up " + dns.Name + ": no such host or no answer"
	case errors.As(err, &cert):
		return "its certificate was not accepted: " + strings.Map(printable, cert.Err.Error())
	case errors.As(err, &op):
		if op.Timeout() {
			return op.Op + ": time-out"
		}
		return op.Op + ": " + op.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return "the connection failed"
}

// printable drops what could steer a terminal or forge a line of a log: the
// names in a certificate are anybody's.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return -1
}

const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header field in both forms (RFC 9110 §10.2.3), capped;
// 0 if it is absent or makes no sense.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	var d time.Duration
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, _ := strconv.ParseUint(value, 10, 63) // the largest number if it is larger
		d = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
