package oauth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestCheckClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]struct {
		level Level
		what  string
	}{
		0:                 {LevelOK, "agrees"},
		time.Second:       {LevelOK, "agrees"},
		20 * time.Second:  {LevelOK, "20s behind the server's"},
		-30 * time.Second: {LevelOK, "30s ahead of the server's"},
		31 * time.Second:  {LevelWarn, "31s behind"},
		-5 * time.Minute:  {LevelWarn, "5m0s ahead"},
		301 * time.Second: {LevelFail, "5m1s behind"},
		-24 * time.Hour:   {LevelFail, "24h0m0s ahead"},
	} {
		f := checkClock(skew)
		if f.Level != want.level || !strings.Contains(f.What, want.what) || (f.Fix == "") != (want.level == LevelOK) {
			t.Errorf("%v: %+v, want %v", skew, f, want)
		}
	}
}

// A date is cut to a second, and of some moment between request and answer.
func TestSkew(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 3, 1, 12, 0, 10, 900e6, time.UTC)
	for date, want := range map[string]time.Duration{
		"12:00:09": -900 * time.Millisecond, "12:00:10": 0, "12:00:11": 0, "12:00:12": 0, "12:00:13": 100 * time.Millisecond, "12:01:12": 59100 * time.Millisecond, "11:59:10": -59900 * time.Millisecond,
	} {
		at, err := time.Parse(time.DateTime, "2026-03-01 "+date)
		if err != nil {
			t.Fatal(err)
		}
		if got := (probed{began: began, took: 2 * time.Second, date: at}).skew(); got != want {
			t.Errorf("%s: %v, want %v", date, got, want)
		}
	}
}

func TestJudgeClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		code   string
		want   authVerdict
	}{
		{200, "", authAccepted}, {204, "", authAccepted}, {400, "unsupported_token_type", authAccepted}, {400, "invalid_token", authAccepted},
		{401, "", authRefused}, {401, "invalid_client", authRefused}, {400, "invalid_client", authRefused}, {403, "invalid_client", authRefused},
		{400, "", authUnclear}, {400, "invalid_request", authUnclear}, {400, "unauthorized_client", authUnclear}, {403, "", authUnclear},
		{404, "", authUnclear}, {405, "", authUnclear}, {302, "", authUnclear}, {500, "", authUnclear}, {503, "", authUnclear}, {429, "", authUnclear},
	} {
		if got := judgeClient(tt.status, tt.code); got != tt.want {
			t.Errorf("%d %s: %d, want %d", tt.status, tt.code, got, tt.want)
		}
	}
}

// Only ways that differ on the wire, send the same secret and may be configured
// are tried: each is a refusal in the server's log.
func TestOtherAuths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		auth       ClientAuth
		id, secret string
		allowed    []ClientAuth
		want       []ClientAuth
	}{
		{AuthBasic, "id", "plain", AllClientAuths, []ClientAuth{AuthPost}},
		{AuthBasic, "id", "sp+cial", AllClientAuths, []ClientAuth{AuthBasicRaw, AuthPost}},
		{AuthBasic, "i:d", "plain", AllClientAuths, []ClientAuth{AuthBasicRaw, AuthPost}},
		{AuthBasicRaw, "id", "sp+cial", AllClientAuths, []ClientAuth{AuthBasic, AuthPost}},
		{AuthBasicRaw, "id", "plain", AllClientAuths, []ClientAuth{AuthPost}},
		{AuthPost, "id", "plain", AllClientAuths, []ClientAuth{AuthBasic}},
		{AuthPost, "id", "sp+cial", AllClientAuths, []ClientAuth{AuthBasic, AuthBasicRaw}},
		{AuthBasic, "id", "sp+cial", basicAuths, []ClientAuth{AuthBasicRaw}},
		{AuthBasic, "id", "plain", basicAuths, nil},
		{AuthNone, "id", "", AllClientAuths, nil},
		{AuthPrivateKeyJWT, "id", "key", AllClientAuths, nil},
		{AuthTLS, "id", "key", AllClientAuths, nil},
	} {
		c := Client{ID: tt.id, Auth: tt.auth, Secret: Fixed(tt.secret)}
		if got := c.otherAuths(tt.allowed); !slices.Equal(got, tt.want) {
			t.Errorf("%s of %s:%s: %v, want %v", tt.auth, tt.id, tt.secret, got, tt.want)
		}
	}
}

func TestCheckCertificateWords(t *testing.T) {
	t.Parallel()
	now := time.Now()
	leaf := &x509.Certificate{DNSNames: []string{"as.test", "b", "c", "d"}, NotAfter: now.Add(90*24*time.Hour + time.Hour), Issuer: pkix.Name{CommonName: "R3", Organization: []string{"Some CA"}}}
	early := &x509.Certificate{NotAfter: now.Add(29*24*time.Hour + time.Hour)}
	for _, tt := range []struct {
		name  string
		state tls.ConnectionState
		level Level
		what  string
	}{
		{"fine", tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf}}, LevelOK,
			"as.test:443: TLS 1.3, certificate of as.test, b, c by Some CA, good for 90 days"},
		{"an intermediate ends first", tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, early}}},
			LevelWarn, "as.test:443: TLS 1.2, certificate of as.test, b, c by Some CA, good for 29 days"},
		{"none", tls.ConnectionState{Version: tls.VersionTLS13}, LevelOK, "as.test:443: TLS 1.3"},
	} {
		if f := CheckCertificate("as.test:443", &tt.state, now); f.Level != tt.level || f.What != tt.what || (f.Fix == "") != (tt.level == LevelOK) {
			t.Errorf("%s: %+v", tt.name, f)
		}
	}
	leaf.DNSNames, leaf.Issuer = []string{"\x1b[31mevil\r\nfail  erp", strings.Repeat("x", 10_000)}, pkix.Name{CommonName: "\u202eevil"}
	f := CheckCertificate("as.test:443", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, now)
	if strings.ContainsFunc(f.What, func(r rune) bool { return !unicode.IsPrint(r) }) || len(f.What) > 400 {
		t.Errorf("a certificate's text is shown as it is: %q", f.What)
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"getent hosts as.test":  &net.DNSError{Name: "as.test"},
		"authority, name that":  &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"certificate: b.test":   &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"b.test"}}, Host: "a.test"}},
		"renew the certificate": &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}},
		"firewall":              fmt.Errorf("x: %w", errors.New("refused")),
	} {
		if got := Advice(err, "CA", "PROXY"); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// Endpoints of one host are told once, if the same is wrong with all.
func TestTogether(t *testing.T) {
	t.Parallel()
	gone, slow := &net.DNSError{Name: "as.test"}, errors.New("other")
	list := together([]probed{
		{option: "token_endpoint", endpoint: "https://as.test/t", err: gone},
		{option: "authorize_endpoint", endpoint: "https://as.test/a", err: gone},
		{option: "revoke_endpoint", endpoint: "https://other.test/r", err: gone},
		{option: "device_endpoint", endpoint: "https://as.test/d", err: slow},
		{option: "x", endpoint: "https://as.test/x"}, {option: "y", endpoint: "https://as.test/y"},
	})
	var names []string
	for _, p := range list {
		names = append(names, p.option)
	}
	if want := []string{"token_endpoint, authorize_endpoint", "revoke_endpoint", "device_endpoint", "x", "y"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}
