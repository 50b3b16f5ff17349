package caddymodule

import (
	"slices"
	"strings"
	"testing"
)

// protectedNames are the fields that don't reach the API unless asked for. A
// star stands for any ending.
var protectedNames = []string{
	"authorization", "proxy-authorization", "cookie", "x-api-key", "forwarded", "x-forwarded-*", "via", "x-real-ip", "origin", "referer", "sec-*",
}

// hyphens is a field's name as the API may read it: in lower case, with a
// hyphen for what CGI and others can't tell from one.
func hyphens(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

func protectedName(name string) bool {
	name = hyphens(name)
	return slices.ContainsFunc(protectedNames, func(p string) bool {
		prefix, star := strings.CutSuffix(p, "*")
		return name == p || star && strings.HasPrefix(name, prefix)
	})
}

// onlyOurs complains of a request that carries another Authorization than
// ours, or more than one, or a protected field that isn't among the passed.
func onlyOurs(r wireRequest, ours string, passed ...string) string {
	authorizations := 0
	for _, f := range r.fields {
		switch name := strings.ToLower(f[0]); {
		case name == "authorization" && f[1] == ours:
			authorizations++
		case slices.Contains(passed, name):
		case protectedName(f[0]), protectedName(strings.TrimPrefix(f[0], "(trailer) ")):
			return "it got " + f[0] + ": " + strings.ReplaceAll(f[1], ours, "(ours)")
		}
	}
	if authorizations != 1 {
		return "it did not get our Authorization, or more than once"
	}
	return ""
}

// aliasOptions make Caddy let names with _ and . through, that it drops by
// itself: what the guard does must not hang on that. Of those that it lets
// through, Caddy drops the spelling with hyphens.
const aliasOptions = `servers {
		expected_underscore_headers x_* sec_* proxy_* authorization_ x-forwarded_* x-api_* x-real_* sec-fetch_* _authorization
		expected_dot_headers x.* sec.* proxy.* x-forwarded.* x-api.* x-real.* sec-fetch.*
	}`

// TM-10 and the advisories CVE-2021-32813, CVE-2024-45410, CVE-2026-29054
// (Traefik), CVE-2025-48865 (Fabio): a caller's Connection list doesn't take
// our Authorization off, however it is written.
func TestConnectionMatrix(t *testing.T) {
	r, api := newWireRig(t)
	tally := &tally{T: t}
	defer tally.end()
	ours := r.session().Current().Authorization()[0]
	var cases []string
	for _, name := range []string{"Connection", "connection", "CONNECTION", "Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Upgrade-Insecure-Requests", "Connection\r\nConnection"} {
		name = strings.ReplaceAll(name, "\r\nC", ": x\r\nC")
		for _, list := range []string{"Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION", "close, Authorization", "keep-alive,Authorization", "Authorization,keep-alive",
			",,authorization,,", "\tauthorization\t", "authorization, authorization", "Host, Authorization", "Content-Length, Authorization", "Connection, Authorization",
			"X-Forwarded-For, Authorization", "*", "authorization;q=1", "\"authorization\"", "authorization_", "Transfer-Encoding, Authorization"} {
			for _, own := range []string{"", "Authorization: Basic eDp5\r\n", "authorization: Bearer other\r\nAUTHORIZATION: b\r\n"} {
				cases = append(cases, name+": "+list+"\r\n"+own, own+name+": "+list+"\r\n")
			}
		}
	}
	slices.Sort(cases)
	for _, fields := range slices.Compact(cases) {
		got, err := askWire(t, r.address, "GET", "GET /a HTTP/1.1\r\nHost: localhost\r\n"+fields+"\r\n")
		sent := api.take()
		if err != nil || got.status != 200 || len(sent) != 1 {
			tally.Errorf("%q: %v %v, and the API got %d requests; want one", fields, got, err, len(sent))
			continue
		}
		if complaint := onlyOurs(sent[0], ours); complaint != "" {
			tally.Errorf("%q: %s", fields, complaint)
		}
	}
	t.Logf("%d forms", len(slices.Compact(cases)))
	if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
		tally.Errorf("%d refreshes", n) // TM-10: no storm
	}
}

// fieldSpellings of a name: in any case, twice, with _ or . for some hyphens or all.
func fieldSpellings(name string) []string {
	all := []string{name, strings.ToUpper(name), strings.ToLower(name), oddCase(name)}
	for _, sign := range []string{"_", "."} {
		all = append(all, strings.ReplaceAll(name, "-", sign), strings.ToUpper(strings.ReplaceAll(name, "-", sign)), strings.Replace(name, "-", sign, 1))
		if i := strings.LastIndex(name, "-"); i >= 0 {
			all = append(all, name[:i]+sign+name[i+1:])
		}
	}
	all = append(all, strings.Replace(strings.Replace(name, "-", "_", 1), "-", ".", 1))
	slices.Sort(all)
	return slices.Compact(all)
}

