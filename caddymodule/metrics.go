package caddymodule

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is what a monitoring system sees. Caddy has a new registry for each
// configuration; what is counted belongs to the process, and what is measured
// to the sessions, so that a reload changes neither.

// watched is what of an app is watched by others.
type watched struct {
	meters map[string]*meter // by account, and one without; not changed after Provision
	events *caddyevents.App
}

// watch makes the app's metrics and events known to Caddy. It has no side
// effects beyond this configuration.
func (app *App) watch(ctx caddy.Context) error {
	app.meters = map[string]*meter{"": meterOf("")}
	for name := range app.Accounts {
		app.meters[name] = meterOf(name)
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	app.events = events.(*caddyevents.App)
	err = ctx.GetMetricsRegistry().Register(collector{})
	if known := (prometheus.AlreadyRegisteredError{}); err != nil && !errors.As(err, &known) {
		return err
	}
	return nil
}

// A meter counts for one account. Counting takes no lock and no memory.
type meter struct {
	requests [len(requestOutcomes)]atomic.Uint64
	replays  atomic.Uint64
	tokens   sync.Map // tokenRequest → *atomic.Uint64
}

// meters are those of all accounts that have ever been configured, by name.
var meters sync.Map

func meterOf(account string) *meter {
	m, _ := meters.LoadOrStore(account, new(meter))
	return m.(*meter)
}

// A tokenRequest is what one is counted under.
type tokenRequest struct{ grant, outcome string }

const (
	// outcomePassed: the request went to the API, which didn't refuse the token;
	// the caller may have left before the answer. The audit log has the same word.
	outcomePassed = "passed"
	// outcomeRejected: the API refused the token, and that was passed on.
	outcomeRejected = "rejected"
	// outcomeOther is a code that isn't among requestOutcomes.
	outcomeOther = "other"
)

// requestOutcomes are what can become of a request. The first ones are shown
// from the beginning: Prometheus sees no increase in a series that begins with
// its first event, and there are alerts for them.
var requestOutcomes = [...]string{
	outcomePassed, outcomeRejected, "busy", "token_leak_stopped", "token_timeout",

	"account_misconfigured", "authorization_server_unavailable", "caller_refused", "credentials_rejected",
	"host_refused", "key_refused", "login_required", "method_refused", "origin_refused", "path_refused", "store_unavailable",
	"unknown_account", "upgrade_refused", "upstream_not_allowed", "upstream_unreachable",
	outcomeOther,
}

// shownFromTheBeginning is how many of them are.
const shownFromTheBeginning = 5

var outcomeIndex = func() map[string]int {
	index := map[string]int{}
	for i, outcome := range requestOutcomes {
		index[outcome] = i
	}
	return index
}()

// countRequest counts a request by what became of it: [outcomePassed],
// [outcomeRejected] or the code of our answer. An account that isn't
// configured counts as none: callers don't make labels.
func (app *App) countRequest(account, outcome string) {
	i, ok := outcomeIndex[outcome]
	if !ok {
		i = outcomeIndex[outcomeOther]
	}
	app.meter(account).requests[i].Add(1)
}

// countPassage counts a request that a guard let in, by how it ended.
func (app *App) countPassage(w *passageWriter) {
	account, outcome := w.passage.account, w.outcome()
	if s := w.passage.session; s != nil {
		account = s.Key().Account
		if outcome == outcomePassed && slices.Contains(s.Account().RejectStatus, w.status) {
			outcome = outcomeRejected
		}
	}
	app.countRequest(account, outcome)
}

// countUnguarded counts a request that no guard counts, by its answer. Health
// checks are nobody's requests.
func (app *App) countUnguarded(account string, req *http.Request, res *http.Response, err error) {
	if passageOf(req) != nil || nobodys(req) {
		return
	}
	outcome := outcomePassed
	switch {
	case err != nil && req.Context().Err() != nil: // the caller left
	case err != nil:
		outcome = "upstream_unreachable"
	case res.Header.Get(errorHeader) != "":
		outcome = res.Header.Get(errorHeader)
	case app.account(account) != nil && slices.Contains(app.account(account).RejectStatus, res.StatusCode):
		outcome = outcomeRejected
	}
	app.countRequest(account, outcome)
}

// countReplay counts a request that was sent again after a refusal.
func (app *App) countReplay(account string) { app.meter(account).replays.Add(1) }

func (app *App) meter(account string) *meter {
	if m := app.meters[account]; m != nil {
		return m
	}
	return app.meters[""]
}

// countTokenRequest counts one token request.
func countTokenRequest(e oauth.Event) {
	n, _ := meterOf(e.Key.Account).tokens.LoadOrStore(tokenRequest{e.Grant, e.Outcome.String()}, new(atomic.Uint64))
	n.(*atomic.Uint64).Add(1)
	if e.Took > 0 {
		tokenSeconds.Observe(e.Took.Seconds())
	}
}

var tokenSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
	Name:    "caddy_bearer_token_request_duration_seconds",
	Help:    "How long token requests took until their answer or their failure.",
	Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
})

func describeMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_bearer_"+name, help, labels, nil)
}

var (
	tokenRequestsDesc = describeMetric("token_requests_total", "Token requests by what they brought.", "account", "grant", "outcome")
	tokenExpiryDesc   = describeMetric("token_expiry_timestamp_seconds", "When the access token expires; absent without one.", "account")
	refreshExpiryDesc = describeMetric("refresh_expiry_timestamp_seconds", "When the refresh token expires; absent if that isn't known.", "account")
	accountUpDesc     = describeMetric("account_up", "Whether requests of the account get a token.", "account")
	accountStateDesc  = describeMetric("account_state", "The state of the account: 1 for the one it is in.", "account", "state")
	requestsDesc      = describeMetric("requests_total", "Requests by what became of them: passed, rejected (by the API) or the code of the proxy's answer.", "account", "outcome")
	replaysDesc       = describeMetric("replays_total", "Requests sent once more with a new token.", "account")
	storeDegradedDesc = describeMetric("store_degraded", "Whether the token store, or a part of it, can't be written.")
)

// collector gives what the configuration in force has; without one, nothing.
type collector struct{}

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		tokenRequestsDesc, tokenExpiryDesc, refreshExpiryDesc, accountUpDesc, accountStateDesc, requestsDesc, replaysDesc, storeDegradedDesc,
	} {
		ch <- d
	}
	tokenSeconds.Describe(ch)
}

func (collector) Collect(ch chan<- prometheus.Metric) {
	tokenSeconds.Collect(ch)
	app, err := running()
	if err != nil {
		return
	}
	degraded := app.shared.sessions.Store().Problem != "" || app.shared.sessions.Unsaved()
	gauge(ch, storeDegradedDesc, truth(degraded))
	for name, m := range app.meters {
		m.collect(ch, name)
	}
	for name, s := range app.shared.sessions.All() {
		st, grant := stateOf(s)
		collectState(ch, name, st)
		if _, counted := meterOf(name).tokens.Load(tokenRequest{grant, oauth.Granted.String()}); !counted {
			counter(ch, tokenRequestsDesc, 0, name, grant, oauth.Granted.String()) // so that the first one is an increase
		}
	}
}

// stateOf is the condition of an account, and its grant. One with sessions per
// user is ready, whatever becomes of its users.
func stateOf(s *oauth.Session) (oauth.Status, string) {
	if a := s.Account(); a.PerUser {
		return oauth.Status{State: oauth.StateReady}, a.Grant.Type()
	}
	st := s.Status()
	return st, st.Grant
}

func (m *meter) collect(ch chan<- prometheus.Metric, account string) {
	for i, outcome := range requestOutcomes {
		if n := m.requests[i].Load(); n > 0 || i < shownFromTheBeginning && account != "" {
			counter(ch, requestsDesc, n, account, outcome)
		}
	}
	if n := m.replays.Load(); n > 0 || account != "" {
		counter(ch, replaysDesc, n, account)
	}
	m.tokens.Range(func(of, n any) bool {
		r := of.(tokenRequest)
		counter(ch, tokenRequestsDesc, n.(*atomic.Uint64).Load(), account, r.grant, r.outcome)
		return true
	})
}

var states = [...]oauth.State{
	oauth.StateReady, oauth.StateRefreshing, oauth.StateDegraded, oauth.StateAway, oauth.StateRefused, oauth.StateLoginRequired, oauth.StateUnknown,
}

func collectState(ch chan<- prometheus.Metric, account string, st oauth.Status) {
	gauge(ch, accountUpDesc, truth(serves(st.State)), account)
	for _, state := range states {
		gauge(ch, accountStateDesc, truth(st.State == state), account, string(state))
	}
	for desc, at := range map[*prometheus.Desc]time.Time{tokenExpiryDesc: st.Expires, refreshExpiryDesc: st.RefreshExpires} {
		if !at.IsZero() {
			gauge(ch, desc, float64(at.UnixMilli())/1000, account)
		}
	}
}

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, desc *prometheus.Desc, n uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
}
