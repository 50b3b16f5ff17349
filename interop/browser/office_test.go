package browser

import (
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// An office is a portal behind basic_auth, for accounts with a session per user
// and with one of their own, at the sandbox's authorization server.
type office struct {
	*process
	sandbox *sandbox
	proxy   string // host and port
}

const (
	// officePassword is everybody's; officeHash is its bcrypt hash.
	officePassword = "portal-password"
	officeHash     = "$2a$04$9//071Nz54QkExrpyw7a0eJ4nTmVBcB3wFXnX7ueVOTpNOKL9gqU."
)

func newOffice(t *testing.T) *office {
	t.Helper()
	s := newSandbox(t, "authorization_code")
	dir := t.TempDir()
	write(t, dir, "secret", "sandbox-secret")
	write(t, dir, "password", password)
	o := &office{sandbox: s, proxy: freeAddress(t)}
	_, port, _ := net.SplitHostPort(o.proxy)
	users := ""
	for _, name := range []string{"ada", "alan", "grace"} {
		users += "\t\t" + name + " " + officeHash + "\n"
	}
	write(t, dir, "Caddyfile", strings.NewReplacer("DIR", dir, "LISTEN", o.proxy, "PORT", port, "SERVER", s.server,
		"API", s.api, "NOBODY", freeAddress(t), "USERS", users).Replace(officeCaddyfile))
	o.process = run(t, dir, "run", "--config", dir+"/Caddyfile")
	for end := time.Now().Add(patience); ; time.Sleep(glance) {
		conn, err := net.Dial("tcp", o.proxy)
		if err == nil {
			conn.Close()
			return o
		}
		select {
		case err := <-o.end:
			o.end <- err
			t.Fatalf("caddy has ended: %v\n%s", err, &o.out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("caddy doesn't listen: %v\n%s", err, &o.out)
		}
	}
}

// At the account away there is no authorization server.
const officeCaddyfile = `(client) {
	client_id sandbox-client
	client_secret {file.DIR/secret}
	authorize_endpoint http://{args[0]}/oauth/v2/oauth-authorize
	token_endpoint http://{args[0]}/oauth/v2/oauth-token
	revoke_endpoint http://{args[0]}/oauth/v2/oauth-revoke
	device_endpoint http://{args[0]}/oauth/v2/oauth-device
	issuer http://{args[0]}/oauth/v2/oauth-anonymous
	upstream API
}

{
	admin unix/DIR/admin.sock
	persist_config off
	storage file_system DIR/storage
	grace_period 5s
	bearer {
		portal http://LISTEN/bearer
		store bbolt {
			path DIR/tokens.db
		}
		account mail {
			import client SERVER
			grant authorization_code
		}
		account archive {
			import client SERVER
			grant authorization_code
		}
		account away {
			import client NOBODY
			grant password {
				username sandbox-user
				password {file.DIR/password}
			}
		}
		account screenless {
			import client NOBODY
			grant device_code
		}
	}
}

http://:PORT {
	bind 127.0.0.1
	@known not query nobody=*
	basic_auth @known {
USERS	}
	bearer_portal {
		user {http.auth.user.id}
		admins ada
	}
	handle /archive/* {
		bearer_proxy archive http://API
	}
	handle /away/* {
		bearer_proxy away http://API
	}
	handle /screenless/* {
		bearer_proxy screenless http://API
	}
	bearer_proxy mail/{http.auth.user.id} http://API
}
`

// open is the browser of somebody whom the proxy knows.
func (o *office) open(screen screen, name string) *tab {
	o.Helper()
	b := open(o.process.T, screen, o.proxy, o.sandbox.server)
	b.knows(o.proxy, name)
	return b
}

func (o *office) url(path string) string { return "http://" + o.proxy + path }

// knows gives the browser a user's name and password for a server, as if they
// had been entered.
func (b *tab) knows(server, name string) {
	b.Helper()
	b.visit((&url.URL{Scheme: "http", User: url.UserPassword(name, officePassword), Host: server, Path: "/bearer"}).String())
	b.says("Signed in at the proxy as " + name)
	b.visit("http://" + server + "/bearer")
	b.arrives("/bearer", "Accounts")
}

// is makes an application's request that of a user.
func is(name string) http.Header {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(name, officePassword)
	return r.Header
}

// csrfField is the hidden field of a form.
var csrfField = regexp.MustCompile(`name="csrf" value="(\w+)"`)

// begins presses a user's button, so many times, in a browser of no consequence.
func (o *office) begins(name string, times int) {
	o.Helper()
	header := is(name)
	_, answer, page := fetchURL(o.process.T, "GET", o.url("/bearer"), header)
	csrf := csrfField.FindSubmatch(page)
	if csrf == nil {
		o.Fatalf("there is no form for %s: %s", name, page)
	}
	cookie, _, _ := strings.Cut(answer.Get("Set-Cookie"), ";")
	header.Set("Cookie", cookie)
	form := url.Values{"account": {"mail"}, "user": {name}, "csrf": {string(csrf[1])}}
	for range times {
		if status := postForm(o.process.T, o.url("/bearer/login"), header, form); status != http.StatusOK {
			o.Fatalf("beginning a sign-in as %s: status %d", name, status)
		}
	}
}
