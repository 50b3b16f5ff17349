package oauth

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
)

const (
	testIssuer   = "https://as.example/tenant"
	goodMetadata = `{"issuer":"https://as.example/tenant",
		"authorization_endpoint":"https://as.example/authorize?x=1",
		"token_endpoint":"https://as.example/token",
		"revocation_endpoint":"https://as.example/revoke",
		"device_authorization_endpoint":"https://as.example/device",
		"authorization_response_iss_parameter_supported":true,
		"scopes_supported":["openid"],"jwks_uri":5}`
)

// only is a document with the given members beside a good issuer and
// token_endpoint.
func only(members string) string {
	return `{"issuer":"` + testIssuer + `","token_endpoint":"https://as.example/token"` + members + `}`
}

func TestReadMetadata(t *testing.T) {
	t.Parallel()
	bare := Metadata{Issuer: testIssuer, TokenEndpoint: "https://as.example/token"}
	sends := bare
	sends.SendsIss = true
	full := Metadata{
		Issuer: testIssuer, AuthorizeEndpoint: "https://as.example/authorize?x=1", TokenEndpoint: "https://as.example/token",
		RevokeEndpoint: "https://as.example/revoke", DeviceEndpoint: "https://as.example/device", SendsIss: true,
	}
	const iss = `,"authorization_response_iss_parameter_supported":`
	tests := []struct {
		name, body string
		want       Metadata
		why        string // empty: no error
	}{
		{"full", goodMetadata, full, ""},
		{"the least", only(""), bare, ""},
		{"byte order mark", "\xef\xbb\xbf" + only(""), bare, ""},
		{"members that don't matter, of any type", only(`,"registration_endpoint":{},"grant_types_supported":"x","":null,"Issuer":1,"TOKEN_ENDPOINT":"http://evil.example"`), bare, ""},
		{"null counts as absent", only(`,"revocation_endpoint":null,"device_authorization_endpoint": null`), bare, ""},
		{"said twice, the same", only(`,"token_endpoint":"https://as.example/token"`), bare, ""},
		{"sends iss", only(iss + `true`), sends, ""},
		{"sends iss, as text", only(iss + `"true"`), sends, ""},
		{"sends no iss", only(iss + `false`), bare, ""},
		{"sends iss: null", only(iss + `null`), bare, ""},
		{"sends iss: neither", only(iss + `1`), Metadata{}, "authorization_response_iss_parameter_supported"},
		{"plain http on localhost, of an https issuer (B53)", only(`,"device_authorization_endpoint":"http://localhost:8081/d"`), bare, "set device_endpoint"},
		{"plain http on 127.0.0.1, of an https issuer (B53)", only(`,"device_authorization_endpoint":"http://127.0.0.1/d"`), bare, "set device_endpoint"},
		{"plain http on ::1, of an https issuer (B53)", only(`,"device_authorization_endpoint":"http://[::1]:1/d"`), bare, "set device_endpoint"},

		{"no issuer (B53)", `{"token_endpoint":"https://as.example/token"}`, Metadata{}, "no issuer"},
		{"issuer of another type", `{"issuer":["https://as.example/tenant"]}`, Metadata{}, "no issuer"},
		{"issuer of another (B53)", strings.Replace(goodMetadata, "as.example/tenant", "evil.example", 1), Metadata{}, "issuer is not the configured one"},
		{"issuer in other letters (B53)", strings.Replace(goodMetadata, "as.example/tenant", "AS.example/tenant", 1), Metadata{}, "issuer is not the configured one"},
		{"issuer with a slash more (B53)", strings.Replace(goodMetadata, "as.example/tenant", "as.example/tenant/", 1), Metadata{}, "by a slash at the end"},
		{"issuer twice", `{"issuer":"https://evil.example",` + goodMetadata[1:], Metadata{}, "twice"},
		{"token_endpoint twice", only(`,"token_endpoint":"https://evil.example/token"`), Metadata{}, "twice"},
		{"an unknown member twice", only(`,"x":1,"x":2`), Metadata{}, "twice"},

		{"no token_endpoint", `{"issuer":"` + testIssuer + `"}`, Metadata{Issuer: testIssuer}, "no token_endpoint; set token_endpoint"},
		{"token_endpoint null", `{"issuer":"` + testIssuer + `","token_endpoint":null}`, Metadata{Issuer: testIssuer}, "no token_endpoint; set token_endpoint"},
		{"a misspelt key", `{"issuer":"` + testIssuer + `","token_endpiont":"https://as.example/token"}`, Metadata{Issuer: testIssuer}, "no token_endpoint; set token_endpoint"},
		{"authorization_endpoint", only(`,"authorization_endpoint":""`), bare, "its authorization_endpoint is no absolute https URL without user and fragment; set authorize_endpoint"},
		{"revocation_endpoint", only(`,"revocation_endpoint":7`), bare, "its revocation_endpoint is no absolute https URL without user and fragment; set revoke_endpoint"},
		{"device_authorization_endpoint", only(`,"device_authorization_endpoint":"/device"`), bare, "its device_authorization_endpoint is no absolute https URL without user and fragment; set device_endpoint"},
		{"two at once", only(`,"revocation_endpoint":7,"authorization_endpoint":"x"`), bare, "set authorize_endpoint; its revocation_endpoint"},

		{"empty", "", Metadata{}, "not a JSON object"},
		{"a list", "[]", Metadata{}, "not a JSON object"},
		{"HTML", "<html>", Metadata{}, "not a JSON object"},
		{"broken off", goodMetadata[:len(goodMetadata)-1], Metadata{}, "not a JSON object"},
		{"more behind", goodMetadata + "{}", Metadata{}, "not a JSON object"},
		{"deep", `{"x":` + strings.Repeat("[", 100_000) + `}`, Metadata{}, "not a JSON object"},
		{"too long", only(`,"x":"` + strings.Repeat("x", maxMetadata) + `"`), Metadata{}, "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readMetadata(testIssuer, []byte(tt.body))
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if (err == nil) != (tt.why == "") || err != nil && (!strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "evil")) {
				t.Errorf("error %v, want %q", err, tt.why)
			}
		})
	}
}

