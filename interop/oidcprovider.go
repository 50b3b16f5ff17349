package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// apiSecret is that of the client "api", with which the API asks oidc-provider
// about tokens.
const apiSecret = "of the API alone"

// OIDCProvider is npm oidc-provider in a process of its own. Its sign-in page
// takes every name and every password. It has the grants authorization_code
// (PKCE with S256 only) and refresh_token, discovery, and the client
// [PublicClient] too. Refresh tokens work once, as [Server]'s, but a refresh
// leaves the former access token alive.
type OIDCProvider struct {
	issuer  string
	process *exec.Cmd
	stdin   io.Closer
	stderr  strings.Builder
	forward *httputil.ReverseProxy
}

// StartOIDCProvider starts the server and waits until it listens. c.Issuer is
// where its handler will be; of c, the user is not needed, and TokenLifetime
// means full seconds.
func StartOIDCProvider(ctx context.Context, c Config) (*OIDCProvider, error) {
	if _, err := os.Stat("oidcprovider/node_modules"); err != nil {
		return nil, fmt.Errorf("finding oidc-provider: %w; the script run installs it", err)
	}
	o := &OIDCProvider{issuer: c.Issuer}
	// Not bound to ctx: it ends by Close.
	o.process = exec.Command("node", "server.mjs", "--issuer", c.Issuer, "--redirect-uri", c.RedirectURI,
		"--access-token-lifetime", strconv.Itoa(int(c.TokenLifetime/time.Second)))
	o.process.Dir = "oidcprovider"
	o.process.Env = append(os.Environ(), "CLIENT_ID="+c.ClientID, "CLIENT_SECRET="+c.ClientSecret, "API_SECRET="+apiSecret)
	o.process.Stderr = &o.stderr
	stdin, err := o.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	o.stdin = stdin // it ends with us, even if we crash
	stdout, err := o.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := o.process.Start(); err != nil {
		return nil, fmt.Errorf("starting oidc-provider: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = o.process.Process.Kill() })
	defer stop()
	inner, err := readURL(stdout)
	if err != nil {
		o.Close()
		return nil, fmt.Errorf("starting oidc-provider: %w\n%s", err, o.stderr.String())
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	o.forward = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(inner)
		r.Out.Host = r.In.Host // it makes its URLs with it
	}}
	return o, nil
}

// readURL reads up to the line that says where the server listens.
func readURL(r io.Reader) (*url.URL, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var line struct {
			URL string `json:"url"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.URL != "" {
			return url.Parse(line.URL)
		}
	}
	return nil, fmt.Errorf("reading where it listens: %w", io.ErrUnexpectedEOF)
}

// Close ends the process.
func (o *OIDCProvider) Close() {
	o.stdin.Close()
	_ = o.process.Process.Kill()
	_ = o.process.Wait()
}

// AuthorizationServer serves what oidc-provider serves: the endpoints /auth,
// /token and /token/revocation, and discovery (OIDC Discovery §4).
func (o *OIDCProvider) AuthorizationServer() http.Handler { return o.forward }

// Live asks for a token's introspection (RFC 7662): is it a live access token
// with [ScopeAPI], and whose?
func (o *OIDCProvider) Live(ctx context.Context, token string) (user string, live bool) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, "POST", o.issuer+"/token/introspection", strings.NewReader(form.Encode()))
	if err != nil {
		return "", false
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("api", url.QueryEscape(apiSecret))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", false
	}
	defer res.Body.Close()
	var answer struct {
		Active    bool   `json:"active"`
		TokenType string `json:"token_type"` // refresh tokens have none
		Subject   string `json:"sub"`
		Scope     string `json:"scope"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", false
	}
	scopes := " " + answer.Scope + " "
	return answer.Subject, answer.Active && answer.TokenType == "Bearer" && strings.Contains(scopes, " "+ScopeAPI+" ")
}
