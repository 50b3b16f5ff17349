package caddymodule

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// grantConfig passes; the tests spoil it as those of validateConfig do.
const grantConfig = `{
	admin off
	log {
		output discard
	}
	bearer {
		store memory
		account erp {
			client_id id
			client_secret {file.DIR/client_secret}
			authorize_endpoint http://AS/authorize
			token_endpoint http://AS/token
			upstream API
			grant authorization_code
		}
	}
}

http://:18080 {
	bind 127.0.0.1
	bearer_proxy erp http://API
}
`

// The lines of grantConfig that the tests replace.
const (
	secretLine    = "client_secret {file.DIR/client_secret}"
	authorizeLine = "authorize_endpoint http://AS/authorize"
	tokenLine     = "token_endpoint http://AS/token"
	grantLine     = "grant authorization_code"
	passwordGrant = "grant password {\n username someone\n password {file.DIR/password}\n}"
	codeGrant     = `"grant":{"type":"authorization_code"}`
)

var grantValidations = []validation{
	{name: "good"},
	{name: "good block", caddyfile: []string{grantLine, "grant authorization_code {\n redirect_uri http://127.0.0.1:4711/cb?x=y\n pkce off\n prompt login\n omit_redirect_uri\n}"}},
	{name: "good portal", caddyfile: []string{"store memory", "store memory\n portal https://proxy.example.com/bearer/"}},
	{name: "good redirect_uri without path", caddyfile: []string{grantLine, "grant authorization_code {\n redirect_uri https://proxy.example.com\n}"}},
	{name: "good redirect_uri of a file", caddyfile: []string{grantLine, "grant authorization_code {\n redirect_uri {file.DIR/redirect_uri}\n}"}},
	{name: "good public client", caddyfile: []string{secretLine, "client_auth none"}},
	{name: "good device_code", caddyfile: []string{grantLine, "device_endpoint http://AS/device\n grant device_code"}},
	{name: "good public device_code", caddyfile: []string{grantLine, "device_endpoint http://AS/device\n grant device_code", secretLine, "client_auth none"}},
	{name: "good public refresh_token", caddyfile: []string{grantLine, "grant refresh_token", secretLine, "client_auth none"}},
	{name: "good discovery", caddyfile: []string{tokenLine, "provider oidc http://AS/realm", authorizeLine, ""}},
	{name: "good discovered device_code", caddyfile: []string{tokenLine, "provider oidc http://AS/realm", authorizeLine, "", grantLine, "grant device_code"}},
	{name: "good aidbox", caddyfile: []string{tokenLine, "provider aidbox {file.DIR/base}", authorizeLine, "", "upstream API", "", "http://API", "https://box.example.com"}},
	{name: "good webmethods", caddyfile: []string{tokenLine, "provider webmethods http://AS/", authorizeLine, "", "upstream API", ""}},
	{name: "good public password at aidbox", caddyfile: []string{tokenLine, "provider aidbox http://AS", secretLine, "client_auth none", grantLine, passwordGrant}},
	{name: "good secure_code at aidbox", caddyfile: []string{authorizeLine, "", tokenLine, "provider aidbox http://AS", grantLine,
		"grant password {\n username someone\n password {file.DIR/password}\n secure_code https://proxy.example.com/cb\n}"}},
	{name: "good code for pagero_legacy without pkce", caddyfile: []string{tokenLine, "provider pagero_legacy", authorizeLine, ""}},

	{"public password", []string{grantLine, passwordGrant, secretLine, "client_auth none"}, nil, []string{"account erp: client_auth none: a public client may use the password grant at provider aidbox only; give it a client_secret"}},
	{"public password discovered", []string{tokenLine, "provider oidc http://AS", grantLine, passwordGrant, secretLine, "client_auth none"}, nil, []string{"account erp: client_auth none: a public client may use the password grant at provider aidbox only; give it a client_secret"}},
	{"public client_credentials", []string{grantLine, "grant client_credentials", secretLine, "client_auth none"}, nil, []string{"grant client_credentials is for clients with credentials"}},
	{"public client_credentials at aidbox", []string{tokenLine, "provider aidbox http://AS", grantLine, "grant client_credentials", secretLine, "client_auth none"}, nil, []string{"grant client_credentials is for clients with credentials"}},
	{"public without pkce", []string{grantLine, "grant authorization_code {\n pkce off\n}", secretLine, "client_auth none"}, nil, []string{"pkce off: a public client (client_auth none) can't do without; remove the line"}},
	{"no authorize_endpoint", []string{authorizeLine, ""}, nil, []string{"account erp: grant authorization_code needs authorize_endpoint, or a provider that has one"}},
	{"no device_endpoint", []string{grantLine, "grant device_code"}, nil, []string{"account erp: grant device_code needs device_endpoint, or a provider that has one"}},
	{"no device_endpoint of the provider", []string{tokenLine, "provider pagero", grantLine, "grant device_code"}, nil, []string{"grant device_code needs device_endpoint"}},
	{"secure_code without authorize_endpoint", []string{authorizeLine, "", grantLine, "grant password {\n username someone\n password {file.DIR/password}\n secure_code https://proxy.example.com/cb\n}"}, nil,
		[]string{"secure_code needs authorize_endpoint, or provider aidbox"}},
	{"no upstream with oidc", []string{tokenLine, "provider oidc http://AS", "upstream API", ""}, nil, []string{"name the hosts that its token may go to: upstream api.example.com"}},
	{"plain issuer", []string{tokenLine, "provider oidc http://login.example.com"}, nil, []string{"provider oidc: the issuer: plain http is accepted on loopback only; use https, at Caddyfile:12"}},
	{"relative issuer", []string{tokenLine, "provider oidc login.example.com"}, nil, []string{"provider oidc: the issuer: it must be an absolute URL without user and fragment, such as https://login.example.com/oauth/token, at Caddyfile:12"}},
	{"issuer with query", []string{tokenLine, "provider oidc https://login.example.com/?a=b"}, nil, []string{"provider oidc: the issuer: it must be without query, at Caddyfile:12"}},
	{"plain base URL", []string{tokenLine, "provider aidbox http://box.example.com"}, nil, []string{"provider aidbox: the base URL: plain http is accepted on loopback only; use https, at Caddyfile:12"}},
	{"base URL with a password", []string{tokenLine, "provider aidbox https://u:s3cret-of-the-user@box.example.com"}, nil, []string{"provider aidbox: the base URL: it must be an absolute URL without user"}},
	{"issuer of another file", []string{tokenLine, "provider oidc {file.DIR/password}"}, nil, []string{"account erp: provider oidc: the issuer: it must be an absolute URL"}},
	{"empty base URL of a file", []string{tokenLine, "provider aidbox {file.DIR/empty}"}, nil, []string{"account erp: provider aidbox: ", "empty"}},
	{"base URL of an absent file", []string{tokenLine, "provider webmethods {file.DIR/absent}"}, nil, []string{"account erp: provider webmethods: ", "/absent"}},
	{"base URL with query of a file", []string{tokenLine, "provider aidbox {file.DIR/query}"}, nil, []string{"account erp: provider aidbox: the base URL: it must be without query"}},
	{"redirect_uri of a file", []string{grantLine, "grant authorization_code {\n redirect_uri {file.DIR/base}#\n}"}, nil, []string{"account erp: redirect_uri: it must be an absolute URL without user and fragment"}},
	{"secure_code of an unset variable", []string{grantLine, "grant password {\n username someone\n password {file.DIR/password}\n secure_code {env.VALIDATE_UNSET}\n}"}, nil,
		[]string{"account erp: secure_code: ", "env.VALIDATE_UNSET"}},
	{"authorize_endpoint of a file", []string{authorizeLine, "authorize_endpoint {file.DIR/query}#x"}, nil, []string{"account erp: authorize_endpoint: it must be an absolute URL"}},
	{"portal of an unset variable", []string{"store memory", "store memory\n portal {env.VALIDATE_UNSET}"}, nil, []string{"portal: ", "env.VALIDATE_UNSET"}},

	// What holds placeholders is filled in, or refused.
	{name: "good values of a variable", caddyfile: []string{grantLine, "scope a {env.VALIDATE_VALUE}\n issuer https://{env.VALIDATE_VALUE}\n token_param audience {env.VALIDATE_VALUE}\n grant authorization_code {\n prompt {env.VALIDATE_VALUE} consent\n}"}},
	{"issuer of an unset variable", []string{grantLine, "issuer {env.VALIDATE_UNSET}\n grant authorization_code"}, nil, []string{"account erp: issuer: evaluated placeholder {env.VALIDATE_UNSET} is empty"}},
	{"issuer of an unknown placeholder", []string{grantLine, "issuer https://{http.request.host}\n grant authorization_code"}, nil, []string{"account erp: issuer: unrecognized placeholder {http.request.host}"}},
	{"prompt of an unset variable", []string{grantLine, "grant authorization_code {\n prompt login {env.VALIDATE_UNSET}\n}"}, nil, []string{"account erp: prompt: evaluated placeholder {env.VALIDATE_UNSET} is empty"}},
	{"scope of an unset variable", []string{grantLine, "scope openid {env.VALIDATE_UNSET}\n grant authorization_code"}, nil, []string{"account erp: scope: evaluated placeholder {env.VALIDATE_UNSET} is empty"}},
	{"token_param of an unset variable", []string{grantLine, "token_param audience {env.VALIDATE_UNSET}\n grant authorization_code"}, nil, []string{"account erp: token_param: audience: evaluated placeholder {env.VALIDATE_UNSET} is empty"}},

	// What only JSON can hold; in a Caddyfile it is refused with its line.
	{"username with code", nil, []string{codeGrant, `"grant":{"type":"authorization_code","username":"x"}`}, []string{"grant authorization_code takes no username, password, relogin and secure_code"}},
	{"relogin with code", nil, []string{codeGrant, `"grant":{"type":"authorization_code","relogin":false}`}, []string{"grant authorization_code takes no username, password, relogin and secure_code"}},
	{"pkce with device_code", nil, []string{codeGrant, `"grant":{"type":"device_code","pkce":"off"}`}, []string{"grant device_code takes no redirect_uri, omit_redirect_uri, pkce and prompt"}},
	{"prompt with refresh_token", nil, []string{codeGrant, `"grant":{"type":"refresh_token","prompt":"login"}`}, []string{"grant refresh_token takes no redirect_uri, omit_redirect_uri, pkce and prompt"}},
	{"omit_redirect_uri with client_credentials", nil, []string{codeGrant, `"grant":{"type":"client_credentials","omit_redirect_uri":true}`}, []string{"grant client_credentials takes no redirect_uri"}},
	{"unknown pkce", nil, []string{codeGrant, `"grant":{"type":"authorization_code","pkce":"plain"}`}, []string{"pkce plain: it must be S256 or off"}},
	{"no grant", nil, []string{codeGrant, `"grant":{}`}, []string{"account erp: it has no grant; add `grant password {"}},
	{"unknown token_body", nil, []string{`"client_id"`, `"token_body":"xml","client_id"`}, []string{"token_body xml: it must be form or json"}},
	{"issuer with oidc", []string{tokenLine, "provider oidc http://AS"}, []string{`"client_id"`, `"issuer":"http://AS","client_id"`}, []string{"the issuer of provider oidc is its argument; remove the line issuer"}},
	{"argument of pagero", nil, []string{`"client_id"`, `"provider":"pagero","provider_url":"https://x.example.com","client_id"`}, []string{"provider pagero takes no argument"}},
	{"key with a secret", nil, []string{`"client_id"`, `"client_key":"DIR/p256.pem","client_id"`}, []string{"account erp: client_auth basic takes no client_key; remove it"}},
	{"certificate with a secret", nil, []string{`"client_id"`, `"client_auth":"post","client_certificate":"DIR/cert.pem","client_id"`}, []string{"account erp: client_auth post takes no client_certificate; remove it"}},
	{"key id with a secret", nil, []string{`"client_id"`, `"client_auth":"basic_raw","client_key_id":"k","client_id"`}, []string{"account erp: client_auth basic_raw takes no client_key_id; remove it"}},
	{"secret of a public client", nil, []string{`"client_id"`, `"client_auth":"none","client_id"`}, []string{"account erp: client_auth none takes no client_secret; remove it"}},
	{"key of a public client", []string{secretLine, "client_auth none"}, []string{`"client_id"`, `"client_key":"DIR/p256.pem","client_id"`}, []string{"account erp: client_auth none takes no client_key; remove it"}},
	{"key id of a public client", []string{secretLine, "client_auth none"}, []string{`"client_id"`, `"client_key_id":"k","client_id"`}, []string{"account erp: client_auth none takes no client_key_id; remove it"}},
	{"secret with a key", []string{secretLine, "client_auth private_key_jwt DIR/p256.pem"}, []string{`"client_id"`, `"client_secret":"{file.DIR/client_secret}","client_id"`}, []string{"account erp: client_auth private_key_jwt takes no client_secret; remove it"}},
	{"certificate with a key only", []string{secretLine, "client_auth private_key_jwt DIR/p256.pem"}, []string{`"client_id"`, `"client_certificate":"DIR/cert.pem","client_id"`}, []string{"account erp: client_auth private_key_jwt takes no client_certificate; remove it"}},
	{"key id with a certificate", []string{secretLine, "client_auth tls DIR/cert.pem DIR/p256.pem"}, []string{`"client_id"`, `"client_key_id":"k","client_id"`}, []string{"account erp: client_auth tls takes no client_key_id; remove it"}},
	{"no key", []string{secretLine, "client_auth private_key_jwt DIR/p256.pem"}, []string{`"client_key":"DIR/p256.pem",`, ""}, []string{"account erp: client_auth private_key_jwt needs a client_key"}},
	{"no key of the certificate", []string{secretLine, "client_auth tls DIR/cert.pem DIR/p256.pem"}, []string{`"client_key":"DIR/p256.pem",`, ""}, []string{"account erp: client_auth tls needs a client_key"}},
	{"no certificate of the key", []string{secretLine, "client_auth tls DIR/cert.pem DIR/p256.pem"}, []string{`"client_certificate":"DIR/cert.pem",`, ""}, []string{"account erp: client_auth tls needs a client_certificate"}},
}

