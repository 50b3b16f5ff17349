package caddymodule

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The tests whose names begin with TestF are the rows of the fault matrix, one
// each. They log what was measured in one line: the row, the severity, the
// figure. 0 is nothing visible, 1 a short delay, 2 an automatic login, 3 a
// person is needed.

var reloads = flag.Int("reloads", 100, "how often TestF18ReloadDuringRefresh and TestG17ReloadUnderLoad reload")

// measured is the line of a row.
func measured(t *testing.T, row, severity int, figure string, args ...any) {
	t.Helper()
	if t.Failed() {
		figure, args = "not what is expected, see the errors", nil
	}
	t.Logf("F%02d: severity %d; %s", row, severity, fmt.Sprintf(figure, args...))
}

// onSocket is the Caddyfile with the site on a Unix socket, and a client for
// it: of a TCP port the kernel resets what the old listener had not accepted.
func (r *rig) onSocket(keepAlive bool) (config string, caller *http.Client) {
	host, _, _ := net.SplitHostPort(r.address)
	socket := filepath.Join(r.dir, "site.sock")
	config = strings.Replace(r.caddyfile(), "bind "+host, "bind unix/"+socket, 1)
	caller = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keepAlive,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	return config, caller
}

// A load is legacy applications that call all the time.
type load struct {
	calls, failed atomic.Int64
	closed        atomic.Int64 // connections without an answer: see callOnce
	stop          context.CancelFunc
	gone          sync.WaitGroup
	mu            sync.Mutex
	longest       time.Duration
	first         string // failure
}

func startLoad(ctx context.Context, callers int, c *http.Client) *load {
	l := new(load)
	ctx, l.stop = context.WithCancel(ctx)
	for range callers {
		l.gone.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				err := l.callOnce(c)
				took := time.Since(begin)
				l.calls.Add(1)
				if err != nil {
					l.failed.Add(1)
				}
				l.mu.Lock()
				if l.longest = max(l.longest, took); err != nil && l.first == "" {
					l.first = err.Error()
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// callOnce makes a call. A connection that is closed before any answer is
// tried again, as HTTP clients do with a GET (RFC 9110 §9.2.2): Caddy drops some
// when it hands a listener over, with a Caddyfile of `respond ok` as well (of
// 1,000 calls on new connections during 200 reloads, about 18).
func (l *load) callOnce(c *http.Client) error {
	for try := 0; ; try++ {
		res, err := c.Get("http://localhost/echo")
		if err != nil && try < 5 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
			l.closed.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != 200 {
			err = fmt.Errorf("%d %s", res.StatusCode, text)
		}
		return err
	}
}

func (l *load) end() {
	l.stop()
	l.gone.Wait()
}

// severity is that of what the callers saw; a pause longer than delayed is one.
func (l *load) severity(delayed time.Duration) int {
	if l.failed.Load() > 0 || l.longest > delayed {
		return 1
	}
	return 0
}

// presentedOnce checks that each refresh token was presented once, and returns
// how many were.
func (r *rig) presentedOnce() int {
	r.Helper()
	times := map[string]int{}
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindToken && e.Grant == "refresh_token" {
			if times[e.Presented]++; times[e.Presented] > 1 {
				r.Errorf("the refresh token %s was presented %d times", e.Presented, times[e.Presented])
			}
		}
	}
	return len(times)
}
