package caddymodule

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// TM-18, TM-13: trailers are fields of the answer.
func TestTrailers(t *testing.T) {
	const fields = "X-Good: 1\r\nX-Echo: TOKEN\r\nX-TOKEN: 1\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nCaddy-Bearer-Error: busy\r\n"
	names := "X-Good, X-Echo, X-TOKEN, Set-Cookie, Access-Control-Allow-Origin, Caddy-Bearer-Error"
	bad := []string{"X-Echo: ", "Cookie", "Access-Control", "Caddy-Bearer"}
	for _, declared := range []bool{false, true} {
		r, api := prepareWireRig(t)
		log := r.plainLog()
		r.start()
		r.ready()
		token := bareToken(r.session().Current().Authorization())
		head := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
		if declared {
			head += "Trailer: " + names + "\r\n"
		}
		api.answersWith(head + "\r\n2\r\nok\r\n0\r\n" + fields + "\r\n")
		checkTrailers(t, r, log, token, bad)
		r.stop()
	}
	for _, c := range []struct{ declared, measured bool }{{}, {declared: true}, {measured: true}} {
		r := newRig(t, sandbox.Config{})
		r.api = answeringHTTP2(t, func(w http.ResponseWriter, req *http.Request) {
			token := bareToken(req.Header["Authorization"])
			prefix := http.TrailerPrefix
			if c.declared {
				prefix = ""
				w.Header().Set("Trailer", strings.ReplaceAll(names, "TOKEN", token))
			}
			_, _ = io.WriteString(w, "ok")
			if !c.measured { // a short answer gets a Content-Length
				_ = http.NewResponseController(w).Flush()
			}
			for line := range strings.Lines(strings.ReplaceAll(fields, "TOKEN", token)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				w.Header()[prefix+http.CanonicalHeaderKey(name)] = []string{value}
			}
		})
		r.handler = "transport http {\n versions h2c\n }"
		log := r.plainLog()
		r.start()
		r.ready()
		checkTrailers(t, r, log, bareToken(r.session().Current().Authorization()), bad)
		r.stop()
	}
}

func checkTrailers(t *testing.T, r *rig, log, token string, bad []string) {
	t.Helper()
	got := allBytes(t, r.address, closing)
	r.eventually("logged", func() bool { return strings.Contains(read(t, log), "handled request") })
	if repeated(got, token) || repeated(read(t, log), token) {
		t.Errorf("the token is in the answer: %v; in the log: %v", repeated(got, token), repeated(read(t, log), token))
	}
	for _, b := range bad {
		if strings.Contains(got, b) {
			t.Errorf("%s reached the caller:\n%s", b, strings.ReplaceAll(got, token, "(the token)"))
		}
	}
	if strings.Contains(got, "Content-Length: ") {
		return // Caddy passes no trailers then, but logs them
	}
	if _, trailers, _ := strings.Cut(got, "\r\n0\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(trailers, "X-Good: 1\r\n") {
		t.Errorf("the other trailers are gone:\n%s", strings.ReplaceAll(got, token, "(the token)"))
	}
}

