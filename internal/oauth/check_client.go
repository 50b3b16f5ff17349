package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// checkMetadata compares the account with what its issuer says of itself. It
// returns the client with the endpoints that only the metadata have.
func (c *Client) checkMetadata(ctx context.Context) (*Client, []Finding) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if c.Discover {
		m, err := c.fetchMetadata(ctx)
		if err != nil {
			return c, []Finding{{LevelFail, "metadata", err.Error(), "look whether the issuer can be reached from here, and is written as the server calls itself, slash at its end included; or set the endpoints in the account"}}
		}
		return c.with(&m), c.compareMetadata(m)
	}
	urls, err := metadataURLs(c.Issuer)
	if err != nil {
		return c, nil // none is configured, or it is a name only
	}
	for _, u := range urls {
		status, body, err := getMetadata(ctx, c.Transport, u)
		if err != nil || status != http.StatusOK {
			continue // it needn't have any
		}
		m, err := readMetadata(c.Issuer, body)
		if faults := (endpointFaults)(nil); err != nil && !errors.As(err, &faults) {
			return c, []Finding{{LevelWarn, "metadata", "the metadata at " + u + " don't fit `issuer " + c.Issuer + "`: " + err.Error(),
				"set issuer to what the server calls itself; a login whose callback names another one is refused"}}
		}
		return c, c.compareMetadata(m)
	}
	return c, nil
}

func (c *Client) compareMetadata(m Metadata) (found []Finding) {
	for _, e := range []struct{ option, configured, published string }{
		{"token_endpoint", c.TokenEndpoint, m.TokenEndpoint},
		{"authorize_endpoint", c.AuthorizeEndpoint, m.AuthorizeEndpoint},
		{"revoke_endpoint", c.RevokeEndpoint, m.RevokeEndpoint},
		{"device_endpoint", c.DeviceEndpoint, m.DeviceEndpoint},
	} {
		if e.configured != "" && e.published != "" && e.configured != e.published {
			found = append(found, Finding{LevelWarn, "metadata", e.option + " is " + e.configured + ", but the issuer says " + e.published,
				"if the issuer is right: " + e.option + " " + e.published})
		}
	}
	if found == nil {
		found = []Finding{{LevelOK, "metadata", "the metadata of " + m.Issuer + " agree with the account", ""}}
	}
	return found
}

// How a server took the client's credentials.
type authVerdict int

const (
	authUnclear authVerdict = iota
	authAccepted
	authRefused
)

// clientAuth asks the revocation endpoint to end a token that nobody has:
// it checks the client first (RFC 7009 §2.1).
func (done *Checks) clientAuth(ctx context.Context, c *Client, others []ClientAuth) []Finding {
	how := "as `client_auth " + string(c.Auth) + "`"
	if c.TokenEndpoint == "" { // the metadata that would have them couldn't be read
		return nil
	}
	if c.RevokeEndpoint == "" || c.DeleteSession {
		return []Finding{{LevelWarn, "client_auth", "whether the client is accepted " + how + " can't be told: there is no revocation endpoint (RFC 7009) to try it at, and trying a grant would spend it",
			"name the server's revoke_endpoint, if it has one; otherwise the first sign-in tells"}}
	}
	verdict, answer := done.try(ctx, c, c.Auth)
	switch verdict {
	case authAccepted:
		return []Finding{{LevelOK, "client_auth", "the revocation endpoint accepts the client " + how, ""}}
	case authUnclear:
		return []Finding{{LevelWarn, "client_auth", "whether the client is accepted " + how + " can't be told: the revocation endpoint " + answer,
			"compare revoke_endpoint with the server's documents; the first sign-in tells, too: caddy bearer login <account>"}}
	}
	tried := []string{string(c.Auth)}
	for _, auth := range c.otherAuths(others) {
		tried = append(tried, string(auth))
		if verdict, _ := done.try(ctx, c, auth); verdict == authAccepted {
			return []Finding{{LevelFail, "client_auth", "the revocation endpoint refuses the client " + how + " (" + answer + "), and accepts it as " + string(auth),
				"client_auth " + string(auth)}}
		}
	}
	fix := "compare client_id and client_secret with what is registered at the server"
	switch c.Auth {
	case AuthPrivateKeyJWT:
		fix = "compare client_id and the public key (and its id) with what is registered at the server, and the clocks"
	case AuthTLS:
		fix = "compare client_id and the certificate with what is registered at the server"
	case AuthNone:
		fix = "the client is not registered as a public one: give it its client_secret and `client_auth basic`"
	}
	return []Finding{{LevelFail, "client_auth", "the revocation endpoint refuses the client (" + answer + "); tried: " + strings.Join(tried, ", "), fix}}
}

// otherAuths are the ways that send the same secret otherwise on the wire.
func (c *Client) otherAuths(allowed []ClientAuth) (others []ClientAuth) {
	secret := []ClientAuth{AuthBasic, AuthBasicRaw, AuthPost}
	if !slices.Contains(secret, c.Auth) {
		return nil
	}
	plain := url.QueryEscape(c.ID) == c.ID && url.QueryEscape(c.secret().Reveal()) == c.secret().Reveal()
	for _, auth := range secret {
		same := auth == c.Auth || plain && (auth == AuthBasicRaw || auth == AuthBasic && c.Auth == AuthBasicRaw) // as one that is tried
		if !same && slices.Contains(allowed, auth) {
			others = append(others, auth)
		}
	}
	return others
}

// An attempt is what a server tells clients apart by.
type attempt struct {
	endpoint, id, keyID string
	secret              [sha256.Size]byte // its digest
	auth                ClientAuth
}

// try returns what came of such a request, and makes it if nobody has.
func (done *Checks) try(ctx context.Context, c *Client, auth ClientAuth) (authVerdict, string) {
	key := attempt{c.RevokeEndpoint, c.ID, c.KeyID, sha256.Sum256([]byte(c.secret().Reveal())), auth}
	done.mu.Lock()
	if done.tried == nil {
		done.tried = map[attempt]func() (authVerdict, string){}
	}
	if done.tried[key] == nil {
		done.tried[key] = sync.OnceValues(func() (authVerdict, string) { return c.tryClient(ctx, auth) })
	}
	ask := done.tried[key]
	done.mu.Unlock()
	return ask()
}

// tryClient makes one revocation request, and says in words what came back.
func (c *Client) tryClient(ctx context.Context, auth ClientAuth) (authVerdict, string) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	try := *c
	try.Auth = auth
	e, err := try.send(ctx, c.RevokeEndpoint, url.Values{"token": {rand.Text()}, "token_type_hint": {"refresh_token"}}, false)
	switch {
	case err != nil:
		return authUnclear, "could not be asked: " + err.Error()
	case e.reply == nil && e.err == nil:
		return authUnclear, "could not be asked"
	case e.reply == nil:
		return authUnclear, "did not answer: " + wireError(e.err)
	}
	status, code := e.reply.StatusCode, readMembers(e.body).code
	return judgeClient(status, code), strings.TrimSpace(fmt.Sprintf("answered %d %s", status, code))
}

// judgeClient reads the answer to a revocation of a token that nobody has. One
// that is about the token means that the client has been accepted.
func judgeClient(status int, code string) authVerdict {
	switch {
	case status == http.StatusUnauthorized, code == "invalid_client":
		return authRefused
	case status == http.StatusOK, status == http.StatusNoContent,
		status == http.StatusBadRequest && (code == "unsupported_token_type" || code == "invalid_token" || code == "invalid_grant"):
		return authAccepted
	}
	return authUnclear
}
