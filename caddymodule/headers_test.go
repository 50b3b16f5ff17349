package caddymodule

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestWithhold(t *testing.T) {
	t.Parallel()
	const (
		ours  = "Authorization Proxy-Authorization Cookie X-Api-Key Forwarded X-Forwarded-For X-Forwarded-Anything X-Real-Ip Via Origin Referer Sec-Fetch-Site Sec-Ch-Ua Sec-Websocket-Key"
		alias = "authorization AUTHORIZATION Proxy_authorization X_api_key X.Api.Key X_Forwarded_For X.real.ip Sec_Fetch_Site"
		other = "Accept User-Agent X-Forwarded Authorizations Cookie2 X-Authorization Viaduct Secret X-My_Key Soapaction Content-Type Te"
	)
	for _, c := range []struct {
		pass    string
		upgrade bool
		kept    string // of what is withheld
	}{
		{"", false, ""},
		{"", true, "Sec-Websocket-Key"},
		{"cookie", false, "Cookie"},
		{"cookie x-api-key", false, "Cookie X-Api-Key"},
		{"x-forwarded-*", false, "X-Forwarded-For X-Forwarded-Anything"},
		{"sec-*", false, "Sec-Fetch-Site Sec-Ch-Ua Sec-Websocket-Key"},
		{"referer origin via", false, "Origin Referer Via"},
		{"accept", false, ""},
	} {
		h := http.Header{}
		for _, name := range strings.Fields(ours + " " + alias + " " + other) {
			h[name] = []string{"v"}
		}
		withhold(h, strings.Fields(c.pass), c.upgrade)
		want := append(strings.Fields(other), strings.Fields(c.kept)...)
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
			t.Errorf("pass %q, upgrade %v: %q, want %q", c.pass, c.upgrade, got, want)
		}
	}
}

func TestSwallow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pass, kept string }{
		{"", ""},
		{"set-cookie", "Set-Cookie Set_Cookie"},
		{"access-control-*", "Access-Control-Allow-Origin"},
		{"access-control-allow-credentials", ""},
	} {
		h := http.Header{}
		for _, name := range strings.Fields("Content-Type X-Set-Cookie Set-Cookie Set_Cookie Set-Cookie2 Access-Control-Allow-Origin " + errorHeader) {
			h[name] = []string{"v"}
		}
		swallow(h, strings.Fields(c.pass))
		want := append(strings.Fields(c.kept), "Content-Type", "X-Set-Cookie")
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
			t.Errorf("pass %q: %q, want %q", c.pass, got, want)
		}
	}
}

func TestLeaks(t *testing.T) {
	t.Parallel()
	bearer := []string{"Bearer abc.def"}
	for _, c := range []struct {
		header        http.Header
		authorization []string
		field         string
	}{
		{http.Header{"X-Echo": {"1", "Bearer abc.def"}}, bearer, "X-Echo"},
		{http.Header{"Location": {"https://h/?token=abc.def&x"}}, bearer, "Location"},
		{http.Header{"X-Echo": {"abc.de"}, "Etag": {`"abc"`}}, bearer, ""},
		{http.Header{"X-Echo": {"abc.def"}}, nil, ""},
	} {
		if got := leaks(c.header, c.authorization); got != c.field {
			t.Errorf("%v: %q, want %q", c.header, got, c.field)
		}
	}
}

func TestCheckFields(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"Cookie": true, "x-forwarded-*": true, "*": true, "X-Api-Key": true,
		"": false, "**": false, "a*b": false, "X_Key": false, "Authorization": false, "AUTHORIZATION": false, "a b": false, "Authorization-X": true,
	} {
		names := []string{name}
		if err := checkFields(names, "Authorization"); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if ok && names[0] != strings.ToLower(name) {
			t.Errorf("%q became %q", name, names[0])
		}
	}
	// What a star stands for never includes the token's field: the transport
	// writes it last.
	h := http.Header{"Authorization": {"Basic x"}, "Cookie": {"a=b"}}
	if h = withAuthorization(h, []string{"Bearer t"}); h.Get("Authorization") != "Bearer t" || len(h["Authorization"]) != 1 {
		t.Errorf("%v", h)
	}
}
