package oauth

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A server that repeats in its error code what it was sent: the code is not
// shown. A code that the RFCs know is, whatever the secrets are.
func TestErrorCodeWithSecret(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-of-ours_0"
	for _, tt := range []struct{ sent, password, code, want string }{
		{"refresh_token", secret, "unknown_" + secret, "other"},
		{"password", secret, secret, "other"},
		{"code", secret, "no." + secret, "other"},
		{"code_verifier", secret, secret + ".", "other"},
		{"device_code", secret, secret, "other"},
		{"password", "invalid", "invalid_grant", "invalid_grant"},
		{"password", "unknown_user", "unknown_user.x", "other"},
		{"password", secret, "unknown_user", "unknown_user"},
		{"", secret, "the-client-s3cret", "other"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error": "`+tt.code+`", "error_description": "`+secret+`"}`)
		}))
		c := &Client{ID: "erp", Secret: Fixed("the-client-s3cret"), Auth: AuthPost, TokenEndpoint: server.URL, DeviceEndpoint: server.URL, Transport: http.DefaultTransport}
		a := c.request(context.Background(), url.Values{"grant_type": {"x"}, tt.sent: {tt.password}})
		if a.Code != tt.want || !strings.Contains(a.Detail, tt.want) || tt.want == "other" && strings.Contains(a.Detail, tt.password) {
			t.Errorf("%s %s, code %s: %s, %s; want %s", tt.sent, tt.password, tt.code, a.Code, a.Detail, tt.want)
		}
		if _, err := c.authorizeDevice(context.Background(), ""); err == nil || strings.Contains(err.Error(), "the-client") {
			t.Errorf("code %s of the device endpoint: %v", tt.code, err)
		}
		server.Close()
	}
}
