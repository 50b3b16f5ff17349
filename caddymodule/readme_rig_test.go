package caddymodule

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"regexp"
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

// credential finds the files of /run/credentials that a block names.
var credential = regexp.MustCompile(`/run/credentials/([\w.-]+)`)

// setUpFences makes what else blocks name there: each file has a text of its
// own, which can be a key and a URL's path.
func setUpFences(t *testing.T, dir string, fences []fence) {
	t.Helper()
	for _, f := range fences {
		for _, m := range credential.FindAllStringSubmatch(f.text, -1) {
			digest := sha256.Sum256([]byte(m[1]))
			text := base64.StdEncoding.EncodeToString(digest[:])
			if strings.HasSuffix(m[1], "_url") {
				text = "https://hooks.example.com/" + m[1]
			}
			file, err := os.OpenFile(dir+"/"+m[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err == nil {
				_, err = file.WriteString(text)
				err = errors.Join(err, file.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
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
