package oauth

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestReadCallback(t *testing.T) {
	t.Parallel()
	iss := func(s string) *string { return &s }
	type want struct {
		code, state, failure string
		iss                  *string
	}
	tests := []struct {
		name  string
		query string
		want  want
	}{
		{"code", "code=c&state=s", want{code: "c", state: "s"}},
		{"any order", "state=s&code=c", want{code: "c", state: "s"}},
		{"iss, decoded (B10)", "code=c&state=s&iss=https%3A%2F%2Fas.example%2F%7Ea", want{code: "c", state: "s", iss: iss("https://as.example/~a")}},
		{"iss of an error (B10)", "error=access_denied&state=s&iss=https://as.example", want{failure: "access_denied", state: "s", iss: iss("https://as.example")}},
		{"iss without value counts as absent", "code=c&state=s&iss=", want{code: "c", state: "s"}},
		{"escapes", "code=a%2Bb+c%26d%3D&state=%73", want{code: "a+b c&d=", state: "s"}},
		{"an escaped name", "%63ode=c&state=s", want{code: "c", state: "s"}},
		{"a sign = in the value", "code=YQ==&state=s", want{code: "YQ==", state: "s"}},
		{"unknown parameters (B11)", "code=c&state=s&session_state=1&session_state=2&x&=y&scope=all", want{code: "c", state: "s"}},
		{"other letters are another name", "code=c&Code=d&state=s&STATE=t", want{code: "c", state: "s"}},
		{"empty pairs", "&&code=c&&state=s&", want{code: "c", state: "s"}},
		{"a semicolon separates nothing", "code=c;error=x&state=s;t&other=;", want{code: "c;error=x", state: "s;t"}},
		{"an empty error is none", "code=c&error=&state=s", want{code: "c", state: "s"}},
		{"an empty code is none", "code=&error=access_denied&state=s", want{failure: "access_denied", state: "s"}},
		{"error", "error=access_denied&state=s", want{failure: "access_denied", state: "s"}},
		{"error with text (B15)", "error=access_denied&error_description=%3Cscript%3E&error_uri=https://evil.example&state=s", want{failure: "access_denied", state: "s"}},
		{"an error code that can't be shown (B15)", "error=%3Cscript%3E&state=s", want{failure: "other", state: "s"}},
		{"an error code with a line break (B15)", "error=a%0Ab&state=s", want{failure: "other", state: "s"}},
		{"the largest", "code=" + strings.Repeat("c", maxCallback-len("code=&state=s")) + "&state=s", want{code: strings.Repeat("c", maxCallback-len("code=&state=s")), state: "s"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readCallback(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			if got.Code.Reveal() != tt.want.code || got.State != tt.want.state || got.Error != tt.want.failure {
				t.Errorf("code %q, state %q, error %q; want %+v", got.Code.Reveal(), got.State, got.Error, tt.want)
			}
			if (got.Iss == nil) != (tt.want.iss == nil) || got.Iss != nil && *got.Iss != *tt.want.iss {
				t.Errorf("iss %v, want %v", got.Iss, tt.want.iss)
			}
		})
	}
}

// B6, B11: no token request follows any of these.
func TestReadCallbackMalformed(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, query, why string }{
		{"nothing", "", "neither a code nor an error"},
		{"neither code nor error", "state=s", "neither a code nor an error"},
		{"both", "code=c&error=access_denied&state=s", "both a code and an error"},
		{"no state", "code=c", "no state"},
		{"empty state", "code=c&state=", "no state"},
		{"error without state", "error=access_denied", "no state"},
		{"code twice", "code=c&code=d&state=s", "code more than once"},
		{"the same code twice", "code=c&code=c&state=s", "code more than once"},
		{"an empty code and another", "code=&code=c&state=s", "code more than once"},
		{"an escaped second code", "code=c&%63%6fde=d&state=s", "code more than once"},
		{"state twice", "code=c&state=s&state=s", "state more than once"},
		{"iss twice", "code=c&state=s&iss=a&iss=a", "iss more than once"},
		{"error twice", "error=a&error=b&state=s", "error more than once"},
		{"error_description twice", "error=a&state=s&error_description=x&error_description=y", "error_description more than once"},
		{"error_uri twice", "error=a&state=s&error_uri=x&error_uri=y", "error_uri more than once"},
		{"an escape broken off", "code=c%4&state=s", "can't be decoded"},
		{"no escape", "code=c&state=%zz", "can't be decoded"},
		{"no escape in a name", "code=c&state=s&%zz=1", "can't be decoded"},
		{"no escape in an unknown value", "code=c&state=s&x=%", "can't be decoded"},
		{"a code with a line break", "code=c%0D%0Ad&state=s", "characters that no code may have"},
		{"a code that isn't ASCII", "code=%C3%A9&state=s", "characters that no code may have"},
		{"a code with NUL", "code=%00&state=s", "characters that no code may have"},
		{"one byte too long", "code=c&state=s&x=" + strings.Repeat("x", maxCallback+1-len("code=c&state=s&x=")), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readCallback(tt.query)
			if !errors.Is(err, ErrCallbackMalformed) || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("error %v, want ErrCallbackMalformed and %q", err, tt.why)
			}
			if !got.Code.Empty() || got.State != "" || got.Iss != nil || got.Error != "" {
				t.Errorf("what comes with the error is not empty: %+v", got)
			}
		})
	}
}

func FuzzReadCallback(f *testing.F) {
	for _, s := range []string{
		"", "code=c&state=s", "error=access_denied&state=s&error_description=x", "code=c&code=d", "%63ode=%2B&state=%",
		"iss=https%3A%2F%2Fa&code=a;b&state=s", "&&=&", "code=%00&state=\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, err := readCallback(query)
		if err != nil {
			if !errors.Is(err, ErrCallbackMalformed) {
				t.Errorf("%v does not wrap ErrCallbackMalformed", err)
			}
			return
		}
		if got.Code.Empty() == (got.Error == "") || got.State == "" || len(query) > maxCallback {
			t.Errorf("accepted %q as %+v", query, got)
		}
		if !shownCode.MatchString(got.Error) {
			t.Errorf("error code %q", got.Error)
		}
		// net/url as the second opinion, where it accepts the query.
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		for name, value := range map[string]string{"code": got.Code.Reveal(), "state": got.State} {
			if len(values[name]) > 1 || values.Get(name) != value {
				t.Errorf("%s %q, want %q", name, value, values[name])
			}
		}
		if iss := values.Get("iss"); (got.Iss == nil) != (iss == "") || got.Iss != nil && *got.Iss != iss || len(values["iss"]) > 1 {
			t.Errorf("iss %v, want %q", got.Iss, values["iss"])
		}
	})
}
