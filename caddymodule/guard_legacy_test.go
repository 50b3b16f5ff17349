package caddymodule

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A legacyRequest is one as a program sends it that nobody will change any
// more. The lines end in CRLF on the wire.
type legacyRequest struct {
	name string
	head string // request line and fields
	body string
	// What the API gets where that isn't what was sent: the method and the
	// target, the body (of a chunked one, without the framing).
	target, received string
	// The fields that don't reach the API, by design.
	stripped []string
}

// basicKey is the caller key as the password of Basic authentication.
var basicKey = "Basic " + base64.StdEncoding.EncodeToString([]byte("legacy:"+legacyKey))

const legacyKey = "key-0123456789abcdef"

var soap = `<?xml version="1.0" encoding="utf-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body/></soap:Envelope>`

// legacyRequests: the header styles are those that the programs are known for;
// HOST stands for the site's address.
var legacyRequests = []legacyRequest{
	{name: "curl 7.19", head: "GET /document/v1/documents?limit=10 HTTP/1.1\nUser-Agent: curl/7.19.7 (x86_64-redhat-linux-gnu) libcurl/7.19.7\nHost: HOST\nAccept: */*"},
	{name: "curl 8", head: "GET /document/v1/documents HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*"},
	{name: "curl --compressed", head: "GET /a HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*\nAccept-Encoding: deflate, gzip, br, zstd"},
	{name: "curl -d", head: "POST /a HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*\nContent-Length: 7\nContent-Type: application/x-www-form-urlencoded", body: "a=1&b=2"},
	{name: "curl -T, old", head: "PUT /a HTTP/1.1\nUser-Agent: curl/7.29.0\nHost: HOST\nAccept: */*\nContent-Length: 5\nExpect: 100-continue", body: "hello"},
	{name: "curl -T -", head: "PUT /a HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*\nTransfer-Encoding: chunked\nExpect: 100-continue", body: "5\r\nhello\r\n0\r\n\r\n", received: "hello"},
	{name: "curl --http2", head: "GET /a HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
		stripped: []string{"Connection", "Upgrade", "HTTP2-Settings"}},
	{name: "curl -I", head: "HEAD /a HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*"},
	{name: "curl -x", head: "GET http://HOST/a?b=c HTTP/1.1\nHost: HOST\nUser-Agent: curl/8.14.1\nAccept: */*\nProxy-Connection: Keep-Alive", target: "GET /a?b=c", stripped: []string{"Proxy-Connection"}},
	{name: "HTTP/1.0, no Host", head: "GET /a HTTP/1.0"},
	{name: "HTTP/1.0, no Host, body", head: "POST /a HTTP/1.0\nContent-Length: 5", body: "hello"},
	{name: "HTTP/1.0, empty Host", head: "GET /a HTTP/1.0\nHost:"},
	{name: "HTTP/1.0, keep-alive", head: "GET /a HTTP/1.0\nHost: localhost\nConnection: Keep-Alive", stripped: []string{"Connection"}},
	{name: "Host without port", head: "GET /a HTTP/1.1\nHost: localhost"},
	{name: "Host with an empty port", head: "GET /a HTTP/1.1\nHost: localhost:"},
	{name: "IPv6 Host", head: "GET /a HTTP/1.1\nHost: [::1]:8080"},
	{name: "IPv6 Host without port", head: "GET /a HTTP/1.1\nHost: [::1]"},
	{name: "HTTP/1.1, close", head: "GET /a HTTP/1.1\nHost: HOST\nConnection: close", stripped: []string{"Connection"}},
	{name: "Java HttpURLConnection", head: "GET /a?x=%C3%A5 HTTP/1.1\nUser-Agent: Java/1.6.0_45\nHost: HOST\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\nConnection: keep-alive", stripped: []string{"Connection"}},
	{name: "Java HttpURLConnection, POST", head: "POST /a HTTP/1.1\nContent-type: application/x-www-form-urlencoded\nCache-Control: no-cache\nPragma: no-cache\nUser-Agent: Java/1.8.0_402\nHost: HOST\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\nConnection: keep-alive\nContent-Length: 5",
		body: "a=b+c", stripped: []string{"Connection"}},
	{name: "java.net.http", head: "GET /a HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\nHost: HOST\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\nUpgrade: h2c\nUser-Agent: Java-http-client/21.0.2",
		stripped: []string{"Connection", "Upgrade", "HTTP2-Settings"}},
	{name: "java.net.http, POST", head: "POST /a HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\nContent-Length: 5\nHost: HOST\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\nUpgrade: h2c\nUser-Agent: Java-http-client/11.0.22",
		body: "hello", stripped: []string{"Connection", "Upgrade", "HTTP2-Settings"}},
	{name: "Apache HttpClient", head: "POST /a HTTP/1.1\nContent-Length: 2\nContent-Type: application/json; charset=UTF-8\nHost: HOST\nConnection: Keep-Alive\nUser-Agent: Apache-HttpClient/4.5.13 (Java/11.0.9)\nAccept-Encoding: gzip,deflate", body: "{}", stripped: []string{"Connection"}},
	{name: ".NET WebRequest", head: "POST /a HTTP/1.1\nContent-Type: text/xml; charset=utf-8\nHost: HOST\nContent-Length: 5\nExpect: 100-continue\nConnection: Keep-Alive", body: "<a/>\n", stripped: []string{"Connection"}},
	{name: ".NET WebRequest, GET", head: "GET /a HTTP/1.1\nHost: HOST\nConnection: Keep-Alive", stripped: []string{"Connection"}},
	{name: ".NET SOAP", head: "POST /service.asmx HTTP/1.1\nUser-Agent: Mozilla/4.0 (compatible; MSIE 6.0; MS Web Services Client Protocol 4.0.30319.42000)\nVsDebuggerCausalityData: uIDPo+\nContent-Type: text/xml; charset=utf-8\nSOAPAction: \"http://tempuri.org/Do/It\"\nHost: HOST\nContent-Length: " + fmt.Sprint(len(soap)) + "\nExpect: 100-continue", body: soap},
	{name: "SOAP 1.2", head: "POST /s HTTP/1.1\nHost: HOST\nContent-Type: application/soap+xml; charset=utf-8; action=\"urn:do\"\nContent-Length: " + fmt.Sprint(len(soap)), body: soap},
	{name: "SOAPAction empty", head: "POST /s HTTP/1.1\nHost: HOST\nSOAPAction: \"\"\nContent-Type: text/xml\nContent-Length: 4", body: "<a/>"},
	{name: "WinHTTP", head: "GET /a HTTP/1.1\nConnection: Keep-Alive\nAccept: */*\nAccept-Language: sv-se\nUser-Agent: Mozilla/4.0 (compatible; Win32; WinHttp.WinHttpRequest.5)\nHost: HOST", stripped: []string{"Connection"}},
	{name: "Delphi Indy", head: "POST /a HTTP/1.0\nConnection: keep-alive\nContent-Type: application/json\nContent-Length: 2\nHost: HOST\nAccept: text/html, */*\nUser-Agent: Mozilla/3.0 (compatible; Indy Library)", body: "[]", stripped: []string{"Connection"}},
	{name: "Python urllib", head: "GET /a HTTP/1.1\nAccept-Encoding: identity\nHost: HOST\nUser-Agent: Python-urllib/3.11\nConnection: close", stripped: []string{"Connection"}},
	{name: "Python 2 urllib", head: "GET /a HTTP/1.0\nHost: HOST\nUser-Agent: Python-urllib/1.17"},
	{name: "Python requests", head: "DELETE /a HTTP/1.1\nHost: HOST\nUser-Agent: python-requests/2.31.0\nAccept-Encoding: gzip, deflate\nAccept: */*\nConnection: keep-alive\nContent-Length: 0", stripped: []string{"Connection"}},
	{name: "wget", head: "GET /a HTTP/1.1\nHost: HOST\nUser-Agent: Wget/1.21.3\nAccept: */*\nAccept-Encoding: identity\nConnection: Keep-Alive", stripped: []string{"Connection"}},
	{name: "wget 1.11", head: "GET /a HTTP/1.0\nUser-Agent: Wget/1.11.4\nAccept: */*\nHost: HOST\nConnection: Keep-Alive", stripped: []string{"Connection"}},
	{name: "PHP stream", head: "GET /a HTTP/1.0\nHost: HOST\nConnection: close\n", stripped: []string{"Connection"}},
	{name: "PHP SoapClient", head: "POST /s HTTP/1.1\nHost: HOST\nConnection: Keep-Alive\nUser-Agent: PHP-SOAP/5.6.40\nContent-Type: text/xml; charset=utf-8\nSOAPAction: \"urn:x#y\"\nContent-Length: 4", body: "<a/>", stripped: []string{"Connection"}},
	{name: "Perl LWP", head: "GET /a HTTP/1.1\nTE: deflate,gzip;q=0.3\nConnection: TE, close\nHost: HOST\nUser-Agent: libwww-perl/6.68", stripped: []string{"TE", "Connection"}},
	{name: "SAP", head: "POST /a HTTP/1.0\naccept: */*\ncontent-type: application/xml\ncontent-length: 4\nhost: HOST\nuser-agent: SAP NetWeaver Application Server (1.0;750)\nsap-language: EN", body: "<a/>"},
	{name: "odd case", head: "GET /a HTTP/1.1\nhOST: LocalHost\nACCEPT: x\nuser-AGENT: y"},
	{name: "no spaces", head: "GET /a HTTP/1.1\nHost:localhost\nAccept:x"},
	{name: "many spaces", head: "GET /a HTTP/1.1\nHost: \t localhost \t\nX-A:  \t b  c \t"},
	{name: "empty field", head: "GET /a HTTP/1.1\nHost: HOST\nX-Empty:"},
	{name: "a field twice", head: "GET /a HTTP/1.1\nHost: HOST\nX-A: 1\nX-A: 2\nX-A: 1"},
	{name: "not ASCII", head: "GET /a HTTP/1.1\nHost: HOST\nX-Name: \xc5ke \xc3\xa5"},
	{name: "lower-case method", head: "get /a HTTP/1.1\nHost: HOST"},
	{name: "own method", head: "X-FETCH /a HTTP/1.1\nHost: HOST"},
	{name: "WebDAV", head: "PROPFIND /a/ HTTP/1.1\nHost: HOST\nDepth: 1\nContent-Length: 0"},
	{name: "OPTIONS", head: "OPTIONS /a HTTP/1.1\nHost: HOST"},
	{name: "PATCH", head: "PATCH /a HTTP/1.1\nHost: HOST\nContent-Length: 2\nContent-Type: application/merge-patch+json", body: "{}"},
	{name: "PUT without body", head: "PUT /a HTTP/1.1\nHost: HOST\nContent-Length: 0"},
	{name: "PUT without length", head: "PUT /a HTTP/1.1\nHost: HOST"},
	{name: "POST without length", head: "POST /a HTTP/1.1\nHost: HOST"},
	{name: "DELETE with body", head: "DELETE /a HTTP/1.1\nHost: HOST\nContent-Length: 5", body: "hello"},
	{name: "GET with body", head: "GET /a HTTP/1.1\nHost: HOST\nContent-Length: 5", body: "hello"},
	{name: "GET with length 0", head: "GET /a HTTP/1.1\nHost: HOST\nContent-Length: 0"},
	{name: "chunked", head: "POST /a HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked", body: "1\r\na\r\n00A;x=y\r\n0123456789\r\n0\r\n\r\n", received: "a0123456789"},
	{name: "binary body", head: "POST /a HTTP/1.1\nHost: HOST\nContent-Length: 256", body: everyByte()},
	{name: "strange path", head: "GET /a%2Fb/%2e%2e/../c;x=1/./%5C/d//e/%25/%e5/~'()*!$&+,;=:@[]?q=%20+&&=|{}\"'/?:@ HTTP/1.1\nHost: HOST"},
	{name: "escapes and a character that should be escaped", head: "GET /a%2Fb|c%2e/%7e HTTP/1.1\nHost: HOST", target: "GET /a%2Fb%7Cc%2e/%7e"},
	{name: "a quote in a path", head: "GET /a\"b'c/%2Fd HTTP/1.1\nHost: HOST", target: "GET /a%22b'c/%2Fd"},
	{name: "two slashes first", head: "GET //a/b HTTP/1.1\nHost: HOST"},
	{name: "not ASCII path", head: "GET /\xc3\xa5/\xe5?\xe5 HTTP/1.1\nHost: HOST", target: "GET /%C3%A5/%E5?\xe5"},
	{name: "braces", head: "GET /{env.HOME}/{http.request.host}?{a} HTTP/1.1\nHost: HOST\nX-A: {env.HOME}", target: "GET /%7Benv.HOME%7D/%7Bhttp.request.host%7D?{a}"},
	{name: "? alone", head: "GET /a? HTTP/1.1\nHost: HOST"},
	{name: "long URL", head: "GET /" + strings.Repeat("a", 8000) + "?" + strings.Repeat("b=c&", 2000) + " HTTP/1.1\nHost: HOST"},
	{name: "100 fields", head: "GET /a HTTP/1.1\nHost: HOST\n" + numbered(100)},
	{name: "long field", head: "GET /a HTTP/1.1\nHost: HOST\nX-Long: " + strings.Repeat("x", 16000)},
	{name: "conditional", head: "GET /a HTTP/1.1\nHost: HOST\nIf-None-Match: W/\"x\"\nIf-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\nRange: bytes=0-1"},
}

