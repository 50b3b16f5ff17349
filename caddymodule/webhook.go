package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Webhook is a handler of the bearer app's events that posts them to a URL, so
// that a person or a machine is told. Caddy itself has no handler that would.
//
// The body is a CloudEvent in JSON, https://cloudevents.io, with the event's
// data and, for chats, its meaning as `text`:
//
//	{"id":"…","source":"bearer","specversion":"1.0","type":"bearer.login_required","time":"…",
//	 "datacontenttype":"application/json",
//	 "data":{"account":"erp","user":"","state":"login_required","code":"login_required","detail":"…"},
//	 "text":"erp: a person has to log in: nobody has logged in yet; log in with `caddy bearer login erp`"}
//
// Nothing in it is a secret. Three attempts are made in all where there is no
// answer, or it is 5xx, 408 or 429; any other is final. Events wait in memory,
// 100 at most; of those that wait, a newer one takes the place of one of the same
// kind for the same account and user.
type Webhook struct {
	// Where to post to: https, or http on this machine. It may hold global
	// placeholders such as `{file./run/credentials/webhook}`: the addresses of
	// chats are secrets. No redirect is followed.
	URL string `json:"url,omitempty"`

	// Header fields to send, such as Authorization. Values may hold global
	// placeholders, which are read again for each post.
	Headers map[string]string `json:"headers,omitempty"`

	// How long one post may take. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	url     oauth.SecretFunc
	headers map[string]oauth.SecretFunc
	log     *seldomLog
	client  *http.Client
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	waiting []notification
	busy    bool
}

// A notification is what is to be posted.
type notification struct {
	what string // events of which the last one counts
	body []byte
}

const (
	maxNotifications      = 100
	defaultWebhookTimeout = 10 * time.Second
	// webhookGrace is how long posts go on after the configuration's end.
	webhookGrace = 10 * time.Second
)

// webhookPauses lie between the attempts of one post.
var webhookPauses = []time.Duration{time.Second, 10 * time.Second}

func (*Webhook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.bearer_webhook", New: func() caddy.Module { return new(Webhook) }}
}

// Provision reads the configuration.
func (h *Webhook) Provision(ctx caddy.Context) error {
	h.log = &seldomLog{to: ctx.Slogger()}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	target, err := resolve(h.URL)
	if err != nil {
		return fmt.Errorf("bearer_webhook: url: %w", err)
	}
	if err := checkWebhookURL(target); err != nil {
		return fmt.Errorf("bearer_webhook: url: %w", err)
	}
	if h.Timeout < 0 {
		return errors.New("bearer_webhook: timeout must not be negative")
	}
	h.url = oauth.Fixed(target)
	if !literal(h.URL) {
		if h.url, err = secret("url", h.URL, h.log.to); err != nil {
			return err
		}
	}
	h.headers = map[string]oauth.SecretFunc{}
	for name, value := range h.Headers {
		if !validField.MatchString(name) {
			return fmt.Errorf("bearer_webhook: header %s: it must be the name of a header field", name)
		}
		if h.headers[name], err = secret("header "+name, value, h.log.to); err != nil {
			return fmt.Errorf("bearer_webhook: header %s: %w", name, err)
		}
	}
	h.client = &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true},
		Timeout:       time.Duration(or(h.Timeout, caddy.Duration(defaultWebhookTimeout))),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// checkWebhookURL refuses what events must not be posted to. The address may
// be a secret, so its errors don't quote it.
func checkWebhookURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it must be a URL such as https://hooks.example.com/bearer")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("plain http is accepted on loopback only; use https")
	case u.User != nil:
		return errors.New("it must not hold a password; use `header Authorization …`")
	}
	return nil
}

// Cleanup ends the posts, after a while: a reload must not lose them.
func (h *Webhook) Cleanup() error {
	if h.cancel != nil {
		time.AfterFunc(webhookGrace, h.cancel)
	}
	return nil
}

// Handle queues an event. It doesn't wait for the post.
func (h *Webhook) Handle(_ context.Context, e caddy.Event) error {
	if !strings.HasPrefix(e.Name(), appName+".") {
		return fmt.Errorf("bearer_webhook takes events of the bearer app only, not %s; write `on %s.… bearer_webhook …`", e.Name(), appName)
	}
	body, err := json.Marshal(struct {
		caddy.CloudEvent
		Text string `json:"text"`
	}{e.CloudEvent(), eventText(e)})
	if err != nil {
		return err
	}
	n := notification{what: fmt.Sprint(e.Name(), " ", e.Data["account"], "/", e.Data["user"]), body: body}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = slices.DeleteFunc(h.waiting, func(o notification) bool { return o.what == n.what })
	if len(h.waiting) == maxNotifications {
		if log := h.log.of("slow"); log != nil {
			log.Warn("the webhook is too slow; an event is not posted", "event", h.waiting[0].what)
		}
		h.waiting = h.waiting[1:]
	}
	h.waiting = append(h.waiting, n)
	if !h.busy {
		h.busy = true
		go h.post()
	}
	return nil
}

// UnmarshalCaddyfile reads, in the global option events:
//
//	on bearer.login_required bearer_webhook <url> {
//		header  <name> <value>
//		timeout <duration>
//	}
func (h *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // bearer_webhook
	if !d.AllArgs(&h.URL) || h.URL == "" {
		return d.Errf("bearer_webhook: where to? write `bearer_webhook https://hooks.example.com/bearer`")
	}
	if literal(h.URL) {
		if err := checkWebhookURL(h.URL); err != nil {
			return d.Errf("bearer_webhook: %v", err)
		}
	}
	return block(d, "bearer_webhook", map[string]parser{
		"header...": h.parseHeader,
		"timeout":   duration(&h.Timeout),
	})
}

func (h *Webhook) parseHeader(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return d.ArgErr()
	}
	if !validField.MatchString(name) {
		return d.Errf("header %s: it must be the name of a header field", name)
	}
	if h.Headers == nil {
		h.Headers = map[string]string{}
	}
	name = http.CanonicalHeaderKey(name)
	if _, twice := h.Headers[name]; twice {
		return d.Errf("header %s: it is there twice; remove one", name)
	}
	h.Headers[name] = value
	return nil
}

var (
	_ caddyevents.Handler   = (*Webhook)(nil)
	_ caddy.Provisioner     = (*Webhook)(nil)
	_ caddy.CleanerUpper    = (*Webhook)(nil)
	_ caddyfile.Unmarshaler = (*Webhook)(nil)
)
