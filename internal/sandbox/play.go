package sandbox

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
)

// abort closes the connection without an answer.
func abort(*Sandbox, *exchange) { panic(http.ErrAbortHandler) }

// serverError answers alike before and after the commit, since a client can't
// tell either.
func serverError(_ *Sandbox, x *exchange) {
	refuse(x, &refusal{http.StatusInternalServerError, "server_error", "something went wrong"})
}

func refuseWith(status int, code string) func(*Sandbox, *exchange) {
	return func(_ *Sandbox, x *exchange) {
		refuse(x, &refusal{status, code, "played by the sandbox"})
	}
}

// wrongPassword counts towards Config.LockAfter, as a wrong password would.
func wrongPassword(status int) func(*Sandbox, *exchange) {
	return func(s *Sandbox, x *exchange) {
		s.mu.Lock()
		s.wrong[s.config.Username]++
		s.mu.Unlock()
		refuse(x, &refusal{status, "invalid_grant", "wrong username or password"})
	}
}

func empty(status int) func(*Sandbox, *exchange) {
	return func(_ *Sandbox, x *exchange) {
		x.Header().Set("Content-Length", "0")
		x.WriteHeader(status)
	}
}

// page answers with HTML, as something between client and server does.
func page(status int, title string) func(*Sandbox, *exchange) {
	return func(_ *Sandbox, x *exchange) {
		body := fmt.Sprintf("<!DOCTYPE html>\n<html><head><title>%[1]s</title></head>"+
			"<body><h1>%[1]s</h1></body></html>\n", title)
		x.Header().Set("Content-Type", "text/html; charset=utf-8")
		x.Header().Set("Content-Length", strconv.Itoa(len(body)))
		x.WriteHeader(status)
		_, _ = x.Write([]byte(body))
	}
}

func tooManyRequests(s *Sandbox, x *exchange) {
	x.Header().Set("Retry-After", s.settings().RetryAfter)
	refuse(x, &refusal{http.StatusTooManyRequests, "temporarily_unavailable", "too many requests"})
}

// redirect answers with 307, after which a client that follows would send the
// body, and so the secrets, once more.
func redirect(_ *Sandbox, x *exchange) {
	x.Header().Set("Location", movedPath)
	x.Header().Set("Content-Length", "0")
	x.WriteHeader(http.StatusTemporaryRedirect)
}

func sendTextPlain(x *exchange, m members) {
	x.Header().Set("Content-Type", "text/plain; charset=utf-8")
	sendJSON(x, http.StatusOK, m.encode())
}

// sendHuge streams one JSON object: a MiB of padding, the real members, and
// padding again until it is larger than 8 MiB.
func sendHuge(x *exchange, m members) {
	const mebibyte = 1 << 20
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Cache-Control", "no-store")
	padding := bytes.Repeat([]byte("x"), mebibyte)
	inner := m.encode()
	parts := [][]byte{[]byte(`{"padding":"`), padding, []byte(`",`), inner[1 : len(inner)-1], []byte(`,"more":"`)}
	for range 8 {
		parts = append(parts, padding)
	}
	for _, part := range append(parts, []byte(`"}`)) {
		if _, err := x.Write(part); err != nil {
			return
		}
	}
}

// sendTruncated promises the whole answer and sends it up to the middle of
// the member after refresh_token or, where that is the last, without the end.
// net/http then closes the connection.
func sendTruncated(x *exchange, m members) {
	whole := m.encode()
	end := len(whole) / 2
	if start := bytes.Index(whole, []byte(`"refresh_token":"`)); start >= 0 {
		start += len(`"refresh_token":"`)
		end = start + bytes.IndexByte(whole[start:], '"') + len(`"`)
		end = min(end+len(`,"sco`), len(whole)-1)
	}
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Content-Length", strconv.Itoa(len(whole)))
	x.WriteHeader(http.StatusOK)
	x.cut()
	_, _ = x.Write(whole[:end])
}

func badAccessToken(m members) members {
	return m.set("access_token", quote("broken\r\nX-Injected: 1"))
}

func extraMembers(m members) members {
	first := members{
		{"access", `"not the token"`},
		{"Access-Token", `"nor this"`},
		{"nested", `{"access_token":"nor that","refresh_token":[1,2,{"expires_in":1}]}`},
	}
	last := members{
		{"userinfo", `{"id":"sandbox","email":null}`},
		{"consented_on", `1700000000`},
		{"first_party", `true`},
		{"unknown", `null`},
	}
	return append(append(first, m...), last...)
}
