package interop

import (
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var steady = flag.Duration("steady", 15*time.Second, "how long TestSteadyTraffic calls the proxy")

// TestSteadyTraffic calls the API through the proxy while tokens live 5 s,
// every refresh token works once and every refresh kills the token in use, and
// kills the proxy in the middle. Not one request may fail.
func TestSteadyTraffic(t *testing.T) {
	const lifetime = 5 * time.Second
	c := withLifetime(lifetime)
	c.APIDelay = 20 * time.Millisecond // so that each refresh meets requests in flight
	r := newRig(t, c, nil)
	p := newProxy(r)
	p.run()

	tr := &traffic{proxy: p, end: time.Now().Add(*steady)}
	var callers sync.WaitGroup
	for n := range 4 {
		callers.Go(func() { tr.caller(n) })
	}
	time.Sleep(*steady / 2)
	tr.epoch.Add(1)
	p.stop(syscall.SIGKILL)
	time.Sleep(200 * time.Millisecond) // the server may still be at the last request
	killed := time.Now()
	if err := p.start(); err != nil {
		t.Error(err)
	}
	tr.epoch.Add(1)
	callers.Wait()

	refreshes, signIns, err := rotation(r.TokenEvents(), killed)
	if err != nil {
		t.Error(err)
	}
	_, refused := r.APIRequests()
	t.Logf("%v: %d calls, %d failures, %d uncounted during the restart; %d refreshes, %d sign-ins, %d refused by the API and sent again",
		*steady, tr.calls.Load(), tr.failures.Load(), tr.uncounted.Load(), refreshes, signIns, refused)
	if refreshes < int(*steady/(2*lifetime)) {
		t.Errorf("only %d refreshes", refreshes)
	}
	if tr.calls.Load() == 0 {
		t.Error("no call was counted")
	}
	if out, err := p.bearer("status"); err != nil || !strings.Contains(out, "ready") {
		t.Errorf("%v\n%s", err, out)
	}
}

// traffic is what the callers share.
type traffic struct {
	*proxy
	end time.Time
	// epoch is odd while the proxy is down. A request counts if the proxy was up
	// from its start to its end.
	epoch                      atomic.Int64
	calls, failures, uncounted atomic.Int64
}

// caller calls, one request after the other, without a body and with one.
func (tr *traffic) caller(n int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	body := strings.Repeat("0123456789abcdef", n<<10) // up to 48 KiB
	for i := 0; time.Now().Before(tr.end); i++ {
		send := body
		if i%2 == 0 {
			send = ""
		}
		before := tr.epoch.Load()
		status, code, err := tr.call(client, send)
		switch {
		case tr.epoch.Load() != before || before%2 == 1:
			tr.uncounted.Add(1)
			client.CloseIdleConnections() // they lead to the process that is gone
		case err != nil || status != http.StatusOK:
			tr.failures.Add(1)
			tr.Errorf("%d %s %v", status, code, err)
			fallthrough
		default:
			tr.calls.Add(1)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rotation reads the server's log: every refresh token was presented once and
// granted, and there was one sign-in. Only a token from before the kill may come
// again after it, when the kill fell between the server's commit and the
// proxy's: that is refused, and one more sign-in follows.
func rotation(events []TokenEvent, killed time.Time) (refreshes, signIns int, err error) {
	granted, again := map[string]time.Time{}, 0
	for _, e := range events {
		at, known := granted[e.Presented]
		switch {
		case e.Grant == "password" && e.Status == http.StatusOK:
			signIns++
		case e.Grant == "refresh_token" && e.Status == http.StatusOK && !known:
			refreshes++
			granted[e.Presented] = e.At
		case known && at.Before(killed) && e.At.After(killed) && e.Code == "invalid_grant":
			again++
		default:
			return refreshes, signIns, fmt.Errorf("reading the log: this request must not be there: %+v", e)
		}
	}
	if again > 1 || signIns != 1+again {
		err = fmt.Errorf("reading the log: %d sign-ins, and %d times a spent refresh token", signIns, again)
	}
	return refreshes, signIns, err
}

func TestRotation(t *testing.T) {
	t.Parallel()
	start := time.Now()
	event := func(second int, grant, token string, status int) TokenEvent {
		e := TokenEvent{At: start.Add(time.Duration(second) * time.Second), Grant: grant, Presented: token, Status: status}
		if status != http.StatusOK {
			e.Code = "invalid_grant"
		}
		return e
	}
	signIn := event(0, "password", "", 200)
	for _, tt := range []struct {
		name   string
		events []TokenEvent
		ok     bool
	}{
		{"each once", []TokenEvent{signIn, event(1, "refresh_token", "a", 200), event(3, "refresh_token", "b", 200)}, true},
		{"lost to the kill", []TokenEvent{signIn, event(1, "refresh_token", "a", 200), event(3, "refresh_token", "a", 400), event(3, "password", "", 200)}, true},
		{"twice before the kill", []TokenEvent{signIn, event(0, "refresh_token", "a", 200), event(1, "refresh_token", "a", 400), event(1, "password", "", 200)}, false},
		{"twice after the kill", []TokenEvent{signIn, event(3, "refresh_token", "a", 200), event(4, "refresh_token", "a", 400), event(4, "password", "", 200)}, false},
		{"granted twice", []TokenEvent{signIn, event(1, "refresh_token", "a", 200), event(3, "refresh_token", "a", 200)}, false},
		{"two sign-ins", []TokenEvent{signIn, event(3, "password", "", 200)}, false},
		{"refused", []TokenEvent{signIn, event(3, "refresh_token", "a", 400)}, false},
		{"nothing", nil, false},
	} {
		if _, _, err := rotation(tt.events, start.Add(2*time.Second)); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
