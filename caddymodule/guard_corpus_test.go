package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// statuses are those of the guard's codes.
var statuses = map[string]int{
	"method_refused": 405, "upgrade_refused": 403, "host_refused": 421, "origin_refused": 403,
	"caller_refused": 403, "key_refused": 401, "path_refused": 400,
}

// The first value of each is what an application sends; the others are what a
// web page, a browser or an attacker makes of it. An empty one is no field.
var (
	corpusHosts = []string{"localhost", "(none)", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "erp.example.com", "ERP.Example.Com:80",
		"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io:8080", "localhost.", "0.0.0.0:8080", "2130706433", "erp.example.com.evil.example"}
	corpusOrigins = []string{"", "https://app.example.com", "http://intranet:8080", "null", "https://evil.example", "http://localhost:8080",
		"http://localhost", "https://APP.example.com", "https://app.example.com:443", "https://app.example.com/", "http://app.example.com", "https://app.example.com, https://evil.example"}
	corpusSites   = []string{"", "none", "same-origin", "same-site", "cross-site", "None", "none, cross-site"}
	corpusModes   = []string{"", "navigate", "no-cors", "cors", "websocket"}
	corpusMethods = []string{"GET", "POST", "OPTIONS", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND", "get", "CONNECT", "TRACE", "TRACK", "trace"}
	corpusVersion = []string{"HTTP/1.1", "HTTP/1.0"}
	corpusForms   = []string{"origin", "absolute", "absolute and Host localhost", "absolute localhost", "authority", "asterisk"}
	corpusUpgrade = []string{"", "h2c", "websocket"}
	corpusSizes   = []int{len(corpusHosts), len(corpusOrigins), len(corpusSites), len(corpusModes), len(corpusMethods), len(corpusVersion), len(corpusForms), len(corpusUpgrade)}
)

// corpusAttempt makes the request of a choice of each; false: there is no such
// request.
func corpusAttempt(choice []int) (attempt, bool) {
	host, method, form := corpusHosts[choice[0]], corpusMethods[choice[4]], corpusForms[choice[6]]
	a := attempt{method: method, target: "/echo/x?y=1", version: corpusVersion[choice[5]], peer: "127.0.0.1:5000"}
	name := strings.Replace(host, "(none)", "localhost", 1)
	switch form {
	case "absolute", "absolute and Host localhost":
		a.target = "http://" + name + a.target
	case "absolute localhost":
		a.target = "http://localhost:8080" + a.target
	case "authority":
		if method != "CONNECT" {
			return a, false // see TestGuardStrangeTargets
		}
		a.target = "localhost:8080"
	case "asterisk":
		a.target = "*"
	}
	if form == "absolute and Host localhost" {
		host = "localhost"
	}
	add := func(name, value string) {
		if value != "" {
			a.fields = append(a.fields, [2]string{name, value})
		}
	}
	if host != "(none)" {
		add("Host", host)
	}
	add("Origin", corpusOrigins[choice[1]])
	add("Sec-Fetch-Site", corpusSites[choice[2]])
	add("Sec-Fetch-Mode", corpusModes[choice[3]])
	if upgrade := corpusUpgrade[choice[7]]; upgrade != "" {
		add("Connection", "Upgrade")
		add("Upgrade", upgrade)
	}
	if method == "POST" || method == "PUT" || method == "PATCH" {
		add("Content-Length", "5")
		a.body = "hello"
	}
	return a, true
}

// corpusChoices are all that differ from an application's request in at most so
// many respects.
func corpusChoices(most int) (all [][]int) {
	var walk func(at, left int, choice []int)
	walk = func(at, left int, choice []int) {
		if at == len(corpusSizes) {
			all = append(all, slices.Clone(choice))
			return
		}
		walk(at+1, left, append(choice, 0))
		for i := 1; i < corpusSizes[at] && left > 0; i++ {
			walk(at+1, left-1, append(choice, i))
		}
	}
	walk(0, most, nil)
	return all
}

// corpusRules are the guards that the corpus is put to.
var corpusRules = map[string]guardRules{
	"default":    {},
	"configured": {hosts: []string{"erp.example.com"}, origins: []string{"https://app.example.com", "http://intranet:8080", "http://localhost"}, upgrade: true},
}

// Every request that differs from an application's in up to two respects, every
// third of those that do in three, and a sample of all: about 8,000 for each
// guard. Each is refused or passes as the reference says.
func TestGuardCorpusInside(t *testing.T) {
	choices := append(corpusChoices(2), corpusSample(2000)...)
	for i, choice := range corpusChoices(3) {
		if i%3 == 0 {
			choices = append(choices, choice)
		}
	}
	for name, rules := range corpusRules {
		t.Run(name, func(t *testing.T) {
			server := insideServers(t, "http://127.0.0.1:9", guardedSite(rules.options()))[0]
			tally := &tally{T: t}
			defer tally.end()
			hostile := 0
			for _, choice := range choices {
				a, ok := corpusAttempt(choice)
				want := rules.verdict(a)
				if !ok || want == byServer {
					continue
				}
				got, ok := askInside(server, a)
				if !ok {
					continue
				}
				if want != passes {
					hostile++
				}
				if complaint := judged(got, want); complaint != "" {
					tally.Errorf("%q: %s", a.text(), complaint)
				}
			}
			t.Logf("%d requests, %d of them hostile, %d judged wrongly", len(choices), hostile, tally.failures)
			if hostile < len(choices)/4 || hostile == len(choices) {
				t.Errorf("%d of %d are hostile: that proves little", hostile, len(choices))
			}
		})
	}
}

// corpusSample is about so many, spread evenly over all.
func corpusSample(count int) (sample [][]int) {
	all := 1
	for _, n := range corpusSizes {
		all *= n
	}
	step := all/count | 1
	for i := 0; i < all; i += step {
		choice, rest := make([]int, len(corpusSizes)), i
		for d, n := range corpusSizes {
			choice[d], rest = rest%n, rest/n
		}
		sample = append(sample, choice)
	}
	return sample
}

// judged complains of an answer that is not what the reference says.
func judged(got wireAnswer, want string) string {
	if want == passes {
		if got.status != 200 && got.status != 101 || got.code != "" {
			return fmt.Sprintf("%s; it must pass", got)
		}
		return ""
	}
	var p struct {
		Status      int
		Code, Title string
	}
	_ = json.Unmarshal([]byte(got.body), &p)
	switch {
	case got.code != want || got.status != statuses[want]:
		return fmt.Sprintf("%s; want %d %s", got, statuses[want], want)
	case got.header.Get("Content-Type") != "application/problem+json":
		return fmt.Sprintf("%s: no problem document: %v", got, got.header)
	case got.body != "" && (p.Code != want || p.Status != got.status || p.Title == ""):
		return fmt.Sprintf("%s: the document is not this problem's", got)
	case !strings.EqualFold(got.header.Get("Connection"), "close") && !got.closed:
		return fmt.Sprintf("%s: the connection stays open", got)
	case got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Set-Cookie") != "":
		return fmt.Sprintf("%s: it grants a page something: %v", got, got.header)
	}
	return ""
}

// The same on the wire, for up to two respects: none of the hostile ones
// reaches the API, and the others reach it once, as they are.
func TestGuardCorpusOnTheWire(t *testing.T) {
	refused, served := 0, 0
	for name, rules := range corpusRules {
		t.Run(name, func(t *testing.T) {
			r, api := newWireRig(t, rules.options())
			tally := &tally{T: t}
			defer tally.end()
			counts := map[string]int{}
			for _, choice := range corpusChoices(2) {
				a, ok := corpusAttempt(choice)
				if !ok {
					continue
				}
				want := rules.verdict(a)
				counts[want]++
				got, err := askWire(t, r.address, a.method, a.text())
				sent := api.take()
				switch complaint := judged(got, want); {
				case err != nil:
					tally.Errorf("%q: no answer: %v", a.text(), err)
				case want == byServer:
					if got.code != "" || len(sent) > 0 || got.status != 400 && got.status != 200 {
						tally.Errorf("%q: %s, and the API got %d; want an answer of the server's own", a.text(), got, len(sent))
					}
				case complaint != "":
					tally.Errorf("%q: %s", a.text(), complaint)
				case want != passes && len(sent) > 0:
					tally.Errorf("%q: refused with %s, but the API got %s", a.text(), want, targets(sent))
				case want == passes:
					passed(tally, a, sent)
				}
			}
			t.Logf("by verdict: %v", counts)
			for verdict, n := range counts {
				if verdict == passes {
					served += n
				} else {
					refused += n
				}
			}
			for _, code := range []string{passes, "method_refused", "upgrade_refused", "host_refused", "origin_refused"} {
				if counts[code] == 0 && (code != "upgrade_refused" || !rules.upgrade) {
					t.Errorf("no request with the verdict %q", code)
				}
			}
		})
	}
	if !t.Failed() {
		t.Logf("G16: %d guards, over sockets: %d hostile requests, 0 reached the API; %d others, all served", len(corpusRules), refused, served)
	}
}

// passed checks that the API got a request once, and as it is.
func passed(t *tally, a attempt, sent []wireRequest) {
	t.Helper()
	target := a.path()
	if _, query, ok := strings.Cut(a.target, "?"); ok {
		target += "?" + query
	}
	if len(sent) != 1 || sent[0].broken != "" || sent[0].method != a.method || sent[0].target != target || sent[0].body != a.body {
		t.Errorf("%q: the API got %s", a.text(), targets(sent))
	}
}

// Targets that are no path, of methods that want one (RFC 9112 §3.2). They may
// be refused; what must not be is that they get by the path that Caddy's
// matchers and strict_paths look at.
func TestGuardStrangeTargets(t *testing.T) {
	r, api := newWireRig(t, "strict_paths")
	for _, target := range []string{
		"localhost:8080", "localhost", "x:y", "x:admin/../secret", "x:%2e%2e/", "mailto:a@b", "http:localhost/x", "http:/x", "http:///x", "http://", "//localhost/x", "//evil.example/x",
		"///x", "?x", "#", "/x#y", "/x#/../y", "http://localhost/x#y", "urn:a:b", "/x y", "javascript:alert(1)", "file:///etc/passwd", "http://a:b@localhost/x", "http://localhost@evil.example/x",
		"http://evil.example\\@localhost/x", "http://localhost:80:80/", "https://localhost/x", "ftp://localhost/x", "http://[::1/x", "http://%6cocalhost/x", "http://local%68ost/x",
		"/a%2Fb|c", "/a%5Cb\"", "/%2e%2e/{", "/a|/..;/b", "/\x01", "/\x7f", "/\x80", "*", "/*", "%2f", "./x", "../x", "", "\\x", "/%", "/%zz", "/%1",
	} {
		request := "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
		got, err := askWire(t, r.address, "GET", request)
		sent := api.take()
		if err != nil {
			t.Errorf("%q: no answer: %v", request, err)
			continue
		}
		if got.status >= 400 && len(sent) == 0 {
			continue
		}
		path := attempt{target: target}.path()
		if len(sent) != 1 || got.status != http.StatusOK || path != "*" && (!strings.HasPrefix(sent[0].target, "/") || twoReadings(path) || twoReadings(sent[0].target)) {
			t.Errorf("%q: %s, and the API got %s", request, got, targets(sent))
		}
	}
}

func targets(sent []wireRequest) string {
	var all []string
	for _, r := range sent {
		all = append(all, fmt.Sprintf("%q %q %s", r.method+" "+r.target, r.body, r.broken))
	}
	return fmt.Sprint(all)
}
