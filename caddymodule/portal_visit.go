package caddymodule

import (
	"context"
	"net/http"
	"net/url"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A visit is one request to the portal.
type visit struct {
	*Portal
	w    http.ResponseWriter
	r    *http.Request
	path string // below the portal's
	user string
	page portalPage
}

// serve answers on the portal's own paths.
func (v *visit) serve() error {
	read := v.r.Method == http.MethodGet || v.r.Method == http.MethodHead
	switch {
	case (v.path == "" || v.path == "/") && read:
		return v.accounts()
	case v.path == "/device" && read:
		return v.device()
	case v.path == "/result" && read:
		return v.result()
	case v.path == "/login" && v.r.Method == http.MethodPost:
		return v.act(v.login)
	case v.path == "/logout" && v.r.Method == http.MethodPost:
		return v.act(v.logout)
	case v.path == "/callback":
		return v.refuse("callback_malformed")
	case v.path == "/login" || v.path == "/logout":
		v.w.Header().Set("Allow", "POST")
		return v.refuse("method_refused")
	case portalPaths[v.path]:
		v.w.Header().Set("Allow", "GET, HEAD")
		return v.refuse("method_refused")
	}
	return v.refuse("not_found")
}

func (v *visit) refuse(code string) error {
	return problemPage{portalPage: v.page, Code: code}.write(v.w)
}

// redirect sends the browser to a page of the portal.
func (v *visit) redirect(path string, query url.Values) error {
	v.w.Header().Set("Cache-Control", "no-store")
	v.w.Header().Set("Referrer-Policy", "no-referrer")
	v.w.Header().Set("Location", v.base+path+"?"+query.Encode())
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// act reads a form, checks that it is from a page of ours in this browser and
// that the visitor may act, and does it.
func (v *visit) act(do func(context.Context, *oauth.Session) error) error {
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, 16<<10)
	if err := v.r.ParseForm(); err != nil || !v.sameSite() || !v.fromOurPage() {
		return v.refuse("form_refused")
	}
	key := oauth.Key{Account: v.r.PostForm.Get("account"), User: v.r.PostForm.Get("user")}
	if !v.mine(v.user, key) {
		return v.refuse("not_allowed")
	}
	s, err := v.app.shared.sessions.Session(v.r.Context(), key)
	if err != nil {
		return v.refuse("unknown_account")
	}
	return do(v.r.Context(), s)
}
