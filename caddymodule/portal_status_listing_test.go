package caddymodule

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Anybody can make a link to the page: what can't be meant is left out, and the
// rest comes back as it was.
func TestStatusListing(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxAsked+1)
	for query, want := range map[string]listing{
		"":                          {Page: 1},
		"q=erp&state=away&page=3":   {Search: "erp", State: "away", Page: 3},
		"state=attention":           {State: needsSomebody, Page: 1},
		"account=mail&user=a%2Fb":   {Account: "mail", User: "a/b", Page: 1},
		"user=ada":                  {Page: 1}, // of no account
		"q=+erp+":                   {Search: "erp", Page: 1},
		"still":                     {Page: 1, Still: true},
		"still=q":                   {Page: 1, Still: true, Focus: "q"},
		"still=csrf":                {Page: 1, Still: true},
		"state=Ready":               {Page: 1},
		"state=ready%22onload":      {Page: 1},
		"page=0":                    {Page: 1},
		"page=-1":                   {Page: 1},
		"page=1e3":                  {Page: 1},
		"page=2.5":                  {Page: 1},
		"page=9223372036854775808":  {Page: 1},
		"page=2147483647":           {Page: 2147483647},
		"q=" + long:                 {Page: 1},
		"account=mail&user=" + long: {Account: "mail", Page: 1},
		"q=%ff%3Cscript%3E":         {Search: "\ufffd<script>", Page: 1},
		"q=a&q=b":                   {Search: "a", Page: 1},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := readListing(q); got != want {
			t.Errorf("%.40s: %+v, want %+v", query, got, want)
		}
	}
}

// What a page's links and forms bring along is read again as it was meant,
// whatever it is, and is a plain URL.
func FuzzStatusListing(f *testing.F) {
	f.Add("q=a%20b&state=ready&page=7&account=x&user=y&still=q")
	f.Add("q=%00%ff%22%3E%3Cscript%3E&still&page=2&message=signed_in")
	f.Add("account=%e2%80%ae&user=;//evil.example")
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query)
		was := readListing(q)
		encoded := was.query().Encode()
		again, err := url.ParseQuery(encoded)
		if got := readListing(again); err != nil || got != was {
			t.Errorf("%q became %q: %+v, %+v", query, encoded, was, got)
		}
		if len(encoded) > 10*maxAsked || !plainURL(encoded) {
			t.Errorf("%q became %q", query, encoded)
		}
		p := accountsPage{portalPage: portalPage{Base: "/b"}, Asked: was}
		for _, name := range []string{"q", "state", "page", "account", "user", "still", "live"} {
			if link := p.Link(name, "2"); link != "/b" && !strings.HasPrefix(link, "/b?") || !plainURL(link) {
				t.Errorf("%s leads to %q", name, link)
			}
		}
	})
}

// Turning the pages shows each account once, and none twice.
func TestStatusPaging(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 49, 50, 51, 99, 100, 101, 1000} {
		rows := manyRows(n)
		pages, seen := max(1, (n+perPage-1)/perPage), map[oauth.Key]int{}
		for page := 1; page <= pages; page++ {
			s := arrange(rows, listing{Page: page})
			if s.Fit != n || s.Pages != pages || s.Page != page || len(s.Rows) != min(perPage, n-perPage*(page-1)) {
				t.Errorf("%d accounts, page %d: %d rows, %+v", n, page, len(s.Rows), s.pages)
			}
			if (s.Previous() == "") != (page == 1) || (s.Next() == "") != (page == pages) {
				t.Errorf("%d accounts, page %d: from here to %q and %q", n, page, s.Previous(), s.Next())
			}
			for _, r := range s.Rows {
				seen[r.Key]++
			}
		}
		if len(seen) != n {
			t.Errorf("%d of %d accounts are on the pages", len(seen), n)
		}
		// A page that isn't there is the next best.
		for page, want := range map[int]int{-1: 1, 0: 1, pages + 1: pages, 1 << 30: pages} {
			if s := arrange(rows, listing{Page: page}); s.Page != want {
				t.Errorf("%d accounts: page %d is %d, want %d", n, page, s.Page, want)
			}
		}
	}
}

// manyRows are accounts in all states, in no order.
func manyRows(n int) []accountRow {
	rows := make([]accountRow, n)
	for i := range rows {
		rows[i] = rowOf(session(fmt.Sprintf("Account-%04d", i), "", stateOrder[i%len(stateOrder)], "password"))
	}
	rand.Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}

