package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A receiver of webhooks answers as it is told and keeps what came.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int // nil: 204
	posts  []posted
}

type posted struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T) *receiver {
	v := new(receiver)
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v.mu.Lock()
		v.posts = append(v.posts, posted{r.Header.Clone(), body})
		status := http.StatusNoContent
		if v.answer != nil {
			status = v.answer(len(v.posts))
		}
		v.mu.Unlock()
		if status == http.StatusFound {
			w.Header().Set("Location", v.URL+"/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *receiver) got() []posted {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.posts
}

// A person has to log in: the webhook is told, with its second attempt, and
// its address is in no log.
func TestWebhook(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	pauses := webhookPauses
	webhookPauses = []time.Duration{time.Millisecond, time.Millisecond}
	t.Cleanup(func() { webhookPauses = pauses })
	v := newReceiver(t)
	v.answer = func(n int) int {
		if n == 1 {
			return 503
		}
		return 200
	}
	r.secret("webhook", v.URL+"/services/secret-path")
	r.secret("webhook_key", "Bearer secret-key")
	r.global = fmt.Sprintf(`events {
		on bearer.login_required bearer_webhook {file.%[1]s/webhook} {
			header Authorization {file.%[1]s/webhook_key}
		}
		on started bearer_webhook {file.%[1]s/webhook}
	}`, r.dir)
	log := r.logFile()
	config := strings.NewReplacer("grant password {", "grant refresh_token", "username sandbox-user\n", "",
		"password {file."+r.dir+"/password}\n\t\t\t}\n", "").Replace(r.caddyfile())
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.eventually("posted", func() bool { return len(v.got()) == 2 })
	for _, p := range v.got() {
		if p.header.Get("Content-Type") != "application/json" || p.header.Get("Authorization") != "Bearer secret-key" {
			t.Errorf("%v", p.header)
		}
	}
	var e struct {
		caddy.CloudEvent
		Text string `json:"text"`
	}
	if err := json.Unmarshal(v.got()[1].body, &e); err != nil {
		t.Fatal(err)
	}
	const text = "erp: a person has to log in: nobody has logged in yet; give it a refresh token with `caddy bearer import erp`"
	if e.Type != "bearer.login_required" || e.Source != "bearer" || e.SpecVersion != "1.0" || e.Text != text {
		t.Errorf("%+v", e)
	}
	var data map[string]string
	if err := json.Unmarshal(e.Data, &data); err != nil || data["account"] != "erp" || data["code"] != "login_required" || data["state"] != "login_required" {
		t.Errorf("%v, %v", data, err)
	}
	said := read(t, log)
	if !contains(said, "the webhook did not take an event", "bearer_webhook takes events of the bearer app only, not started") {
		t.Error("the log doesn't tell")
	}
	for _, secret := range []string{"secret-path", "secret-key"} {
		if strings.Contains(said, secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

// webhook makes a handler as Caddy does.
func webhook(t *testing.T, h *Webhook) *Webhook {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.cancel)
	return h
}

// event is one as the bearer app emits it.
func event(t *testing.T, kind, account string, n int) caddy.Event {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	e, err := caddy.NewEvent(ctx, "bearer."+kind, map[string]any{"account": account, "user": "", "n": n})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// While a post hangs, events wait, the newest of a kind only.
func TestWebhookCoalesces(t *testing.T) {
	v := newReceiver(t)
	hanging, gate := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(hanging); <-gate })
	v.answer = func(int) int { first(); return 204 }
	h := webhook(t, &Webhook{URL: v.URL})
	send := func(kind, account string, n int) {
		if err := h.Handle(t.Context(), event(t, kind, account, n)); err != nil {
			t.Fatal(err)
		}
	}
	send("degraded", "erp", 0)
	<-hanging
	for n := range 50 {
		send("degraded", "erp", 2*n+1)
		send("recovered", "erp", 2*n+2)
	}
	send("recovered", "crm", 1)
	close(gate)
	want := []string{"degraded erp 0", "degraded erp 99", "recovered erp 100", "recovered crm 1"}
	deadline := time.Now().Add(10 * time.Second)
	for len(v.got()) < len(want) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	var got []string
	for _, p := range v.got() {
		var e struct {
			Type string `json:"type"`
			Data struct {
				Account string `json:"account"`
				N       int    `json:"n"`
			} `json:"data"`
		}
		if err := json.Unmarshal(p.body, &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(strings.TrimPrefix(e.Type, "bearer."), " ", e.Data.Account, " ", e.Data.N))
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("posted %v, want %v", got, want)
	}
}

func TestWebhookAttempts(t *testing.T) {
	pauses := webhookPauses
	webhookPauses = []time.Duration{time.Millisecond, time.Millisecond}
	t.Cleanup(func() { webhookPauses = pauses })
	for status, want := range map[int]int{200: 1, 204: 1, 302: 1, 400: 1, 404: 1, 408: 3, 429: 3, 500: 3, 503: 3} {
		v := newReceiver(t)
		v.answer = func(int) int { return status }
		h := webhook(t, &Webhook{URL: v.URL})
		h.postOne(notification{what: "test", body: []byte("{}")})
		if n := len(v.got()); n != want {
			t.Errorf("%d: %d attempts, want %d", status, n, want)
		}
	}
}

func TestWebhookIsBounded(t *testing.T) {
	h := webhook(t, &Webhook{URL: "http://127.0.0.1:9/"})
	h.busy = true // nobody takes them
	for n := range maxNotifications + 5 {
		if err := h.Handle(t.Context(), event(t, "degraded", fmt.Sprint(n), n)); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.waiting) != maxNotifications || h.waiting[0].what != "bearer.degraded 5/" {
		t.Errorf("%d wait, first %s", len(h.waiting), h.waiting[0].what)
	}
}

// A file may change to what events must not go to.
func TestWebhookAddressChanges(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	v := newReceiver(t)
	r.secret("webhook", v.URL)
	h := webhook(t, &Webhook{URL: "{file." + r.dir + "/webhook}"})
	r.secret("webhook", "http://hooks.example.com/secret-path")
	if again, err := h.try(nil); again || err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("%v, %v", again, err)
	}
	r.secret("webhook", "http://"+freeAddress(t)+"/secret-path")
	if again, err := h.try(nil); !again || err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("%v, %v", again, err)
	}
	r.secret("webhook", v.URL+"/new")
	if _, err := h.try(nil); err != nil || len(v.got()) != 1 {
		t.Errorf("%v", err)
	}
}

// A receiver that repeats what it got, where Go's errors quote it: neither the
// address nor a header gets into the log by that.
func TestWebhookEchoes(t *testing.T) {
	for name, answer := range map[string]string{
		"status line": "HTTP/1.1 abcSECRET\r\n\r\n",
		"field line":  "HTTP/1.1 200 OK\r\nSECRET\r\n\r\n",
		"coding":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n",
		"no HTTP":     "SECRET\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, strings.ReplaceAll(answer, "SECRET", r.URL.Path+r.Header.Get("Authorization")))
				}
				_ = conn.Close()
			}
		}()
		h := webhook(t, &Webhook{URL: "http://" + l.Addr().String() + "/services/secret-path", Headers: map[string]string{"Authorization": "secret-key"}})
		again, err := h.try([]byte("{}"))
		if !again || err == nil || strings.Contains(err.Error(), "secret-") || !strings.Contains(err.Error(), "connection") {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
}