func everyByte() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func numbered(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-Field-%d: value %d", i, i))
	}
	return strings.Join(lines, "\n")
}

// attempt is the request's bytes in parts, for this address.
func (l legacyRequest) attempt(address string) attempt {
	line, rest, _ := strings.Cut(strings.ReplaceAll(strings.TrimSuffix(l.head, "\n"), "HOST", address), "\n")
	method, line, _ := strings.Cut(line, " ")
	at := strings.LastIndex(line, " ")
	a := attempt{method: method, target: line[:at], version: line[at+1:], body: l.body}
	for _, field := range strings.Split(rest, "\n") {
		if name, value, ok := strings.Cut(field, ":"); ok {
			a.fields = append(a.fields, [2]string{name, value})
		}
	}
	return a
}

// bytes is the request as it is sent: the fields byte by byte.
func (l legacyRequest) bytes(a attempt) string {
	text := a.method + " " + a.target + " " + a.version + "\r\n"
	for _, f := range a.fields {
		text += f[0] + ":" + f[1] + "\r\n"
	}
	return text + "\r\n" + a.body
}

// All of them are served, and the API gets what they sent: method, target,
// body and the fields that aren't stripped by design, with one Authorization
// more.
func TestLegacyCorpus(t *testing.T) {
	r, api := newWireRig(t)
	legacyServed(t, r, api, "", nil)
}

