package oauth

import (
	"strings"
	"testing"
	"time"
)

const good = `{"access_token":"AT","token_type":"bearer","refresh_token":"RT","expires_in":600,"scope":"all"}`

// The rows are those of the table of answers to a refresh.
func TestReadAnswerOutcome(t *testing.T) {
	t.Parallel()
	const jsonType, htmlType = "application/json", "text/html; charset=utf-8"
	page := "<!DOCTYPE html><html><body>no</body></html>"
	oauthError := func(code string) string { return `{"error":"` + code + `","error_description":"why"}` }
	tests := []struct {
		name   string
		status int
		media  string
		body   string
		want   Outcome
	}{
		{"granted", 200, jsonType, good, Granted},
		{"granted, charset", 200, "application/json;charset=UTF-8", good, Granted},
		{"granted, text/plain", 200, "text/plain", good, Granted},
		{"granted, no media type", 200, "", good, Granted},

		{"invalid_grant 400", 400, jsonType, oauthError("invalid_grant"), Dead},
		{"invalid_grant 401", 401, jsonType, oauthError("invalid_grant"), Dead},
		{"invalid_grant as text/plain", 400, "text/plain", oauthError("invalid_grant"), Dead},
		{"invalid_grant in a 200", 200, jsonType, oauthError("invalid_grant"), Dead},
		{"invalid_grant with 403 is not 400 or 401", 403, jsonType, oauthError("invalid_grant"), Away},
		{"invalid_grant broken off is not well-formed", 400, jsonType, `{"error":"invalid_grant"`, Away},
		{"invalid_grant inside HTML", 400, htmlType, oauthError("invalid_grant"), Away},
		{"invalid_grant in other letters", 400, jsonType, oauthError("Invalid_Grant"), ProbablyDead},
		{"invalid_grant under another name", 400, jsonType, `{"Error":"invalid_grant"}`, ProbablyDead},

		{"invalid_client 401", 401, jsonType, oauthError("invalid_client"), Refused},
		{"invalid_client 400", 400, jsonType, oauthError("invalid_client"), Refused},
		{"unauthorized_client", 400, jsonType, oauthError("unauthorized_client"), Refused},
		{"unsupported_grant_type", 400, jsonType, oauthError("unsupported_grant_type"), Refused},
		{"invalid_scope", 400, jsonType, oauthError("invalid_scope"), Refused},
		{"invalid_client in a 200", 200, jsonType, oauthError("invalid_client"), Refused},

		{"invalid_request 400", 400, jsonType, oauthError("invalid_request"), ProbablyDead},
		{"another code 401", 401, jsonType, oauthError("access_denied"), ProbablyDead},
		{"JSON without a code 400", 400, jsonType, `{}`, ProbablyDead},
		{"a code that is no string 400", 400, jsonType, `{"error":400}`, ProbablyDead},
		{"empty 400", 400, "", "", ProbablyDead},
		{"empty 401", 401, jsonType, "", ProbablyDead},
		{"white space 400", 400, jsonType, " \r\n", ProbablyDead},
		{"another error in a 200", 200, jsonType, oauthError("access_denied"), ProbablyDead},

		{"HTML 200", 200, htmlType, page, Away},
		{"XHTML 200", 200, "application/xhtml+xml", page, Away},
		{"HTML 400", 400, htmlType, page, Away},
		{"HTML 401", 401, htmlType, page, Away},
		{"text 400", 400, "text/plain", "Bad Request", Away},
		{"HTML 403", 403, htmlType, page, Away},
		{"JSON 403", 403, jsonType, oauthError("access_denied"), Away},
		{"empty 403", 403, "", "", Away},
		{"404", 404, jsonType, `{"message":"no route"}`, Away},
		{"405", 405, "", "", Away},
		{"other 4xx", 418, "", "", Away},
		{"301", 301, htmlType, page, Away},
		{"302", 302, "", "", Away},
		{"303", 303, "", "", Away},
		{"307", 307, "", "", Away},
		{"308", 308, jsonType, good, Away},

		{"429", 429, jsonType, oauthError("temporarily_unavailable"), NotTried},
		{"503", 503, "", "", NotTried},
		{"503 HTML", 503, htmlType, page, NotTried},

		{"500", 500, jsonType, oauthError("server_error"), Lost},
		{"500 with invalid_grant", 500, jsonType, oauthError("invalid_grant"), Lost},
		{"502 HTML", 502, htmlType, page, Lost},
		{"504", 504, "", "", Lost},
		{"other 5xx", 520, "", "", Lost},
		{"200 that is not JSON", 200, jsonType, "OK", Lost},
		{"200 that is HTML in disguise", 200, jsonType, page, Lost},
		{"200 empty", 200, jsonType, "", Lost},
		{"200 array", 200, jsonType, `[` + good + `]`, Lost},
		{"200 null", 200, jsonType, `null`, Lost},
		{"200 without an access token", 200, jsonType, `{"token_type":"bearer"}`, Lost},
		{"200 in UTF-16", 200, jsonType, "\xff\xfe{\x00}\x00", Lost},
		{"201", 201, jsonType, `{}`, Lost},
		{"202", 202, "", "", Lost},
		{"204", 204, "", "", Lost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := readAnswer(tt.status, tt.media, []byte(tt.body), true)
			if a.Outcome != tt.want {
				t.Errorf("%v (%s), want %v", a.Outcome, a.Detail, tt.want)
			}
			if a.Status != tt.status {
				t.Errorf("status %d, want %d", a.Status, tt.status)
			}
			if a.Outcome != Granted && a.Detail == "" {
				t.Error("no detail")
			}
			if a.Outcome != Granted && !a.Tokens.AccessToken.Empty() {
				t.Error("there is an access token")
			}
		})
	}
}