// At the end of its configuration a webhook stops between two attempts, and
// says what is lost. It doesn't fill the log.
func TestWebhookEnds(t *testing.T) {
	v := newReceiver(t)
	v.answer = func(int) int { return 503 }
	h := webhook(t, &Webhook{URL: v.URL})
	var log bytes.Buffer
	h.log = &seldomLog{to: slog.New(slog.NewTextHandler(&log, nil))}
	h.busy = true
	for n := range maxNotifications + 5 {
		if err := h.Handle(t.Context(), event(t, "degraded", fmt.Sprint(n), n)); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	go func() { h.post(); close(ended) }()
	for deadline := time.Now().Add(10 * time.Second); len(v.got()) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	h.cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("it goes on")
	}
	said := log.String()
	if !contains(said, "the webhook is too slow", "did not take an event", "are not posted\" count=99") || strings.Count(said, "too slow") != 1 {
		t.Error(said)
	}
	if n := len(v.got()); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

// Chats show the text alone: it reads as a sentence, of the store too.
func TestWebhookText(t *testing.T) {
	t.Parallel()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	for _, c := range []struct{ kind, account, user, detail, portal, want string }{
		{"refreshed", "erp", "", "", "", "erp has a new token"},
		{"recovered", "erp", "ada", "", "", "erp/ada is ready again"},
		{"degraded", "", "", "the disk is full", "", "the token store is degraded: the disk is full"},
		{"login_required", "erp", "", "it was logged out", "", "erp: a person has to log in: it was logged out"},
		{"login_required", "erp", "", "it was logged out", "https://p.test/bearer", "erp: a person has to log in: it was logged out; or on https://p.test/bearer"},
		{"something_new", "erp", "", "", "", "erp: bearer.something_new"},
	} {
		e, err := caddy.NewEvent(ctx, "bearer."+c.kind, map[string]any{"account": c.account, "user": c.user, "detail": c.detail, "portal": c.portal})
		if err != nil {
			t.Fatal(err)
		}
		if got := eventText(e); got != c.want {
			t.Errorf("%s: %q, want %q", c.kind, got, c.want)
		}
	}
}