func oddCase(name string) string {
	b := []byte(strings.ToLower(name))
	for i := 1; i < len(b); i += 2 {
		b[i] = strings.ToUpper(string(b[i]))[0]
	}
	return string(b)
}

// callerFields are protected ones with what a caller may send there. What Caddy
// or the browser rules would refuse is chosen to pass them.
var callerFields = map[string]string{
	"Authorization": "Basic eDp5", "Proxy-Authorization": "Basic eDp5", "Cookie": "session=1", "X-API-Key": "key", "Forwarded": "for=192.0.2.1;host=evil.example",
	"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "1", "X-Forwarded-User": "root",
	"X-Forwarded-Uri": "/", "X-Forwarded-Prefix": "/x", "X-Forwarded-Access-Token": "t", "Via": "1.1 x", "X-Real-IP": "192.0.2.1", "Origin": "https://app.example.com",
	"Referer": "http://intranet/secret", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1", "Sec-CH-UA": "\"x\"",
	"Sec-GPC": "1", "Sec-Purpose": "prefetch", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "token, x", "Sec-": "x", "X-Forwarded-": "x",
}

// TM-11, TM-12, TM-13 and the advisories CVE-2026-33433, GHSA-5m6w-wvh7-57vm,
// CVE-2026-54763, CVE-2026-88011, CVE-2026-88879 (Traefik), CVE-2025-64484
// (oauth2-proxy), CVE-2026-52845 (Caddy): no protected field of the caller
// reaches the API, in no spelling; what isn't protected does.
func TestProtectedFields(t *testing.T) {
	for name, global := range map[string]string{"Caddy drops aliases": "", "Caddy lets aliases pass": aliasOptions} {
		t.Run(name, func(t *testing.T) {
			r, api := newAliasRig(t, global, "callers 127.0.0.1", "origins https://app.example.com")
			ours := r.session().Current().Authorization()[0]
			tally := &tally{T: t}
			defer tally.end()
			arrived := 0
			for field, value := range callerFields {
				for _, name := range fieldSpellings(field) {
					for _, fields := range []string{name + ": " + value, name + ": " + value + "\r\n" + name + ": " + value + "\r\n" + field + ": " + value, name + ":", "Connection: " + name + "\r\n" + name + ": " + value} {
						if strings.HasPrefix(hyphens(name), "origin") && fields != name+": "+value || strings.HasPrefix(hyphens(name), "sec-fetch-site") && fields != name+": "+value {
							continue // two of them are refused
						}
						got, err := askWire(t, r.address, "GET", "GET /a HTTP/1.1\r\nHost: localhost\r\nCustom: 1\r\n"+fields+"\r\n\r\n")
						sent := api.take()
						if err != nil || got.status != 200 || len(sent) != 1 {
							tally.Errorf("%q: %v %v, and the API got %d requests; want one", fields, got, err, len(sent))
							continue
						}
						arrived++
						if complaint := onlyOurs(sent[0], ours); complaint != "" {
							tally.Errorf("%q: the API: %s", fields, complaint)
						}
						if !slices.Equal(sent[0].values("Custom"), []string{"1"}) {
							tally.Errorf("%q: the API got Custom %q", fields, sent[0].values("Custom"))
						}
					}
				}
			}
			t.Logf("%d requests", arrived)
			if global == "" {
				return
			}
			// Without these the run above would prove Caddy's filter only.
			for _, field := range []string{"X_Custom", "X.Custom", "X_Forwarded", "Proxy_X"} {
				_, _ = askWire(t, r.address, "GET", "GET /a HTTP/1.1\r\nHost: localhost\r\n"+field+": 1\r\n\r\n")
				if sent := api.take(); len(sent) != 1 || len(sent[0].values(field)) != 1 {
					tally.Errorf("%s, which isn't protected, did not reach the API", field)
				}
			}
		})
	}
}

func newAliasRig(t *testing.T, global string, options ...string) (*rig, *wireAPI) {
	t.Helper()
	r, api := prepareWireRig(t, options...)
	r.global = global
	r.start()
	r.ready()
	return r, api
}

