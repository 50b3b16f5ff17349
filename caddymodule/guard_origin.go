package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
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
