package oauth_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

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
				kind := oauth.ErrLoginFailed
				if tt.name == "access_denied" {
					kind = oauth.ErrLoginDenied
				}
				if e := r.refused(look.Err, kind); !strings.Contains(e.Detail, tt.detail) {
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
