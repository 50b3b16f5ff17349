package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// The summary counts as people do.
func TestStatusSummary(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		all, needs, away int
		want             string
	}{
		{0, 0, 0, ""}, {1, 0, 0, "Nobody is needed."}, {1, 1, 0, "The account needs somebody."}, {1, 0, 1, "The account can't reach its server; it is tried again."},
		{14, 0, 0, "Nobody is needed for the 14 accounts."}, {14, 1, 0, "1 of 14 accounts needs somebody."}, {14, 2, 0, "2 of 14 accounts need somebody."},
		{14, 2, 3, "2 of 14 accounts need somebody; 3 can't reach the server."}, {14, 0, 1, "1 of 14 accounts can't reach its server; it is tried again."},
		{1000, 1000, 0, "All 1,000 accounts need somebody."}, {1200, 0, 1100, "1,100 of 1,200 accounts can't reach their server; they are tried again."},
	} {
		if got := summaryText(stateCounts{"": c.all, needsSomebody: c.needs, "away": c.away}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, manyRows(14)...))
	if !strings.Contains(root.text, "6 of 14 accounts need somebody; 2 can't reach the server.") || !strings.HasPrefix(root.one(t, "head").one(t, "title").text, "(6) Accounts") {
		t.Errorf("%s", root.one(t, "main").text)
	}
}

// What happened last is told with its time, the newest first.
func TestStatusLatest(t *testing.T) {
	t.Parallel()
	r := rowOf(session("erp", "", oauth.StateReady, "password"))
	r.Past = &oauth.History{Recent: []oauth.Happening{
		{At: portalNow.AddDate(0, 0, -1), Kind: oauth.EventDegraded, Detail: "it answered 503"}, {At: portalNow.Add(-3 * time.Minute), Kind: oauth.EventRecovered}, {At: portalNow, Kind: "something new"},
	}}
	list := func(rows ...accountRow) (list []string) {
		_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rows...))
		for _, li := range root.all("article")[0].all("li") {
			list = append(list, li.one(t, "time").attr["datetime"]+" "+li.text)
		}
		return list
	}
	want := []string{
		"2026-11-03T09:30:00Z something new, 09:30:00 UTC (now)", "2026-11-03T09:27:00Z Ready again, 09:27:00 UTC (3 minutes ago)",
		"2026-11-02T09:30:00Z No new token, or it couldn't be saved, 2 November 2026, 09:30 UTC (1 day ago): it answered 503",
	}
	if got := list(r); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	many := make([]accountRow, fewRows+1) // one of each is enough
	for i := range many {
		many[i] = r
	}
	if got := list(many...); !slices.Equal(got, want[:1]) {
		t.Errorf("among many: %q", got)
	}
}

// The page loads itself again, at the very same address, unless there is
// something to fill in or it was asked not to. Good news is told once.
func TestStatusRefresh(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query, refresh string
	}{
		{"", "15"}, {"q=acc&state=ready&page=2", "15"}, {"still", ""}, {"still=q&q=acc", ""}, {"message=signed_out", "15;url=/b"},
		{"message=signed_out&state=ready&page=2", "15;url=/b?page=2&state=ready"}, {"message=signed_out_not_revoked", "15"}, {"message=nothing", "15;url=/b"}, {"message=signed_out&still", ""},
	} {
		query, _ := url.ParseQuery(c.query)
		_, root := written(t, accountsOf(accountsPage{portalPage: portalPage{Base: "/b"}, CSRF: "x", Now: portalNow, Message: query.Get("message"), Asked: readListing(query)}, manyRows(1000)...))
		if got := refreshOf(root); got != c.refresh {
			t.Errorf("%s: %q, want %q", c.query, got, c.refresh)
		}
		fields := 0
		for _, i := range root.all("input") {
			if i.attr["type"] != "hidden" {
				fields++
			}
		}
		if (fields > 0) != query.Has("still") {
			t.Errorf("%s: %d fields", c.query, fields)
		}
		links := map[string]string{}
		for _, a := range root.all("a") {
			links[a.text] = a.attr["href"]
		}
		stop, goOn := links["Stop updating"], links["Update every 15 seconds"]
		if still := query.Has("still"); still && (stop != "" || strings.Contains(goOn, "still")) || !still && (goOn != "" || !strings.Contains(stop, "still")) {
			t.Errorf("%s: to stop %q, to go on %q", c.query, stop, goOn)
		}
		for _, link := range []string{stop, goOn} {
			if link != "" && readListing(mustParse(t, link).Query()).Page != readListing(query).Page {
				t.Errorf("%s: %s is another page", c.query, link)
			}
		}
	}
}