// auth puts a client_auth in the place of the secret.
func auth(name, line string, wants ...string) validation {
	return validation{name: name, caddyfile: []string{secretLine, "client_auth " + line}, wants: wants}
}

var keyValidations = []validation{
	auth("good RSA", "private_key_jwt DIR/rsa.pem"),
	auth("good PKCS #1", "private_key_jwt {file.DIR/rsa1.pem} key-1"),
	auth("good P-256", "private_key_jwt {file.DIR/p256.pem}"),
	auth("good SEC 1", "private_key_jwt DIR/sec1.pem"),
	auth("good Ed25519", "private_key_jwt {env.VALIDATE_KEY} key-1"),
	auth("good certificate", "tls DIR/cert.pem DIR/p256.pem"),
	auth("good certificate and key in one file", "tls DIR/both.pem DIR/both.pem"),
	auth("good certificate by placeholder", "tls {file.DIR/cert.pem} {file.DIR/p256.pem}"),
	{name: "good certificate of a private authority", caddyfile: []string{secretLine, "client_auth tls DIR/cert.pem DIR/p256.pem\n tls {\n ca DIR/cert.pem\n}"}},

	auth("absent key", "private_key_jwt DIR/absent.pem", "account erp: client_auth private_key_jwt: ", "/absent.pem"),
	auth("absent key by placeholder", "private_key_jwt {file.DIR/absent.pem}", "client_auth private_key_jwt: ", "/absent.pem"),
	auth("key that is a directory", "private_key_jwt DIR", "client_auth private_key_jwt: ", "directory"),
	auth("empty key", "private_key_jwt DIR/empty", "client_auth private_key_jwt: it is empty"),
	auth("unset key", "private_key_jwt {env.VALIDATE_UNSET}", "client_auth private_key_jwt: ", "env.VALIDATE_UNSET"),
	auth("good key id of a variable", "private_key_jwt DIR/p256.pem {env.VALIDATE_KEY_ID}"),
	auth("unset key id", "private_key_jwt DIR/p256.pem {env.VALIDATE_UNSET}", "account erp: client_auth private_key_jwt: the key id: evaluated placeholder {env.VALIDATE_UNSET} is empty"),
	auth("no PEM by placeholder", "private_key_jwt {file.DIR/password}", "account erp: client_auth private_key_jwt: ", ": no such file or directory"),
	auth("no PEM by placeholder for tls", "tls DIR/cert.pem {file.DIR/password}", "account erp: client_auth tls: the key: ", ": no such file or directory"),
	auth("no PEM", "private_key_jwt DIR/password", "client_auth private_key_jwt: ", "-----BEGIN PRIVATE KEY-----"),
	auth("certificate as key", "private_key_jwt DIR/cert.pem", "there is a public key or certificate, but the private key is needed"),
	auth("public key", "private_key_jwt DIR/public.pem", "there is a public key or certificate, but the private key is needed"),
	auth("encrypted key", "private_key_jwt DIR/encrypted.pem", "the private key is encrypted; decrypt it (openssl pkey"),
	auth("key of OpenSSH", "private_key_jwt DIR/openssh.pem", "the private key is in OpenSSH's form; convert it"),
	auth("two keys", "private_key_jwt DIR/two.pem", "there are several private keys"),
	auth("P-224", "private_key_jwt DIR/p224.pem", "a key of this kind is not supported; use RSA"),
	auth("short RSA", "private_key_jwt DIR/rsa1024.pem", "the RSA key has 1024 bits; it needs 2048 or more"),
	auth("absent certificate", "tls DIR/absent.pem DIR/p256.pem", "account erp: client_auth tls: the certificate: ", "/absent.pem"),
	auth("absent key of the certificate", "tls DIR/cert.pem DIR/absent.pem", "account erp: client_auth tls: the key: ", "/absent.pem"),
	auth("empty certificate", "tls DIR/empty DIR/p256.pem", "client_auth tls: the certificate: it is empty"),
	auth("another's key", "tls DIR/cert.pem DIR/rsa.pem", "client_auth tls: "),
	auth("key and certificate exchanged", "tls DIR/p256.pem DIR/cert.pem", "client_auth tls: "),
}

