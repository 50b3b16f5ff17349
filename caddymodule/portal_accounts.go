package caddymodule

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is what the status page tells, as its templates take it.

// accountsPage tells what there is, in what condition, and what to do.
type accountsPage struct {
	portalPage
	// CSRF goes into each form, as the field csrf.
	CSRF string
	// Message is a key of [portalMessages]; others are not shown, as it may
	// come from a query.
	Message string
	// Now is what times are compared with.
	Now time.Time
	// Began is when the process did, and its memory of what happened.
	Began time.Time
	// Store is what is wrong with the token store, for admins.
	Store oauth.StoreNotice

	// Asked is what the visitor wants to see of it.
	Asked listing
	section
	all   stateCounts // of all that the visitor may see
	rows  int         // likewise, accounts with a session per user included
	users bool        // there are such accounts
	works bool        // an account serves
}

// take picks what is shown of all that the visitor may see.
func (p *accountsPage) take(rows []accountRow) {
	p.all, p.rows = stateCounts{}, len(rows)
	if !slices.ContainsFunc(rows, func(r accountRow) bool { return r.name().Account == p.Asked.Account }) {
		p.Asked.Account, p.Asked.User = "", ""
	}
	for _, r := range rows {
		if r.Users != nil {
			p.users = true
			p.works = p.works || len(r.Users.names) > 0
			continue
		}
		p.all.add(r.sessionView)
		p.works = p.works || r.works()
	}
	l := p.Asked
	if l.Account != "" {
		l.Search, l.State, l.Page = "", "", 1 // they are about its users
	}
	p.section = arrange(rows, l)
}

// sessionCard is a session on the accounts page.
type sessionCard struct {
	sessionView
	Page *accountsPage
	// ID is unique on the page; Level is that of the heading, 2 to 4.
	ID    string
	Level int
}

// Card is what the template of a session takes.
func (p *accountsPage) Card(r accountRow, level int, id ...any) sessionCard {
	return sessionCard{r.sessionView, p, fmt.Sprint(id...), level}
}

// Most is how many happenings are told.
func (c sessionCard) Most() int {
	if c.Full() {
		return 10
	}
	return 1
}

// Full: there is room for all that is known. Users are shown in brief.
func (c sessionCard) Full() bool {
	return c.Level == 3 || c.Level == 2 && c.Page.Fit <= fewRows
}

// fewRows need no search.
const fewRows = 5

// Many: there is more than one sees at a glance.
func (p *accountsPage) Many() bool {
	return p.rows > fewRows || p.Asked.Search != "" || p.Asked.State != ""
}

// HasUsers: there are accounts with a session per user, and the visitor sees
// all of them.
func (p *accountsPage) HasUsers() bool { return p.users }

// Summary tells how many need somebody; the others are at the back of the mind.
func (p *accountsPage) Summary() string { return summaryText(p.all) }

// Needs is how many accounts need somebody.
func (p *accountsPage) Needs() int { return p.all[needsSomebody] }

// A choice is a state by which a list can be narrowed down.
type choice struct {
	State, Word string
	Count       int
}

// Number is Count as people write it.
func (c choice) Number() string { return humanize.Comma(int64(c.Count)) }

// A navigation is what leads through a list.
type navigation struct {
	section
	Page    *accountsPage
	Label   string
	Choices []choice
}

// Now is the choice that was made.
func (n navigation) Now() string { return n.Page.Asked.State }

// Number is that of the list's page.
func (n navigation) Number() int { return n.section.Page }

// Young: the charts don't reach back for a day.
func (p *accountsPage) Young() bool { return p.Now.Sub(p.Began) < 24*time.Hour }

// Navigation leads through the accounts.
func (p *accountsPage) Navigation() navigation {
	return navigation{p.section, p, "Accounts by state", choices(p.Counts, p.Asked.State)}
}

// choices are the states that occur, and the one that was chosen.
func choices(counts stateCounts, now string) (list []choice) {
	for _, s := range listedStates {
		if counts[s.State] > 0 || counts != nil && (s.State == now || s.State == "") {
			list = append(list, choice{s.State, or(s.Word, stateTexts[oauth.State(s.State)].Word), counts[s.State]})
		}
	}
	return list
}

// Link is the page with one parameter of its listing changed.
func (p *accountsPage) Link(name, value string) string { return p.link(p.Asked.with(name, value)) }

func (p *accountsPage) link(l listing) string {
	query := l.query().Encode()
	if query == "" {
		return p.Home()
	}
	return p.Home() + "?" + query
}

// View is the listing as the forms bring it along; empty if it is that of
// the first look.
func (p *accountsPage) View() string { return p.Asked.query().Encode() }

// refreshEvery is how often the page loads itself again.
const refreshEvery = 15 * time.Second

// Refresh is when the page loads itself again, as a meta element says it. A
// page with something to fill in doesn't, lest it be lost. Good news is told
// once; a warning stays until the visitor goes on.
func (p *accountsPage) Refresh() string {
	seconds := strconv.Itoa(int(refreshEvery.Seconds()))
	switch n := p.Notice(); {
	case p.Asked.Still:
		return ""
	case p.Message != "" && (n == nil || n.Kind == "ok"):
		return seconds + ";url=" + p.Link("page", strconv.Itoa(p.Asked.Page))
	}
	return seconds // the very same address, so that browsers stay where they are
}

// Every is how often, in words.
func (p *accountsPage) Every() string { return strconv.Itoa(int(refreshEvery.Seconds())) + " seconds" }

// Notice is the message in words; nil for none, or for one that isn't true any
// more.
func (p *accountsPage) Notice() *portalMessage {
	m, ok := portalMessages[p.Message]
	if !ok || m.Serves && !p.works {
		return nil
	}
	return &m
}

// write answers with status 200.
func (p *accountsPage) write(w http.ResponseWriter) error {
	return writePage(w, http.StatusOK, "accounts", p, p.portalPage)
}
