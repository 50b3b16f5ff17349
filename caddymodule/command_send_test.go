package caddymodule

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

// fakeAdmin is an admin endpoint that gives answers by path; to others it gives
// none.
func fakeAdmin(t *testing.T, answers map[string]string) *portalRig {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // without that, it isn't told when the caller goes
		text, ok := answers[r.URL.Path]
		if !ok {
			<-r.Context().Done()
			return
		}
		_, _ = w.Write([]byte(text))
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return &portalRig{rig: &rig{T: t}, admin: "unix/" + socket}
}

// An admin endpoint that takes a connection and says nothing holds nobody.
func TestMuteAdmin(t *testing.T) {
	r := fakeAdmin(t, nil)
	tell, do := tellTimeout, doTimeout
	tellTimeout, doTimeout = 200*time.Millisecond, 400*time.Millisecond
	defer func() { tellTimeout, doTimeout = tell, do }()
	began := time.Now()
	r.runCommand(statusCommand()).ends(1, "it takes the connection and doesn't answer; look at the server's log")
	r.runCommand(renewCommand(), "erp").ends(1, "doesn't answer")
	r.runCommand(waitCommand(), "--timeout", "300ms").ends(1, "is not ready at "+r.admin, "doesn't answer")
	r.runCommand(loginCommand(), "erp", "--timeout", "100ms").ends(1, "not finished within 100ms")
	if took := time.Since(began); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A health check, which looks once, has as long as any look; one of many has
// what is left.
func TestLookFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ timeout, left, want time.Duration }{
		{0, 0, lookAtMost}, {time.Minute, time.Minute, lookAtMost}, {time.Minute, 3 * time.Second, 3 * time.Second}, {time.Minute, -1, time.Second},
	} {
		if got := lookFor(tt.timeout, tt.left); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// Answers that this program doesn't know end it with a reason.
func TestStrangeAdmin(t *testing.T) {
	r := fakeAdmin(t, map[string]string{"/bearer/status": `{"accounts": []}`, "/bearer/users": `{"accounts"`})
	r.runCommand(loginCommand(), "erp").ends(1, "told of 0 accounts in place of one")
	r.runCommand(statusCommand(), "erp").ends(1, "reading the admin endpoint's answer: ")
	r.runCommand(waitCommand(), "erp", "--timeout", "0").ends(1, "reading the admin endpoint's answer: ")
}
