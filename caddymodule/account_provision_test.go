package caddymodule

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// provisioned makes of an account's lines what the core works with.
func provisioned(t *testing.T, portal string, lines ...string) (*oauth.Account, error) {
	t.Helper()
	d := caddyfile.NewTestDispenser("account erp {\n client_id id\n" + strings.Join(lines, "\n") + "\n}")
	d.Next()
	var app App
	if err := app.parseAccount(d); err != nil {
		t.Fatal(err)
	}
	return app.Accounts["erp"].provision("erp", portal, slog.New(slog.DiscardHandler))
}

// clientText is what a client is at its server; what is empty is left out.
func clientText(c *oauth.Client) string {
	text := "auth=" + string(c.Auth)
	for _, v := range []struct{ name, value string }{
		{"authorize", c.AuthorizeEndpoint}, {"token", c.TokenEndpoint}, {"revoke", c.RevokeEndpoint}, {"device", c.DeviceEndpoint}, {"issuer", c.Issuer},
	} {
		if v.value != "" {
			text += " " + v.name + "=" + v.value
		}
	}
	for _, v := range []struct {
		name string
		set  bool
	}{{"discover", c.Discover}, {"pin", c.PinIssuer}, {"delete", c.DeleteSession}, {"json", c.JSONBody}} {
		if v.set {
			text += " " + v.name
		}
	}
	return text
}

