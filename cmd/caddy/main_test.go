package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

var steady = flag.Duration("steady", 12*time.Second, "how long TestSteadyTraffic calls the proxy")

// TestSteadyTraffic calls the API through the proxy while tokens live 5 s and
// every refresh token works once, and kills the proxy in the middle.
func TestSteadyTraffic(t *testing.T) {
	t.Parallel()
	sb, _, p := newSandboxProxy(t, sandbox.Config{TokenLifetime: 5 * time.Second})
	p.start()

	ctx, cancel := context.WithTimeout(t.Context(), *steady)
	defer cancel()
	var down atomic.Bool
	kills := time.AfterFunc(*steady/2, func() {
		down.Store(true)
		p.kill(syscall.SIGKILL)
		p.start()
		down.Store(false)
	})
	defer kills.Stop()
	calls, failures := 0, 0
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		before := down.Load()
		res, err := http.Get("http://" + p.address + "/echo")
		if err != nil {
			if !before && !down.Load() {
				failures++
				t.Errorf("the proxy is up, but: %v", err)
			}
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if calls++; res.StatusCode != 200 {
			failures++
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	checkRotation(t, sb)
	t.Logf("%d calls, %d failures, %d refreshes, %d sign-ins", calls, failures,
		sb.TokenRequests("refresh_token"), sb.TokenRequests("password"))
	if n := sb.TokenRequests("refresh_token"); n < int(*steady/(6*time.Second)) {
		t.Errorf("only %d refreshes", n)
	}
}

// checkRotation reads the server's own log: every refresh token was presented
// once. Only if the kill fell between the server's commit and our fsync, one is
// presented again, refused, and followed by one sign-in.
func checkRotation(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	times, again := map[string]int{}, 0
	for _, e := range sb.Events() {
		if e.Kind == sandbox.KindToken && e.Grant == "refresh_token" {
			if times[e.Presented]++; times[e.Presented] > 1 {
				again++
			}
		}
	}
	if again > 1 {
		t.Errorf("refresh tokens were used more than once: %v", times)
	}
	if n := sb.TokenRequests("password"); n != 1+again {
		t.Errorf("%d sign-ins, want %d", n, 1+again)
	}
}

// F15: two processes, the same store. Expected: the second exits with a code and
// a message, without any request to the authorization server. Best: 0.
func TestF15TwoProcessesSameStore(t *testing.T) {
	t.Parallel()
	sb, _, p := newSandboxProxy(t, sandbox.Config{TokenLifetime: time.Second})
	p.start()
	calls, failed := 0, 0
	call := func() {
		res, err := http.Get("http://" + p.address + "/echo")
		if calls++; err != nil || res.StatusCode != 200 {
			failed++
			t.Error(res, err)
			return
		}
		res.Body.Close()
	}
	call()
	text, err := os.ReadFile(p.dir + "/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(p.address)
	other := strings.NewReplacer("admin.sock", "admin2.sock", ":"+port+" {", ":0 {", "client_id sandbox-client", "client_id second-client").Replace(string(text))
	p.write("Caddyfile2", other)
	begin := time.Now()
	second := p.command("run", "--config", p.dir+"/Caddyfile2")
	out := new(bytes.Buffer)
	second.Stdout, second.Stderr = out, out
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- second.Wait() }()
	for running := true; running; { // nobody notices while the second one tries
		select {
		case err = <-ended:
			running = false
		case <-time.After(100 * time.Millisecond):
			call()
		}
	}
	took := time.Since(begin)
	if err == nil || !strings.Contains(out.String(), "in use") || !strings.Contains(out.String(), "tokens.db") {
		t.Errorf("%v\n%s", err, out)
	}
	if took > 20*time.Second {
		t.Errorf("it ended after %v", took)
	}
	call()
	seconds := 0
	for _, e := range sb.Events() {
		if e.Kind == sandbox.KindToken && e.ClientID != "sandbox-client" {
			seconds++
		}
	}
	if seconds > 0 || sb.TokenRequests("password") != 1 {
		t.Errorf("%d token requests of the second process, %d sign-ins", seconds, sb.TokenRequests("password"))
	}
	checkRotation(t, sb)
	t.Logf("F15: severity 0; the second process ended after %v with exit code %d and the name of the file, %d token requests; %d of %d calls through the first one failed",
		took.Round(time.Millisecond), second.ProcessState.ExitCode(), seconds, failed, calls)
}