func TestMetadataIsStored(t *testing.T) {
	t.Parallel()
	m, err := readMetadata(testIssuer, []byte(goodMetadata))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var again Metadata
	if err := json.Unmarshal(stored, &again); err != nil || again != m {
		t.Errorf("%+v became %+v, %v", m, again, err)
	}
	if want := `"sends_iss":true`; !strings.Contains(string(stored), want) {
		t.Errorf("%s has no %s", stored, want)
	}
}

// What secrets may be sent to (B20, B24, B53).
func TestIsEndpoint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"https://as.example":                  true,
		"https://as.example:8443/t?tenant=1":  true,
		"HTTPS://AS.example/t":                true,
		"https://[2001:db8::1]/t":             true,
		"https://xn--bcher-kva.example/t":     true,
		"http://localhost/t":                  true,
		"http://LOCALHOST:1/t":                true,
		"http://127.8.9.1/t":                  true,
		"http://[::1]/t":                      true,
		"http://[::ffff:127.0.0.1]/t":         true,
		"":                                    false,
		"as.example/t":                        false,
		"//as.example/t":                      false,
		"/t":                                  false,
		"https:///t":                          false,
		"https://:443/t":                      false,
		"https:as.example":                    false,
		"ftp://as.example/t":                  false,
		"javascript:alert(1)":                 false,
		"http://as.example/t":                 false,
		"http://localhost.evil.example/t":     false,
		"http://127.0.0.1.evil.example/t":     false,
		"http://127.1/t":                      false,
		"http://0.0.0.0/t":                    false,
		"https://user@as.example/t":           false,
		"https://@as.example/t":               false,
		"https://as.example/t#f":              false,
		"https://as.example/t#":               false,
		"https://as.example/ t":               false,
		" https://as.example/t":               false,
		"https://as.example/t\n":              false,
		"https://as.example\\@evil.example/t": false,
		"https://as.example/\u00e9":           false,
		"https://\u0430s.example/":            false,
		"https://a<b>.example/":               false,
		"https://a\"b.example/":               false,
		"https://as.example:x/":               false,
		"https://as.example/%zz":              false,
	} {
		if got := isEndpoint(text); got != want {
			t.Errorf("isEndpoint(%q) = %v", text, got)
		}
	}
}

func TestUnlessOverridden(t *testing.T) {
	t.Parallel()
	m, err := readMetadata(testIssuer, []byte(`{"issuer":"`+testIssuer+`","revocation_endpoint":"x","device_authorization_endpoint":"https://as.example/d"}`))
	if m.DeviceEndpoint == "" || err == nil {
		t.Fatalf("got %+v, %v", m, err)
	}
	if got := unlessOverridden(err, "token_endpoint", "revoke_endpoint", "device_endpoint"); got != nil {
		t.Errorf("both are overridden: %v", got)
	}
	if got := unlessOverridden(err, "token_endpoint"); got == nil || strings.Contains(got.Error(), "token_endpoint") || !strings.Contains(got.Error(), "revoke_endpoint") {
		t.Errorf("one is overridden: %v", got)
	}
	if got := unlessOverridden(err); got == nil || got.Error() != err.Error() {
		t.Errorf("none is overridden: %v", got)
	}
	if err := errors.New("x"); unlessOverridden(err, "token_endpoint") != err || unlessOverridden(nil, "token_endpoint") != nil {
		t.Error("an error of another kind must stay")
	}
}