// What a provider presets, and what the other options override.
func TestProvisionProviders(t *testing.T) {
	t.Setenv("PROVISION_SECRET", "secret")
	t.Setenv("PROVISION_BASE", "https://box.example.com/tenant/")
	const (
		secret = "client_secret {env.PROVISION_SECRET}"
		grant  = "grant refresh_token"
		api    = "upstream api.example.com"
	)
	const pagero = "authorize=https://sso.pageroonline.com/oauth/v2/oauth-authorize token=https://sso.pageroonline.com/oauth/v2/oauth-token revoke=https://sso.pageroonline.com/oauth/v2/oauth-revoke"
	const box = "authorize=https://box.example.com/auth/authorize token=https://box.example.com/auth/token revoke=https://box.example.com/Session"
	for _, test := range []struct {
		name, lines, client string
		upstream            string
		lifetime            time.Duration // of refresh tokens
	}{
		{"pagero", "provider pagero\n" + secret, "auth=basic " + pagero + " pin", "api.pageroonline.com:443", 3 * 365 * 24 * time.Hour},
		{"pagero json", "provider pagero\ntoken_body json\n" + secret, "auth=post " + pagero + " pin json", "api.pageroonline.com:443", 3 * 365 * 24 * time.Hour},
		{"pagero json by basic_raw", "provider pagero\ntoken_body json\nclient_auth basic_raw\n" + secret, "auth=basic_raw " + pagero + " pin json", "api.pageroonline.com:443", 3 * 365 * 24 * time.Hour},
		{"pagero overridden", "provider pagero\nissuer i\nauthorize_endpoint https://a/a\ntoken_endpoint https://a/t\nrevoke_endpoint https://a/r\ndevice_endpoint https://a/d\nrefresh_lifetime 30d\n" + api + "\n" + secret,
			"auth=basic authorize=https://a/a token=https://a/t revoke=https://a/r device=https://a/d issuer=i pin", "api.example.com", 30 * 24 * time.Hour},
		{"pagero_legacy", "provider pagero_legacy\n" + secret, "auth=basic authorize=https://auth.pageroonline.com/oauth2/authorize token=https://auth.pageroonline.com/oauth2/token", "api.pageroonline.com:443", 365 * 24 * time.Hour},
		{"pagero_legacy json", "provider pagero_legacy\ntoken_body json\n" + secret, "auth=basic authorize=https://auth.pageroonline.com/oauth2/authorize token=https://auth.pageroonline.com/oauth2/token json", "api.pageroonline.com:443", 365 * 24 * time.Hour},
		{"aidbox", "provider aidbox https://box.example.com\n" + secret, "auth=basic " + box + " delete", "box.example.com:443", 0},
		{"aidbox slashes", "provider aidbox https://box.example.com//\n" + secret, "auth=basic " + box + " delete", "box.example.com:443", 0},
		{"aidbox json", "provider aidbox https://box.example.com\ntoken_body json\n" + secret, "auth=post " + box + " delete json", "box.example.com:443", 0},
		{"aidbox public", "provider aidbox https://box.example.com\nclient_auth none", "auth=none " + box + " delete", "box.example.com:443", 0},
		{"aidbox under a path", "provider aidbox {env.PROVISION_BASE}\n" + secret,
			"auth=basic authorize=https://box.example.com/tenant/auth/authorize token=https://box.example.com/tenant/auth/token revoke=https://box.example.com/tenant/Session delete", "box.example.com:443", 0},
		{"aidbox with revocation", "provider aidbox http://127.0.0.1:8888\nrevoke_endpoint https://box.example.com/revoke\n" + secret,
			"auth=basic authorize=http://127.0.0.1:8888/auth/authorize token=http://127.0.0.1:8888/auth/token revoke=https://box.example.com/revoke", "127.0.0.1:8888", 0},
		{"webmethods", "provider webmethods https://is.example.com:5543\n" + secret,
			"auth=basic authorize=https://is.example.com:5543/invoke/pub.oauth/authorize token=https://is.example.com:5543/invoke/pub.oauth/getToken revoke=https://is.example.com:5543/invoke/pub.oauth/revokeToken", "is.example.com:5543", 0},
		{"oidc", "provider oidc https://login.example.com/realms/erp\n" + api + "\n" + secret, "auth=basic issuer=https://login.example.com/realms/erp discover", "api.example.com", 0},
		{"oidc keeps the slash", "provider oidc https://login.example.com/\n" + api + "\n" + secret, "auth=basic issuer=https://login.example.com/ discover", "api.example.com", 0},
		{"oidc overridden", "provider oidc https://login.example.com\ntoken_endpoint https://a/t\ntoken_body json\n" + api + "\n" + secret, "auth=post token=https://a/t issuer=https://login.example.com discover json", "api.example.com", 0},
		{"none", "token_endpoint https://a/t\n" + api + "\n" + secret, "auth=basic token=https://a/t", "api.example.com", 0},
		{"none with all", "issuer i\nauthorize_endpoint https://a/a\ntoken_endpoint https://a/t\nrevoke_endpoint https://a/r\ndevice_endpoint https://a/d\ntoken_body form\n" + api + "\n" + secret,
			"auth=basic authorize=https://a/a token=https://a/t revoke=https://a/r device=https://a/d issuer=i", "api.example.com", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := provisioned(t, "", test.lines, grant)
			if err != nil {
				t.Fatal(err)
			}
			if got := clientText(&a.Client); got != test.client {
				t.Errorf("the client is\n%s\nwant\n%s", got, test.client)
			}
			if got := strings.Join(a.Upstreams, " "); got != test.upstream {
				t.Errorf("upstreams %s, want %s", got, test.upstream)
			}
			if a.RefreshLifetime != test.lifetime {
				t.Errorf("refresh_lifetime %s, want %s", a.RefreshLifetime, test.lifetime)
			}
			if public := a.Client.Auth == oauth.AuthNone; public != (a.Client.Secret == nil) {
				t.Errorf("the client's secret is there: %v", a.Client.Secret != nil)
			}
		})
	}
}

