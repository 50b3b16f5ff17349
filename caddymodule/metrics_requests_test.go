package caddymodule

import (
	"maps"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What becomes of requests is counted once each, with or without a guard.
func TestRequestsAreCounted(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	direct, gone := freeAddress(t), freeAddress(t)
	r.site = "metrics /metrics\n\tbearer_proxy /gone erp http://" + gone + " {\n\t\tfail_duration 1m\n\t}"
	config := strings.Replace(r.caddyfile(), "upstream "+r.api, "upstream "+r.api+" "+gone, 1) + "\nhttp://" + direct + " {\n\tbind 127.0.0.1\n\treverse_proxy " + r.api +
		" {\n\t\ttransport bearer erp {\n\t\t\tunguarded\n\t\t}\n\t}\n}\n"
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.ready()
	unguarded := func() {
		t.Helper()
		res, err := client.Get("http://" + direct + "/echo")
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%v %v", res, err)
		}
		_ = res.Body.Close()
	}
	for _, c := range []struct {
		name string
		do   func()
		want samples // outcome, or "replays"
	}{
		{"passed", func() { r.get("/echo"); r.get("/echo") }, samples{"passed": 2}},
		{"refused by the guard", func() { r.do("TRACE", "/echo", nil) }, samples{"method_refused": 1}},
		{"replayed", func() { r.sandbox.Play(sandbox.RejectAccessToken, 1); r.get("/echo") }, samples{"passed": 1, "replays": 1}},
		{"rejected", func() {
			r.sandbox.Play(sandbox.RejectAccessToken, -1)
			r.do("GET", "/echo", nil)
			r.sandbox.Clear()
		}, samples{"rejected": 1, "replays": 1}},
		{"unreachable", func() { r.do("GET", "/gone", nil) }, samples{"upstream_unreachable": 1}},
		{"none is healthy", func() { r.do("GET", "/gone", nil) }, samples{"upstream_unreachable": 1}},
		{"unguarded", unguarded, samples{"passed": 1}},
	} {
		before := r.scrape()
		c.do()
		got := samples{}
		for name, n := range r.scrape().since(before) {
			switch {
			case strings.HasPrefix(name, "caddy_bearer_replays_total"):
				got["replays"] = n
			case strings.HasPrefix(name, "caddy_bearer_requests_total{account=\"erp\""):
				_, outcome, _ := strings.Cut(name, `outcome="`)
				got[strings.TrimSuffix(outcome, `"}`)] = n
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: counted %v, want %v", c.name, got, c.want)
		}
	}
}
