package caddymodule

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// samples are the series of this program, by name and labels, as the metrics
// endpoint shows them.
type samples map[string]float64

// scrape reads the metrics of a rig whose site has `metrics /metrics`.
func (r *rig) scrape() samples {
	r.Helper()
	res, text := r.do("GET", "/metrics", nil)
	if res.StatusCode != 200 {
		r.Fatalf("GET /metrics: %d %s", res.StatusCode, text)
	}
	all := samples{}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "caddy_bearer_") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		if _, twice := all[name]; err != nil || twice {
			r.Fatalf("a bad line: %s", line)
		}
		all[name] = v
	}
	return all
}

// since is how much the counters grew: they are the process's, not the test's.
func (s samples) since(before samples) samples {
	grown := samples{}
	for name, v := range s {
		if d := v - before[name]; d != 0 && strings.Contains(name, "_total{") {
			grown[name] = d
		}
	}
	return grown
}

// names are the metrics' names.
func (s samples) names() []string {
	found := map[string]bool{}
	for name := range s {
		name, _, _ = strings.Cut(name, "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		found[name] = true
	}
	return slices.Sorted(maps.Keys(found))
}

func (r *rig) app() *App {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	return app
}

// The names and labels of the design, no more and no less.
var metricLabels = map[string]string{
	"caddy_bearer_account_state":                    "account,state",
	"caddy_bearer_account_up":                       "account",
	"caddy_bearer_refresh_expiry_timestamp_seconds": "account",
	"caddy_bearer_replays_total":                    "account",
	"caddy_bearer_requests_total":                   "account,outcome",
	"caddy_bearer_store_degraded":                   "",
	"caddy_bearer_token_expiry_timestamp_seconds":   "account",
	"caddy_bearer_token_request_duration_seconds":   "",
	"caddy_bearer_token_requests_total":             "account,grant,outcome",
}

var labelNames = regexp.MustCompile(`(\w+)="`)

func TestMetrics(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site, r.account = "metrics /metrics", "refresh_lifetime 3y"
	r.start()
	r.ready()
	before := r.scrape()
	for _, outcome := range []string{"passed", "rejected", "busy", "token_leak_stopped", "token_timeout"} {
		if _, ok := before[`caddy_bearer_requests_total{account="erp",outcome="`+outcome+`"}`]; !ok {
			t.Errorf("%s isn't shown from the beginning", outcome)
		}
	}
	if err := r.session().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.sandbox.Play(sandbox.Unavailable, 1)
	if err := r.session().Refresh(t.Context()); err == nil {
		t.Fatal("the fault was not played")
	}
	app := r.app()
	app.countRequest("erp", outcomePassed)
	app.countRequest("erp", "busy")
	app.countRequest("erp", "what nobody knows")
	app.countRequest("an account that a caller made up", "unknown_account")
	app.countReplay("erp")
	all := r.scrape()
	want := samples{
		`caddy_bearer_token_requests_total{account="erp",grant="refresh_token",outcome="granted"}`:   1,
		`caddy_bearer_token_requests_total{account="erp",grant="refresh_token",outcome="not_tried"}`: 1,
		`caddy_bearer_requests_total{account="erp",outcome="passed"}`:                                1,
		`caddy_bearer_requests_total{account="erp",outcome="busy"}`:                                  1,
		`caddy_bearer_requests_total{account="erp",outcome="other"}`:                                 1,
		`caddy_bearer_requests_total{account="",outcome="unknown_account"}`:                          1,
		`caddy_bearer_replays_total{account="erp"}`:                                                  1,
	}
	if grown := all.since(before); !maps.Equal(grown, want) {
		t.Errorf("counted %v, want %v", grown, want)
	}
	count := "caddy_bearer_token_request_duration_seconds_count"
	if d := all[count] - before[count]; d != 2 {
		t.Errorf("%v token requests were measured", d)
	}
	now := float64(time.Now().Unix())
	for name, want := range map[string][2]float64{
		`caddy_bearer_account_up{account="erp"}`:                       {1, 1},
		`caddy_bearer_account_state{account="erp",state="ready"}`:      {1, 1},
		`caddy_bearer_account_state{account="erp",state="away"}`:       {0, 0},
		`caddy_bearer_store_degraded`:                                  {0, 0},
		`caddy_bearer_token_expiry_timestamp_seconds{account="erp"}`:   {now + 500, now + 601},
		`caddy_bearer_refresh_expiry_timestamp_seconds{account="erp"}`: {now + 3*365*86400 - 60, now + 3*365*86400 + 1},
	} {
		if v, ok := all[name]; !ok || v < want[0] || v > want[1] {
			t.Errorf("%s is %v, %v", name, v, ok)
		}
	}
	if got, want := all.names(), slices.Sorted(maps.Keys(metricLabels)); !slices.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
	for series := range all {
		name, labels, _ := strings.Cut(series, "{")
		var got []string
		for _, m := range labelNames.FindAllStringSubmatch(labels, -1) {
			if m[1] != "le" {
				got = append(got, m[1])
			}
		}
		if want, ok := metricLabels[name]; ok && strings.Join(got, ",") != want {
			t.Errorf("%s has the labels %v", name, got)
		}
	}
}

// A reload, good or bad, changes neither what was counted nor what is
// measured, and what is no longer configured isn't shown.
func TestMetricsAfterReload(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site = "metrics /metrics"
	r.start()
	r.ready()
	r.app().countRequest("erp", outcomePassed)
	before := r.scrape()
	good := r.caddyfile()
	for i := range 3 {
		if err := r.load(good); err != nil {
			t.Fatal(err)
		}
		r.settled()
		if all := r.scrape(); !maps.Equal(all, before) {
			t.Fatalf("after reload %d: %v, want %v", i, all, before)
		}
	}
	r.app().countRequest("erp", outcomePassed)
	if err := r.load(strings.Replace(good, "bearer_proxy erp", "bearer_proxy unknown", 1)); err == nil {
		t.Fatal("the reload did not fail")
	}
	r.settled()
	one := samples{`caddy_bearer_requests_total{account="erp",outcome="passed"}`: 1}
	if grown := r.scrape().since(before); !maps.Equal(grown, one) {
		t.Errorf("after a failed reload: %v", grown)
	}
	if err := r.load(strings.NewReplacer("account erp", "account crm", "bearer_proxy erp", "bearer_proxy crm").Replace(good)); err != nil {
		t.Fatal(err)
	}
	r.settled()
	for name := range r.scrape() {
		if strings.Contains(name, `"erp"`) {
			t.Errorf("%s is no longer configured", name)
		}
	}
}

// Counting is on the way of each request.
func TestCountingIsCheap(t *testing.T) {
	app := &App{watched: watched{meters: map[string]*meter{"": new(meter), "erp": new(meter)}}}
	if n := testing.AllocsPerRun(100, func() {
		app.countRequest("erp", outcomePassed)
		app.countReplay("erp")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 1000 {
				app.countRequest("erp", "busy")
			}
		})
	}
	work.Wait()
	if n := app.meters["erp"].requests[outcomeIndex["busy"]].Load(); n != 8000 {
		t.Errorf("counted %d", n)
	}
}

// Every code of an answer of ours is an outcome.
func TestRequestOutcomes(t *testing.T) {
	codes := slices.Collect(maps.Keys(problems))
	for _, err := range []error{
		oauth.ErrUnavailable, oauth.ErrLoginRequired, oauth.ErrCredentialsRejected, oauth.ErrMisconfigured,
		oauth.ErrTokenTimeout, oauth.ErrBusy, oauth.ErrStoreUnavailable, oauth.ErrUnknownAccount, oauth.ErrUnknownUser,
	} {
		codes = append(codes, tokenProblem(err, time.Now()).Code)
	}
	codes = append(codes, "upstream_unreachable")
	for _, code := range codes {
		if _, ok := outcomeIndex[code]; !ok {
			t.Errorf("%s isn't among requestOutcomes", code)
		}
	}
	if len(outcomeIndex) != len(requestOutcomes) {
		t.Error("an outcome is there twice")
	}
}

func BenchmarkCountRequest(b *testing.B) {
	app := &App{watched: watched{meters: map[string]*meter{"": new(meter), "erp": new(meter)}}}
	b.ReportAllocs()
	for b.Loop() {
		app.countRequest("erp", outcomePassed)
	}
}