// Who needs somebody is on top, in each state by name; the counts are true.
func TestStatusOrder(t *testing.T) {
	t.Parallel()
	rows := manyRows(1000)
	var all []accountRow
	for page := 1; page <= 20; page++ {
		all = append(all, arrange(rows, listing{Page: page}).Rows...)
	}
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		if a.needs() != b.needs() && b.needs() {
			t.Errorf("%s, which needs somebody, comes after %s", b.Key, a.Key)
		}
		if a.rank() > b.rank() || a.State == b.State && a.Key.Account >= b.Key.Account {
			t.Errorf("%s (%s) comes before %s (%s)", a.Key, a.State, b.Key, b.State)
		}
	}
	counts := arrange(rows, listing{}).Counts
	for state, want := range map[string]int{"": 1000, needsSomebody: 429, "login_required": 143, "refused": 143, "degraded": 143, "away": 143, "unknown": 143, "refreshing": 143, "ready": 142} {
		s := arrange(rows, listing{State: state})
		if counts[state] != want || s.Fit != want || s.Counts[""] != 1000 {
			t.Errorf("%q: %d are counted and %d shown, want %d", state, counts[state], s.Fit, want)
		}
		for _, r := range s.Rows {
			if state == needsSomebody && !r.needs() || state != "" && state != needsSomebody && string(r.State) != state {
				t.Errorf("%q: %s is %s", state, r.Key, r.State)
			}
		}
	}
	// A store that can't be read needs somebody; an unknown word is none.
	lost, odd := session("a", "", oauth.StateUnknown, "password"), session("b", "", "odd", "password")
	lost.Err = oauth.ErrStoreUnavailable
	s := arrange(append(rows, rowOf(lost), rowOf(odd)), listing{})
	if s.Rows[0].Key.Account != "a" || s.Counts[needsSomebody] != 430 || s.Counts["unknown"] != 145 || s.Counts["odd"] != 0 {
		t.Errorf("first comes %s of %v", s.Rows[0].Key, s.Counts)
	}
}

// A search is a part of a name, whatever its case, and nothing else.
func TestStatusSearch(t *testing.T) {
	t.Parallel()
	rows := manyRows(1000)
	users := &accountUsers{Account: "mail", names: []string{"ada", "Alan", "grace"}}
	rows = append(rows, rowOf(session("mail", "ada", oauth.StateReady, "authorization_code")), accountRow{Users: users}, rowOf(session(`a.*b`, "", oauth.StateReady, "password")))
	for search, want := range map[string]int{
		"": 1003, "account": 1000, "ACCOUNT-00": 100, "-0420": 1, "mail": 2, "MAIL": 2, "alan": 1, "AL": 1, "ada": 1, // ada's own is found by its account
		".*": 1, "%": 0, "a*": 0, "0420 ": 0, "\x00": 0, "' OR 1=1": 0, "<script>": 0, "account-00000": 0,
	} {
		if s := arrange(rows, listing{Search: search}); s.Fit != want {
			t.Errorf("%q finds %d, want %d", search, s.Fit, want)
		}
	}
	if s := arrange(rows, listing{Search: "account-00", State: "ready"}); s.Fit != 14 || s.Counts[""] != 100 || s.Counts["ready"] != 14 {
		t.Errorf("both narrow down to %d of %v", s.Fit, s.Counts)
	}
	if s := arrange(rows, listing{Account: "mail"}); s.Fit != 2 {
		t.Errorf("the account mail has %d rows", s.Fit)
	}
}

// Users are counted and found, however many they are; the store is asked only
// for those who have to be known.
func TestStatusUsersTaken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		users               int
		l                   listing
		shown, fit, queries int
		found               bool
	}{
		{10, listing{}, 10, 10, 10, false},
		{11, listing{}, 0, 0, 0, false}, // among the accounts there is no room
		{11, listing{Search: "user-3"}, 0, 0, 0, false},
		{11, listing{Account: "mail"}, 11, 11, 11, false},
		{1000, listing{Account: "mail", Page: 20}, 50, 1000, 1000, false},
		{1000, listing{Account: "mail", State: "away"}, 50, 500, 1000, false},
		{1000, listing{Account: "mail", User: "user-77"}, 10, 10, 11, true}, // itself, and user-770 to 779
		{1000, listing{Account: "mail", User: "nobody"}, 0, 0, 1, true},
		{maxSorted + 1, listing{Account: "mail", Page: 41, State: "away"}, 1, maxSorted + 1, 1, false}, // by name alone
		{10, listing{Account: "other"}, 0, 0, 0, false},
	} {
		names := make([]string, c.users)
		for i := range names {
			names[i] = fmt.Sprintf("user-%d", i)
		}
		slices.Sort(names)
		queries := 0
		u := &accountUsers{Account: "mail", names: names}
		rows := arrange([]accountRow{{Users: u}}, listing{Account: c.l.Account}).Rows
		if len(rows) > 0 {
			u.take(c.l, func(name string) accountRow {
				queries++
				state := oauth.StateReady
				if i, _ := slices.BinarySearch(names, name); i%2 == 0 {
					state = oauth.StateAway
				}
				return rowOf(session("mail", name, state, "authorization_code"))
			})
		}
		if len(u.Rows) != c.shown || u.Fit != c.fit || queries != c.queries || (u.Found != nil) != c.found {
			t.Errorf("%d users, %+v: %d of %d are shown for %d queries, found %t; want %+v", c.users, c.l, len(u.Rows), u.Fit, queries, u.Found != nil, c)
		}
	}
}