// The same with a caller key, shown in both ways; it doesn't reach the API.
func TestLegacyCorpusCallerKey(t *testing.T) {
	r, api := newWireRig(t, "caller_key erp "+legacyKey, "caller_key other key-fedcba9876543210")
	legacyServed(t, r, api, "Authorization", &basicKey)
	key := legacyKey
	legacyServed(t, r, api, "x-api-key", &key)
}

func legacyServed(t *testing.T, r *rig, api *wireAPI, name string, value *string) {
	ours := r.session().Current().Authorization()[0]
	for _, l := range legacyRequests {
		a := l.attempt(r.address)
		if value != nil {
			a.fields = append(a.fields, [2]string{name, " " + *value})
			l.stripped = append(slices.Clone(l.stripped), name)
		}
		got, err := askWire(t, r.address, a.method, l.bytes(a))
		sent := api.take()
		if err != nil || got.status != 200 || len(sent) != 1 || sent[0].broken != "" {
			t.Errorf("%s: %v %v, and the API got %s; it was sent\n%.2000q", l.name, got, err, targets(sent), l.bytes(a))
			continue
		}
		target, body := a.method+" "+a.target, a.body
		if l.target != "" {
			target = l.target
		}
		if l.received != "" {
			body = l.received
		}
		if sent[0].method+" "+sent[0].target != target || sent[0].body != body {
			t.Errorf("%s: the API got %.300q with %.300q, want %.300q with %.300q", l.name, sent[0].method+" "+sent[0].target, sent[0].body, target, body)
		}
		want := l.fieldsWanted(a, r.api, ours)
		have := fieldsGot(sent[0])
		for name := range maps.Clone(have) {
			want[name] = append([]string(nil), want[name]...)
		}
		for name, values := range want {
			if !slices.Equal(have[name], values) {
				t.Errorf("%s: the API got %s %.300q, want %.300q", l.name, name, have[name], values)
			}
		}
	}
}

