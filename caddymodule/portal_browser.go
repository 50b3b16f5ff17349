package caddymodule

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
)

// This file is how the portal tells one browser from others.

const (
	browserLength = 52
	plainCookie   = "caddy-bearer"
	secureCookie  = "__Host-caddy-bearer"
)

// sameSite heeds what the browser says of where a form came from. Referrer-
// Policy no-referrer makes Origin null on our own forms.
func (v *visit) sameSite() bool {
	if site := v.r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := v.r.Header.Get("Origin")
	return origin == "" || origin == "null" || origin == v.origin
}

// fromOurPage compares the form's token with that of the browser's cookie.
func (v *visit) fromOurPage() bool {
	c, err := v.r.Cookie(v.cookieName())
	return err == nil && len(c.Value) == browserLength && hmac.Equal([]byte(v.r.PostForm.Get("csrf")), []byte(csrf(c.Value)))
}

// cookieName is that of the browser's cookie. With the prefix, browsers take it
// from this host over TLS only (RFC 6265bis §4.1.3).
func (p *Portal) cookieName() string {
	if strings.HasPrefix(p.origin, "https://") {
		return secureCookie
	}
	return plainCookie
}

// dropPortalCookies takes the portal's cookies off a request to the API, whose
// site may be the same. The others stay as they are.
func dropPortalCookies(h http.Header) {
	lines := h["Cookie"]
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, plainCookie) }) {
		return
	}
	var kept []string
	for _, line := range lines {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), func(pair string) bool {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			return name == plainCookie || name == secureCookie
		})
		if len(pairs) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(pairs, ";")))
		}
	}
	if h["Cookie"] = kept; len(kept) == 0 {
		delete(h, "Cookie")
	}
}

// browser is what tells this browser from others: the cookie's value, which is
// set if there is none.
func (v *visit) browser() string {
	if c, err := v.r.Cookie(v.cookieName()); err == nil && len(c.Value) == browserLength {
		return c.Value
	}
	value := rand.Text() + rand.Text() // 256 bits and more
	v.r.AddCookie(v.setBrowser(value)) // the same for the rest of this visit
	return value
}

// setBrowser sets the cookie. If it is done after a change, Chromium also drops
// the pages that it keeps in memory for the way back, in spite of no-store, and
// that are untrue now.
func (v *visit) setBrowser(value string) *http.Cookie {
	c := &http.Cookie{
		Name: v.cookieName(), Value: value, Path: "/", HttpOnly: true,
		Secure:   strings.HasPrefix(v.origin, "https://"),
		SameSite: http.SameSiteLaxMode, // the callback comes from the server's site
	}
	http.SetCookie(v.w, c)
	return c
}

// csrf is what forms bring along: known to pages that the browser's cookie was
// sent for, and telling nothing of it.
func csrf(browser string) string {
	sum := sha256.Sum256([]byte("form " + browser))
	return hex.EncodeToString(sum[:])
}
