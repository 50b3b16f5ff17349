package sandbox

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzAuthorize: whatever the query, a redirect goes to the registered URI and
// nowhere else, and brings the one callback that the sandbox speaks of.
func FuzzAuthorize(f *testing.F) {
	good := "response_type=code&client_id=sandbox-client&redirect_uri=" + url.QueryEscape(testRedirect) + "&state="
	f.Add(uint8(0), good+"s%0d%0a")
	f.Add(uint8(1), good+"&redirect_uri=https://evil.test")
	f.Add(uint8(2), "grant_type=password&client_id=sandbox-client&state=%23%26")
	f.Add(uint8(3), "response_type=code&client_id=sandbox-client")
	f.Add(uint8(4), good+"&scope=openid+%22&nonce=%00&prompt=none&code_challenge=%zz")
	f.Fuzz(func(t *testing.T, number uint8, query string) {
		names := Providers()
		s := New(Config{Provider: names[int(number)%len(names)], RedirectURIs: []string{testRedirect}, SecureCode: testRedirect})
		path := s.provider.paths.authorize
		for _, body := range []string{"", goodLogin, "deny=1"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if r.URL.RawQuery = query; body == "" {
				r.Method = http.MethodGet
			}
			w := httptest.NewRecorder()
			s.AuthorizationServer().ServeHTTP(w, r)
			checkRedirect(t, w, s.Events())
		}
		if to, err := s.Approve("http://as.test"+path+"?"+strings.ReplaceAll(query, "#", "%23"), "sandbox-user"); err == nil &&
			!strings.HasPrefix(to, testRedirect+"?") && !strings.HasPrefix(to, testRedirect+"#") {
			t.Errorf("Approve went to %q", to)
		}
	})
}

func checkRedirect(t *testing.T, w *httptest.ResponseRecorder, events []Event) {
	t.Helper()
	e := events[len(events)-1]
	location := w.Header().Get("Location")
	if w.Code != http.StatusFound {
		if location != "" || e.Committed {
			t.Errorf("%d with Location %q, event %+v", w.Code, location, e)
		}
		return
	}
	text, ok := strings.CutPrefix(location, testRedirect)
	if !ok || text == "" || text[0] != '?' && text[0] != '#' {
		t.Fatalf("redirected to %q", location)
	}
	values, err := url.ParseQuery(text[1:])
	if err != nil || values.Has("code") == values.Has("error") || values.Has("code") != e.Committed || len(values["state"]) > 1 {
		t.Errorf("callback %q, %v, event %+v", location, err, e)
	}
	for _, b := range []byte(location) {
		if b <= ' ' || b >= 0x7f {
			t.Errorf("byte %#x in %q", b, location)
		}
	}
}

// FuzzJSONForm: what is accepted is one JSON object of strings, and reads as
// encoding/json reads it.
func FuzzJSONForm(f *testing.F) {
	for _, seed := range []string{
		`{"grant_type":"password","code":""}`, `{"a":"b","a":"c"}`, `{"a":1}`, `{"a":{"b":"c"}}`, `[]`, `{}{}`, `{"a":"b"`,
		`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{,}`, `{"a" "b"}`, `{"a":"b",}`, `null`, `{"\u0061":"x","a":"y"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form, err := parseJSONForm(body)
		var want map[string]any
		if err != nil {
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) || json.Unmarshal(body, &want) != nil {
			t.Fatalf("accepted %q", body)
		}
		for name, value := range want {
			if text, ok := value.(string); !ok || form[name] != text {
				t.Errorf("%q: %q, want %v", name, form[name], value)
			}
		}
		if len(form) > len(want) {
			t.Errorf("%v has more than %v", form, want)
		}
	})
}

// FuzzAssertion: nobody gets in without the key, and nothing panics.
func FuzzAssertion(f *testing.F) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("eyJhbGciOiJFZERTQSJ9.e30.AA")
	f.Add("eyJhbGciOiJub25lIn0.bnVsbA.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		s := New(Config{ClientKey: public})
		body := form("grant_type", "client_credentials", "client_assertion_type", assertionType, "client_assertion", text)
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(body.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		s.AuthorizationServer().ServeHTTP(w, r)
		if e := s.Events()[0]; w.Code == http.StatusOK || e.Committed {
			t.Fatalf("%d for %q: %+v", w.Code, text, e)
		}
	})
}

// FuzzParseJWT: what is taken apart has the form of RFC 7515 §7.1.
func FuzzParseJWT(f *testing.F) {
	f.Add("eyJhbGciOiJFZERTQSJ9.eyJhdWQiOlsiYSJdLCJleHAiOjFlOTl9.AA")
	f.Add("bnVsbA.e30.AA")
	f.Fuzz(func(t *testing.T, text string) {
		header, claims, signed, signature, err := parseJWT(text)
		if err != nil {
			return
		}
		if header == nil || claims == nil || !strings.HasPrefix(text, signed+".") || strings.Count(text, ".") != 2 {
			t.Fatalf("accepted %q", text)
		}
		_ = claims.audience()
		if at, ok := claims.seconds("exp"); ok && at.Year() < 1970 {
			t.Errorf("exp is %v", at)
		}
		if verifySignature(nil, header.text("alg"), signed, signature) == nil {
			t.Error("verified without a key")
		}
	})
}
