package caddymodule

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file decides which accounts the status page shows, and in what order.

const (
	perPage = 50
	// maxAsked is how many bytes of a search or a name are heeded: they come
	// back in every link of the page.
	maxAsked = 512
)

// A listing is what the visitor wants to see of what there is. It is in the
// page's address, so that nothing is lost when the page loads itself again.
type listing struct {
	// Search is a part of an account's name, in whatever case.
	Search string
	// State is an [oauth.State], or needsSomebody; empty: all.
	State string
	// Page counts from 1.
	Page int
	// Account leaves one account; User then is a part of its users' names.
	Account, User string
	// Still: the page doesn't load itself again. So it may have fields to fill
	// in; Focus is the one that the visitor is about to.
	Still bool
	Focus string
}

// needsSomebody is the State of all accounts that wait for a person.
const needsSomebody = "attention"

// stateOrder is that of the page: what needs somebody most comes first.
var stateOrder = []oauth.State{
	oauth.StateLoginRequired, oauth.StateRefused, oauth.StateDegraded, oauth.StateAway, oauth.StateUnknown, oauth.StateRefreshing, oauth.StateReady,
}

// readListing takes a query as it may come from anybody: what can't be meant is
// left out.
func readListing(q url.Values) listing {
	l := listing{Search: asked(q.Get("q")), Account: asked(q.Get("account")), State: q.Get("state"), Page: 1, Still: q.Has("still")}
	if l.State != needsSomebody && !slices.Contains(stateOrder, oauth.State(l.State)) {
		l.State = ""
	}
	if l.Account != "" {
		l.User = asked(q.Get("user"))
	}
	if n, err := strconv.ParseUint(q.Get("page"), 10, 31); err == nil && n > 1 {
		l.Page = int(n)
	}
	if f := q.Get("still"); f == "q" || f == "user" {
		l.Focus = f
	}
	return l
}

func asked(text string) string {
	if len(text) > maxAsked {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "\ufffd"))
}

// query is the inverse of readListing, but for Focus, which is for one look.
func (l listing) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"q": l.Search, "state": l.State, "account": l.Account, "user": l.User} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if l.Page > 1 {
		q.Set("page", strconv.Itoa(l.Page))
	}
	if l.Still {
		q.Set("still", l.Focus)
	}
	return q
}

// with is the listing with one parameter of its query changed. Another choice
// begins at its first page.
func (l listing) with(name, value string) listing {
	l.Focus = ""
	if name != "page" && name != "still" && name != "live" {
		l.Page = 1
	}
	switch name {
	case "q":
		l.Search = value
	case "state":
		l.State = value
	case "page":
		l.Page, _ = strconv.Atoi(value)
	case "account":
		l.Account, l.User, l.Search, l.State = value, "", "", ""
	case "user":
		l.User = value
	case "still":
		l.Still, l.Focus = true, value
	case "live":
		l.Still = false
	}
	return l
}

// An accountRow is what the page lists: a session, or an account with a session
// per user.
type accountRow struct {
	sessionView
	Users *accountUsers
}

func (r accountRow) name() oauth.Key {
	if r.Users != nil {
		return oauth.Key{Account: r.Users.Account}
	}
	return r.Key
}

// stateCounts are the sessions by the State of a listing; the empty one is all.
type stateCounts map[string]int

func (t stateCounts) add(s sessionView) {
	t[""]++
	t[string(s.known())]++
	if s.needs() {
		t[needsSomebody]++
	}
}

// A section is one page of rows.
type section struct {
	Rows []accountRow
	// Fit rows were looked for; Counts are those of the search alone.
	Fit    int
	Counts stateCounts
	pages
}

// arrange picks the rows that fit a listing, and sorts them: those that need
// somebody are on top, then by name.
func arrange(rows []accountRow, l listing) section {
	s := section{Counts: stateCounts{}}
	for _, r := range rows {
		if !r.fits(l) {
			continue
		}
		if r.Users == nil {
			s.Counts.add(r.sessionView)
		}
		if r.is(l.State) {
			s.Rows = append(s.Rows, r)
		}
	}
	slices.SortFunc(s.Rows, func(a, b accountRow) int {
		an, bn := a.name(), b.name()
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(an.Account, bn.Account), cmp.Compare(an.User, bn.User))
	})
	s.Fit, s.pages = len(s.Rows), paging(len(s.Rows), l.Page)
	s.Rows = s.Rows[s.From:s.To]
	return s
}

// fits reports whether a row is among those that are looked for.
func (r accountRow) fits(l listing) bool {
	if l.Account != "" && r.name().Account != l.Account {
		return false
	}
	return l.Search == "" || holds(r.name().Account, l.Search) || r.Users != nil && len(r.Users.named(l.Search)) > 0
}

// is reports whether a row is in a state.
func (r accountRow) is(state string) bool {
	switch {
	case state == "":
		return true
	case r.Users != nil:
		return false
	case state == needsSomebody:
		return r.needs()
	}
	return string(r.known()) == state
}

// rank is where the row comes, before it is sorted by name.
func (r accountRow) rank() int {
	switch {
	case r.Users != nil && r.Users.Unlisted:
		return 0
	case r.Users != nil:
		return len(stateOrder)
	case r.unreadable(), r.ends():
		return 0
	}
	return 1 + slices.Index(stateOrder, r.known())
}

// holds reports whether a name holds a part, in whatever case.
func holds(name, part string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(part))
}

// pages tell which part of a list is shown: from From to before To.
type pages struct{ Page, Pages, From, To int }

// paging is the page of so many things that fits best: a list may have become
// shorter.
func paging(n, page int) pages {
	p := pages{Pages: max(1, (n+perPage-1)/perPage)}
	p.Page = min(max(1, page), p.Pages)
	p.From = (p.Page - 1) * perPage
	p.To = min(n, p.From+perPage)
	return p
}

// First is the place of the first thing shown, as people count.
func (p pages) First() int { return p.From + 1 }

// Previous and Next are pages; empty where there is none.
func (p pages) Previous() string { return p.at(p.Page - 1) }
func (p pages) Next() string     { return p.at(p.Page + 1) }

func (p pages) at(page int) string {
	if page < 1 || page > p.Pages {
		return ""
	}
	return strconv.Itoa(page)
}
