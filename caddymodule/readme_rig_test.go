package caddymodule

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// setUpReadme makes what the README's blocks name: files and environment.
func setUpReadme(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"PAGERO_CLIENT_ID", "PAGERO_USERNAME", "AIDBOX_CLIENT_ID", "AIDBOX_USERNAME",
		"WM_CLIENT_ID", "WM_USERNAME", "CLIENT_ID", "USERNAME", "CRM_CLIENT_ID", "README_SECRET"} {
		t.Setenv(name, "x")
	}
	certificate, key := clientCertificate(t)
	for name, text := range map[string]string{
		"client_secret": "x", "password": "x", "crm_secret": "x", "crm_password": "x",
		"client.pem": certificate, "client_key.pem": key, "ca.pem": certificate,
	} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// readmeFiles puts a directory in the place of those that the blocks name, and
// what stands for a hash becomes one.
func readmeFiles(dir string) *strings.Replacer {
	return strings.NewReplacer("/run/credentials/", dir+"/", "/etc/caddy/is-ca.pem", dir+"/ca.pem",
		"unix//run/caddy/admin.sock", "off", "$2a$14$…", "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG")
}

// validateCaddyfile provisions a configuration, as `caddy validate` does.
func validateCaddyfile(t *testing.T, text string) error {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return err
	}
	var c caddy.Config
	if err := json.Unmarshal(adapted, &c); err != nil {
		return err
	}
	return caddy.Validate(&c)
}
