package oauth_test

import (
	"context"
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

// A canned answer of the token endpoint.
type canned struct {
	status           int
	body, retryAfter string
}

func (c canned) reply() *http.Response {
	res := reply(c.status, c.body)
	res.Header.Set("Retry-After", c.retryAfter)
	return res
}

func errorCode(code string) canned { return canned{400, `{"error":"` + code + `"}`, ""} }

// script answers the device endpoint with prompt, and the polls one by one;
// with the last of them from then on. It notes when they come.
func (r *loginRig) script(prompt string, polls ...canned) (times *[]time.Duration) {
	begun := time.Now()
	times = new([]time.Duration)
	r.wire.answers(func(s sent) *http.Response {
		switch {
		case s.URL.Path == "/oauth/v2/oauth-device":
			return reply(200, prompt)
		case s.Form.Get("grant_type") != deviceGrant:
			return nil
		}
		*times = append(*times, time.Since(begun))
		return polls[min(len(*times), len(polls))-1].reply()
	})
	return times
}

const devicePrompt = `{"device_code":"the-device-code","user_code":"BCDF-GHJK","verification_uri":"https://as.test/device","expires_in":%s,"interval":%s}`

// B34: how often it asks, and until when.
func TestDevicePolls(t *testing.T) {
	t.Parallel()
	grant := canned{200, `{"access_token":"an-access-token","token_type":"bearer","expires_in":600,"refresh_token":"a-refresh-token"}`, ""}
	pending, slower := errorCode("authorization_pending"), errorCode("slow_down")
	lost, busy := canned{status: 500}, canned{503, "", "90"}
	prompt := func(expires, interval string) string { return fmt.Sprintf(devicePrompt, expires, interval) }
	tests := []struct {
		name   string
		prompt string
		polls  []canned
		times  string
		detail string // why it came to nothing; empty: it didn't
	}{
		{"interval", prompt("600", "2"), []canned{pending, grant}, "[2s 4s]", ""},
		{"interval as text", prompt(`"600"`, `"7"`), []canned{pending, grant}, "[7s 14s]", ""},
		{"no interval: 5 s", strings.Replace(prompt("600", "1"), `,"interval":1`, "", 1), []canned{pending, grant}, "[5s 10s]", ""},
		{"interval 0: 5 s", prompt("600", "0"), []canned{pending, grant}, "[5s 10s]", ""},
		{"interval below 0: 5 s", prompt("600", "-3"), []canned{pending, grant}, "[5s 10s]", ""},
		{"a huge interval: a minute", prompt("600", "1e9"), []canned{pending, grant}, "[1m0s 2m0s]", ""},
		{"slow_down: 5 s more, for good", prompt("600", "5"), []canned{slower, pending, slower, pending, grant}, "[5s 15s 25s 40s 55s]", ""},
		{"access_denied", prompt("600", "5"), []canned{pending, errorCode("access_denied")}, "[5s 10s]", "access_denied"},
		{"expired_token", prompt("600", "5"), []canned{errorCode("expired_token")}, "[5s]", "expired_token"},
		{"invalid_grant", prompt("600", "5"), []canned{errorCode("invalid_grant")}, "[5s]", "invalid_grant"},
		{"invalid_client", prompt("600", "5"), []canned{{401, `{"error":"invalid_client"}`, ""}}, "[5s]", "invalid_client"},
		{"a code of another kind", prompt("600", "5"), []canned{errorCode("<script>")}, "[5s]", "other"},
		{"its end", prompt("12", "5"), []canned{pending}, "[5s 10s]", "nobody entered the code in time"},
		{"lost answers: more and more seldom, a minute at most", prompt("600", "5"), []canned{lost, lost, lost, lost, lost, grant}, "[5s 15s 35s 1m15s 2m15s 3m15s]", ""},
		{"the server is busy", prompt("600", "5"), []canned{busy, grant}, "[5s 1m35s]", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.device())
				defer r.stop()
				times := r.script(tt.prompt, tt.polls...)
				l := r.begin(s, oauth.LoginStart{})
				after(8 * time.Minute)
				look := r.ended(l)
				if got := fmt.Sprint(*times); got != tt.times {
					t.Errorf("polls at %s, want %s", got, tt.times)
				}
				if tt.detail == "" {
					if look.Err != nil || s.Status().SignedIn.IsZero() {
						t.Errorf("%v", look.Err)
					}
					return
				}
				if e := r.refused(look.Err, oauth.ErrLoginFailed); !strings.Contains(e.Detail, tt.detail) {
					t.Errorf("%q", e.Detail)
				}
				r.empty(s)
				after(time.Hour)
				if got := fmt.Sprint(*times); got != tt.times {
					t.Errorf("polls at %s, want %s", got, tt.times)
				}
			})
		})
	}
}

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