func TestValidateGrants(t *testing.T) {
	t.Setenv("VALIDATE_VALUE", "login")
	validateAll(t, grantConfig, grantValidations, map[string]string{"client_secret": "s3cret-of-the-client", "password": "s3cret-of-the-user",
		"base": "https://box.example.com/\n", "query": "https://box.example.com/?tenant=erp", "empty": "\n",
		"redirect_uri": "https://proxy.example.com/erp/callback\n", "p256.pem": "s3cret-of-the-key", "cert.pem": "s3cret-of-the-certificate"})
}

// otherAccount is an account with code at another server.
func otherAccount(lines string) string {
	return "account crm {\n client_id id\n client_secret {file.DIR/client_secret}\n upstream API\n" + lines + "\n}\n account erp {"
}

var serverValidations = []validation{
	{"one redirect URI, two servers", []string{"account erp {", otherAccount("authorize_endpoint https://b.example/a\n token_endpoint https://b.example/t\n grant authorization_code {\n redirect_uri https://p.example/cb\n}"),
		"grant authorization_code\n\t\t}\n\t}", "grant authorization_code {\n redirect_uri https://p.example/cb\n}\n}\n}"}, nil,
		[]string{"accounts crm and erp are of different servers and have one redirect_uri, https://p.example/cb", "give each one of its own"}},
	{name: "good one redirect URI, two servers that name themselves", caddyfile: []string{"account erp {", otherAccount("issuer https://b.example\n authorize_endpoint https://b.example/a\n token_endpoint https://b.example/t\n grant authorization_code {\n redirect_uri https://p.example/cb\n}"),
		"grant authorization_code\n\t\t}\n\t}", "issuer https://a.example\n grant authorization_code {\n redirect_uri https://p.example/cb\n}\n}\n}"}},
	{name: "good one redirect URI, one server", caddyfile: []string{"account erp {", otherAccount("authorize_endpoint http://AS/authorize\n token_endpoint http://AS/token\n grant authorization_code {\n redirect_uri https://p.example/cb\n}"),
		"grant authorization_code\n\t\t}\n\t}", "grant authorization_code {\n redirect_uri https://p.example/cb\n}\n}\n}"}},
	{name: "good any port of this machine, two servers", caddyfile: []string{"account erp {", otherAccount("authorize_endpoint https://b.example/a\n token_endpoint https://b.example/t\n grant authorization_code")}},
	{"an account's name with a slash in JSON", nil, []string{`"erp":{`, `"e/p":{`}, []string{"account e/p: a name has no slash and no braces"}},
	{"an account's name of nothing in JSON", nil, []string{`"accounts":{"erp":`, `"accounts":{"":`}, []string{"a name has no slash and no braces"}},
	{"secrets in clear to a proxy", []string{tokenLine, tokenLine + "\n http_proxy http://proxy.example.com:3128"}, nil, []string{"http_proxy: secrets for http://", "would go to it in clear"}},
	{name: "good proxy with TLS", caddyfile: []string{tokenLine, tokenLine + "\n http_proxy https://proxy.example.com:3128"}},
	{name: "good proxy on this machine", caddyfile: []string{tokenLine, tokenLine + "\n http_proxy http://127.0.0.1:3128"}},
}

