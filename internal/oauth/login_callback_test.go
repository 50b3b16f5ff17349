package oauth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// B6, B11: a callback that isn't the answer to this login, or comes with
// somebody else, causes no token request. One that doesn't use the login up
// leaves it to its owner.
func TestCallbackRefused(t *testing.T) {
	t.Parallel()
	flip := func(state string) string {
		if state[0] == 'A' {
			return "B" + state[1:]
		}
		return "A" + state[1:]
	}
	tests := []struct {
		name    string
		query   func(url.Values) string // of the good callback's parameters
		browser string
		by      string
		want    error
		used    bool // nobody can finish the login after it
	}{
		{"no state", func(q url.Values) string { q.Del("state"); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"empty state", func(q url.Values) string { q.Set("state", ""); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"wrong state", func(q url.Values) string { q.Set("state", flip(q.Get("state"))); return q.Encode() }, "anns-browser", "ann", oauth.ErrLoginUnknown, false},
		{"longer state", func(q url.Values) string { q.Set("state", q.Get("state")+"A"); return q.Encode() }, "anns-browser", "ann", oauth.ErrLoginUnknown, false},
		{"state in other letters", func(q url.Values) string { q.Set("state", swapCase(q.Get("state"))); return q.Encode() }, "anns-browser", "ann", oauth.ErrLoginUnknown, false},
		{"state twice", func(q url.Values) string { q.Add("state", q.Get("state")); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"code twice", func(q url.Values) string { q.Add("code", q.Get("code")); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"another code", func(q url.Values) string { return "code=injected&" + q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"iss twice", func(q url.Values) string { q.Add("iss", q.Get("iss")); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"error twice", func(q url.Values) string { q.Del("code"); q["error"] = []string{"a", "b"}; return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"code and error", func(q url.Values) string { q.Set("error", "access_denied"); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"neither", func(q url.Values) string { q.Del("code"); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"nothing", func(url.Values) string { return "" }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"not decodable", func(q url.Values) string { return q.Encode() + "&x=%zz" }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"a line break in the code", func(q url.Values) string { q.Set("code", "a\r\nb"); return q.Encode() }, "anns-browser", "ann", oauth.ErrCallbackMalformed, false},
		{"another browser", url.Values.Encode, "bobs-browser", "ann", oauth.ErrLoginForeign, false},
		{"no browser", url.Values.Encode, "", "ann", oauth.ErrLoginForeign, false},
		{"another user", url.Values.Encode, "anns-browser", "bob", oauth.ErrLoginForeign, false},
		{"another user whose name begins alike", url.Values.Encode, "anns-browser", "anna", oauth.ErrLoginForeign, false},
		{"no user", url.Values.Encode, "anns-browser", "", oauth.ErrLoginForeign, false},
		{"an error of another", func(q url.Values) string { q.Del("code"); q.Set("error", "access_denied"); return q.Encode() }, "bobs-browser", "bob", oauth.ErrLoginForeign, false},
		{"an error", func(q url.Values) string { q.Del("code"); q.Set("error", "access_denied"); return q.Encode() }, "anns-browser", "ann", oauth.ErrLoginDenied, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				l := r.begin(s, anns())
				good := r.approve(l)
				bad := make(url.Values)
				for name, values := range good {
					bad[name] = append([]string(nil), values...)
				}
				query := tt.query(bad)
				for range 3 {
					_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: query, Browser: oauth.NewSecret(tt.browser), By: tt.by})
					if tt.used && !errors.Is(err, tt.want) {
						r.refused(err, oauth.ErrLoginUnknown) // from the second time on
						continue
					}
					e := r.refused(err, tt.want)
					for _, value := range []string{good.Get("code"), good.Get("state"), "anns-browser", "injected"} {
						if strings.Contains(e.Error(), value) {
							t.Errorf("the error quotes the callback: %v", e)
						}
					}
				}
				after(time.Minute)
				r.codes(0)
				r.empty(s)
				look, err := r.sessions.LookUpLogin(l.ID)
				if err != nil || look.Done != tt.used {
					t.Errorf("LookUpLogin: %+v, %v", look, err)
				}
				_, err = r.finish(good)
				if tt.used {
					r.refused(err, oauth.ErrLoginUnknown)
					r.codes(0)
					return
				}
				if err != nil {
					t.Errorf("its owner can't finish the login any more: %v", err)
				}
				r.codes(1)
				r.token(s)
			})
		})
	}
}

func swapCase(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z':
			return c - 'A' + 'a'
		}
		return c
	}, s)
}

// B15: what comes with a callback is anybody's text, and is not shown.
func TestHostileErrorCodes(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"access_denied":                         "access_denied",
		"<script>alert(1)</script>":             "other",
		"a\x1b[31mb":                            "other",
		"a\r\nSet-Cookie: x=1":                  "other",
		"https://evil.example/":                 "other",
		strings.Repeat("a", 65):                 "other",
		"sandbox-secret is wrong":               "other",
		"{env.SECRET}":                          "other",
		"\u202egnp.exe":                         "other",
		"login required; run `curl evil | sh`!": "other",
	}
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		for code, want := range tests {
			l := r.begin(s, anns())
			_, err := r.finish(url.Values{
				"error": {code}, "state": {r.asked(l).Get("state")},
				"error_description": {"call 0900-EVIL <b>now</b>"}, "error_uri": {"https://evil.example/help"},
			})
			e := r.refused(err, oauth.ErrLoginDenied)
			if e.Detail != "it answered "+want {
				t.Errorf("error %q: %q", code, e.Detail)
			}
		}
		// The token endpoint's, too.
		r.wire.answers(nil)
		r.sandbox.Play(sandbox.InvalidScope, 1)
		_, err := r.finish(r.approve(r.begin(s, anns())))
		if e := r.refused(err, oauth.ErrLoginFailed); !strings.HasSuffix(e.Detail, "invalid_scope") || strings.Contains(e.Detail, "played") {
			t.Errorf("%q", e.Detail)
		}
	})
}

// The callback of a login that the command line began comes to the portal in
// whatever browser: nothing is spent, and the terminal can still finish it.
func TestTerminalLoginSeenInThePortal(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		start := oauth.LoginStart{Browser: oauth.NewSecret("the-terminals"), Terminal: true}
		q := r.approve(r.begin(s, start))
		for _, by := range []string{"", "ann"} {
			for _, browser := range []string{"", "anns-browser"} {
				_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: oauth.NewSecret(browser), By: by})
				r.refused(err, oauth.ErrLoginTerminal)
			}
		}
		_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: start.Browser, By: "ann"})
		r.refused(err, oauth.ErrLoginTerminal)
		synctest.Wait()
		r.codes(0)
		if _, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: start.Browser, By: ""}); err != nil {
			t.Error(err)
		}
		r.codes(1)
		r.token(s)
		_, err = r.finish(q) // now it is any unknown one
		r.refused(err, oauth.ErrLoginUnknown)
	})
}
