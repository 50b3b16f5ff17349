package oauth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An error answer never brings tokens.
func TestReadAnswerErrorWithTokens(t *testing.T) {
	t.Parallel()
	for _, status := range []int{302, 400, 401, 403, 404, 429, 500, 502, 503} {
		a := readAnswer(status, "application/json", []byte(good), true)
		if !a.Tokens.RefreshToken.Empty() || !a.Tokens.AccessToken.Empty() || a.Lifetime != 0 {
			t.Errorf("%d: there are tokens", status)
		}
	}
}

func TestReadAnswerShowsNothing(t *testing.T) {
	t.Parallel()
	tests := []struct{ code, want string }{
		{"invalid_grant", "invalid_grant"},
		{"x.y-z_a", "x.y-z_a"},
		{"Sommer", "other"},
		{"hunter2", "other"},
		{strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{strings.Repeat("CANARY", 2000), "other"},
		{strings.Repeat("a", 65), "other"},
		{"CANARY\r\nSet-Cookie: a=b", "other"},
		{"\x1b[31mCANARY\x1b[0m", "other"},
		{"CANARY with spaces", "other"},
		{"<b>CANARY</b>", "other"},
		{"CANARY\x00", "other"},
		{"CANARYé", "other"},
		{"", ""},
	}
	for _, tt := range tests {
		body, _ := json.Marshal(map[string]string{"error": tt.code, "error_description": "CANARY", "error_uri": "https://CANARY"})
		for _, status := range []int{200, 400, 401, 403, 404, 500, 503} {
			a := readAnswer(status, "application/json", body, true)
			if a.Code != tt.want {
				t.Errorf("%d %.40q: code %q, want %q", status, tt.code, a.Code, tt.want)
			}
			if s := fmt.Sprintf("%+v", a); strings.Contains(s, "CANARY") {
				t.Errorf("%d %.40q: it shows in %s", status, tt.code, s)
			}
		}
	}
	// Nor what the header says, or a page.
	if a := readAnswer(403, "text/html; charset=utf-8", []byte("<html></html>"), true); !strings.HasSuffix(a.Detail, "403 (text-html)") {
		t.Error(a.Detail)
	}
	for _, media := range []string{"text/canary", "canary/html", "text/CANARY\x1b", "CANARY CANARY", "text/" + strings.Repeat("CANARY", 50), "text/html; x=CANARY"} {
		a := readAnswer(500, media, []byte("<html>CANARY</html>"), true)
		if strings.Contains(strings.ToUpper(a.Detail), "CANARY") {
			t.Errorf("media type %.40q shows in %s", media, a.Detail)
		}
	}
}

func TestCredentialsRefused(t *testing.T) {
	t.Parallel()
	const page = "<html></html>"
	for _, status := range []int{400, 401, 403} {
		for _, body := range []struct{ media, text string }{
			{"application/json", `{"error":"invalid_grant"}`}, {"application/json", `{"error":"access_denied"}`},
			{"text/html", page}, {"text/plain", "no"}, {"", ""},
		} {
			if !readAnswer(status, body.media, []byte(body.text), true).credentialsRefused() {
				t.Errorf("%d %s %q does not count as a refusal of a sign-in", status, body.media, body.text)
			}
		}
	}
	if !readAnswer(200, "application/json", []byte(`{"error":"invalid_grant"}`), true).credentialsRefused() {
		t.Error("200 with invalid_grant does not count as a refusal of a sign-in")
	}
	for _, status := range []int{200, 302, 404, 408, 429, 500, 502, 503, 504} {
		if readAnswer(status, "text/html", []byte(page), true).credentialsRefused() {
			t.Errorf("%d with HTML counts as a refusal of a sign-in", status)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		want  time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"2", 2 * time.Second},
		{" 120 ", 2 * time.Minute},
		{"300", 5 * time.Minute},
		{"301", 5 * time.Minute},
		{"9223372036854775807", 5 * time.Minute},
		{"18446744073709551616", 5 * time.Minute},
		{strings.Repeat("9", 5000), 5 * time.Minute},
		{"-1", 0},
		{"+5", 0},
		{"1.5", 0},
		{"1e3", 0},
		{"0x10", 0},
		{"5, 10", 0},
		{"99999999999999999999x", 0},
		{"soon", 0},
		{"5\r\nX: y", 0},
		{"Sun, 01 Mar 2026 12:00:30 GMT", 30 * time.Second},
		{"Sunday, 01-Mar-26 12:00:30 GMT", 30 * time.Second},
		{"Sun Mar  1 12:00:30 2026", 30 * time.Second},
		{"Sun, 01 Mar 2026 11:59:59 GMT", 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 5 * time.Minute},
	}
	for _, tt := range tests {
		if got := retryAfter(tt.value, now); got != tt.want {
			t.Errorf("retryAfter(%.40q) = %v, want %v", tt.value, got, tt.want)
		}
	}
}

func TestIsB64Token(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a", "Z9", "-._~+/", "eyJ.e30.a-_b", "abc=", "abc==", strings.Repeat("x", 1<<16)} {
		if !isB64Token(s) {
			t.Errorf("%.40q is not taken", s)
		}
	}
	for _, s := range []string{"", "=", "==", "=a", "a=b", "a b", " a", "a\r\nb", "a\x00", "aé", "a,b", `a"b`, "a:b", "a%20", "a\x7f"} {
		if isB64Token(s) {
			t.Errorf("%q is taken", s)
		}
	}
}