func TestValidateServers(t *testing.T) {
	validateAll(t, grantConfig, serverValidations, map[string]string{"client_secret": "s3cret-of-the-client"})
}

// A discovered server that shares a redirect URI must name itself, whatever its
// metadata promises.
func TestNeedsIss(t *testing.T) {
	t.Parallel()
	account := func(name string) *oauth.Account {
		return &oauth.Account{Name: name, Grant: &oauth.AuthorizationCode{RedirectURI: "https://p.example/cb"},
			Client: oauth.Client{Discover: true, Issuer: "https://" + name + ".example"}}
	}
	a, b := account("a"), account("b")
	if err := checkRedirectURIs([]*oauth.Account{a}); err != nil || a.Client.NeedsIss {
		t.Errorf("alone: %v, %v", err, a.Client.NeedsIss)
	}
	if err := checkRedirectURIs([]*oauth.Account{a, b}); err != nil || !a.Client.NeedsIss || !b.Client.NeedsIss {
		t.Errorf("together: %v, %v, %v", err, a.Client.NeedsIss, b.Client.NeedsIss)
	}
}

func TestValidateKeys(t *testing.T) {
	keys := newKeys(t)
	t.Setenv("VALIDATE_KEY", keys["ed25519.pem"])
	t.Setenv("VALIDATE_KEY_ID", "key-1")
	validateAll(t, grantConfig, keyValidations, keys)
}

