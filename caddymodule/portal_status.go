package caddymodule

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is the page of what there is: the accounts and their condition.

// listTimeout bounds how long a page waits for the store.
const listTimeout = 5 * time.Second

// began is when the process did.
var began = time.Now()

// accounts is the page of what there is.
func (v *visit) accounts() error {
	ctx, cancel := context.WithTimeout(v.r.Context(), listTimeout)
	defer cancel()
	query := v.r.URL.Query()
	page := accountsPage{
		portalPage: v.page, CSRF: csrf(v.browser()), Message: query.Get("message"), Now: time.Now(), Began: began, Asked: readListing(query),
	}
	if v.admin(v.user) {
		page.Store = v.app.shared.sessions.Store()
	}
	page.take(v.rows(ctx))
	for i, row := range page.Rows {
		switch {
		case row.Users != nil:
			row.Users.take(page.Asked, func(name string) accountRow { return v.row(ctx, oauth.Key{Account: row.Users.Account, User: name}) })
			if found := row.Users.Found; found != nil {
				found.Past = v.past(ctx, found.Status)
			}
		default:
			page.Rows[i].Past = v.past(ctx, row.Status)
		}
	}
	return page.write(v.w)
}

// rows are all that the visitor may see.
func (v *visit) rows(ctx context.Context) (rows []accountRow) {
	own, admin := v.app.shared.sessions.All(), v.admin(v.user)
	for _, name := range slices.Sorted(maps.Keys(own)) {
		perUser := own[name].Account().PerUser
		if perUser && v.user != "" {
			rows = append(rows, v.row(ctx, oauth.Key{Account: name, User: v.user}))
		}
		switch {
		case !admin:
		case perUser:
			users := &accountUsers{Account: name}
			var err error
			if users.names, err = v.app.shared.sessions.Users(ctx, name); err != nil {
				users.Unlisted = true
				v.log.Warn("listing the users of an account", "account", name, "error", err)
			}
			rows = append(rows, accountRow{Users: users})
		default:
			rows = append(rows, accountRow{sessionView: sessionView{Status: own[name].Status()}})
		}
	}
	return rows
}

// row is a session as it is now, or what can be said of it without the store.
func (v *visit) row(ctx context.Context, key oauth.Key) accountRow {
	st, err := v.app.shared.sessions.StatusOf(ctx, key)
	if err != nil {
		st = oauth.Status{Key: key, State: oauth.StateUnknown, Err: oauth.ErrStoreUnavailable, Detail: oauth.ErrStoreUnavailable.Error()}
		if a := v.app.account(key.Account); a != nil {
			st.Grant = a.Grant.Type()
		}
	}
	return accountRow{sessionView: sessionView{Status: st}}
}

// past is what happened to a session lately; nil for a user without one.
func (v *visit) past(ctx context.Context, st oauth.Status) *oauth.History {
	if st.Key.User != "" && st.Generation == 0 {
		return nil
	}
	s, err := v.app.shared.sessions.Session(ctx, st.Key)
	if err != nil {
		return nil
	}
	h := s.History()
	return &h
}

// home leads back to the page that a form was on, with a message.
func (v *visit) home(message string) error {
	query := url.Values{}
	if v.r.Method == http.MethodPost {
		if was, err := url.ParseQuery(v.r.PostForm.Get("view")); err == nil {
			query = readListing(was).query()
		}
	}
	query.Set("message", message)
	return v.redirect("/", query)
}