// B54: where secrets go doesn't change by itself.
func TestMovedFrom(t *testing.T) {
	t.Parallel()
	old := Metadata{TokenEndpoint: "https://a.example/token", RevokeEndpoint: "https://r.example/revoke"}
	tests := []struct {
		name     string
		old, now Metadata
		want     string // empty: not moved
	}{
		{"the same", old, old, ""},
		{"another path", old, Metadata{TokenEndpoint: "https://a.example/v2/token?x=1", RevokeEndpoint: "https://r.example/"}, ""},
		{"other letters", old, Metadata{TokenEndpoint: "https://A.Example/token"}, ""},
		{"the port said", old, Metadata{TokenEndpoint: "https://a.example:443/token"}, ""},
		{"people type passwords at the authorization endpoint", old, Metadata{TokenEndpoint: old.TokenEndpoint, AuthorizeEndpoint: "https://z.example/"}, "the authorization endpoint is new, on z.example, where no other was"},
		{"one is gone", old, Metadata{TokenEndpoint: old.TokenEndpoint}, ""},
		{"a new one on the same host", old, Metadata{TokenEndpoint: old.TokenEndpoint, DeviceEndpoint: "https://r.example/d"}, ""},
		{"nothing known before", Metadata{}, old, ""},
		{"token", old, Metadata{TokenEndpoint: "https://b.example/token"}, "the token endpoint moved from a.example to b.example"},
		{"token to a host below", old, Metadata{TokenEndpoint: "https://x.a.example/token"}, "the token endpoint moved from a.example to x.a.example"},
		{"token to another known host", old, Metadata{TokenEndpoint: "https://r.example/token"}, "the token endpoint moved from a.example to r.example"},
		{"another port", old, Metadata{TokenEndpoint: "https://a.example:8443/token"}, "the token endpoint moved from a.example to a.example:8443"},
		{"plain http", Metadata{TokenEndpoint: "https://localhost/t"}, Metadata{TokenEndpoint: "http://localhost/t"}, "the token endpoint moved from localhost to localhost:80"},
		{"revoke", old, Metadata{TokenEndpoint: old.TokenEndpoint, RevokeEndpoint: "https://[2001:DB8::1]:1/?secret=path"}, "the revocation endpoint moved from r.example to [2001:db8::1]:1"},
		{"device, new", old, Metadata{TokenEndpoint: old.TokenEndpoint, DeviceEndpoint: "https://d.example/d"}, "the device endpoint is new, on d.example, where no other was"},
		{"two", old, Metadata{TokenEndpoint: "https://b.example", RevokeEndpoint: "https://b.example"}, "the token endpoint moved from a.example to b.example; the revocation endpoint moved from r.example to b.example"},
		{"the former can't be read", Metadata{TokenEndpoint: "%"}, old, "the token endpoint moved from an unknown host to a.example; the revocation endpoint is new, on r.example, where no other was"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, moved := tt.now.movedFrom(tt.old); got != tt.want || moved != (tt.want != "") {
				t.Errorf("movedFrom = %q, %v; want %q", got, moved, tt.want)
			}
		})
	}
}

var shownMetadataError = regexp.MustCompile(`\A(it is too long|it is not a JSON object|it has a member twice, with different values|it has no issuer|` +
	`its issuer (is not the configured one|differs from the configured one by a slash at the end)|` +
	`its authorization_response_iss_parameter_supported is neither true nor false|` +
	`((it has no|its) [a-z_]+_endpoint( is no absolute https URL without user and fragment)?; set (token|authorize|revoke|device)_endpoint(; |\z))+)\z`)

func FuzzReadMetadata(f *testing.F) {
	f.Add([]byte(goodMetadata))
	f.Add([]byte(only(`,"device_authorization_endpoint":"http://[::1]:1/d"`)))
	f.Add([]byte(`{"issuer":"` + testIssuer + `","issuer":null}`))
	f.Add([]byte("\xef\xbb\xbf{}"))
	f.Add([]byte(only(`,"revocation_endpoint":"https://a@b/#"`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := readMetadata(testIssuer, body)
		for _, endpoint := range []string{m.AuthorizeEndpoint, m.TokenEndpoint, m.RevokeEndpoint, m.DeviceEndpoint} {
			local := strings.HasPrefix(hostOf(endpoint), "localhost") || isLoopback(strings.Trim(hostOf(endpoint), "[]")) || strings.Contains(hostOf(endpoint), ":")
			if endpoint != "" && !strings.HasPrefix(strings.ToLower(endpoint), "https://") && !local {
				t.Errorf("endpoint %q", endpoint)
			}
			if strings.ContainsAny(hostOf(endpoint), "<>\"'&@/\\\r\n\x00\x1b") {
				t.Errorf("host %q", hostOf(endpoint))
			}
		}
		if err != nil {
			if !shownMetadataError.MatchString(err.Error()) {
				t.Errorf("error %q", err)
			}
			return
		}
		// encoding/json as the second opinion.
		var object map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(string(body), "\xef\xbb\xbf")), &object); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if object["issuer"] != testIssuer || object["token_endpoint"] != m.TokenEndpoint || m.TokenEndpoint == "" {
			t.Errorf("accepted %s as %+v", body, m)
		}
	})
}

// An issuer on this machine may have its endpoints there without TLS.
func TestReadMetadataPlain(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"localhost:8081", "127.0.0.1", "[::1]:1"} {
		issuer := "http://" + host
		m, err := readMetadata(issuer, []byte(`{"issuer":"`+issuer+`","token_endpoint":"`+issuer+`/t"}`))
		if err != nil || m.TokenEndpoint != issuer+"/t" {
			t.Errorf("%s: %+v, %v", host, m, err)
		}
	}
}
