package caddymodule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// dayOf is a day with these numbers in its last hours.
func dayOf(hours ...oauth.Hour) *oauth.History {
	h := new(oauth.History)
	for i := range h.Hours {
		if n := i - len(h.Hours) + len(hours); n >= 0 {
			h.Hours[i] = hours[n]
		}
		h.Hours[i].Start = portalNow.Truncate(time.Hour).Add(time.Duration(i+1-len(h.Hours)) * time.Hour)
	}
	return h
}

// The bars of a page add up to what is told beside them, are where their hours
// are, and stay within the chart.
func TestStatusChart(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	days := []*oauth.History{
		dayOf(), dayOf(oauth.Hour{Refreshes: 1}), dayOf(oauth.Hour{Failures: 1}), dayOf(oauth.Hour{Refreshes: 65535, Failures: 1}), dayOf(oauth.Hour{Refreshes: 1, Failures: 65535}, oauth.Hour{}),
	}
	for range 50 {
		var hours []oauth.Hour
		for range 24 {
			hours = append(hours, oauth.Hour{Refreshes: random.IntN(9) * random.IntN(9), Failures: max(0, random.IntN(300)-200)})
		}
		days = append(days, dayOf(hours...))
	}
	for _, day := range days {
		for _, rows := range []int{1, fewRows + 1} {
			checkChart(t, day, rows)
		}
	}
}

func checkChart(t *testing.T, day *oauth.History, rows int) {
	t.Helper()
	all := manyRows(rows)
	for i := range all {
		all[i].Past = day
	}
	_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, all...))
	refreshes, failures, ups, downs := 0, 0, map[float64]int{}, map[float64]int{}
	for i, h := range day.Hours {
		refreshes, failures = refreshes+h.Refreshes, failures+h.Failures
		ups[float64(10*i+1)], downs[float64(10*i+1)] = h.Refreshes, h.Failures
	}
	article := root.all("article")[0]
	if refreshes+failures == 0 {
		if !strings.Contains(article.text, "No token was asked for") || len(article.all("path")) != 0 {
			t.Errorf("an empty day: %s", article.text)
		}
		return
	}
	want := fmt.Sprintf("Last 24 hours: %s, %s", counted(refreshes, "token", "tokens"), counted(failures, "failed attempt", "failed attempts"))
	if !strings.Contains(article.text, want) || !strings.Contains(article.one(t, "desc").text, want) {
		t.Errorf("it isn't told that %s: %s", want, article.text)
	}
	paths := article.all("path")
	up, down := barsOf(t, paths[0]), barsOf(t, paths[1])
	if paths[0].attr["class"] != "up" || paths[1].attr["class"] != "down" {
		t.Error("the bars are confused")
	}
	checkBars(t, append(up, down...), base(t, article), ups, downs)
	if svg := article.all("desc")[0].parent; svg.attr["role"] != "img" || svg.attr["aria-labelledby"] == "" || svg.attr["viewBox"] != "0 0 240 61" {
		t.Errorf("the chart is %v", svg.attr)
	}
}

// base is where the base line is.
func base(t *testing.T, article *element) float64 {
	t.Helper()
	for _, r := range article.all("rect") {
		if r.attr["class"] == "base" {
			y, err := strconv.ParseFloat(r.attr["y"], 64)
			if err != nil {
				t.Fatal(err)
			}
			return y
		}
	}
	t.Fatal("no base line")
	return 0
}

// A drawn bar goes from base to base by height, downwards.
type drawn struct{ x, base, height float64 }

var barPath = regexp.MustCompile(`^M(\d+) ([\d.]+)v(-?[\d.]+)h8V([\d.]+)z`)