func answeringHTTP2(t *testing.T, serve http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(serve)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// Trailers that are asked for pass, unless they hold the token.
func TestTrailersThatPass(t *testing.T) {
	r, api := newWireRig(t, "pass_response_headers Set-Cookie")
	api.answersWith("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n")
	if got := allBytes(t, r.address, closing); !strings.Contains(got, "\r\n0\r\nSet-Cookie: a=b\r\n") {
		t.Errorf("the caller got\n%s", got)
	}
	api.answersWith("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=TOKEN\r\n\r\n")
	if got := allBytes(t, r.address, closing); strings.Contains(got, "Set-Cookie") || !strings.HasSuffix(got, "0\r\n\r\n") {
		t.Error("the token reached the caller in a trailer")
	}
}

// The token as the name of a field is neither passed nor told.
func TestTokenInFieldName(t *testing.T) {
	r, api := prepareWireRig(t)
	log := r.plainLog()
	r.start()
	r.ready()
	token := bareToken(r.session().Current().Authorization())
	for _, line := range []string{"TOKEN: 1", "X-TOKEN: 1", "X TOKEN: 1", "X-TOKEN-Y: TOKEN"} {
		api.answersWith(okHead + line + "\r\n\r\nok")
		got := allBytes(t, r.address, closing)
		if !strings.HasPrefix(got, "HTTP/1.1 502 ") || !contains(got, "token_leak_stopped", "in the field named by the token;") || repeated(got, token) {
			t.Errorf("%s: the caller got %.16s, the token: %v", line, got, repeated(got, token))
		}
	}
	r.eventually("logged", func() bool { return strings.Count(read(t, log), "handled request") == 4 })
	if said := read(t, log); repeated(said, token) || !strings.Contains(said, "stopped an answer of the API") {
		t.Errorf("the log has the token: %v", repeated(said, token))
	}
}

// An interim answer is compared with the token that its request carried, whatever
// the session has meanwhile.
func TestInterimAnswerWithFormerToken(t *testing.T) {
	const interim = "HTTP/1.1 103 Early Hints\r\nLink: <TOKEN>\r\nX-Good: 1\r\n\r\n" + okHead + "\r\nok"
	for meanwhile, change := range map[string]func(*oauth.Session, context.Context) error{
		"refreshed": (*oauth.Session).Refresh, "forgotten": (*oauth.Session).Forget,
	} {
		r, api := newWireRig(t)
		s := r.session()
		token := bareToken(s.Current().Authorization())
		api.answers(func(wireRequest) string {
			if err := change(s, context.Background()); err != nil {
				t.Error(err)
			}
			return strings.ReplaceAll(interim, "TOKEN", token)
		})
		got := allBytes(t, r.address, closing)
		if now := s.Current(); now != nil && bareToken(now.Authorization()) == token {
			t.Errorf("%s: the session has the same token", meanwhile)
		}
		if repeated(got, token) || !contains(got, "HTTP/1.1 103 Early Hints\r\n", "X-Good: 1\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Errorf("%s: the caller got\n%s", meanwhile, strings.ReplaceAll(got, token, "(the token)"))
		}
		r.stop()
	}
}

// Without a guard, interim answers are stripped as well.
func TestUnguardedInterimAnswer(t *testing.T) {
	r, api := prepareWireRig(t)
	r.site = "handle /open {\n reverse_proxy " + r.api + " {\n transport bearer erp {\n unguarded\n }\n }\n }"
	r.start()
	r.ready()
	token := bareToken(r.session().Current().Authorization())
	api.answersWith("HTTP/1.1 103 Early Hints\r\nLink: <TOKEN>\r\nX-TOKEN: 1\r\nX-Good: 1\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nCaddy-Bearer-Error: busy\r\n\r\n" + okHead + "\r\nok")
	got := allBytes(t, r.address, strings.Replace(closing, "/a", "/open", 1))
	for _, bad := range []string{"Cookie", "Access-Control", "Caddy-Bearer"} {
		if strings.Contains(got, bad) {
			t.Errorf("%s reached the caller", bad)
		}
	}
	if repeated(got, token) || !contains(got, "HTTP/1.1 103 Early Hints\r\n", "X-Good: 1\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
		t.Errorf("the caller got\n%s", strings.ReplaceAll(got, token, "(the token)"))
	}
}

// A refusal that repeats the token is a refusal: the token is refreshed, and the
// request sent once more.
func TestRefusalWithTokenIsRefreshed(t *testing.T) {
	r, api := newWireRig(t)
	first := bareToken(r.session().Current().Authorization())
	api.answers(func(q wireRequest) string {
		if strings.Join(q.values("Authorization"), "") != "Bearer "+first {
			return ""
		}
		return "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error_description=\"token " + first + " expired\"\r\nContent-Length: 0\r\n\r\n"
	})
	for range 3 {
		if got := r.get("/a"); got != "GET /a 0\n" {
			t.Errorf("the caller got %q", got)
		}
	}
	if n := r.sandbox.TokenRequests(""); n != 2 {
		t.Errorf("%d token requests", n)
	}
}