// pass_headers lets what it names pass, and nothing that only looks like it.
func TestPassHeaders(t *testing.T) {
	for _, c := range []struct {
		name, options string // lines of the Caddyfile, parted by |
		fields        string // as sent, parted by |
		want          string // those of the API beyond the usual ones, parted by |
	}{
		{"none", "", "Cookie: a=b|Referer: r|X-Other: o", "x-other: o"},
		{"one", "pass_headers Cookie", "Cookie: a=b|Referer: r", "cookie: a=b"},
		{"any case", "pass_headers cOOKIE", "COOKIE: a=b|Referer: r", "cookie: a=b"},
		{"several values", "pass_headers Cookie Referer", "Cookie: a=b|Cookie: c|Referer: r", "cookie: a=b|cookie: c|referer: r"},
		{"a beginning", "pass_headers Sec-CH-*", "Sec-CH-UA: x|Sec-CH-UA-Mobile: ?0|Sec-Fetch-Dest: y", "sec-ch-ua-mobile: ?0|sec-ch-ua: x"},
		{"forwarded", "callers 127.0.0.1|pass_headers Forwarded X-Real-IP", "Forwarded: for=x|X-Real-IP: 1|X-Forwarded-Host: h", "forwarded: for=x|x-real-ip: 1"},
		{"an alias", "pass_headers X-API-Key", "X_API_Key: a|X.API.Key: b|X-API_Key: c", ""},
		{"the API's own key", "pass_headers X-API-Key", "X-API-Key: a", "x-api-key: a"},
		{"the API's own key beside ours", "pass_headers X-API-Key|caller_key erp " + legacyKey, "X-API-Key: a|Authorization: " + basicKey, "x-api-key: a"},
		{"our key", "pass_headers X-API-Key|caller_key erp " + legacyKey, "X-API-Key: " + legacyKey, ""},
		{"origin", "origins https://app.example.com|pass_headers Origin", "Origin: https://app.example.com", "origin: https://app.example.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			global := ""
			if c.name == "an alias" {
				global = aliasOptions
			}
			r, api := newAliasRig(t, global, strings.Split(c.options, "|")...)
			request := "GET /a HTTP/1.1\r\nHost: localhost\r\n" + strings.ReplaceAll(c.fields, "|", "\r\n") + "\r\n\r\n"
			got, err := askWire(t, r.address, "GET", request)
			sent := api.take()
			if err != nil || got.status != 200 || len(sent) != 1 {
				t.Fatalf("%q: %v %v, and the API got %d requests", request, got, err, len(sent))
			}
			var rest []string
			for _, f := range sent[0].fields {
				if name := strings.ToLower(f[0]); name != "host" && name != "authorization" {
					rest = append(rest, name+": "+f[1])
				}
			}
			slices.Sort(rest)
			if have := strings.Join(rest, "|"); have != c.want {
				t.Errorf("%q: the API got %q, want %q", request, have, c.want)
			}
			if ours := r.session().Current().Authorization(); !slices.Equal(sent[0].values("Authorization"), ours) {
				t.Errorf("%q: the API got Authorization %d times, or not ours", request, len(sent[0].values("Authorization")))
			}
		})
	}
}

// Authorization can't be passed: it is refused when the configuration is
// loaded, or does nothing.
func TestPassAuthorization(t *testing.T) {
	for _, name := range []string{"Authorization", "authorization", "auth*", "A*", "*"} {
		r, api := prepareWireRig(t, "pass_headers "+name)
		if err := r.load(r.caddyfile()); err != nil {
			if !strings.Contains(err.Error(), "pass_headers") || strings.Contains(err.Error(), "not supported") {
				t.Errorf("pass_headers %s: %v", name, err)
			}
			continue
		}
		r.ready()
		_, _ = askWire(t, r.address, "GET", "GET /a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic eDp5\r\n\r\n")
		if sent := api.take(); len(sent) != 1 || !slices.Equal(sent[0].values("Authorization"), r.session().Current().Authorization()) {
			t.Errorf("pass_headers %s: the API got %d requests, or another Authorization", name, len(sent))
		}
		r.stop()
	}
}

// TM-16: no trailer of a request reaches the API, whatever it is called.
func TestRequestTrailers(t *testing.T) {
	r, api := newWireRig(t)
	tally := &tally{T: t}
	defer tally.end()
	ours := r.session().Current().Authorization()[0]
	for _, announced := range []string{"", "Trailer: Authorization\r\n", "Trailer: X-Trailer\r\n", "Trailer: Content-Length, Host, Transfer-Encoding\r\n", "TE: trailers\r\nTrailer: Authorization, Cookie\r\n"} {
		for _, trailers := range []string{"", "Authorization: Basic eDp5\r\n", "X-Trailer: 1\r\n", "Cookie: a\r\nX-Forwarded-For: 1\r\n", "Authorization: a\r\nauthorization: b\r\n", "Content-Length: 5\r\n", "Host: evil.example\r\n", "Transfer-Encoding: chunked\r\n", "X_Api_Key: x\r\n"} {
			request := "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + announced + "\r\n5\r\nhello\r\n0\r\n" + trailers + "\r\n"
			got, err := askWire(t, r.address, "POST", request)
			sent := api.take()
			if err == nil && got.status == 400 && len(sent) == 0 {
				continue // Go refuses to announce Content-Length and the like
			}
			if err != nil || got.status != 200 || len(sent) != 1 || sent[0].body != "hello" || sent[0].broken != "" {
				tally.Errorf("%q: %v %v, and the API got %s", request, got, err, targets(sent))
				continue
			}
			if complaint := onlyOurs(sent[0], ours); complaint != "" {
				tally.Errorf("%q: the API: %s", request, complaint)
			}
			for _, f := range sent[0].fields {
				if strings.HasPrefix(f[0], "(trailer)") || strings.EqualFold(f[0], "Trailer") {
					tally.Errorf("%q: the API got %s: %s", request, f[0], f[1])
				}
			}
		}
	}
}
