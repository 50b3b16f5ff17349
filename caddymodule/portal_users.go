package caddymodule

import (
	"slices"
	"strconv"
)

// This file is the status page of accounts that have a session per user, as an
// admin sees them.

const (
	// maxInline users of an account are listed among the accounts.
	maxInline = 10
	// maxSorted users are listed by their condition; of more, by name alone.
	maxSorted = 2000
)

// accountUsers is what an admin sees of an account with a session per user.
type accountUsers struct {
	Account string
	// Unlisted: the store can't tell who they are.
	Unlisted bool
	// Search is what led here, if it is a search for accounts or users.
	Search string
	// Alone: the page is about this account, and lists its users; Asked is a
	// part of their names, and Found the session of the user of that very name,
	// which may not have begun.
	Alone bool
	Asked string
	Found *accountRow
	section

	names []string
}

// SignedIn is how many users have a session.
func (u *accountUsers) SignedIn() string {
	if len(u.names) == 0 {
		return "Nobody is"
	}
	return counted(len(u.names), "user is", "users are")
}

// Known: the user who was looked up has a session.
func (u *accountUsers) Known() bool { return slices.Contains(u.names, u.Asked) }

// named are the users whose names hold a part.
func (u *accountUsers) named(part string) (found []string) {
	for _, name := range u.names {
		if holds(name, part) {
			found = append(found, name)
		}
	}
	return found
}

// Named counts the users that a search led to.
func (u *accountUsers) Named() int {
	if u.Search == "" {
		return 0
	}
	return len(u.named(u.Search))
}

// A usersCard is an account with a session per user on the accounts page.
type usersCard struct {
	*accountUsers
	Page *accountsPage
	ID   string
}

// UsersCard is what the template of such an account takes.
func (p *accountsPage) UsersCard(u *accountUsers, i int) usersCard {
	return usersCard{u, p, "u" + strconv.Itoa(i)}
}

// Navigation leads through the users.
func (c usersCard) Navigation() navigation {
	return navigation{c.section, c.Page, "Users by state", choices(c.Counts, c.Page.Asked.State)}
}

// LookUp is the page where a user is looked up, ShowAll that of all of them, or
// of those of the search.
func (c usersCard) LookUp() string { return c.Page.link(c.listing().with("still", "user")) }
func (c usersCard) ShowAll() string {
	l := c.listing()
	if c.Named() > 0 {
		l.User = c.Search
	}
	return c.Page.link(l)
}

func (c usersCard) listing() listing { return c.Page.Asked.with("account", c.Account) }

// Crowded: they are not listed among the accounts.
func (c usersCard) Crowded() bool { return !c.Alone && len(c.names) > maxInline }

// take picks which users are shown: among the accounts a few; on a page of
// their own all, or those who were looked up. row tells a user's condition.
func (u *accountUsers) take(l listing, row func(user string) accountRow) {
	u.Alone = l.Account == u.Account
	if !u.Alone {
		if u.Search = l.Search; len(u.names) > maxInline {
			return
		}
		l = listing{}
	}
	u.Asked = l.User
	if u.Asked != "" && !u.Unlisted {
		found := row(u.Asked)
		u.Found = &found
	}
	names := slices.DeleteFunc(u.named(l.User), func(name string) bool { return name == u.Asked })
	of := paging(len(names), l.Page)
	shown := names
	if len(names) > maxSorted {
		shown = names[of.From:of.To]
	}
	rows := make([]accountRow, 0, len(shown))
	for _, name := range shown {
		rows = append(rows, row(name))
	}
	if len(names) > maxSorted {
		u.section = section{Rows: rows, Fit: len(names), pages: of}
		return
	}
	u.section = arrange(rows, listing{State: l.State, Page: l.Page})
}
