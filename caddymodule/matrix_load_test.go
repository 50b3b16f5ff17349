package caddymodule

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F18: Caddy reloads during a refresh. Expected: the same shared store, one
// refresh, no lock time-out. Best: 0.
func TestF18ReloadDuringRefresh(t *testing.T) {
	r := newRig(t, sandbox.Config{Delay: 10 * time.Millisecond, EventLimit: 1 << 20})
	log := r.logFile()
	config, caller := r.onSocket(true)
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.ready()
	s := r.session()
	app := startLoad(t.Context(), 1, caller)
	during := 0
	for range *reloads {
		before := r.sandbox.TokenRequests("")
		done := make(chan error, 1)
		go func() { done <- s.Refresh(context.Background()) }()
		r.eventually("refreshing", func() bool { return r.sandbox.TokenRequests("") > before })
		if len(done) == 0 {
			during++
		}
		if err := r.load(config); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := r.sandbox.TokenRequests("") - before; n != 1 {
			t.Errorf("%d token requests for one refresh", n)
		}
		if r.session() != s {
			t.Fatal("the reload made another session")
		}
	}
	app.end()
	if n := r.presentedOnce(); n != *reloads {
		t.Errorf("%d refresh tokens were presented, want %d", n, *reloads)
	}
	r.requests(1, *reloads)
	for line := range strings.SplitSeq(read(t, log), "\n") {
		if strings.Contains(line, `"level":"error"`) || strings.Contains(line, "in use") {
			t.Error(line)
		}
	}
	severity := app.severity(time.Second)
	if severity != 0 || during < *reloads/2 {
		t.Errorf("severity %d, %d reloads during a refresh, %s", severity, during, app.first)
	}
	measured(t, 18, severity, "%d reloads, each while a refresh was under way: %d refreshes, %d of %d calls failed, longest %v, no lock time-out",
		*reloads, *reloads, app.failed.Load(), app.calls.Load(), app.longest.Round(time.Millisecond))
}

// G17: reload 1,000 times under load, while tokens expire. Target: 0 failed
// requests, 0 double refreshes.
func TestG17ReloadUnderLoad(t *testing.T) {
	r := newRig(t, sandbox.Config{TokenLifetime: 2 * time.Second, EventLimit: 1 << 20})
	config, fresh := r.onSocket(false)
	_, kept := r.onSocket(true)
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.ready()
	begin := time.Now()
	loads := []*load{startLoad(t.Context(), 2, fresh), startLoad(t.Context(), 2, kept)}
	for range *reloads {
		if err := r.load(config); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	calls, failed, closed := int64(0), int64(0), int64(0)
	for _, l := range loads {
		l.end()
		calls, failed, closed = calls+l.calls.Load(), failed+l.failed.Load(), closed+l.closed.Load()
		if l.failed.Load() > 0 {
			t.Errorf("%d of %d calls failed: %s", l.failed.Load(), l.calls.Load(), l.first)
		}
	}
	refreshes := r.presentedOnce()
	r.requests(1, refreshes)
	if calls < int64(*reloads) {
		t.Errorf("only %d calls", calls)
	}
	t.Logf("G17: %d reloads in %v, %d of %d calls failed, %d refreshes in between, 0 double; %d connections closed by Caddy before an answer and tried again", *reloads, time.Since(begin).Round(time.Millisecond), failed, calls, refreshes, closed)
}

// F19: the caller disconnects in the middle of a refresh. Expected: the refresh
// completes and commits. Best: 0.
func TestF19CallerDisconnectsMidRefresh(t *testing.T) {
	r := newRig(t, sandbox.Config{Delay: 500 * time.Millisecond, TokenLifetime: time.Second})
	r.start()
	r.ready()
	time.Sleep(1200 * time.Millisecond) // idle: expired
	r.sandbox.SetTokenLifetime(time.Hour)
	r.requests(1, 0)
	const callers = 8
	for range callers {
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, "GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r.eventually("refreshing", func() bool { return r.sandbox.TokenRequests("refresh_token") == 1 })
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	before := r.session().Status().Generation
	r.eventually("refreshed", func() bool { return r.session().Current() != nil })
	if after := r.session().Status().Generation; after != before+1 {
		t.Errorf("generation %d after %d: nothing was committed", after, before)
	}
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindAPI {
			t.Error("a request of a caller that had gone was sent")
		}
	}
	r.get("/echo")
	r.restart()
	r.get("/echo") // by the token that was committed
	r.requests(1, 1)
	r.presentedOnce()
	measured(t, 19, 0, "%d callers left while the refresh was under way: 1 refresh, committed, served to the next caller and over a restart", callers)
}

// F20: 1,000 callers at expiry. Expected: exactly one refresh, all served, a
// bounded wait. Best: 1.
func TestF20ThousandCallersAtExpiry(t *testing.T) {
	const callers, delay = 1000, 300 * time.Millisecond
	r := newRig(t, sandbox.Config{Delay: delay, TokenLifetime: 2 * time.Second})
	r.handler = "transport http {\n\t\t\tdial_timeout 30s\n\t\t}" // a thousand connections, on a slow machine
	r.start()
	r.ready()
	time.Sleep(2200 * time.Millisecond) // idle: expired
	r.sandbox.SetTokenLifetime(time.Hour)
	before := r.sandbox.TokenRequests("")
	var wg sync.WaitGroup
	var failed atomic.Int64
	longest := make(chan time.Duration, callers)
	for range callers {
		wg.Go(func() {
			begin := time.Now()
			res, text := r.do("GET", "/echo", nil)
			longest <- time.Since(begin)
			if res.StatusCode != 200 {
				failed.Add(1)
				t.Errorf("%d %s", res.StatusCode, text)
			}
		})
	}
	wg.Wait()
	close(longest)
	most := time.Duration(0)
	for took := range longest {
		most = max(most, took)
	}
	if n := r.sandbox.TokenRequests("") - before; n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	r.requests(1, 1)
	r.presentedOnce()
	if most > 10*time.Second {
		t.Errorf("a caller waited %v", most)
	}
	measured(t, 20, 1, "%d callers: 1 refresh, %d failed, the longest call took %v of which the server %v", callers, failed.Load(), most.Round(time.Millisecond), delay)
}
