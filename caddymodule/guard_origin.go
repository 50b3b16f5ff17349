package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// checkOrigins brings the configured origins into the form in which browsers
// send them (RFC 6454 §6.1), or says which one can't be.
func (g *Guard) checkOrigins() error {
	for i, text := range g.Origins {
		u, err := url.Parse(strings.ToLower(text))
		if err != nil || u.Host == "" || u.Scheme == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" ||
			strings.Contains(u.Host, "*") {
			return fmt.Errorf("%q: it must be scheme://host[:port], such as https://app.example.com, without wildcard", text)
		}
		g.Origins[i] = u.Scheme + "://" + hostOf(u)
	}
	return nil
}

// foreignPage reports whether a request is by a web page that may not call. A
// browser says so of every request by Origin or by Sec-Fetch-Site; what people
// ask for themselves, typed or from a bookmark, has `none` there.
func (g *Guard) foreignPage(r *http.Request) bool {
	origins, sites := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	switch {
	case len(origins) == 1:
		return !slices.Contains(g.Origins, origins[0]) // browsers write it in lower case
	case len(origins) > 1 || len(sites) > 1:
		return true
	case len(sites) == 0 || sites[0] == "none":
		return false
	case sites[0] == "same-origin":
		return !slices.Contains(g.Origins, ownOrigin(r))
	}
	return true
}

// isolated tells browsers that no page of another site may load, read or frame an
// answer. Where it is plain http under a name of `hosts`, that is all there is
// against them: there browsers say nothing of the page (Fetch Metadata §2).
var isolated = http.Header{
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"X-Frame-Options":              {"SAMEORIGIN"},
}

// isolate adds those where the API says nothing.
func isolate(h http.Header) {
	for field, values := range isolated {
		if h[field] == nil {
			h[field] = values[:1:1]
		}
	}
}

// warnPlainHTTP tells of a site whose callers can't be told from a page's
// requests.
func (g *Guard) warnPlainHTTP(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || len(server.TLSConnPolicies) > 0 || len(g.CallerKeys) > 0 {
		return
	}
	for _, h := range g.Hosts {
		if !loopback(hostName(h)) {
			g.log.to.Warn("over plain http, browsers don't say which page sends a GET to this name: a page of anybody that a caller looks at "+
				"can have GETs made here; use https, or caller_key", "host", h)
			return
		}
	}
}

// ownOrigin is that of the pages that we serve ourselves.
func ownOrigin(r *http.Request) string {
	u := url.URL{Scheme: "http", Host: strings.ToLower(r.Host)}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return u.Scheme + "://" + hostOf(&u)
}

// pageOf is the origin of the page that has sent a request, to be written into
// the configuration.
func pageOf(r *http.Request) string {
	if o := printable(r.Header.Get("Origin")); o != "" && o != "null" {
		return o
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return printable(ownOrigin(r))
	}
	return "<its origin>"
}
