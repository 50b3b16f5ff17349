package caddymodule

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// allBytes sends a request that ends its connection, and returns all that came
// back.
func allBytes(t *testing.T, address, request string) string {
	t.Helper()
	c := dialCaller(t, address)
	defer c.conn.Close()
	c.send(request)
	text, err := io.ReadAll(c.br)
	if err != nil && len(text) == 0 {
		t.Errorf("%q: no answer: %v", request, err)
	}
	return string(text)
}

const closing = "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// answersWith lets the API answer with these lines; TOKEN stands for the token
// that it was asked with.
func (api *wireAPI) answersWith(lines string) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.answer = func(r wireRequest) string {
		token := strings.TrimPrefix(strings.Join(r.values("Authorization"), ""), "Bearer ")
		return strings.ReplaceAll(lines, "TOKEN", token)
	}
}

const okHead = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"

// TM-13, TM-20: cookies and permissions for web pages that the API gives are
// not for who shares the proxy, and what it answers isn't to be kept.
func TestResponseFields(t *testing.T) {
	for _, c := range []struct {
		options, fields string // of the API's answer
		has, hasNot     string // of ours, parted by |
	}{
		{"", "", "Cache-Control: private, no-store", ""},
		{"", "Cache-Control: max-age=60\r\n", "Cache-Control: max-age=60", "no-store"},
		{"", "cache-control: no-cache\r\nCache-Control: public\r\n", "Cache-Control: no-cache|Cache-Control: public", "no-store"},
		{"", "", "Cross-Origin-Resource-Policy: same-origin|X-Frame-Options: SAMEORIGIN", ""},
		{"", "cross-origin-resource-policy: cross-origin\r\nX-Frame-Options: DENY\r\n", "Cross-Origin-Resource-Policy: cross-origin|X-Frame-Options: DENY", "same-origin|SAMEORIGIN"},
		{"", "Expires: Thu, 01 Dec 2050 16:00:00 GMT\r\n", "Expires: Thu|Cache-Control: private, no-store", ""},
		{"", "Vary: Accept\r\nETag: \"x\"\r\nX-Custom: 1\r\n", "Vary: Accept|Etag: \"x\"|X-Custom: 1", ""},
		{"", "Set-Cookie: a=b\r\nset-cookie: c=d\r\nSET-COOKIE: e\r\n", "", "ookie|COOKIE"},
		{"", "Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\nAccess-Control-Expose-Headers: x\r\nACCESS-CONTROL-MAX-AGE: 1\r\nAccess-Control-Allow-Private-Network: true\r\n", "", "ccess-|ACCESS-"},
		{"", "Connection: Set-Cookie\r\nSet-Cookie: a=b\r\n", "", "ookie"},
		{"", "Caddy-Bearer-Error: login_required\r\n", "200 OK", "Caddy-Bearer"},
		{"pass_response_headers Set-Cookie", "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nAccess-Control-Allow-Origin: *\r\n", "Set-Cookie: a=b|Set-Cookie: c=d", "Access"},
		{"pass_response_headers set-COOKIE Access-Control-*", "Set-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\n", "Set-Cookie: a=b|Access-Control-Allow-Origin: *", ""},
		{"pass_response_headers Access-Control-Allow-Origin", "Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Origin: *\r\n", "Access-Control-Allow-Origin: *", "Credentials"},
	} {
		t.Run(c.options+" "+c.fields, func(t *testing.T) {
			r, api := newWireRig(t, c.options)
			api.answersWith(okHead + c.fields + "\r\nok")
			got := allBytes(t, r.address, closing)
			for _, part := range strings.Split(c.has, "|") {
				if !strings.Contains(got, part) {
					t.Errorf("%q is missing in\n%s", part, got)
				}
			}
			for _, part := range strings.Split(c.hasNot, "|") {
				if part != "" && strings.Contains(got, part) {
					t.Errorf("%q is in\n%s", part, got)
				}
			}
			if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
				t.Errorf("it is not the API's answer:\n%s", got)
			}
		})
	}
}

