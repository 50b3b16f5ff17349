package oauth

import (
	"strings"
	"testing"
)

// A.5: the Location of the 302 of Aidbox's secure code.
func TestReadFragment(t *testing.T) {
	t.Parallel()
	const target, state = "https://app.example.com/auth.html?tenant=1", "the-state"
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE1NDk2NDIwNjB9.XWfX-_lmeloo"
	with := func(fragment string) string { return target + "#" + fragment }
	tests := []struct {
		name     string
		location string
		code     string // or why not
		why      string
	}{
		{"code and state", with("code=" + jwt + "&state=the-state"), jwt, ""},
		{"state first, others", with("state=the-state&x=1&x=2&code=" + jwt), jwt, ""},
		{"decoded", with("code=a%2Bb+c&state=the%2Dstate"), "a+b c", ""},

		{"empty", "", "", "goes elsewhere"},
		{"another host", "https://app.example.org/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"a longer host", "https://app.example.com.evil.example/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"a user in front", "https://app.example.com@evil.example/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"another scheme", "http://app.example.com/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"another port", "https://app.example.com:443/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"another path", "https://app.example.com/auth.htm?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"a longer path", "https://app.example.com/auth.html/?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"another query", "https://app.example.com/auth.html?tenant=2#code=c&state=the-state", "", "goes elsewhere"},
		{"no query", "https://app.example.com/auth.html#code=c&state=the-state", "", "goes elsewhere"},
		{"other letters", "https://APP.example.com/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"relative", "/auth.html?tenant=1#code=c&state=the-state", "", "goes elsewhere"},
		{"code in the query", target + "&code=c&state=the-state", "", "goes elsewhere"},

		{"no fragment", target, "", "no fragment"},
		{"an empty fragment", with(""), "", "no fragment"},
		{"no code", with("state=the-state"), "", "neither a code nor an error"},
		{"an empty code", with("code=&state=the-state"), "", "neither a code nor an error"},
		{"two codes", with("code=c&code=c&state=the-state"), "", "code more than once"},
		{"two states", with("code=c&state=the-state&state=the-state"), "", "state more than once"},
		{"code and error", with("code=c&error=access_denied&state=the-state"), "", "both a code and an error"},
		{"no escape", with("code=%zz&state=the-state"), "", "can't be decoded"},
		{"a line break in the code", with("code=a%0Ab&state=the-state"), "", "characters that no code may have"},
		{"no state", with("code=c"), "", "another state"},
		{"an empty state", with("code=c&state="), "", "another state"},
		{"a wrong state", with("code=c&state=the-statE"), "", "another state"},
		{"a longer state", with("code=c&state=the-state2"), "", "another state"},
		{"an error", with("error=access_denied&state=the-state&error_description=hostile"), "", "no secure code: access_denied"},
		{"an error without state", with("error=unauthorized_client"), "", "no secure code: unauthorized_client"},
		{"an error that can't be shown", with("error=%3Cb%3E"), "", "no secure code: other"},
		{"too long", with("code=c&state=the-state&x=" + strings.Repeat("x", maxCallback-len(target)-len("#code=c&state=the-state&x=")+1)), "", "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readFragment(tt.location, target, state)
			if got.Reveal() != tt.code || (err == nil) != (tt.why == "") {
				t.Fatalf("code %q, error %v; want %q", got.Reveal(), err, tt.code)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "hostile") || strings.Contains(err.Error(), "evil")) {
				t.Errorf("error %q, want %q and nothing of the Location", err, tt.why)
			}
		})
	}
	t.Run("the largest", func(t *testing.T) {
		t.Parallel()
		location := with("code=c&state=the-state&x=")
		location += strings.Repeat("x", maxCallback-len(location))
		if got, err := readFragment(location, target, state); err != nil || got.Reveal() != "c" {
			t.Errorf("code %q, error %v", got.Reveal(), err)
		}
	})
	t.Run("nothing is expected", func(t *testing.T) {
		t.Parallel()
		if _, err := readFragment("#code=c&state=s", "", "s"); err == nil {
			t.Error("accepted without a redirect URI")
		}
		if _, err := readFragment(with("code=c&state="), target, ""); err == nil {
			t.Error("accepted without a state")
		}
	})
}

func FuzzReadFragment(f *testing.F) {
	const target, state = "https://app.example.com/a?b=c", "s"
	for _, s := range []string{
		target + "#code=c&state=s", target + "#error=access_denied", target, "#", "https://app.example.com/a#code=c&state=s",
		target + "#code=c&state=s#&code=d", target + "#code=%&state=s", target + "#state=%73&code=a;b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		code, err := readFragment(location, target, state)
		if err != nil {
			if !code.Empty() {
				t.Error("a code with an error")
			}
			for _, r := range err.Error() {
				if r < ' ' || r > '~' {
					t.Errorf("error %q", err)
				}
			}
			return
		}
		if len(location) > maxCallback || !strings.HasPrefix(location, target+"#") || code.Empty() || !isVisible(code.Reveal()) {
			t.Errorf("accepted %q with code %q", location, code.Reveal())
		}
		cb, err := readCallback(location[len(target)+1:])
		if err != nil || cb.State != state || !cb.Code.Equal(code) {
			t.Errorf("as a callback it is %+v, %v", cb, err)
		}
	})
}
