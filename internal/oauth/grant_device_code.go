package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// DeviceCode is the device authorization grant (RFC 8628): a person signs in
// with a browser anywhere, and enters a code there. See [Session.BeginLogin].
type DeviceCode struct{ needsPerson }

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

func (DeviceCode) Type() string { return "device_code" }
func (g DeviceCode) Now() Grant { return g }

// A DevicePrompt is what a person is shown (RFC 8628 §3.3).
type DevicePrompt struct {
	UserCode string
	// VerificationURI is where the code is entered; the complete one, which may
	// be empty, has it in it.
	VerificationURI, VerificationURIComplete string
}

// A device is a device authorization under way.
type device struct {
	prompt   DevicePrompt
	code     Secret
	interval time.Duration
	lifetime time.Duration
}

const (
	// deviceInterval is that of a server that doesn't tell (RFC 8628 §3.2);
	// maxDeviceInterval and maxDeviceLifetime bound what one tells.
	deviceInterval    = 5 * time.Second
	maxDeviceInterval = time.Minute
	maxDeviceLifetime = 30 * time.Minute
)

// authorizeDevice makes the device authorization request (RFC 8628 §3.1).
func (c *Client) authorizeDevice(ctx context.Context, scope string) (device, error) {
	params := url.Values{}
	if scope != "" {
		params.Set("scope", scope)
	}
	e, err := c.send(ctx, c.DeviceEndpoint, params, false)
	if err != nil {
		return device{}, err
	}
	switch {
	case e.reply == nil && e.err == nil:
		return device{}, errors.New("the request to the device endpoint could not be made: is device_endpoint right?")
	case e.reply == nil:
		return device{}, errors.New("the device endpoint did not answer: " + wireError(e.err))
	case e.reply.StatusCode != 200:
		code := readMembers(e.body).code
		if e.repeats(code) {
			code = "other"
		}
		return device{}, fmt.Errorf("the device endpoint answered %d %s", e.reply.StatusCode, code)
	case !e.whole:
		return device{}, errors.New("the answer of the device endpoint is broken off or too long")
	}
	return readDevice(e.body)
}

// readDevice reads the answer of the device endpoint (RFC 8628 §3.2).
func readDevice(body []byte) (device, error) {
	var members struct {
		DeviceCode string          `json:"device_code"`
		UserCode   string          `json:"user_code"`
		URI        string          `json:"verification_uri"`
		Complete   string          `json:"verification_uri_complete"`
		ExpiresIn  json.RawMessage `json:"expires_in"`
		Interval   json.RawMessage `json:"interval"`
	}
	if json.Unmarshal(body, &members) != nil {
		return device{}, errors.New("the answer of the device endpoint is not the JSON of RFC 8628 §3.2")
	}
	d := device{
		prompt:   DevicePrompt{UserCode: members.UserCode, VerificationURI: members.URI, VerificationURIComplete: members.Complete},
		code:     NewSecret(members.DeviceCode),
		interval: deviceInterval,
		lifetime: min(lifetime(members.ExpiresIn), maxDeviceLifetime),
	}
	if given := lifetime(members.Interval); given > 0 {
		d.interval = min(given, maxDeviceInterval)
	}
	switch {
	case d.code.Empty():
		return d, errors.New("the answer of the device endpoint has no device_code")
	case d.prompt.UserCode == "" || len(d.prompt.UserCode) > 64 || strings.Map(printable, d.prompt.UserCode) != d.prompt.UserCode:
		return d, errors.New("the answer of the device endpoint has no user_code that can be shown")
	case !browsable(d.prompt.VerificationURI):
		return d, errors.New("the answer of the device endpoint has no verification_uri with https")
	case d.lifetime == 0:
		return d, errors.New("the answer of the device endpoint has no expires_in")
	}
	if !browsable(d.prompt.VerificationURIComplete) {
		d.prompt.VerificationURIComplete = ""
	}
	return d, nil
}

// poll asks for the tokens until the person is done or waiting ends (RFC 8628
// §3.4, §3.5). A request under way isn't ended by that: its answer may be the
// only one with tokens.
func (d device) poll(waiting, ctx context.Context, c *Client, timeout time.Duration) Answer {
	for {
		if !sleep(waiting, d.interval) {
			return Answer{Outcome: Dead, Code: "expired_token", Detail: "nobody entered the code in time"}
		}
		request, cancel := context.WithTimeout(ctx, timeout)
		a := c.request(request, url.Values{"grant_type": {deviceGrant}, "device_code": {d.code.Reveal()}})
		cancel()
		switch {
		case a.Code == "authorization_pending":
		case a.Code == "slow_down":
			d.interval += 5 * time.Second
		case a.Outcome == Lost, a.Outcome == NotTried, a.Outcome == Away:
			d.interval = max(min(2*d.interval, maxDeviceInterval), a.RetryAfter)
		default:
			return a
		}
	}
}
