package oauth_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What the device endpoint says is shown to a person, so it is looked at first.
func TestHostileDeviceAnswers(t *testing.T) {
	t.Parallel()
	good := fmt.Sprintf(devicePrompt, "600", "5")
	bad := map[string]string{
		"javascript":            strings.Replace(good, "https://as.test/device", "javascript:alert(1)", 1),
		"http":                  strings.Replace(good, "https://", "http://", 1),
		"data":                  strings.Replace(good, "https://as.test/device", "data:text/html,x", 1),
		"a user in front":       strings.Replace(good, "https://as.test", "https://as.test@evil.test", 1),
		"a control character":   strings.Replace(good, "/device", `/\u001b[2J`, 1),
		"a bidi override":       strings.Replace(good, "/device", `/\u202e`, 1),
		"no host":               strings.Replace(good, "as.test/device", "", 1),
		"relative":              strings.Replace(good, "https://as.test", "", 1),
		"too long":              strings.Replace(good, "/device", "/"+strings.Repeat("a", 5000), 1),
		"no verification_uri":   strings.Replace(good, "verification_uri", "x", 1),
		"no user_code":          strings.Replace(good, "user_code", "x", 1),
		"no device_code":        strings.Replace(good, "device_code", "x", 1),
		"no expires_in":         strings.Replace(good, "expires_in", "x", 1),
		"expires_in 0":          strings.Replace(good, "600", "0", 1),
		"user_code with escape": strings.Replace(good, "BCDF", `\u001b[31m`, 1),
		"user_code with a line": strings.Replace(good, "BCDF", `a\nb`, 1),
		"a long user_code":      strings.Replace(good, "BCDF", strings.Repeat("B", 65), 1),
		"not JSON":              "<html>",
		"an array":              "[]",
		"empty":                 "",
		"two values":            good + good,
		"endless":               good[:len(good)-1] + `,"x":"` + strings.Repeat("x", 70<<10) + `"}`,
	}
	for name, prompt := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.device())
				defer r.stop()
				times := r.script(prompt, canned{status: 500})
				l, err := s.BeginLogin(r.Context(), oauth.LoginStart{})
				if l != nil {
					t.Errorf("it is shown: %+v", l.Device)
				}
				e := r.refused(err, oauth.ErrLoginFailed)
				if strings.ContainsAny(e.Detail, "<\x1b\u202e") || strings.Contains(e.Detail, "evil") {
					t.Errorf("the error quotes the answer: %q", e.Detail)
				}
				after(time.Minute)
				if len(*times) != 0 {
					t.Error("it asks for tokens")
				}
			})
		})
	}
	t.Run("a complete URI that can't be shown is left out", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.device())
			defer r.stop()
			for complete, want := range map[string]string{"javascript:alert(1)": "", "http://evil.test/": "", "https://as.test/device?user_code=BCDF-GHJK": "https://as.test/device?user_code=BCDF-GHJK"} {
				r.script(good[:len(good)-1]+`,"verification_uri_complete":"`+complete+`"}`, errorCode("access_denied"))
				if l := r.begin(s, oauth.LoginStart{}); l.Device.VerificationURIComplete != want {
					t.Errorf("%q is shown", l.Device.VerificationURIComplete)
				}
				after(time.Minute)
			}
		})
	})
	for _, tt := range []struct{ name, body, detail string }{{"refused", `{"error":"unauthorized_client"}`, "400 unauthorized_client"}, {"hostile", `{"error":"<b>"}`, "400 other"}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.device())
				defer r.stop()
				r.wire.answers(func(sent) *http.Response { return reply(400, tt.body) })
				_, err := s.BeginLogin(r.Context(), oauth.LoginStart{})
				if e := r.refused(err, oauth.ErrLoginFailed); !strings.Contains(e.Detail, tt.detail) {
					t.Errorf("%q", e.Detail)
				}
			})
		})
	}
}

// B27: a server that doesn't answer holds nobody for ever, whoever asks.
func TestDeviceEndpointThatHangs(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		a := r.device()
		a.Client.Transport = hanging{}
		s := r.start(a)
		defer r.stop()
		ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		_, err := s.BeginLogin(ctx, oauth.LoginStart{})
		r.refused(err, oauth.ErrLoginFailed)
		if took := time.Since(begun); took > a.RequestTimeout {
			t.Errorf("BeginLogin took %v; request_timeout is %v", took, a.RequestTimeout)
		}
	})
}
