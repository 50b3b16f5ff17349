//go:build linux

package reliability

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The rows of the fault matrix that kill the program, one kill each.

// killOnce kills at a point of a refresh, starts anew, and returns the bench,
// the sequence number of the server's last event before, and the outcome so far.
func killOnce(t *testing.T, grant string, grace time.Duration, point string) (b *bench, base int, out outcome) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds and kills the program")
	}
	b = newBench(t, grant, grace)
	if landed, err := b.crash(crashAt(point), &out); err != nil || !landed {
		t.Fatalf("%s: landed is %t, %v\n%s", point, landed, err, history(b))
	}
	base = b.last()
	if err := b.arm(""); err != nil {
		t.Fatal(err)
	}
	if err := b.victim.start(); err != nil {
		t.Fatal(err)
	}
	return b, base, out
}

// wantServed calls the API until the program listens: the first answer must be
// the API's. Then a refresh must work.
func (b *bench) wantServed(t *testing.T) {
	t.Helper()
	if r, err := b.answer(); err != nil || r.status != 200 {
		t.Errorf("the first call: %v, %v", r, err)
	}
	if good, err := b.works(); err != nil || !good {
		t.Errorf("a refresh: %t, %v\n%s", good, err, history(b))
	}
}

// wantRequests compares the token requests since base with the wanted: grant
// and what came of it.
func (b *bench) wantRequests(t *testing.T, base int, want string) {
	t.Helper()
	var got []string
	for _, e := range b.since(base, "") {
		outcome := e.Error
		if e.Issued != "" {
			outcome = "issued"
		}
		got = append(got, e.Grant+" "+outcome)
	}
	if all := strings.Join(got, ", "); all != want {
		t.Errorf("token requests after the kill: %s; want %s", all, want)
	}
}

// F1: kill -9 at W0, W1 · restart, probe, continue · best 0.
func TestF01KillBeforeTheServerActed(t *testing.T) {
	for _, point := range []string{"request-prepared", "the server has the request"} {
		b, base, _ := killOnce(t, "refresh_token", 0, point)
		b.wantServed(t)
		for _, e := range b.since(base, "") {
			if e.Issued == "" {
				t.Errorf("%s: a refresh was refused\n%s", point, history(b))
			}
		}
	}
	t.Log("F1: severity 0; a kill before the server acted was made good by the same refresh token in 2 of 2 cases")
}

// F2: kill -9 at W2/W3, grace ≥ restart time · replay d inside grace · best 0.
func TestF02KillWithGrace(t *testing.T) {
	for _, point := range []string{"the server acted", "answer-judged"} {
		b, base, out := killOnce(t, "refresh_token", 30*time.Second, point)
		if out.unavoidable != 1 {
			t.Errorf("%s: the new refresh token is in a file", point)
		}
		b.wantServed(t)
		if e := b.since(base, "refresh_token")[0]; e.Issued == "" {
			t.Errorf("%s: the replay was refused\n%s", point, history(b))
		}
	}
	t.Log("F2: severity 0; the spent refresh token was replayed within the grace in 2 of 2 cases")
}

// F3: kill -9 at W2/W3, no grace, password · invalid_grant → one login · best 2.
func TestF03KillWithoutGracePassword(t *testing.T) {
	for _, point := range []string{"the server acted", "answer-judged"} {
		b, base, _ := killOnce(t, "password", 0, point)
		begun := time.Now()
		if r, err := b.answer(); err != nil || r.lost() {
			t.Errorf("%s: %v, %v", point, r, err)
		}
		for len(b.since(base, "password")) == 0 && time.Since(begun) < patience {
			time.Sleep(time.Millisecond)
		}
		b.wantServed(t)
		b.wantRequests(t, base, "refresh_token invalid_grant, password issued, refresh_token issued") // the last is ours
	}
	t.Log("F3: severity 2; one login by password in 2 of 2 cases")
}

// F5: same, nothing else · login_required within 1 s of the first try, clear
// 503, no retry loop · best 3 (unavoidable).
func TestF05KillWithoutGraceNothingElse(t *testing.T) {
	var longest time.Duration
	// Somebody calls while the start still tries the spent refresh token, or
	// the first one comes later.
	for _, pause := range []time.Duration{0, 300 * time.Millisecond} {
		b, base, _ := killOnce(t, "refresh_token", 0, "the server acted")
		for begun := time.Now(); pause > 0 && len(b.since(base, "")) == 0 && time.Since(begun) < patience; {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(pause)
		if _, err := b.answer(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		var r reply
		for time.Since(begun) < 3*time.Second && !r.lost() {
			r, _ = b.call()
		}
		took := time.Since(begun)
		if r.status != 503 || r.code != "login_required" || took > time.Second {
			t.Errorf("first call after %v: %v later: %v\n%s", pause, took.Round(time.Millisecond), r, history(b))
			continue
		}
		longest = max(longest, took)
		if !strings.Contains(r.text, "caddy bearer import erp") {
			t.Errorf("nobody is told what to do: %s", r.text)
		}
		for range 30 {
			if r, err := b.call(); err != nil || r.status != 503 || r.code != "login_required" {
				t.Fatalf("later: %v, %v", r, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		b.wantRequests(t, base, "refresh_token invalid_grant")
		if err := b.mend(); err != nil {
			t.Error(err)
		}
		b.wantServed(t)
	}
	t.Logf("F5: severity 3, which nothing can avoid; 503 login_required %v after the first try, 1 token request", longest.Round(time.Millisecond))
}

// F6: kill -9 at W4/W5 · new refresh token used · best 0.
func TestF06KillOnceDurable(t *testing.T) {
	for _, point := range []string{"spill-saved#2", "transaction-ended#2", "flight-unlocked"} {
		b, base, _ := killOnce(t, "refresh_token", 0, point)
		current := b.current()
		b.wantServed(t)
		if e := b.since(base, "refresh_token")[0]; e.Presented != current || e.Issued == "" {
			t.Errorf("%s: the next refresh presented %s, want %s\n%s", point, e.Presented, current, history(b))
		}
		b.wantRequests(t, base, "refresh_token issued") // ours
	}
	t.Log("F6: severity 0; the new refresh token was used in 3 of 3 cases, without a further token request")
}

// F21: SIGTERM mid-refresh · waits ≤ limit, commits · best 0.
func TestF21SIGTERMMidRefresh(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and ends the program")
	}
	b := newBench(t, "refresh_token", 0)
	base := b.last()
	h := b.holdAt(sandbox.Committed)
	go func() { _, _ = b.refresh() }()
	select {
	case <-h.reached:
	case <-time.After(patience):
		t.Fatal("the refresh doesn't begin")
	}
	_ = b.process.Process.Signal(syscall.SIGTERM)
	if b.ended(500*time.Millisecond) == nil {
		t.Error("it didn't wait for the answer")
	}
	b.end(h, true)
	begun := time.Now()
	if err := b.ended(patience); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if !b.ending.Exited() || b.ending.ExitStatus() != 0 {
		t.Errorf("it ended with %v\n%s", b.process.ProcessState, b.log())
	}
	var out outcome
	if seen, err := b.judge(base, &out); err != nil || seen != durable {
		t.Errorf("the refresh ended in %s, %v", seen, err)
	}
	if err := b.victim.start(); err != nil {
		t.Fatal(err)
	}
	b.wantServed(t)
	b.wantRequests(t, base, "refresh_token issued, refresh_token issued")
	t.Logf("F21: severity 0; it waited for the answer, kept it, and ended %v later", took.Round(time.Millisecond))
}
