package sandbox

import (
	"encoding/hex"
	"encoding/xml"
	"html"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webMethods is Software AG's Integration Server, where each endpoint is a
// service whose outputs are strings.
var webMethods = provider{
	name: "webmethods",
	paths: paths{
		authorize: "/invoke/pub.oauth/authorize",
		token:     "/invoke/pub.oauth/getToken",
		revoke:    "/invoke/pub.oauth/revokeToken",
	},
	lifetime:     time.Hour,
	authMethods:  []string{"basic"},
	pkce:         []string{"S256", "plain"},
	refresh:      keepSame,
	revokesPair:  true,
	accessToken:  func(time.Time, time.Duration) string { return hex.EncodeToString(random(32)) },
	refreshToken: func() string { return hex.EncodeToString(random(32)) },
	code:         func() string { return hex.EncodeToString(random(16)) },
	members:      webMethodsMembers,
	encoding:     webMethodsEncoding,
}

func webMethodsMembers(_ Config, p pair) members {
	m := members{
		{"access_token", quote(p.access)},
		{"token_type", `"Bearer"`},
		{"expires_in", quote(strconv.FormatInt(p.expiresIn, 10))},
		{"scope", quote(p.family.scope)},
		{"refresh_token", quote(p.refresh)},
	}
	if p.mode == keepMute {
		return m.drop("refresh_token")
	}
	return m
}

// webMethodsEncoding is JSON only for a client that asks for it: the server
// answers with XML or, by default, with a page for people.
func webMethodsEncoding(r *http.Request) encoding {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	switch {
	case strings.Contains(accept, "application/json"):
		return encoding{}
	case strings.Contains(accept, "text/xml"), strings.Contains(accept, "application/xml"):
		return encoding{"text/xml; charset=utf-8", encodeXML}
	}
	return encoding{"text/html; charset=utf-8", encodeTable}
}

func encodeXML(m members) []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Values version=\"2.0\">\n")
	for _, member := range m {
		b.WriteString(`  <value name="`)
		_ = xml.EscapeText(&b, []byte(member.name)) // a Builder takes all
		b.WriteString(`">`)
		_ = xml.EscapeText(&b, []byte(member.text()))
		b.WriteString("</value>\n")
	}
	b.WriteString("</Values>\n")
	return []byte(b.String())
}

func encodeTable(m members) []byte {
	var b strings.Builder
	b.WriteString("<HTML>\n<BODY bgcolor=\"#dddddd\">\n<TABLE bgcolor=\"#dddddd\" border=\"1\">\n")
	for _, member := range m {
		b.WriteString("<TR>\n<TD valign=\"top\"><B>" + html.EscapeString(member.name) + "</B></TD>\n<TD>" +
			html.EscapeString(member.text()) + "</TD>\n</TR>\n")
	}
	b.WriteString("</TABLE>\n</BODY>\n</HTML>\n")
	return []byte(b.String())
}
