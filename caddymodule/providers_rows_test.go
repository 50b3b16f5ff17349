package caddymodule

import "github.com/caddy-bearer/caddy-bearer/internal/sandbox"

// A providerRow is what an account of the README's section Providers does on
// the wire; see wireLine.
type providerRow struct {
	account string
	config  sandbox.Config // of its server
	tls     bool
	// redirect is the redirect URI that is registered; authorize, where the
	// browser is sent.
	redirect, authorize string
	// signIn are the requests of a sign-in; renew, those that follow when the
	// access token has expired; again, those of the next time, if others.
	signIn, renew, again []string
	// keeps: a refresh leaves the refresh token as it is.
	keeps bool
	// logout is the revocation; empty: the server has none.
	logout string
	// paths of the block that the sandbox has elsewhere.
	paths map[string]string
}

const (
	portalCallback      = "https://proxy.example.com/bearer/callback"
	withPKCE            = " code_challenge code_challenge_method=S256"
	byRefreshToken      = ": grant_type=refresh_token refresh_token"
	revokesRefreshToken = ": token token_type_hint=refresh_token"

	pageroToken  = "POST /oauth/v2/oauth-token "
	pageroRevoke = "POST /oauth/v2/oauth-revoke "
	legacyToken  = "POST /oauth2/token "
	aidboxToken  = "POST /auth/token "
	aidboxLogout = "DELETE /Session bearer:"
	wmToken      = "POST /invoke/pub.oauth/getToken "
	wmRevoke     = "POST /invoke/pub.oauth/revokeToken "
)

// oneRequest is a list of one request.
func oneRequest(line string) []string { return []string{line} }