// What a grant is without its options, and with them.
func TestProvisionGrants(t *testing.T) {
	t.Setenv("PROVISION_SECRET", "secret")
	t.Setenv("PROVISION_URI", "https://proxy.example.com/of/env")
	const portal = "https://proxy.example.com/bearer"
	for _, test := range []struct{ name, provider, portal, grant, want string }{
		{"default", "pagero", "", "grant authorization_code", "http://127.0.0.1/callback S256"},
		{"portal", "pagero", portal, "grant authorization_code", portal + "/callback S256"},
		{"portal at the root", "pagero", "https://proxy.example.com", "grant authorization_code", "https://proxy.example.com/callback S256"},
		{"legacy", "pagero_legacy", portal, "grant authorization_code", portal + "/callback off"},
		{"legacy with PKCE", "pagero_legacy", portal, "grant authorization_code {\n pkce S256\n}", portal + "/callback S256"},
		{"without PKCE", "pagero", portal, "grant authorization_code {\n pkce off\n}", portal + "/callback off"},
		{"byte for byte", "pagero", portal, "grant authorization_code {\n redirect_uri HTTPS://Proxy.example.com:443/a%2fb/?x=%41\n}", "HTTPS://Proxy.example.com:443/a%2fb/?x=%41 S256"},
		{"without path", "pagero", portal, "grant authorization_code {\n redirect_uri https://proxy.example.com\n}", "https://proxy.example.com S256"},
		{"placeholder", "pagero", portal, "grant authorization_code {\n redirect_uri {env.PROVISION_URI}\n}", "https://proxy.example.com/of/env S256"},
		{"all", "pagero", portal, "grant authorization_code {\n redirect_uri http://localhost:4711/\n omit_redirect_uri\n prompt login\n pkce S256\n}", "http://localhost:4711/ S256 omitted login"},
		{"several prompts", "pagero", portal, "grant authorization_code {\n prompt login consent\n}", portal + "/callback S256 login consent"},
		{"password", "pagero", portal, "grant password {\n username u\n password {env.PROVISION_SECRET}\n}", "u secret true"},
		{"password once", "pagero", portal, "grant password {\n username {env.PROVISION_SECRET}\n password {env.PROVISION_SECRET}\n relogin off\n}", "secret secret false"},
		{"secure code", "pagero", portal, "grant password {\n username u\n password {env.PROVISION_SECRET}\n secure_code {env.PROVISION_URI}\n}", "u secret true https://proxy.example.com/of/env"},
		{"client_credentials", "pagero", portal, "grant client_credentials", "client_credentials"},
		{"refresh_token", "pagero", portal, "grant refresh_token", "refresh_token"},
		{"device_code", "pagero", portal, "device_endpoint https://a/d\ngrant device_code", "device_code"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := provisioned(t, test.portal, "provider "+test.provider, "client_secret {env.PROVISION_SECRET}", test.grant)
			if err != nil {
				t.Fatal(err)
			}
			if got := grantText(a.Grant); got != test.want {
				t.Errorf("the grant is %s, want %s", got, test.want)
			}
		})
	}
}

// Values that aren't secret may hold placeholders as well.
func TestProvisionPlaceholders(t *testing.T) {
	t.Setenv("PROVISION_VALUE", "value")
	t.Setenv("PROVISION_KEY", newKeys(t)["p256.pem"])
	a, err := provisioned(t, "", "authorize_endpoint https://a/a", "token_endpoint https://a/t", "upstream api.example.com",
		"client_auth private_key_jwt {env.PROVISION_KEY} key-{env.PROVISION_VALUE}", "scope openid {env.PROVISION_VALUE}",
		"issuer https://{env.PROVISION_VALUE}/i", "token_param audience a-{env.PROVISION_VALUE}", "token_param audience b",
		"grant authorization_code {\n prompt login {env.PROVISION_VALUE}\n}")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ name, got, want string }{
		{"scope", a.Scope, "openid value"},
		{"issuer", a.Client.Issuer, "https://value/i"},
		{"key id", a.Client.KeyID, "key-value"},
		{"token_param", strings.Join(a.Client.TokenParams["audience"], " "), "a-value b"},
		{"prompt", a.Grant.(*oauth.AuthorizationCode).Prompt, "login value"},
	} {
		if v.got != v.want {
			t.Errorf("%s: %q, want %q", v.name, v.got, v.want)
		}
	}
}

func grantText(g oauth.Grant) string {
	switch g := g.(type) {
	case *oauth.AuthorizationCode:
		text := g.RedirectURI + map[bool]string{true: " S256", false: " off"}[g.PKCE]
		if g.OmitRedirectURI {
			text += " omitted"
		}
		return strings.TrimSpace(text + " " + g.Prompt)
	case *oauth.Password:
		return strings.TrimSpace(fmt.Sprintf("%s %s %v %s", g.User().Reveal(), g.Secret().Reveal(), g.Relogin, g.SecureCode))
	}
	return g.Type()
}