// TM-18: an answer that tells the token in its fields is stopped; nothing of it
// reaches the caller. The token in a body is the API's own affair.
func TestTokenLeakStopped(t *testing.T) {
	r, api := newWireRig(t, "allow_upgrade", "pass_response_headers Set-Cookie Access-Control-*")
	token := strings.TrimPrefix(r.session().Current().Authorization()[0], "Bearer ")
	for _, fields := range []string{
		"Authorization: Bearer TOKEN", "X-Echo: TOKEN", "X-Echo: a\r\nX-Echo: TOKEN", "X-Echo: aTOKENb", "Location: https://x.example/?access_token=TOKEN&x=y", "Link: <https://x/TOKEN>; rel=next",
		"Set-Cookie: t=TOKEN; HttpOnly", "WWW-Authenticate: Bearer realm=\"TOKEN\"", "Www-authenticate: x\r\nCONTENT-TYPE: TOKEN", "ETag: \"TOKEN\"", "Refresh: 0; url=/TOKEN", "Access-Control-Expose-Headers: TOKEN",
	} {
		for _, status := range []string{"200 OK", "302 Found", "403 Forbidden", "500 Internal Server Error"} {
			api.answersWith("HTTP/1.1 " + status + "\r\n" + fields + "\r\nContent-Length: 11\r\n\r\nthe content")
			got := allBytes(t, r.address, closing)
			if strings.Contains(got, token) || strings.Contains(got, "the content") || !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "Caddy-Bearer-Error: token_leak_stopped\r\n") {
				t.Errorf("%s, %s: the caller got\n%s", status, fields, strings.ReplaceAll(got, token, "(the token)"))
			}
		}
	}
	for _, fields := range []string{"X-Echo: " + token[:len(token)/2], "X-Echo: Bearer", "X-Echo: "} {
		api.answersWith(okHead + fields + "\r\n\r\nok")
		if got := allBytes(t, r.address, closing); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%.60s: stopped, but it isn't the token:\n%.200s", fields, got)
		}
	}
	if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
}

// Interim answers, and those to an upgrade, are answers, too (CVE-2026-55458).
func TestInterimResponses(t *testing.T) {
	secret := "Set-Cookie: early=1\r\nAccess-Control-Allow-Origin: *\r\nCaddy-Bearer-Error: login_required\r\n"
	for _, interim := range []string{"103 Early Hints\r\nLink: </style.css>; rel=preload\r\n", "102 Processing\r\nX-Custom: 1\r\n"} {
		for _, leak := range []string{"", "X-Echo: TOKEN\r\n", "Link: <https://x/?t=TOKEN>\r\n"} {
			t.Run(fmt.Sprintf("%.3s %.4s", interim, leak), func(t *testing.T) {
				r, api := newWireRig(t)
				token := strings.TrimPrefix(r.session().Current().Authorization()[0], "Bearer ")
				api.answersWith("HTTP/1.1 " + interim + leak + secret + "\r\n" + okHead + "\r\nok")
				got := allBytes(t, r.address, closing)
				for _, bad := range []string{token, "Set-Cookie", "Access-Control", "login_required"} {
					if strings.Contains(got, bad) {
						t.Errorf("the caller got %.20s:\n%s", bad, strings.ReplaceAll(got, token, "(the token)"))
					}
				}
				if leak == "" && !strings.HasSuffix(got, "\r\n\r\nok") || leak != "" && !strings.HasSuffix(got, "\r\n\r\nok") && !strings.Contains(got, "token_leak_stopped") {
					t.Errorf("the caller got\n%s", strings.ReplaceAll(got, token, "(the token)"))
				}
			})
		}
	}
}

func TestUpgradeResponse(t *testing.T) {
	const upgrade = "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-Fetch-Site: none\r\n\r\n"
	for _, leak := range []string{"", "X-Echo: TOKEN\r\n"} {
		r, api := newWireRig(t, "allow_upgrade")
		token := strings.TrimPrefix(r.session().Current().Authorization()[0], "Bearer ")
		api.answersWith("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nCaddy-Bearer-Error: x\r\n" + leak + "\r\n")
		c := dialCaller(t, r.address)
		c.send(upgrade)
		got, err := c.next("GET")
		c.conn.Close()
		sent := api.take()
		switch {
		case err != nil || len(sent) != 1:
			t.Fatalf("%v %v, and the API got %d requests", got, err, len(sent))
		case leak == "" && (got.status != 101 || got.header.Get("Sec-WebSocket-Accept") != "x" || got.code != ""):
			t.Errorf("the caller got %s %v", got, got.header)
		case leak != "" && got.code != "token_leak_stopped", strings.Contains(fmt.Sprint(got.header, got.body), token):
			t.Errorf("the caller got %d %s with the token", got.status, got.code)
		case got.header.Get("Set-Cookie") != "" || got.header.Get("Access-Control-Allow-Origin") != "":
			t.Errorf("the caller got %v", got.header)
		}
		if sent[0].values("Sec-WebSocket-Key") == nil || sent[0].values("Sec-WebSocket-Version") == nil || sent[0].values("Sec-Fetch-Site") != nil {
			t.Errorf("the API got %q", sent[0].fields[1:])
		}
	}
}