// providerRows are all accounts of the README's section Providers.
var providerRows = []providerRow{
	{
		account: "pagero-password",
		signIn:  oneRequest(pageroToken + "basic: grant_type=password password scope=all username"),
		renew:   oneRequest(pageroToken + "basic" + byRefreshToken + " scope=all"),
		logout:  pageroRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "pagero-code", redirect: portalCallback,
		authorize: "GET /oauth/v2/oauth-authorize: client_id" + withPKCE + " prompt=login redirect_uri=" + portalCallback + " response_type=code scope=all state",
		signIn:    oneRequest(pageroToken + "basic: code code_verifier grant_type=authorization_code redirect_uri=" + portalCallback),
		renew:     oneRequest(pageroToken + "basic" + byRefreshToken + " scope=all"),
		logout:    pageroRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "pagero-code-plain", redirect: "https://proxy.example.com/",
		authorize: "GET /oauth/v2/oauth-authorize: client_id redirect_uri=https://proxy.example.com/ response_type=code state",
		signIn:    oneRequest(pageroToken + "post: client_id client_secret code grant_type=authorization_code redirect_uri=https://proxy.example.com/"),
		renew:     oneRequest(pageroToken + "post: client_id client_secret grant_type=refresh_token refresh_token"),
		logout:    pageroRevoke + "post: client_id client_secret token token_type_hint=refresh_token",
	}, {
		account: "pagero-import",
		signIn:  oneRequest(pageroToken + "basic" + byRefreshToken),
		renew:   oneRequest(pageroToken + "basic" + byRefreshToken),
		logout:  pageroRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "legacy-password",
		signIn:  oneRequest(legacyToken + "basic: grant_type=password password username"),
		renew:   oneRequest(legacyToken + "basic" + byRefreshToken),
	}, {
		account: "legacy-code", redirect: "https://proxy.example.com/",
		authorize: "GET /oauth2/authorize: client_id redirect_uri=https://proxy.example.com/ response_type=code state",
		signIn:    oneRequest(legacyToken + "basic: code grant_type=authorization_code redirect_uri=https://proxy.example.com/"),
		renew:     oneRequest(legacyToken + "basic" + byRefreshToken),
	}, {
		// It doesn't say when its tokens end: the API's refusal does.
		account: "aidbox-password", keeps: true, config: sandbox.Config{UserInfo: true},
		signIn: oneRequest(aidboxToken + "basic: grant_type=password password username"),
		renew:  oneRequest(aidboxToken + "basic" + byRefreshToken),
		logout: aidboxLogout,
	}, {
		account: "aidbox-json", config: sandbox.Config{Public: true, SendExpiry: true, MaxRefreshes: -1},
		signIn: oneRequest(aidboxToken + "none json: client_id grant_type=password password username"),
		renew:  oneRequest(aidboxToken + "none json: client_id grant_type=password password username"),
		logout: aidboxLogout,
	}, {
		account: "aidbox-secure-code", config: sandbox.Config{Public: true, MaxRefreshes: -1},
		signIn: []string{"GET /auth/authorize none: client_id grant_type=password state", aidboxToken + "none: client_id code grant_type=password password username"},
		renew:  []string{"GET /auth/authorize none: client_id grant_type=password state", aidboxToken + "none: client_id code grant_type=password password username"},
		logout: aidboxLogout,
	}, {
		account: "aidbox-code", redirect: portalCallback, keeps: true, config: sandbox.Config{SendExpiry: true},
		authorize: "GET /auth/authorize: client_id" + withPKCE + " redirect_uri=" + portalCallback + " response_type=code state",
		signIn:    oneRequest(aidboxToken + "basic: code code_verifier grant_type=authorization_code redirect_uri=" + portalCallback),
		renew:     oneRequest(aidboxToken + "basic" + byRefreshToken),
		logout:    aidboxLogout,
	}, {
		account: "aidbox-client",
		signIn:  oneRequest(aidboxToken + "basic: grant_type=client_credentials"),
		renew:   oneRequest(aidboxToken + "basic: grant_type=client_credentials"),
		logout:  aidboxLogout,
	}, {
		// Its refresh tokens may be used so many times, and are then dead.
		account: "webmethods-password", tls: true, keeps: true, config: sandbox.Config{MaxRefreshes: 1},
		signIn: oneRequest(wmToken + "basic: grant_type=password password username"),
		renew:  oneRequest(wmToken + "basic" + byRefreshToken),
		again:  []string{wmToken + "basic" + byRefreshToken, wmToken + "basic: grant_type=password password username"},
		logout: wmRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "webmethods-code", redirect: portalCallback, keeps: true,
		authorize: "GET /invoke/pub.oauth/authorize: client_id" + withPKCE + " redirect_uri=" + portalCallback + " response_type=code state",
		signIn:    oneRequest(wmToken + "basic: code code_verifier grant_type=authorization_code redirect_uri=" + portalCallback),
		renew:     oneRequest(wmToken + "basic" + byRefreshToken),
		logout:    wmRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "webmethods-code-omit", redirect: portalCallback, keeps: true,
		authorize: "GET /invoke/pub.oauth/authorize: client_id" + withPKCE + " response_type=code state",
		signIn:    oneRequest(wmToken + "basic: code code_verifier grant_type=authorization_code"),
		renew:     oneRequest(wmToken + "basic" + byRefreshToken),
		logout:    wmRevoke + "basic" + revokesRefreshToken,
	}, {
		account: "webmethods-client",
		signIn:  oneRequest(wmToken + "basic: grant_type=client_credentials"),
		renew:   oneRequest(wmToken + "basic: grant_type=client_credentials"),
		logout:  wmRevoke + "basic: token token_type_hint=access_token",
	}, {
		account: "oidc-code", redirect: portalCallback,
		authorize: "GET /authorize: client_id" + withPKCE + " nonce redirect_uri=" + portalCallback + " response_type=code scope=openid offline_access state",
		signIn:    oneRequest("POST /token basic: code code_verifier grant_type=authorization_code redirect_uri=" + portalCallback),
		renew:     oneRequest("POST /token basic" + byRefreshToken + " scope=openid offline_access"),
		logout:    "POST /revoke basic" + revokesRefreshToken,
	}, {
		account: "oidc-code-public", redirect: "http://127.0.0.1/callback", config: sandbox.Config{Public: true},
		authorize: "GET /authorize: client_id" + withPKCE + " redirect_uri=http://127.0.0.1/callback response_type=code scope=offline_access state",
		signIn:    oneRequest("POST /token none: client_id code code_verifier grant_type=authorization_code redirect_uri=http://127.0.0.1/callback"),
		renew:     oneRequest("POST /token none: client_id grant_type=refresh_token refresh_token scope=offline_access"),
		logout:    "POST /revoke none: client_id token token_type_hint=refresh_token",
	}, {
		account: "oidc-device",
		signIn: []string{"POST /device_authorization basic: scope=offline_access",
			"POST /token basic: device_code grant_type=urn:ietf:params:oauth:grant-type:device_code"},
		renew:  oneRequest("POST /token basic" + byRefreshToken + " scope=offline_access"),
		logout: "POST /revoke basic" + revokesRefreshToken,
	}, {
		account: "oidc-client-jwt",
		signIn:  oneRequest("POST /token private_key_jwt: client_assertion client_assertion_type client_id grant_type=client_credentials"),
		renew:   oneRequest("POST /token private_key_jwt: client_assertion client_assertion_type client_id grant_type=client_credentials"),
		logout:  "POST /revoke private_key_jwt: client_assertion client_assertion_type client_id token token_type_hint=access_token",
	}, {
		account: "oidc-client-tls", tls: true,
		signIn: oneRequest("POST /token tls: client_id grant_type=client_credentials"),
		renew:  oneRequest("POST /token tls: client_id grant_type=client_credentials"),
		logout: "POST /revoke tls: client_id token token_type_hint=access_token",
	}, {
		account: "oidc-password",
		signIn:  oneRequest("POST /token basic: grant_type=password password scope=offline_access username"),
		renew:   oneRequest("POST /token basic" + byRefreshToken + " scope=offline_access"),
		logout:  "POST /revoke basic" + revokesRefreshToken,
	}, {
		account: "any-code", redirect: portalCallback, keeps: true, config: sandbox.Config{Provider: "webmethods"},
		paths: map[string]string{"/oauth/authorize": "/invoke/pub.oauth/authorize", "/oauth/token": "/invoke/pub.oauth/getToken",
			"/oauth/revoke": "/invoke/pub.oauth/revokeToken"},
		authorize: "GET /oauth/authorize: client_id" + withPKCE + " redirect_uri=" + portalCallback + " response_type=code state",
		signIn:    oneRequest("POST /oauth/token basic: code code_verifier grant_type=authorization_code redirect_uri=" + portalCallback),
		renew:     oneRequest("POST /oauth/token basic" + byRefreshToken),
		logout:    "POST /oauth/revoke basic" + revokesRefreshToken,
	},
}
