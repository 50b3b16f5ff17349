//go:build linux

package oauth_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

const descriptorsEnv = "CADDY_BEARER_TEST_DESCRIPTORS" // "reserve" or "none", and the endpoint

// F50: no file descriptor is left. Expected: a refresh goes on with descriptors
// held in reserve; without them it fails closed. Best: 1.
func TestF50NoFileDescriptors(t *testing.T) {
	if how, endpoint, ok := strings.Cut(os.Getenv(descriptorsEnv), " "); ok {
		withoutDescriptors(t, how == "reserve", endpoint)
		return
	}
	t.Parallel()
	refreshes := 0
	for _, how := range []string{"reserve", "none"} {
		s := sandbox.New(sandbox.Config{})
		servers, err := s.ListenTLS()
		if err != nil {
			t.Fatal(err)
		}
		defer servers.Close()
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, servers.CAPEM, 0o600); err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestF50NoFileDescriptors$", "-test.v", "-test.timeout=60s")
		// A name, so that it must be looked up; the CA as the system's.
		endpoint := strings.Replace(servers.AuthorizationServerURL, "127.0.0.1", "localhost", 1) + "/oauth/v2/oauth-token"
		child.Env = append(os.Environ(), descriptorsEnv+"="+how+" "+endpoint, "SSL_CERT_FILE="+ca, "SSL_CERT_DIR="+t.TempDir())
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", how, err, out)
		}
		if n := s.TokenRequests("password"); n != 1 {
			t.Errorf("%s: %d password logins", how, n)
		}
		if how == "reserve" {
			refreshes = s.TokenRequests("refresh_token")
		}
	}
	measured(t, 50, 0, "a login and %d refreshes with no descriptor left; without a reserve they fail as a server that is away does, and go on when there are some", refreshes)
}

// withoutDescriptors is the child: it has a low limit, and uses it up.
func withoutDescriptors(t *testing.T, reserve bool, endpoint string) {
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	transport := oauth.NewTransport(nil, nil, nil)
	if !reserve {
		transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	r := &rig{T: t, store: store.NewMemory(), log: slog.New(slog.NewTextHandler(os.Stderr, nil)), dial: func() *http.Transport { return transport }}
	a := r.account()
	a.Client.TokenEndpoint = endpoint

	hoard, err := useUp()
	if !errors.Is(err, syscall.EMFILE) || len(hoard) < 20 {
		t.Fatalf("%d descriptors, then %v", len(hoard), err)
	}
	s := r.start(a)
	defer r.stop()
	if !reserve {
		r.fails(s, oauth.ErrUnavailable)
		r.state(s, oauth.StateAway)
		for _, f := range hoard {
			_ = f.Close()
		}
		for begin := time.Now(); s.Current() == nil && time.Since(begin) < 30*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
		if s.Current() == nil {
			t.Errorf("it doesn't recover: %s", s.Status().Detail)
		}
		return
	}
	for i := range 20 {
		if _, err := s.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatalf("refresh %d: %v", i, err)
		}
		time.Sleep(10 * time.Millisecond) // the connection is closed behind
		more, err := useUp()
		hoard = append(hoard, more...)
		if !errors.Is(err, syscall.EMFILE) {
			t.Fatal(err)
		}
	}
	t.Log(fmt.Sprint(len(hoard), " descriptors in use by others"))
}

// useUp opens files until there is no descriptor left.
func useUp() (files []*os.File, err error) {
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
}