// fieldsWanted are the fields that the API must get, names in lower case.
func (l legacyRequest) fieldsWanted(a attempt, api, authorization string) map[string][]string {
	want := map[string][]string{}
	for _, f := range a.fields {
		gone := slices.ContainsFunc(l.stripped, func(s string) bool { return strings.EqualFold(s, f[0]) })
		if name := strings.ToLower(f[0]); !gone {
			want[name] = append(want[name], strings.Trim(f[1], " \t"))
		}
	}
	want["host"] = []string{strings.TrimPrefix(api, "http://")}
	want["authorization"] = []string{authorization}
	noLength := want["content-length"] == nil && want["transfer-encoding"] == nil
	if noLength && (a.method == "POST" || a.method == "PUT" || a.method == "PATCH") {
		want["content-length"] = []string{"0"} // RFC 9110 §8.6: it is the same, and should be sent
	}
	if slices.Equal(want["content-length"], []string{"0"}) && a.method != "POST" && a.method != "PUT" && a.method != "PATCH" {
		delete(want, "content-length") // the same, too; Go doesn't send it
	}
	return want
}

func fieldsGot(r wireRequest) map[string][]string {
	got := map[string][]string{}
	for _, f := range r.fields {
		name := strings.ToLower(f[0])
		got[name] = append(got[name], f[1])
	}
	return got
}

// Lines that begin with a space once continued the field before (RFC 9112
// §5.2: a server refuses them, or joins them by a space). In neither case do
// they make another field.
func TestLegacyFolding(t *testing.T) {
	r, api := newWireRig(t)
	ours := r.session().Current().Authorization()[0]
	for _, head := range []string{
		"GET /a HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n Authorization: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n\tCookie: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n",
		"GET /a HTTP/1.1\r\n Host: localhost\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: localhost\r\nAuthorization:\r\n x\r\n\r\n",
	} {
		got, err := askWire(t, r.address, "GET", head)
		sent := api.take()
		switch {
		case err != nil:
			t.Errorf("%q: %v", head, err)
		case got.status >= 400 && len(sent) == 0:
		case len(sent) != 1 || sent[0].broken != "" || !slices.Equal(sent[0].values("Authorization"), []string{ours}) || sent[0].values("Cookie") != nil:
			t.Errorf("%q: %s, and the API got %s", head, got, targets(sent))
		}
	}
}