// The search and the state stay with the visitor: in links, in the form, and in
// the forms of the accounts.
func TestStatusKept(t *testing.T) {
	t.Parallel()
	const query = "page=2&q=account-0&state=ready&still="
	was, _ := url.ParseQuery(query)
	_, root := written(t, accountsOf(accountsPage{portalPage: portalPage{Base: "/b"}, CSRF: "x", Now: portalNow, Asked: readListing(was)}, manyRows(1000)...))
	forms := root.all("form")
	if want := map[string]string{"q": "account-0", "state": "ready", "still": ""}; !maps.Equal(fieldsOf(forms[0]), want) || forms[0].attr["action"] != "/b" || forms[0].attr["role"] != "search" {
		t.Errorf("the search is %v", fieldsOf(forms[0]))
	}
	if len(forms) < perPage {
		t.Errorf("%d forms", len(forms))
	}
	for _, f := range forms[1:] {
		if got := fieldsOf(f)["view"]; got != query {
			t.Errorf("a form brings %q along", got)
		}
	}
	var hrefs []string
	for _, a := range root.one(t, "main").all("a") {
		hrefs = append(hrefs, a.attr["href"])
	}
	for _, want := range []string{
		"/b?page=2&q=account-0&state=ready", "/b?q=account-0&still=", "/b?q=account-0&state=attention&still=", "/b?page=3&q=account-0&state=ready&still=",
		"/b?q=account-0&state=ready&still=", "/b?state=ready&still=",
	} {
		if !slices.Contains(hrefs, want) {
			t.Errorf("no link to %s in %q", want, hrefs)
		}
	}
	if text := root.one(t, "main").text; !strings.Contains(text, "51 to 100 of 142, page 2 of 3") || !strings.Contains(text, "Found by account-0: 142") {
		t.Errorf("it isn't told where one is: %.500s", text)
	}
	for _, a := range root.all("a") {
		if _, ok := a.attr["aria-current"]; ok != strings.HasPrefix(a.text, "Ready ") {
			t.Errorf("%s is the current choice: %t", a.text, ok)
		}
	}
}

// A search that finds nothing says so and leads back.
func TestStatusNothingFound(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{"nobody", `"><script>alert(1)</script>`, "' onfocus='x", "\u202e", "javascript:alert(1)"} {
		_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow, Asked: readListing(url.Values{"q": {evil}, "page": {"7"}})}, manyRows(10)...))
		if main := root.one(t, "main"); !strings.Contains(main.text, "No account fits") || !strings.Contains(main.text, visible(evil)) || len(main.all("article")) != 0 {
			t.Errorf("%q: %s", evil, main.text)
		}
	}
}

// A refresh token that only a person can renew is spoken of before it ends.
func TestStatusEnding(t *testing.T) {
	t.Parallel()
	for grant, days := range map[string]int{"authorization_code": 29, "device_code": 29, "refresh_token": 29, "password": -1, "client_credentials": -1} {
		for left := range 60 {
			s := session("erp", "", oauth.StateReady, grant)
			s.HasRefreshToken, s.RefreshExpires = true, portalNow.AddDate(0, 0, left)
			_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rowOf(s)))
			if got := strings.Contains(root.text, "Unless the server gives another one"); got != (left <= days) {
				t.Errorf("%s, %d days left: %t", grant, left, got)
			}
		}
	}
}

// A page of 1,000 accounts stays small, with all there is to tell of each.
func TestStatusSize(t *testing.T) {
	t.Parallel()
	rec, root := written(t, accountsOf(accountsPage{CSRF: strings.Repeat("0", 64), Now: portalNow}, fullRows(1000)...))
	if n := len(root.all("article")); n != perPage || rec.Body.Len() > 500<<10 {
		t.Errorf("%d accounts in %d bytes", n, rec.Body.Len())
	}
}

// fullRows are accounts with everything that there may be to tell.
func fullRows(n int) []accountRow {
	rows := manyRows(n)
	for i := range rows {
		r := &rows[i]
		r.Detail, r.Reason = "the authorization server is not available: it answered 503", "it answered 503"
		r.HasRefreshToken, r.Obtained, r.Expires, r.RefreshExpires, r.RetryAt = true, portalNow, portalNow.Add(time.Hour), portalNow.AddDate(3, 0, 0), portalNow.Add(time.Minute)
		r.Past = new(oauth.History)
		for h := range r.Past.Hours {
			r.Past.Hours[h] = oauth.Hour{Start: portalNow.Add(time.Duration(h-23) * time.Hour), Refreshes: h + i%7, Failures: h % 5}
		}
		for k := range 10 {
			r.Past.Recent = append(r.Past.Recent, oauth.Happening{At: portalNow.Add(time.Duration(k-10) * time.Hour), Kind: oauth.EventDegraded, Detail: fmt.Sprint("it answered ", 500+k)})
		}
	}
	return rows
}

// BenchmarkStatusPage renders the page of 1,000 accounts, as it is after the
// sessions were asked.
func BenchmarkStatusPage(b *testing.B) {
	rows := fullRows(1000)
	for b.Loop() {
		p := accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rows...)
		if err := p.write(unread{}); err != nil {
			b.Fatal(err)
		}
	}
}

// unread is a browser that reads nothing.
type unread struct{}

func (unread) Header() http.Header         { return http.Header{} }
func (unread) Write(p []byte) (int, error) { return len(p), nil }
func (unread) WriteHeader(int)             {}
