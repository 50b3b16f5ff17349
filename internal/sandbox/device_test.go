package sandbox

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

type deviceAnswer struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int    `json:"expires_in"`
	Interval   *int   `json:"interval"`
}

func (r *rig) device(t *testing.T, pairs ...string) deviceAnswer {
	t.Helper()
	a := send(r.client, post(r.provider.paths.device, form(pairs...)))
	var d deviceAnswer
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.status != 200 {
		t.Fatalf("device authorization: %d %s", a.status, a.body)
	}
	return d
}

func (r *rig) poll(d deviceAnswer) answer {
	return r.exchangeJSON(deviceGrant, "device_code", d.DeviceCode)
}

func TestDeviceGrant(t *testing.T) {
	for provider, page := range map[string]string{"": "http://as.test/oauth/v2/oauth-device-verification", "oidc": "http://as.test/device"} {
		t.Run(provider, func(t *testing.T) {
			run(t, Config{Provider: provider, AlwaysRefreshToken: true}, func(t *testing.T, r *rig) {
				d := r.device(t, "scope", "")
				if d.URI != page || d.Complete != page+"?user_code="+d.UserCode || d.ExpiresIn != 600 || *d.Interval != 5 ||
					!regexp.MustCompile(`^[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}$`).MatchString(d.UserCode) {
					t.Errorf("answer %+v", d)
				}
				if e := r.last(); e.Kind != KindDevice || e.ClientAuth != "basic" || !e.Committed {
					t.Errorf("event %+v", e)
				}
				r.poll(d).refused(t, 400, "authorization_pending")
				time.Sleep(5 * time.Second)
				r.poll(d).refused(t, 400, "authorization_pending")
				if err := r.ApproveDevice(strings.ToLower(strings.Replace(d.UserCode, "-", " ", 1)), "sandbox-user"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				p := r.poll(d).must(t)
				if e := r.last(); e.Grant != deviceGrant || e.Username != "sandbox-user" || e.Issued != "f1.g1" {
					t.Errorf("event %+v", e)
				}
				r.exchangeJSON("refresh_token", "refresh_token", p.Refresh).must(t)
				time.Sleep(5 * time.Second)
				r.poll(d).refused(t, 400, "invalid_grant")
				if n := r.TokenRequests(deviceGrant); n != 4 {
					t.Errorf("%d polls, want 4", n)
				}
			})
		})
	}
}

// TestDeviceSlowDown: each early poll makes the interval longer.
func TestDeviceSlowDown(t *testing.T) {
	run(t, Config{DeviceInterval: 1500 * time.Millisecond}, func(t *testing.T, r *rig) {
		d := r.device(t)
		if *d.Interval != 2 {
			t.Errorf("interval %d, want 2", *d.Interval)
		}
		if err := r.ApproveDevice(d.UserCode, "sandbox-user"); err != nil {
			t.Fatal(err)
		}
		other := r.device(t)
		for _, step := range []struct {
			wait time.Duration
			code string
		}{
			{0, "authorization_pending"},
			{1500*time.Millisecond - 1, "slow_down"},
			{6500*time.Millisecond - 1, "slow_down"},
			{11500*time.Millisecond - 1, "slow_down"},
			{16500 * time.Millisecond, "authorization_pending"},
		} {
			time.Sleep(step.wait)
			r.poll(other).refused(t, 400, step.code)
		}
		r.poll(d).must(t) // not slowed by the other
	})
}

func TestDeviceEnds(t *testing.T) {
	run(t, Config{DeviceLifetime: time.Minute, DeviceInterval: -1}, func(t *testing.T, r *rig) {
		denied, expired := r.device(t), r.device(t)
		if denied.Interval != nil || denied.ExpiresIn != 60 {
			t.Errorf("answer %+v", denied)
		}
		if err := r.DenyDevice(denied.UserCode); err != nil {
			t.Fatal(err)
		}
		r.poll(denied).refused(t, 400, "access_denied")
		r.poll(denied).refused(t, 400, "slow_down") // 5 s although it wasn't told
		if err := r.ApproveDevice(denied.UserCode, "sandbox-user"); err == nil {
			t.Error("approved what was denied")
		}
		if err := r.ApproveDevice(expired.UserCode, "nobody"); err == nil {
			t.Error("approved by nobody")
		}
		time.Sleep(time.Minute - 1)
		r.poll(expired).refused(t, 400, "authorization_pending")
		time.Sleep(5 * time.Second)
		r.poll(expired).refused(t, 400, "expired_token")
		if err := r.ApproveDevice(expired.UserCode, "sandbox-user"); err == nil {
			t.Error("approved what had expired")
		}
		if err := r.DenyDevice("BBBB-BBBB"); err == nil {
			t.Error("denied what doesn't exist")
		}
		r.exchangeJSON(deviceGrant, "device_code", "x").refused(t, 400, "invalid_grant")
		r.exchangeJSON(deviceGrant).refused(t, 400, "invalid_request")
		time.Sleep(2 * time.Hour)
		r.device(t)
		if n := len(r.devices); n != 1 {
			t.Errorf("%d device codes are kept, want the new one", n)
		}
	})
}

func TestDeviceAuthorizationRefused(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		path := r.provider.paths.device
		req := post(path, url.Values{})
		req.Header.Del("Authorization")
		send(r.client, req).refused(t, 401, "invalid_client")
		send(r.client, post(path, form("scope", "admin"))).refused(t, 400, "invalid_scope")
		req = post(path, url.Values{})
		req.Method = http.MethodPut
		send(r.client, req).refused(t, 405, "invalid_request")
		if e := r.last(); e.Kind != KindDevice || e.Committed {
			t.Errorf("event %+v", e)
		}
	})
}

func TestDevicePage(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		d := r.device(t)
		page := r.browse("GET", d.Complete, "", "")
		if page.status != 200 || !strings.Contains(page.body, `value="`+d.UserCode+`"`) {
			t.Errorf("page %d %s", page.status, page.body)
		}
		if page := r.browse("GET", d.URI+"?user_code=%22%3E%3Cscript%3E", "", ""); strings.Contains(page.body, "<script") {
			t.Errorf("page %s", page.body)
		}
		events := len(r.Events())
		for body, status := range map[string]int{
			"user_code=" + d.UserCode + "&username=sandbox-user&password=x": 403,
			"user_code=BBBB-BBBB&" + goodLogin:                              403,
			"a=%zz":                                                         400,
		} {
			if a := r.browse("POST", d.URI, body, ""); a.status != status {
				t.Errorf("%s: %d, want %d", body, a.status, status)
			}
		}
		if a := r.browse("POST", d.URI, "user_code="+d.UserCode+"&"+goodLogin, ""); a.status != 200 {
			t.Errorf("approved: %d %s", a.status, a.body)
		}
		if a := r.browse("PUT", d.URI, "x", ""); a.status != 405 {
			t.Errorf("PUT: %d", a.status)
		}
		r.poll(d).must(t)
		d = r.device(t)
		if a := r.browse("POST", d.URI, "deny=1&user_code="+d.UserCode, ""); a.status != 200 {
			t.Errorf("denied: %d %s", a.status, a.body)
		}
		r.poll(d).refused(t, 400, "access_denied")
		if n := len(r.Events()); n != events+3 {
			t.Errorf("%d events, want those of the client only", n-events)
		}
	})
}
