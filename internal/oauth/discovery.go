package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// This file is where the metadata of an issuer is looked for.

// isEndpoint reports whether secrets may be sent to a URL of this form:
// absolute, https or on this machine, without user and fragment.
func isEndpoint(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || strings.ContainsAny(text, " #") || !isVisible(text) || !isHostname(u.Hostname()) {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

// isHostname reports whether host is a name or address that may be shown: Go's
// parser lets quotes and angle brackets pass.
func isHostname(host string) bool {
	for _, c := range []byte(host) {
		if !isAlphanumeric(c) && !strings.ContainsRune("-._:", rune(c)) {
			return false
		}
	}
	return host != ""
}

// isLoopback reports whether a host is this machine by its very name.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// metadataURLs returns where the metadata of an issuer may be, in the order in
// which to ask: OIDC Discovery §4.1 appends, RFC 8414 §3.1 inserts.
func metadataURLs(issuer string) ([]string, error) {
	if !isEndpoint(issuer) || strings.Contains(issuer, "?") {
		return nil, errors.New("the issuer must be an absolute https URL without user, query and fragment, such as https://login.example.com")
	}
	base := strings.TrimRight(issuer, "/")
	authority := strings.Index(base, "://") + len("://")
	origin, path := base, ""
	if i := strings.Index(base[authority:], "/"); i >= 0 {
		origin, path = base[:authority+i], base[authority+i:]
	}
	return []string{
		base + "/.well-known/openid-configuration",
		origin + "/.well-known/oauth-authorization-server" + path,
	}, nil
}

// fetchMetadata fetches the metadata of an issuer, with one request as a rule
// and two at most. Redirects aren't followed: what they lead to isn't the
// issuer's. Its errors are those of [readMetadata] as well, wrapped.
func fetchMetadata(ctx context.Context, transport http.RoundTripper, issuer string) (Metadata, error) {
	urls, err := metadataURLs(issuer)
	if err != nil {
		return Metadata{}, err
	}
	var refusals []string
	for _, u := range urls {
		status, body, err := getMetadata(ctx, transport, u)
		if err != nil {
			return Metadata{}, fmt.Errorf("fetching metadata from %s: %w", u, err)
		}
		if status == http.StatusOK {
			m, err := readMetadata(issuer, body)
			if err != nil {
				err = fmt.Errorf("reading the metadata at %s: %w", u, err)
			}
			return m, err
		}
		refusals = append(refusals, u+" answered "+strconv.Itoa(status))
		switch {
		case status/100 == 3:
			return Metadata{}, fmt.Errorf("fetching metadata: %s; redirects are not followed: is the issuer right?", refusals[len(refusals)-1])
		case status/100 != 4 || status == http.StatusTooManyRequests: // it may be there, later
			return Metadata{}, fmt.Errorf("fetching metadata: %s", refusals[len(refusals)-1])
		}
	}
	return Metadata{}, fmt.Errorf("fetching metadata: %s: is the issuer right?", strings.Join(refusals, "; "))
}

// getMetadata makes one request. The body comes with status 200 only. Any media
// type but HTML will do: files without a name extension are often served as
// text/plain or application/octet-stream.
func getMetadata(ctx context.Context, transport http.RoundTripper, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	reply, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, errors.New(wireError(err))
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return reply.StatusCode, nil, nil
	}
	media, _, _ := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	if media == "text/html" || media == "application/xhtml+xml" {
		return 0, nil, errors.New("the answer is HTML and not JSON: is the issuer right?")
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxMetadata+1))
	if err != nil {
		return 0, nil, errors.New(wireError(err))
	}
	return reply.StatusCode, body, nil
}
