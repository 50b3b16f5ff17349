package caddymodule

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A portalRig is a rig whose account needs people. The proxy knows ada, alan
// and root, an admin, by basic_auth; at the authorization server each has a
// user of another name, see [idpUser].
type portalRig struct {
	*rig
	scheme, host, base string // of the portal's URL, without the port
	auth               string // lines that say who is here
	portal             string // the block of bearer_portal
	grant              string // the block of grant authorization_code
	account            string // further lines of the account erp
	accounts           string // further accounts
	proxy              string // the directive behind the portal
	tls                string // lines of an https site
	pinned             bool   // provider pagero, whose issuer isn't configured
	route              bool   // the portal and what is behind it keep their order
	extra              string // further sites
	certificate        tls.Certificate
	sessions           []string
	admin              string // address of the admin endpoint; empty: none

	browsers []*browser
}

// basicAuth knows three people, whose passwords are their names and
// "-password".
const basicAuth = `basic_auth {
		ada $2a$04$oPjFwZveHCS2.z3hS2RHpOmZK8ZEgsohiYM77uFGu9lmPvil5S0zu
		alan $2a$04$jD5duC7bCItvNqBwxD9RNenbDm5b8txcbPwZrWAAowR59Uu6dSqWC
		root $2a$04$lGRMbhyocKyKNTlLckFSu.QWvZ8XaNbiC.onPYu27hpayDuUdFsym
	}`

// idpUser is who a user of the proxy is at the authorization server.
func idpUser(user string) string { return user + "@sandbox" }

func newPortalRig(t *testing.T, c sandbox.Config) *portalRig {
	t.Helper()
	c.Users = map[string]string{}
	for _, user := range []string{"ada", "alan", "root"} {
		c.Users[idpUser(user)] = user
	}
	r := &portalRig{
		rig: newRig(t, c), scheme: "http", host: "127.0.0.1", base: "/bearer", auth: basicAuth,
		portal:   "user {http.auth.user.id}\n\t\tadmins root",
		sessions: []string{"erp/ada", "erp/alan", "erp/root"},
	}
	r.proxy = "bearer_proxy erp/{http.auth.user.id} " + r.api
	return r
}

func (r *portalRig) origin() string {
	_, port, _ := net.SplitHostPort(r.address)
	return r.scheme + "://" + net.JoinHostPort(r.host, port)
}

// endpoints are the lines of an account that sends people to the sandbox.
func (r *portalRig) endpoints() string {
	e := r.sandbox.Endpoints(r.servers.AuthorizationServerURL)
	lines := []string{"client_id sandbox-client", "client_secret {file." + r.dir + "/client_secret}", "upstream " + r.api}
	switch {
	case r.pinned:
		lines = append(lines, "provider pagero")
	case e.Iss:
		lines = append(lines, "issuer "+e.Issuer)
	}
	for option, endpoint := range map[string]string{
		"authorize_endpoint": e.Authorize, "token_endpoint": e.Token, "revoke_endpoint": e.Revoke, "device_endpoint": e.DeviceAuthorization,
	} {
		if endpoint != "" {
			lines = append(lines, option+" "+endpoint)
		}
	}
	return strings.Join(lines, "\n\t\t\t")
}

func (r *portalRig) caddyfile() string {
	_, port, _ := net.SplitHostPort(r.address)
	site, tls, route, end := "http://:"+port, "", "", ""
	if r.route {
		route, end = "route {", "}"
	}
	if r.scheme == "https" {
		site, tls = r.origin(), r.tls
	}
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https disable_redirects
	skip_install_trust
	grace_period 5s
	%s
	bearer {
		portal %s
		store bbolt {
			path %s/store/tokens.db
		}
		account erp {
			%s
			grant authorization_code {
				%s
			}
			%s
		}
		%s
	}
}

%s {
	bind 127.0.0.1
	%s
	%s
	%s
	%s
	bearer_portal {
		%s
	}
	%s
	%s
}

%s
`, or(r.admin, "off"), r.global, r.origin()+r.base, r.dir, r.endpoints(), r.grant, r.account, r.accounts, site, tls, r.site, r.auth, route, r.portal, r.proxy, end, r.extra)
}

func (r *portalRig) start() {
	r.Helper()
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(r.stop)
	if r.scheme == "https" {
		r.certified()
	}
}

// certified waits for the site's certificate.
func (r *portalRig) certified() {
	r.Helper()
	r.eventually("certified", func() bool {
		conn, err := tls.Dial("tcp", r.address, &tls.Config{ServerName: r.host, InsecureSkipVerify: true, Certificates: []tls.Certificate{r.certificate}})
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// reload loads the Caddyfile once more, and waits until the listener of the
// configuration before is gone: what the kernel had queued there is reset, so
// it is with any Caddyfile.
func (r *portalRig) reload() {
	r.Helper()
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatal(err)
	}
	for _, b := range r.browsers {
		b.client.CloseIdleConnections()
	}
	r.settled()
}

// restart stops Caddy and starts it with the same store.
func (r *portalRig) restart() {
	r.Helper()
	r.stop()
	r.reload()
}

// status is the condition of a session, "account" or "account/user".
func (r *portalRig) status(name string) oauth.Status {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	account, user, _ := strings.Cut(name, "/")
	st, err := app.shared.sessions.StatusOf(context.Background(), oauth.Key{Account: account, User: user})
	if err != nil {
		r.Fatal(err)
	}
	return st
}

// harmless checks that what is done makes no token request and no revocation,
// and leaves everybody's session as it is.
func (r *portalRig) harmless(what string, do func()) {
	r.Helper()
	count := func() (n int) {
		for _, e := range r.sandbox.Events() {
			if e.Kind == sandbox.KindToken || e.Kind == sandbox.KindRevoke {
				n++
			}
		}
		return n
	}
	before, requests := map[string]oauth.Status{}, count()
	for _, name := range r.sessions {
		before[name] = r.status(name)
	}
	do()
	if n := count() - requests; n != 0 {
		r.Errorf("%s: %d requests to the authorization server, want none", what, n)
	}
	for _, name := range r.sessions {
		now := r.status(name)
		if was := before[name]; now.State != was.State || now.Generation != was.Generation || !now.SignedIn.Equal(was.SignedIn) || now.HasRefreshToken != was.HasRefreshToken {
			r.Errorf("%s: the session %s was %s, generation %d; now %s, %d", what, name, was.State, was.Generation, now.State, now.Generation)
		}
	}
}
