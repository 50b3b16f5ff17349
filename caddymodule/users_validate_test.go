package caddymodule

import (
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// usersConfig has an account with sessions per user, a portal, and a site with
// client certificates. HTTPS needs no certificate of its own to be validated.
const usersConfig = `{
	admin off
	auto_https off
	log {
		output discard
	}
	bearer {
		store memory
		portal https://proxy.example.com/bearer
		account erp {
			client_id id
			client_secret {file.DIR/client_secret}
			authorize_endpoint http://AS/authorize
			device_endpoint http://AS/device
			token_endpoint http://AS/token
			upstream API
			grant authorization_code
		}
		account job {
			client_id id
			client_secret {file.DIR/client_secret}
			token_endpoint http://AS/token
			upstream API
			grant client_credentials
		}
	}
}

http://:18080 {
	bind 127.0.0.1
	bearer_proxy /a/* erp/{http.auth.user.id} http://API
	# elsewhere
}

https://proxy.example.com:18443 {
	# certificates
	# portal
}
`

const (
	userProxy    = "bearer_proxy /a/* erp/{http.auth.user.id} http://API"
	elsewhere    = "# elsewhere"
	certificates = "# certificates"
	portalLine   = "# portal"
	certProxy    = "bearer_proxy erp/{tls_client_subject} http://API {\n callers private_ranges\n}"
	trustPool    = "trust_pool file DIR/ca.pem\n"
)

// as puts another user, and options, into the place of the verified one.
func as(name, user, options string, wants ...string) validation {
	return validation{name: name, caddyfile: []string{userProxy, "bearer_proxy /a/* erp/" + user + " http://API {\n" + options + "\n}"}, wants: wants}
}

// clientAuth takes the user from a client certificate.
func clientAuth(name, options string, wants ...string) validation {
	return validation{name: name, caddyfile: []string{certificates, "tls {\n client_auth {\n" + options + "\n}\n}\n" + certProxy}, wants: wants}
}

// portalWith puts a portal on the site that others can reach.
func portalWith(name, options string, wants ...string) validation {
	return validation{name: name, caddyfile: []string{portalLine, "bearer_portal {\n" + options + "\n}"}, wants: wants}
}

var userValidations = []validation{
	{name: "good"},
	as("good literal", "alice", ""),
	as("good header field", "{header.Remote-User}", "user_from_header Remote-User"),
	as("good header field in lower case", "{header.remote-user}", "user_from_header REMOTE-USER"),
	as("good placeholder within text", "x-{http.auth.user.id}@example.com", ""),
	as("good header field within text", "x-{header.Remote-User}", "user_from_header Remote-User"),
	{name: "good device_code", caddyfile: []string{"grant authorization_code", "grant device_code"}},
	{name: "good refresh_token", caddyfile: []string{"grant authorization_code", "grant refresh_token"}},
	{name: "good several places", caddyfile: []string{elsewhere, "bearer_proxy /b/* erp/alice http://API\nbearer_proxy /c/* job http://API"}},
	{name: "good account per request", caddyfile: []string{elsewhere, "bearer_proxy /b/* {http.vars.account}/{http.auth.user.id} http://API\nbearer_proxy /c/* job http://API"}},
	{name: "good long form", caddyfile: []string{elsewhere, "bearer_guard /b/*\nreverse_proxy /b/* http://API {\n transport bearer erp/{header.Remote-User} {\n user_from_header Remote-User\n}\n}"}},

	as("a header field", "{header.Remote-User}", "", "the user {http.request.header.Remote-User} is what the caller writes", "add the line: user_from_header Remote-User"),
	as("another header field", "{header.X-User}", "user_from_header Remote-User", "user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"),
	as("a header field beside a verified user", "{http.auth.user.id}{header.X-User}", "", "the user {http.auth.user.id}{http.request.header.X-User}: use one placeholder, whose value names one user only"),
	as("a verified user beside a header field", "{http.auth.user.id}:{header.Remote-User}", "user_from_header Remote-User", "the user {http.auth.user.id}:{http.request.header.Remote-User}: use one placeholder, whose value names one user only"),
	as("two verified placeholders", "{http.auth.user.tenant}/{http.auth.user.id}", "", "the user {http.auth.user.tenant}/{http.auth.user.id}: use one placeholder, whose value names one user only"),
	as("one placeholder twice", "{http.auth.user.id}{http.auth.user.id}", "", "the user {http.auth.user.id}{http.auth.user.id}: use one placeholder, whose value names one user only"),
	as("a placeholder in another", "{http.auth.user.{http.auth.user.id}}", "", "the user {http.auth.user.{http.auth.user.id}}: a brace is left over; write {http.auth.user.id}"),
	as("a verified user with a field", "{http.auth.user.id}", "user_from_header Remote-User", "user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"),
	as("a literal with a field", "alice", "user_from_header Remote-User", "user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"),
	as("a variable", "{http.vars.user}", "", "the user {http.vars.user} is not verified by the proxy; use {http.auth.user.id} after basic_auth"),
	as("a query", "{query.user}", "", "the user {http.request.uri.query.user} is not verified by the proxy"),
	as("a cookie", "{cookie.user}", "", "the user {http.request.cookie.user} is not verified by the proxy"),
	as("a path", "{path.0}", "", "is not verified by the proxy"),
	as("an address", "{client_ip}", "", "{http.vars.client_ip} is not verified by the proxy"),
	as("like a verified one", "{http.auth.userx.id}", "", "{http.auth.userx.id} is not verified by the proxy"),
	as("like a header field", "{http.request.headers.Remote-User}", "user_from_header Remote-User", "user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"),
	as("like a header field without a field", "{http.request.headers.Remote-User}", "", "the user {http.request.headers.Remote-User} is not verified by the proxy"),
	as("a certificate without TLS", "{tls_client_subject}", "", "the user is of a client certificate, but the site doesn't ask for one", "mode require_and_verify"),
	{"a variable in the transport", []string{elsewhere, "bearer_guard /b/*\nreverse_proxy /b/* http://API {\n transport bearer erp/{http.vars.user}\n}"}, nil, []string{"{http.vars.user} is not verified by the proxy"}},
	{"a header field in the transport", []string{elsewhere, "bearer_guard /b/*\nreverse_proxy /b/* http://API {\n transport bearer erp/{header.X-User}\n}"}, nil, []string{"user_from_header X-User"}},
	{"bad field in the transport", []string{elsewhere, "bearer_guard /b/*\nreverse_proxy /b/* http://API {\n transport bearer erp/{header.X-User} {\n user_from_header X_User\n}\n}"}, nil,
		[]string{"user_from_header: X_User: it must be the name of a header field, such as Remote-User, at Caddyfile:35"}},
	{"bad field in JSON", nil, []string{`"user":"{http.auth.user.id}"`, `"user":"{http.auth.user.id}","user_from_header":"Authorization"`}, []string{"user_from_header the field Authorization holds a password or a token, not a user; with basic_auth the user is {http.auth.user.id}"}},
	{"field without a user in JSON", nil, []string{`"handler":"bearer_guard","user":"{http.auth.user.id}"`, `"handler":"bearer_guard","user_from_header":"Remote-User"`}, []string{"user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"}},
	{"an open brace in JSON", nil, []string{`"user":"{http.auth.user.id}"`, `"user":"{http.auth.user.id"`}, []string{"the user {http.auth.user.id: a brace is left over; write {http.auth.user.id}"}},
	{"a closing brace in JSON", nil, []string{`"user":"{http.auth.user.id}"`, `"user":"http.auth.user.id}"`}, []string{"the user http.auth.user.id}: a brace is left over; write {http.auth.user.id}"}},
	{"a field of bearer_guard", []string{elsewhere, "bearer_guard /b/* {\n user_from_header Remote-User\n}"}, nil, []string{"bearer_guard: unknown option user_from_header; there are allow_upgrade, audit, caller_key, callers, hosts, origins, pass_headers, strict_paths, at Caddyfile:33"}},

	{"with and without user", []string{elsewhere, "bearer_proxy /b/* erp http://API"}, nil, []string{"account erp is used with /<user> in one place and without in another", "use two accounts"}},
	{"without and with user", []string{userProxy, "bearer_proxy /a/* erp http://API\nbearer_proxy /b/* erp/alice http://API"}, nil, []string{"account erp is used with /<user> in one place and without in another"}},
	{"with and without user in the long form", []string{elsewhere, "bearer_guard /b/*\nreverse_proxy /b/* http://API {\n transport bearer erp\n}"}, nil, []string{"account erp is used with /<user> in one place and without in another"}},
	{"guard with and transport without user", nil, []string{`"protocol":"bearer","user":"{http.auth.user.id}"`, `"protocol":"bearer"`}, []string{"account erp is used with /<user> in one place and without in another"}},
	{name: "good two accounts per request", caddyfile: []string{elsewhere, "bearer_proxy /b/* {http.vars.a}/{http.auth.user.id} http://API\nbearer_proxy /c/* {http.vars.b}/{http.auth.user.id} http://API"}},
	{"two accounts per request, with and without user", []string{elsewhere, "bearer_proxy /b/* {http.vars.a}/{http.auth.user.id} http://API\nbearer_proxy /c/* {http.vars.b} http://API"}, nil,
		[]string{"{http.vars.a} is used with /<user> and {http.vars.b} without, and both can be any account; name the accounts"}},
	{"two accounts per request, without and with user", []string{elsewhere, "bearer_proxy /b/* {http.vars.a} http://API\nbearer_proxy /c/* x{http.vars.b}/{http.auth.user.id} http://API"}, nil,
		[]string{"x{http.vars.b} is used with /<user> and {http.vars.a} without, and both can be any account; name the accounts"}},
	{"one account per request, with and without user", []string{elsewhere, "bearer_proxy /b/* {http.vars.a}/{http.auth.user.id} http://API\nbearer_proxy /c/* {http.vars.a} http://API"}, nil,
		[]string{"account {http.vars.a} is used with /<user> in one place and without in another"}},
	{"client_credentials per user", []string{elsewhere, "bearer_proxy /b/* job/{http.auth.user.id} http://API"}, nil, []string{"account job can't have sessions per user: grant client_credentials signs in as one identity", "use grant authorization_code"}},
	{"password per user", []string{"grant authorization_code", "grant password {\n username u\n password {file.DIR/client_secret}\n}"}, nil, []string{"account erp can't have sessions per user: grant password signs in as one identity"}},
	{"unknown account per user", nil, []string{`"account":"erp"`, `"account":"other"`}, []string{"account other is not configured; add `account other { … }`"}},

	clientAuth("good certificate", "mode require_and_verify\n"+trustPool),
	clientAuth("good certificate without mode", trustPool),
	clientAuth("good certificate if given", "mode verify_if_given\n"+trustPool),
	{name: "good certificate of the other site", caddyfile: []string{certificates, "tls {\n client_auth {\n" + trustPool + "}\n}\n" + certProxy + "\n}\n\nhttps://other.example.com:18443 {"}},
	clientAuth("certificate requested", "mode request\n"+trustPool, "the site takes any certificate", "mode require_and_verify"),
	clientAuth("certificate required", "mode require\n"+trustPool, "the site takes any certificate", "mode require_and_verify"),
	clientAuth("certificate required without authority", "mode require", "the site takes any certificate"),
	clientAuth("certificate checked without authority", "mode require_and_verify", "the user is of a client certificate, but nothing says whose certificates count; add `trust_pool file <ca.pem>` to client_auth"),
	clientAuth("certificate checked if given, without authority", "mode verify_if_given", "but nothing says whose certificates count; add `trust_pool file <ca.pem>` to client_auth"),
	{"no certificate asked for", []string{certificates, certProxy}, nil, []string{"the user is of a client certificate, but the site doesn't ask for one"}},
	{"certificate of a portal's user", []string{portalLine, "bearer_portal {\n user {tls_client_subject}\n}"}, nil, []string{"bearer_portal: the user is of a client certificate, but the site doesn't ask for one"}},
	{name: "good certificate of a portal's user", caddyfile: []string{portalLine, "tls {\n client_auth {\n" + trustPool + "}\n}\nbearer_portal {\n user {tls_client_subject}\n}"}},

	portalWith("good portal", "user {http.auth.user.id}\n admins alice"),
	portalWith("good admins of a variable", "user {http.auth.user.id}\n admins alice {env.VALIDATE_ADMIN}"),
	portalWith("admins of an unset variable", "user {http.auth.user.id}\n admins alice {env.VALIDATE_UNSET}", "bearer_portal: admins {env.VALIDATE_UNSET}: evaluated placeholder {env.VALIDATE_UNSET} is empty"),
	portalWith("admins of the request", "user {http.auth.user.id}\n admins {http.auth.user.id}", "bearer_portal: admins {http.auth.user.id}: unrecognized placeholder {http.auth.user.id}"),
	portalWith("two placeholders of a portal's user", "user {http.auth.user.tenant}/{http.auth.user.id}", "bearer_portal: the user {http.auth.user.tenant}/{http.auth.user.id}: use one placeholder, whose value names one user only"),
	portalWith("a portal's user with an open brace", "user {http.auth.user.id", "bearer_portal: the user {http.auth.user.id: a brace is left over; write {http.auth.user.id}"),
	portalWith("a portal's user that isn't the field", "user {http.auth.user.id}\n user_from_header Remote-User", "bearer_portal: user_from_header Remote-User is there, but the user isn't that field; write {http.request.header.Remote-User}"),
	{"portal's certificate checked without authority", []string{portalLine, "tls {\n client_auth {\n mode require_and_verify\n}\n}\nbearer_portal {\n user {tls_client_subject}\n}"}, nil,
		[]string{"bearer_portal: the user is of a client certificate, but nothing says whose certificates count; add `trust_pool file <ca.pem>` to client_auth"}},
	portalWith("good portal by header field", "user {header.Remote-User}\n user_from_header Remote-User"),
	portalWith("good unprotected portal", "unprotected"),
	{name: "good portal on loopback", caddyfile: []string{elsewhere, "bearer_portal"}},
	{name: "good portal on a socket", caddyfile: []string{portalLine, "bind unix/DIR/portal.sock\nbearer_portal"}},
	{"bare portal", []string{portalLine, "bearer_portal"}, nil, []string{"bearer_portal: the site listens on :18443, beyond this machine", "`user {http.auth.user.id}`", "`unprotected`"}},
	{"bare portal on one more interface", []string{"bind 127.0.0.1", "bind 127.0.0.1 192.0.2.1", elsewhere, "bearer_portal", "http://API\n", "http://API {\n callers 10.0.0.0/8\n}\n"}, nil, []string{"bearer_portal: the site listens on 192.0.2.1:18080"}},
	portalWith("user and unprotected", "user {http.auth.user.id}\n unprotected", "user and unprotected exclude each other; remove one"),
	portalWith("admins without user", "admins alice\n unprotected", "admins needs the line user, which says who is here"),
	portalWith("constant user", "user alice", "user alice is the same for everybody; write a placeholder such as {http.auth.user.id}"),
	portalWith("unverified portal user", "user {header.Remote-User}", "bearer_portal: the user {http.request.header.Remote-User} is what the caller writes", "user_from_header Remote-User"),
	portalWith("portal user of a variable", "user {http.vars.user}", "bearer_portal: the user {http.vars.user} is not verified by the proxy"),
	{"no portal URL", []string{"portal https://proxy.example.com/bearer", "", elsewhere, "bearer_portal"}, nil, []string{"bearer_portal: where is it? add `portal https://<this site>/bearer` to the global option bearer"}},
	{"bad field of the portal in JSON", []string{portalLine, "bearer_portal {\n user {http.auth.user.id}\n}"}, []string{`"handler":"bearer_portal"`, `"handler":"bearer_portal","user_from_header":"a b"`},
		[]string{"user_from_header a b: it must be the name of a header field"}},
	{"plain portal in JSON", nil, []string{`"portal":"https://`, `"portal":"http://`}, []string{"portal: plain http is accepted on loopback only; use https"}},
}

func TestValidateUsers(t *testing.T) {
	t.Setenv("VALIDATE_ADMIN", "bob")
	validateAll(t, usersConfig, userValidations, map[string]string{"client_secret": "s3cret-of-the-client", "ca.pem": newKeys(t)["cert.pem"]})
}

// Whom a placeholder in admins names is an admin, and nobody else.
func TestValidatedAdmins(t *testing.T) {
	t.Setenv("VALIDATE_ADMIN", "root")
	r := newPortalRig(t, sandbox.Config{})
	r.accounts = "account shared {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant authorization_code\n\t\t}"
	r.portal = "user {http.auth.user.id}\n\t\tadmins nobody {env.VALIDATE_ADMIN}"
	r.start()
	for user, admin := range map[string]bool{"root": true, "ada": false} {
		b := r.browser(user)
		if _, ok := b.form(b.page("/?account=shared"), "login", "shared"); ok != admin {
			t.Errorf("%s may sign in the account of admins: %v", user, ok)
		}
	}
}