// newKeys makes files of keys and certificates, sound and unsound ones.
func newKeys(t *testing.T) map[string]string {
	t.Helper()
	rsa2048, err1 := rsa.GenerateKey(rand.Reader, 2048)
	rsa1024, err2 := rsa.GenerateKey(rand.Reader, 1024)
	p256, err3 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p224, err4 := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, ed, err5 := ed25519.GenerateKey(rand.Reader)
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			t.Fatal(err)
		}
	}
	block := func(kind string) func(der []byte, err error) string {
		return func(der []byte, err error) string {
			if err != nil {
				t.Fatal(err)
			}
			return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		}
	}
	private := block("PRIVATE KEY")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "erp"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	certificate := block("CERTIFICATE")(x509.CreateCertificate(rand.Reader, template, template, &p256.PublicKey, p256))
	key := private(x509.MarshalPKCS8PrivateKey(p256))
	return map[string]string{
		"rsa.pem":       private(x509.MarshalPKCS8PrivateKey(rsa2048)),
		"rsa1.pem":      block("RSA PRIVATE KEY")(x509.MarshalPKCS1PrivateKey(rsa2048), nil),
		"rsa1024.pem":   private(x509.MarshalPKCS8PrivateKey(rsa1024)),
		"p256.pem":      key,
		"p224.pem":      private(x509.MarshalPKCS8PrivateKey(p224)),
		"sec1.pem":      block("EC PRIVATE KEY")(x509.MarshalECPrivateKey(p256)),
		"ed25519.pem":   private(x509.MarshalPKCS8PrivateKey(ed)),
		"public.pem":    block("PUBLIC KEY")(x509.MarshalPKIXPublicKey(&p256.PublicKey)),
		"cert.pem":      certificate,
		"both.pem":      certificate + key,
		"two.pem":       key + private(x509.MarshalPKCS8PrivateKey(ed)),
		"encrypted.pem": block("ENCRYPTED PRIVATE KEY")(slices.Repeat([]byte{1}, 64), nil),
		"openssh.pem":   block("OPENSSH PRIVATE KEY")(slices.Repeat([]byte{2}, 64), nil),
		"password":      "s3cret-without-armour",
		"empty":         "",
		"client_secret": "s3cret-of-the-client",
	}
}