func TestReadAnswerGranted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body    string
		access, scope string
		refresh       string
	}{
		{"plain", good, "AT", "all", "RT"},
		{"unknown members of every type", `{"a":null,"b":[1,{"refresh_token":"no"}],"c":true,` + good[1:], "AT", "all", "RT"},
		{"byte order mark", "\xef\xbb\xbf" + good, "AT", "all", "RT"},
		{"white space around", " \r\n" + good + "\r\n ", "AT", "all", "RT"},
		{"token_type in capitals", strings.Replace(good, "bearer", "BEARER", 1), "AT", "all", "RT"},
		{"token_type mixed", strings.Replace(good, "bearer", "Bearer", 1), "AT", "all", "RT"},
		{"names are case-sensitive", `{"Access_Token":"no","REFRESH_TOKEN":"no","Scope":"no",` + good[1:], "AT", "all", "RT"},
		{"names are case-sensitive, the other way round", good[:len(good)-1] + `,"Access_Token":"no","Refresh_Token":"no","SCOPE":"no"}`, "AT", "all", "RT"},
		{"no refresh token", `{"access_token":"AT","token_type":"bearer"}`, "AT", "", ""},
		{"an empty refresh token", `{"access_token":"AT","token_type":"bearer","refresh_token":""}`, "AT", "", ""},
		{"a refresh token that is null", `{"access_token":"AT","token_type":"bearer","refresh_token":null}`, "AT", "", ""},
		{"a refresh token that is no text", `{"access_token":"AT","token_type":"bearer","refresh_token":7}`, "AT", "", ""},
		{"a refresh token of odd bytes", `{"access_token":"AT","token_type":"bearer","refresh_token":"\u0000 \r\n%&+=\"\\é"}`, "AT", "", "\x00 \r\n%&+=\"\\é"},
		{"an error that is null", `{"error":null,` + good[1:], "AT", "all", "RT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := readAnswer(200, "application/json", []byte(tt.body), true)
			if a.Outcome != Granted {
				t.Fatalf("%v: %s", a.Outcome, a.Detail)
			}
			if a.Tokens.AccessToken.Reveal() != tt.access || a.Tokens.RefreshToken.Reveal() != tt.refresh || a.Tokens.Scope != tt.scope {
				t.Errorf("access token %q, refresh token %q, scope %q; want %q, %q, %q", a.Tokens.AccessToken.Reveal(),
					a.Tokens.RefreshToken.Reveal(), a.Tokens.Scope, tt.access, tt.refresh, tt.scope)
			}
		})
	}
}

func TestReadAnswerLifetime(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw  string
		want time.Duration
	}{
		{`600`, 600 * time.Second},
		{`"600"`, 600 * time.Second},
		{`" 600 "`, 600 * time.Second},
		{`600.0`, 600 * time.Second},
		{`"600.0"`, 600 * time.Second},
		{`599.5`, 599500 * time.Millisecond},
		{`6e2`, 600 * time.Second},
		{`86400`, 24 * time.Hour},
		{`86401`, 24 * time.Hour},
		{`1e12`, 24 * time.Hour},
		{`"1e12"`, 24 * time.Hour},
		{`1e999`, 24 * time.Hour},
		{`0.5`, time.Second},
		{`1e-9`, time.Second},
		{`0`, 0},
		{`-0`, 0},
		{`"0"`, 0},
		{`-600`, 0},
		{`-1e999`, 0},
		{`"soon"`, 0},
		{`"NaN"`, 0},
		{`""`, 0},
		{`null`, 0},
		{`true`, 0},
		{`[600]`, 0},
		{`{"expires_in":600}`, 0},
	}
	for _, tt := range tests {
		body := strings.Replace(good, "600", tt.raw, 1)
		a := readAnswer(200, "application/json", []byte(body), true)
		if a.Outcome != Granted || a.Lifetime != tt.want {
			t.Errorf("expires_in %s: %v, lifetime %v; want granted, %v", tt.raw, a.Outcome, a.Lifetime, tt.want)
		}
	}
	if a := readAnswer(200, "", []byte(`{"access_token":"AT","token_type":"bearer"}`), true); a.Outcome != Granted || a.Lifetime != 0 {
		t.Errorf("expires_in absent: %v, lifetime %v", a.Outcome, a.Lifetime)
	}
}
