package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// This file is how the command line asks the admin endpoint.

// How long the admin endpoint may take until it begins to answer. What it is told
// to do may need several requests to an authorization server, of a minute each.
var (
	tellTimeout = 10 * time.Second
	doTimeout   = 5 * time.Minute
)

// startingTimeout is how long a command waits for a server that is starting.
const startingTimeout = 4 * time.Second

// errNoAnswer is the end of somebody's patience with the admin endpoint.
var errNoAnswer = errors.New("it takes the connection and doesn't answer")

// An adminError is an answer of the admin endpoint with a status of 400 or more.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

// ask makes a request to the admin endpoint and decodes its answer.
func ask(ctx context.Context, fl caddycmd.Flags, method, uri string, body, answer any) error {
	res, err := send(ctx, fl, method, uri, body)
	return decode(res, err, answer)
}

// look asks once, and says nothing of what to do if that fails.
func look(ctx context.Context, address, uri string) (st statusJSON, err error) {
	res, err := sendTo(ctx, address, http.MethodGet, uri, nil)
	err = decode(res, err, &st)
	return st, err
}

// decode decodes an answer and closes it.
func decode(res *http.Response, err error, answer any) error {
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return fmt.Errorf("reading the admin endpoint's answer: %w", err)
	}
	return nil
}

// send makes a request to the admin endpoint. A status of 400 or more is an
// error. The caller closes the answer's body.
func send(ctx context.Context, fl caddycmd.Flags, method, uri string, body any) (*http.Response, error) {
	address, err := adminAddress(fl)
	if err != nil {
		return nil, err
	}
	res, err := sendTo(ctx, address, method, uri, body)
	for ends := time.Now().Add(startingTimeout); starting(err) && time.Now().Before(ends) && pause(ctx, startingTimeout/20); {
		res, err = sendTo(ctx, address, method, uri, body)
	}
	switch {
	case err == nil, errors.As(err, new(*adminError)), errors.As(err, new(useError)):
		return res, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("asking the admin endpoint at %s: %w; %s", address, err, unreachable(err))
}

// unreachable says what to do about an admin endpoint that can't be asked.
func unreachable(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "run this as the server's user, or with sudo"
	case errors.Is(err, errNoAnswer):
		return "look at the server's log; if it hangs, restart it"
	}
	return "is the server running, and its admin endpoint there? say where with --config or --address"
}

func starting(err error) bool {
	answered, ok := errors.AsType[*adminError](err)
	return ok && answered.status == http.StatusServiceUnavailable && answered.text == errStarting.Error()
}

// dialed parts an address into where to connect to and the host of the URL.
func dialed(address string) (network, dial, host string, err error) {
	at, err := caddy.ParseNetworkAddress(address)
	if err != nil || at.PortRangeSize() > 1 {
		return "", "", "", useError{fmt.Errorf("%s is no address of an admin endpoint; it is such as unix//run/caddy/admin.sock or localhost:2019", address)}
	}
	if at.IsUnixNetwork() {
		path, _, _ := strings.Cut(at.Host, "|") // the socket's mode
		return at.Network, path, "127.0.0.1", nil
	}
	return at.Network, at.JoinHostPort(0), at.JoinHostPort(0), nil
}

// sendTo makes a request to the admin endpoint at an address. Caddy's own
// function for it has no time-out, and its errors tell only people apart what
// went wrong.
func sendTo(ctx context.Context, address, method, uri string, body any) (*http.Response, error) {
	network, dial, host, err := dialed(address)
	if err != nil {
		return nil, err
	}
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+uri, text)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(network, "unix") {
		req.Header.Set("Origin", "http://"+host)
	}
	transport := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: tellTimeout, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: tellTimeout}).DialContext(ctx, network, dial)
	}}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		transport.ResponseHeaderTimeout = doTimeout
	}
	res, err := transport.RoundTrip(req)
	var late net.Error
	switch {
	case errors.As(err, new(*net.OpError)): // it says what couldn't be connected to
		return nil, err
	case errors.As(err, &late) && late.Timeout():
		return nil, errNoAnswer
	case err != nil:
		return nil, err
	case res.StatusCode < 400:
		return res, nil
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return nil, &adminError{res.StatusCode, answerText(res.Status, answer)}
}

// answerText takes the message out of an admin endpoint's error, which is
// `{"error":"…"}`.
func answerText(status string, body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		return answer.Error
	}
	return strings.TrimSpace("the admin endpoint answered " + status + "; is it a Caddy with the bearer modules?")
}
