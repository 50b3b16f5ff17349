package caddymodule

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

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

// accounts is the page of what there is.
func (v *visit) accounts() error {
	ctx, cancel := context.WithTimeout(v.r.Context(), listTimeout)
	defer cancel()
	query, sessions := v.r.URL.Query(), v.app.shared.sessions
	page := accountsPage{portalPage: v.page, CSRF: csrf(v.browser()), Message: query.Get("message"), Now: time.Now()}
	own := sessions.All()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		perUser := own[name].Account().PerUser
		if perUser && v.user != "" {
			if st, err := sessions.StatusOf(ctx, oauth.Key{Account: name, User: v.user}); err == nil {
				page.Sessions = append(page.Sessions, st)
			}
		}
		switch {
		case !v.admin(v.user):
		case perUser:
			users, err := v.users(ctx, name, query)
			if err != nil {
				return errors.Join(err, v.refuse("unavailable"))
			}
			page.Users = append(page.Users, users)
		default:
			page.Sessions = append(page.Sessions, own[name].Status())
		}
	}
	return page.write(v.w)
}

// users is what an admin sees of an account with sessions per user.
func (v *visit) users(ctx context.Context, account string, query url.Values) (accountUsers, error) {
	sessions := v.app.shared.sessions
	names, err := sessions.Users(ctx, account)
	users := accountUsers{Account: account, SignedIn: len(names)}
	if err != nil {
		return users, err
	}
	if query.Get("account") == account {
		users.Asked = query.Get("user")
	}
	if users.Asked != "" {
		if st, err := sessions.StatusOf(ctx, oauth.Key{Account: account, User: users.Asked}); err == nil {
			users.Found = &st
		}
	}
	for _, name := range names[:min(len(names), maxListed)] {
		if st, err := sessions.StatusOf(ctx, oauth.Key{Account: account, User: name}); err == nil {
			users.List = append(users.List, st)
		}
	}
	return users, nil
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
