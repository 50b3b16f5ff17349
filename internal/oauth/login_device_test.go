package oauth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// device is an account whose user enters a code elsewhere.
func (r *loginRig) device() *oauth.Account {
	a := r.person()
	a.Grant = oauth.DeviceCode{}
	return a
}

// polls are the times of the polls, counted from the first request.
func (r *loginRig) polls(begun time.Time) (times []time.Duration) {
	for _, e := range r.tokenEvents(deviceGrant) {
		times = append(times, e.At.Sub(begun))
	}
	return times
}

// ended returns a login that has come to its end.
func (r *loginRig) ended(l *oauth.Login) *oauth.Login {
	r.Helper()
	look, err := r.sessions.LookUpLogin(l.ID)
	if err != nil || !look.Done {
		r.Fatalf("LookUpLogin: %+v, %v", look, err)
	}
	return look
}

// RFC 8628: a login from the prompt to the tokens.
func TestDeviceLogin(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.device())
		defer r.stop()
		begun := time.Now()
		l := r.begin(s, oauth.LoginStart{})
		if l.URL != "" || l.Device == nil || l.ID == "" || l.Key != s.Key() {
			t.Fatalf("%+v", l)
		}
		if d := l.Device; d.UserCode == "" || d.VerificationURI != r.endpoints.Verification && !strings.HasPrefix(d.VerificationURIComplete, d.VerificationURI) {
			t.Errorf("%+v", d)
		}
		if left := time.Until(l.Expires); left <= 0 || left > 10*time.Minute {
			t.Errorf("the login expires in %v", left)
		}
		requests := r.wire.to(r.endpoints.DeviceAuthorization)
		if len(requests) != 1 || requests[0].Method != http.MethodPost {
			t.Fatalf("%d device authorization requests", len(requests))
		}
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("sandbox-client:sandbox-secret"))
		sameParameters(t, requests[0].Form, map[string]string{"scope": "all"})
		if requests[0].Header.Get("Authorization") != basic {
			t.Error("the client didn't authenticate")
		}

		after(12 * time.Second)
		if look, err := r.sessions.LookUpLogin(l.ID); err != nil || look.Done || look.Device == nil || look.Device.UserCode != l.Device.UserCode {
			t.Errorf("LookUpLogin: %+v, %v", look, err)
		}
		r.fails(s, oauth.ErrLoginRequired)
		if err := r.sandbox.ApproveDevice(l.Device.UserCode, "sandbox-user"); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Second)
		if look := r.ended(l); look.Err != nil {
			t.Error(look.Err)
		}
		r.token(s)
		if got := fmt.Sprint(r.polls(begun)); got != "[5s 10s 15s]" {
			t.Errorf("polls at %s", got)
		}
		for _, p := range r.wire.to(r.endpoints.Token) {
			sameParameters(t, p.Form, map[string]string{"grant_type": deviceGrant, "device_code": "*"})
			if p.Header.Get("Authorization") != basic {
				t.Error("the client didn't authenticate")
			}
		}
		after(time.Hour)
		if n := r.sandbox.TokenRequests(deviceGrant); n != 3 {
			t.Errorf("%d polls", n)
		}
	})
}

// An answer under way when the program ends is waited for: the code is spent.
func TestCloseDuringADeviceLogin(t *testing.T) {
	t.Parallel()
	t.Run("between polls", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.device())
			r.begin(s, oauth.LoginStart{})
			after(12 * time.Second)
			begun := time.Now()
			r.stop()
			if took := time.Since(begun); took != 0 {
				t.Errorf("Close took %v", took)
			}
			after(time.Hour)
			if n := r.sandbox.TokenRequests(deviceGrant); n != 2 {
				t.Errorf("%d polls", n)
			}
			if _, err := s.BeginLogin(r.Context(), oauth.LoginStart{}); !errors.Is(err, oauth.ErrLoginFailed) {
				t.Errorf("BeginLogin: %v", err)
			}
		})
	})
	t.Run("during the poll that is granted", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 3 * time.Second}, func(r *loginRig) {
			s := r.start(r.device())
			l := r.begin(s, oauth.LoginStart{})
			if err := r.sandbox.ApproveDevice(l.Device.UserCode, "sandbox-user"); err != nil {
				t.Fatal(err)
			}
			after(6 * time.Second)
			r.stop()
			s = r.start(r.device())
			defer r.stop()
			r.token(s)
		})
	})
}
