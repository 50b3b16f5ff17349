package caddymodule

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// TestProviderRefusals leads each account of the README into a refusal of its
// own server: what is told, and that the next attempt, with what is right, is
// as good as the first.
func TestProviderRefusals(t *testing.T) {
	blocks := map[string]string{}
	for _, f := range readmeFences(t) {
		blocks[f.account()] = f.text
	}
	tables := map[string]tableRow{}
	for _, table := range readmeTable(t) {
		tables[table.account] = table
	}
	for _, row := range providerRows {
		t.Run(row.account, func(t *testing.T) {
			if blocks[row.account] == "" {
				t.Fatal("no block in the README")
			}
			r := newProviderRig(t, row, tables[row.account], blocks[row.account])
			r.Cleanup(r.stop)
			switch r.table.grant {
			case "password", "client_credentials":
				r.wrongCredentials()
			case "refresh_token":
				r.wrongImport()
			case "device_code":
				r.deniedDevice()
			default:
				r.refusedCode()
			}
			r.serves()
		})
	}
}

// wrongCredentials are tried once, and then no more until they are corrected
// and somebody says so.
func (r *providerRig) wrongCredentials() {
	r.Helper()
	certificate, key := clientCertificate(r.T)
	right := map[string]string{}
	wrong := map[string]string{"client_secret": "wrong", "client_key.pem": key, "client.pem": certificate}
	if r.table.grant == "password" {
		wrong = map[string]string{"password": "wrong"}
	}
	for name, text := range wrong {
		right[name] = read(r.T, r.dir+"/"+name)
		r.secret(name, text)
	}
	r.start()
	r.fails(503, "credentials_rejected")
	r.fails(503, "credentials_rejected")
	r.sent(r.row.signIn, "two calls with wrong credentials", true)
	if last := r.last(sandbox.KindToken); last.Committed || last.Status < 400 {
		r.Errorf("the server didn't refuse: %+v", last)
	}
	for name, text := range right {
		r.secret(name, text)
	}
	if err := r.admin("/bearer/login", loginJSON{actionJSON: actionJSON{Account: r.row.account}}, new(beganJSON)); err != nil {
		r.Error(err)
	}
}

// refusedCode is a person who says no, and then a code that the server doesn't
// take.
func (r *providerRig) refusedCode() {
	r.Helper()
	r.start()
	denied := func(authorizeURL string) string {
		callback, err := r.sandbox.Deny(r.authorization(authorizeURL))
		if err != nil {
			r.Fatal(err)
		}
		return callback
	}
	spoilt := func(authorizeURL string) string {
		u, _ := url.Parse(r.approved(authorizeURL))
		q := u.Query()
		q.Set("code", "spoilt")
		u.RawQuery = q.Encode()
		return u.String()
	}
	terminal := r.status().Terminal
	for _, tt := range []struct {
		decide       func(string) string
		code, detail string
		requests     []string
	}{
		{denied, "login_denied", "access_denied", nil},
		{spoilt, "login_failed", "invalid_grant", r.row.signIn},
	} {
		if terminal {
			var api caddy.APIError
			if err := r.pasteCallback(tt.decide); !errors.As(err, &api) || api.HTTPStatus != 422 || !strings.Contains(err.Error(), tt.detail) {
				r.Errorf("the terminal is told %v, want 422 with %s", err, tt.detail)
			}
		} else if page := r.visit(tt.decide, "/bearer/result?"); !contains(page.text, "Code: "+tt.code, tt.detail) {
			r.Errorf("the page says %s, want %s with %s", page.text, tt.code, tt.detail)
		}
		r.fails(503, "login_required")
		r.sent(tt.requests, tt.code, true)
	}
	if terminal {
		r.paste()
		return
	}
	r.visit(r.approved, "message=signed_in")
}

// deniedDevice is a person who says no where the code is entered.
func (r *providerRig) deniedDevice() {
	r.Helper()
	r.start()
	if page := r.enterCode(r.sandbox.DenyDevice, ""); page == nil || !contains(page.text, "The server did not grant access", "access_denied") {
		r.Errorf("the page says %+v, want access_denied", page)
	}
	r.fails(503, "login_required")
	r.enterCode(func(code string) error { return r.sandbox.ApproveDevice(code, "sandbox-user") }, "message=signed_in")
}

// wrongImport is a refresh token that the server doesn't know.
func (r *providerRig) wrongImport() {
	r.Helper()
	r.start()
	err := r.admin("/bearer/import", actionJSON{Account: r.row.account, RefreshToken: "unknown"}, new(accountStatus))
	var api caddy.APIError
	if !errors.As(err, &api) || api.HTTPStatus != 422 || !strings.Contains(err.Error(), "refused the imported refresh token") {
		r.Errorf("the import is told %v", err)
	}
	r.fails(503, "login_required")
	r.sent(r.row.signIn, "a refused import", true)
	r.importToken()
}
