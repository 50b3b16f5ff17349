package caddymodule

import (
	"bytes"
	"context"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file keeps what the API sends beside its header from telling the token:
// texts of errors, which quote what was received, interim answers and trailers.

// An upstreamError is an error on the way to the API, told without the bytes that
// the API sent: Go's errors quote them, Caddy logs errors and error pages show
// them, and an API may repeat what it was sent.
type upstreamError struct{ err error }

// quiet is an error of the transport that may be logged and shown. Those that
// quote nothing stay as they are, because Caddy goes by their types: dialling has
// received nothing yet, time-outs have nothing to quote, and that the caller is
// gone is no error.
func quiet(err error) error {
	if _, ok := err.(reverseproxy.DialError); ok || err == context.Canceled {
		return err
	}
	if n, ok := err.(net.Error); ok && n.Timeout() {
		return err
	}
	return upstreamError{err}
}

func (e upstreamError) Error() string {
	text := oauth.WireError(e.err)
	if text == "the connection failed" { // it says of no other kind what it is
		text = "the connection failed, or the answer is not valid HTTP; what the API sent is not shown, as it may hold the token"
	}
	return "asking the API: " + text
}

// Unwrap lets Caddy find out that dialling failed, or that the caller is gone.
func (e upstreamError) Unwrap() error { return e.err }

// strip takes the fields off an interim answer or a trailer that don't pass, those
// with the token included.
func strip(h http.Header, pass, authorization []string) {
	swallow(h, pass)
	for field := leaks(h, authorization); field != ""; field = leaks(h, authorization) {
		delete(h, field)
	}
}

// interimStripped is the request whose interim answers are stripped before Caddy
// passes them on.
func interimStripped(req *http.Request, authorization []string) *http.Request {
	trace := &httptrace.ClientTrace{Got1xxResponse: func(_ int, fields textproto.MIMEHeader) error {
		strip(http.Header(fields), nil, authorization)
		return nil
	}}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
}

// A trailedBody is the body of an answer behind which trailers may come: they are
// stripped as soon as they are there.
type trailedBody struct {
	io.ReadCloser
	res                 *http.Response
	pass, authorization []string
}

// watchTrailers makes the trailers of an answer come stripped. An answer over
// HTTP/1 that tells its length has none; its body's errors quote nothing. What
// follows a 101 is no answer.
func watchTrailers(res *http.Response, pass, authorization []string) {
	if res.StatusCode == http.StatusSwitchingProtocols || res.ProtoMajor < 2 && res.ContentLength >= 0 {
		return
	}
	strip(res.Trailer, pass, authorization) // the names that it announces
	res.Body = &trailedBody{res.Body, res, pass, authorization}
}

func (b *trailedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		strip(b.res.Trailer, b.pass, b.authorization)
	default:
		err = quiet(err)
	}
	return n, err
}

// A stdLog keeps out of the log what an API sends unasked on an idle connection.
// net/http quotes it in a line of the standard logger, and tells it nowhere else.
type stdLog struct{ to io.Writer }

// quietStdLog puts a stdLog before where the standard logger writes to. Caddy sets
// that anew when it loads a configuration, also one that fails later, and never
// back; one stdLog lies before it, however often this is called.
func quietStdLog() {
	to := stdlog.Writer()
	if _, ours := to.(stdLog); !ours {
		stdlog.SetOutput(stdLog{to})
	}
}

// unsolicited is how the line begins; then the bytes follow.
const unsolicited = "Unsolicited response received on idle HTTP channel"

func (l stdLog) Write(line []byte) (int, error) {
	text := line
	if i := bytes.Index(line, []byte(unsolicited)); i >= 0 {
		text = append(bytes.Clone(line[:i+len(unsolicited)]), '\n')
	}
	if _, err := l.to.Write(text); err != nil {
		return 0, err
	}
	return len(line), nil
}
