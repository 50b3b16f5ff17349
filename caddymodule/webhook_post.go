package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how a webhook's events are posted, and what they say.

// post posts what waits.
func (h *Webhook) post() {
	for {
		h.mu.Lock()
		if over := h.ctx.Err() != nil; over || len(h.waiting) == 0 {
			if len(h.waiting) > 0 {
				h.log.to.Warn("the configuration is no more; its webhook's events are not posted", "count", len(h.waiting))
			}
			h.waiting, h.busy = nil, false
			h.mu.Unlock()
			return
		}
		n := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.mu.Unlock()
		h.postOne(n)
	}
}

func (h *Webhook) postOne(n notification) {
	for attempt := 0; ; attempt++ {
		again, err := h.try(n.body)
		if err == nil {
			return
		}
		last := !again || attempt == len(webhookPauses) || h.ctx.Err() != nil
		if log := h.log.of("failed"); log != nil {
			log.Error("the webhook did not take an event", "event", n.what, "error", err, "last_attempt", last)
		}
		if last {
			return
		}
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(webhookPauses[attempt]):
		}
	}
}

// try makes one attempt, and tells whether another one may help. Its errors
// don't hold the address.
func (h *Webhook) try(body []byte) (again bool, err error) {
	target := h.url().Reveal()
	if err := checkWebhookURL(target); err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(h.ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the address is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "caddy-bearer")
	for name, value := range h.headers {
		req.Header.Set(name, value().Reveal())
	}
	res, err := h.client.Do(req)
	if err != nil {
		return true, errors.New(oauth.WireError(err)) // Go's own has the address, and quotes what was received
	}
	defer res.Body.Close()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return false, nil
	}
	again = res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout
	return again, fmt.Errorf("it answered %d", res.StatusCode)
}

// eventText is an event in a sentence.
func eventText(e caddy.Event) string {
	text := func(name string) string { v, _ := e.Data[name].(string); return v }
	who := oauth.Key{Account: text("account"), User: text("user")}.String()
	if who == "" {
		who = "the token store"
	}
	said := map[string]string{
		"refreshed":            " has a new token",
		"login_required":       ": a person has to log in",
		"credentials_rejected": ": the authorization server refused the credentials or the configuration",
		"refresh_expiring":     ": the refresh token will expire",
		"degraded":             " is degraded",
		"recovered":            " is ready again",
	}[strings.TrimPrefix(e.Name(), appName+".")]
	if said == "" {
		said = ": " + e.Name()
	}
	said = who + said
	if detail := text("detail"); detail != "" {
		said += ": " + detail
	}
	if portal := text("portal"); portal != "" {
		said += "; or on " + portal
	}
	return said
}
