package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	shownCode   = regexp.MustCompile(`\A([a-z_.-]{1,64})?\z`)
	shownDetail = regexp.MustCompile(`\A(` +
		`the answer of the token endpoint [a-z0-9_, A-Z]+|` +
		`the access_token has characters that no bearer token may have \(RFC 6750 §2\.1\)|` +
		`the token endpoint answered [0-9]{3}( [a-z_.-]{1,64}| \((text-(html|plain|xml)|application-(xhtml-xml|xml|json|problem-json)|other)\))?` +
		`(: is token_endpoint right\?|; redirects are not followed: is token_endpoint right\?)?` +
		`)?\z`)
	bearerToken = regexp.MustCompile(`\A[A-Za-z0-9._~+/-]+=*\z`)
)

func FuzzReadAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(good), true)
	f.Add(200, "text/plain", []byte(good[:60]), false)
	f.Add(400, "application/json", []byte(`{"error":"invalid_grant","error_description":"x"}`), true)
	f.Add(200, "", []byte(`{"refresh_token":"a","refresh_token":2,"Refresh_Token":"b"}`), true)
	f.Add(200, "text/html", []byte("\xef\xbb\xbf<html>"), true)
	f.Add(502, "a/b+c", []byte(`{"error":"\u001b[31m`), true)
	f.Add(200, "application/json", []byte(`{"x":[[[{"refresh_token":"no"}]]],"expires_in":"1e999","refresh_token":"\ud800"}`), true)
	f.Fuzz(func(t *testing.T, status int, media string, body []byte, whole bool) {
		status = 100 + int(uint(status)%500)
		a := readAnswer(status, media, body, whole)
		if !shownCode.MatchString(a.Code) || !shownDetail.MatchString(a.Detail) {
			t.Errorf("code %q, detail %q", a.Code, a.Detail)
		}
		if at := a.Tokens.AccessToken.Reveal(); (a.Outcome == Granted) != bearerToken.MatchString(at) {
			t.Errorf("%v with the access token %q", a.Outcome, at)
		}
		if a.Outcome == Unusable && a.Tokens.RefreshToken.Empty() {
			t.Error("unusable without a refresh token")
		}
		if a.Lifetime < 0 || a.Lifetime > maxLifetime {
			t.Errorf("lifetime %v", a.Lifetime)
		}
		// encoding/json as the second opinion: what it sees in a well-formed
		// object must not be lost.
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return
		}
		var seen string
		if json.Unmarshal(object["refresh_token"], &seen) != nil || seen == "" {
			return
		}
		if m := readMembers(body); m.refreshToken == nil || *m.refreshToken != seen {
			t.Errorf("the refresh token %q is not found", seen)
		}
		if _, isError := object["error"]; status == 200 && !isError && !strings.Contains(media, "html") && a.Tokens.RefreshToken.Reveal() != seen {
			t.Errorf("the refresh token %q is lost: %v", seen, a.Outcome)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "2", "-1", "99999999999999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1e9"} {
		f.Add(s, int64(1772366400))
	}
	f.Fuzz(func(t *testing.T, value string, now int64) {
		got := retryAfter(value, time.Unix(now, 0))
		if got < 0 || got > maxRetryAfter {
			t.Errorf("retryAfter(%q) = %v", value, got)
		}
		digits := strings.TrimSpace(value)
		if _, err := http.ParseTime(digits); err != nil && strings.Trim(digits, "0123456789") != "" && got != 0 {
			t.Errorf("retryAfter(%q) = %v: neither seconds nor a date", value, got)
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	full, err := fullRecords().encode("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(`{"version":1,"records":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"records":[{"lifetime_seconds":1e300,"intent":null,"obtained":"0001-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		rs, err := decodeRecords(value, "")
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Errorf("%v does not wrap ErrUnreadable", err)
			}
			return
		}
		again, err := rs.encode("")
		if err != nil {
			t.Fatalf("what was decoded can't be encoded: %v", err)
		}
		rs2, err := decodeRecords(again, "")
		if err != nil {
			t.Fatalf("what was encoded can't be decoded: %v", err)
		}
		sameRecords(t, rs2, rs)
	})
}