// barsOf reads a path.
func barsOf(t *testing.T, path *element) (bars []drawn) {
	t.Helper()
	for rest := path.attr["d"]; rest != ""; {
		m := barPath.FindStringSubmatch(rest)
		if m == nil || m[2] != m[4] {
			t.Fatalf("no bar: %q", rest)
		}
		var b drawn
		for i, to := range []*float64{&b.x, &b.base, &b.height} {
			*to, _ = strconv.ParseFloat(m[i+1], 64)
		}
		bars, rest = append(bars, b), rest[len(m[0]):]
	}
	return bars
}

// checkBars compares what is drawn with what was counted, by place.
func checkBars(t *testing.T, bars []drawn, base float64, ups, downs map[float64]int) {
	t.Helper()
	scale := 0.0
	for _, b := range bars {
		counts, end := downs, b.base+b.height
		if b.height < 0 {
			counts = ups
		}
		n := counts[b.x]
		if delete(counts, b.x); n == 0 || b.base != base || end < 0 || end > chartHeight || math.Abs(b.height) < leastBar {
			t.Errorf("%d at %+v", n, b)
		}
		if height := math.Abs(b.height); height > 20 { // the scale can be read off it
			if s := height / float64(n); scale != 0 && math.Abs(s-scale) > 0.01*scale {
				t.Errorf("one scale is %v, another %v", scale, s)
			} else {
				scale = s
			}
		}
	}
	for x, n := range ups {
		if n+downs[x] > 0 {
			t.Errorf("%d and %d at %v aren't drawn", n, downs[x], x)
		}
	}
	for x, n := range downs {
		if n > 0 {
			t.Errorf("%d at %v aren't drawn", n, x)
		}
	}
}

// Who doesn't see the chart is told of the hours with failures; who points at a
// bar, of that hour.
func TestStatusChartSaid(t *testing.T) {
	t.Parallel()
	r := rowOf(session("erp", "", oauth.StateReady, "password"))
	r.Past = dayOf(oauth.Hour{Refreshes: 2}, oauth.Hour{Failures: 1}, oauth.Hour{}, oauth.Hour{Refreshes: 1, Failures: 1200})
	_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, r))
	article := root.one(t, "article")
	if got, want := article.one(t, "desc").text, "Last 24 hours: 3 tokens, 1,201 failed attempts. 07:00 UTC: 1 failed attempt, 09:00 UTC: 1,200 failed attempts."; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	var titles []string
	for _, title := range article.all("title") {
		titles = append(titles, title.text)
	}
	want := "Token requests by the hour|06:00–07:00 UTC: 2 tokens, 0 failed attempts|07:00–08:00 UTC: 0 tokens, 1 failed attempt|09:00–10:00 UTC: 1 token, 1,200 failed attempts"
	if got := strings.Join(titles, "|"); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The bar is what is left of the token's life; beside it, it is told in words.
func TestStatusBar(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		obtained, expires time.Duration // from now
		want              string
	}{
		{0, 10 * time.Minute, "100"}, {-5 * time.Minute, 5 * time.Minute, "50"}, {-599 * time.Second, time.Second, "0"}, {-10 * time.Minute, -time.Second, "0"},
		{-time.Minute, 3 * time.Minute, "75"}, {time.Minute, 2 * time.Minute, "100"}, // a clock was set back
		{time.Minute, time.Minute, "0"}, {time.Minute, 0, "0"},
	} {
		s := session("erp", "", oauth.StateReady, "password")
		s.Obtained, s.Expires = portalNow.Add(c.obtained), portalNow.Add(c.expires)
		_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rowOf(s)))
		bar := root.one(t, "svg")
		if got := bar.all("rect")[1].attr["width"]; got != c.want || bar.attr["aria-hidden"] != "true" {
			t.Errorf("%v: the bar is %s, want %s", c, got, c.want)
		}
		if m := when(s.Expires, portalNow); !strings.Contains(root.text, "until "+m.Short+" ("+m.Relative+")") {
			t.Errorf("%v isn't told in words", c)
		}
	}
	if _, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rowOf(session("erp", "", oauth.StateAway, "password")))); len(root.all("svg")) != 0 {
		t.Error("there is a bar without a token")
	}
}
