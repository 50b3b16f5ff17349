package sandbox

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// testedAtLogin are the faults that are tested here and not in faultTests.
var testedAtLogin = func() map[Fault]bool {
	tested := map[Fault]bool{
		WrongFragmentState: true, OtherRedirect: true, HugeFragment: true,
		WrongNonce: true, WrongAudience: true, WrongIssuer: true, ExpiredIDToken: true, NoIDToken: true,
		WrongDiscoveryIssuer: true, DiscoveryAway: true, DiscoveryMoved: true, DiscoveryHTTP: true,
		RevokeAway: true,
	}
	for _, test := range callbackFaults {
		tested[test.fault] = true
	}
	return tested
}()

// callbackFaults say what the callback brings; CODE is a good code, NEW
// something new, and a parameter that isn't named isn't there.
var callbackFaults = []struct {
	fault     Fault
	want      url.Values
	committed bool
}{
	{AccessDenied, form("error", "access_denied", "error_description", "the user said no", "state", "s1", "iss", "ISS"), false},
	{HostileDescription, form("error", "access_denied", "error_description", hostileText(), "state", "s1", "iss", "ISS"), false},
	{WrongIss, form("code", "CODE", "state", "s1", "iss", "https://foreign.invalid"), true},
	{NoIss, form("code", "CODE", "state", "s1"), true},
	{EmptyIss, form("code", "CODE", "state", "s1", "iss", ""), true},
	{CodeAndError, form("code", "CODE", "state", "s1", "iss", "ISS", "error", "access_denied"), true},
	{RepeatedCode, form("code", "CODE", "state", "s1", "iss", "ISS", "code", "NEW"), true},
	{RepeatedState, form("code", "CODE", "state", "s1", "iss", "ISS", "state", "NEW"), true},
	{WrongState, form("code", "CODE", "state", "wrong-state", "iss", "ISS"), true},
	{NoState, form("code", "CODE", "iss", "ISS"), true},
	{NoCode, form("state", "s1", "iss", "ISS"), true},
}

func TestCallbackFaults(t *testing.T) {
	for _, test := range callbackFaults {
		t.Run(string(test.fault), func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, r *rig) {
				r.Play(test.fault, 2)
				r.token(login).must(t) // is no authorization and doesn't use it up
				if page := r.browse("GET", r.authorizeURL(), "", ""); page.status != 200 {
					t.Errorf("page: %d", page.status) // nor does the page
				}
				played := r.approve(t, "sandbox-user")
				if e := r.last(); e.Fault != test.fault || e.Committed != test.committed || e.Error != test.want.Get("error") && !test.committed {
					t.Errorf("event %+v", e)
				}
				browser := r.browse("POST", r.authorizeURL(), goodLogin, "")
				for _, got := range []url.Values{played, query(t, browser.header.Get("Location"))} {
					if code := test.want.Get("code"); code != "" {
						r.exchange(got["code"][0]).must(t)
					}
					for name, values := range test.want {
						if len(values) != len(got[name]) {
							t.Errorf("%s: %q, want %q", name, got[name], values)
							continue
						}
						for i, value := range values {
							switch value {
							case "CODE":
							case "ISS":
								value = "http://as.test/oauth/v2/oauth-anonymous"
								fallthrough
							default:
								if value != "NEW" && got[name][i] != value {
									t.Errorf("%s: %q, want %q", name, got[name][i], value)
								}
								if value == "NEW" && got[name][i] == got[name][0] {
									t.Errorf("%s: twice the same", name)
								}
							}
						}
					}
					if len(got) != len(test.want) {
						t.Errorf("callback %v, want %v", got, test.want)
					}
				}
				if got := r.approve(t, "sandbox-user"); r.last().Fault != "" || !got.Has("code") {
					t.Errorf("the third: %v, event %+v", got, r.last())
				}
			})
		})
	}
}

func TestHostileText(t *testing.T) {
	t.Parallel()
	text := hostileText()
	for _, part := range []string{"<script>", "\r\n", "\x1b[", "{env.HOME}", "\x00"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing", part)
		}
	}
	if len(text) < 10<<10 || len(text) > 11<<10 {
		t.Errorf("%d bytes, want about 10 KiB", len(text))
	}
}

// TestFaultsOfErrors: a person who says no gets a callback that is wrong too.
func TestFaultsOfErrors(t *testing.T) {
	run(t, Config{Provider: "pagero_legacy"}, func(t *testing.T, r *rig) {
		for fault, names := range map[Fault][]string{
			WrongIss:     {"error", "error_description", "iss", "state"}, // although it knows no iss
			NoState:      {"error", "error_description"},
			CodeAndError: {"code", "error", "error_description", "state"},
			RepeatedCode: {"error", "error_description", "state"},
		} {
			r.Play(fault, 1)
			location, err := r.Deny(r.authorizeURL())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for name := range query(t, location) {
				got = append(got, name)
			}
			if slices.Sort(got); !slices.Equal(got, names) {
				t.Errorf("%s: %v, want %v", fault, got, names)
			}
		}
	})
}

func TestFragmentFaults(t *testing.T) {
	const redirect = "https://client.test/auth.html"
	run(t, Config{Provider: "aidbox", SecureCode: redirect}, func(t *testing.T, r *rig) {
		for _, fault := range []Fault{WrongFragmentState, OtherRedirect, HugeFragment} {
			r.Play(fault, 1)
			r.exchange(r.approve(t, "sandbox-user").Get("code")).must(t) // not meant for it
			location, fragment := r.secureCode(t, "&state=s1")
			if r.last().Fault != fault || (location != redirect) != (fault == OtherRedirect) ||
				(fragment.Get("state") != "s1") != (fault == WrongFragmentState) ||
				(len(fragment.Get("padding")) == 1<<20) != (fault == HugeFragment) || !fragment.Has("code") {
				t.Errorf("%s: %s %.200v", fault, location, fragment)
			}
		}
		if location, fragment := r.secureCode(t, "&state=s1"); location != redirect || fragment.Get("state") != "s1" || len(fragment) != 2 {
			t.Errorf("afterwards: %s %v", location, fragment)
		}
	})
}

func TestIDTokenFaults(t *testing.T) {
	run(t, Config{Provider: "oidc"}, func(t *testing.T, r *rig) {
		exchange := func() map[string]any {
			t.Helper()
			a := r.exchange(r.approve(t, "sandbox-user", "scope", "openid", "nonce", "n-1").Get("code"))
			a.must(t)
			return idClaims(t, a.body)
		}
		for fault, claim := range map[Fault]string{WrongNonce: "nonce", WrongAudience: "aud", WrongIssuer: "iss", ExpiredIDToken: "exp"} {
			good := exchange()
			r.Play(fault, 1)
			r.exchangeJSON("client_credentials").must(t) // not meant for it
			wrong := exchange()
			for name, value := range good {
				if (wrong[name] != value) != (name == claim) {
					t.Errorf("%s: %s is %v, of a good one %v", fault, name, wrong[name], value)
				}
			}
		}
		r.Play(ExpiredIDToken, 1)
		if got := exchange()["exp"]; got != float64(time.Now().Add(-time.Hour).Unix()) {
			t.Errorf("expired-id-token: exp %v", got)
		}
		r.Play(NoIDToken, 1)
		if got := exchange(); got != nil {
			t.Errorf("no-id-token: %v", got)
		}
	})
}

func TestDiscoveryFaults(t *testing.T) {
	run(t, Config{Provider: "oidc"}, func(t *testing.T, r *rig) {
		good := r.discover(t)
		for fault, changed := range map[Fault]map[string]string{
			WrongDiscoveryIssuer: {"issuer": "https://foreign.invalid"},
			DiscoveryMoved:       {"token_endpoint": "http://moved.as.test/token"},
			DiscoveryHTTP: {
				"authorization_endpoint": "http://foreign.invalid/authorize", "token_endpoint": "http://foreign.invalid/token",
				"revocation_endpoint": "http://foreign.invalid/revoke", "jwks_uri": "http://foreign.invalid/jwks.json",
				"device_authorization_endpoint": "http://foreign.invalid/device_authorization",
			},
		} {
			r.Play(fault, 1)
			got := r.discover(t)
			for name, value := range good {
				want, _ := value.(string)
				if other, ok := changed[name]; ok {
					want = other
				}
				if text, ok := got[name].(string); ok && text != want {
					t.Errorf("%s: %s is %s, want %s", fault, name, text, want)
				}
			}
		}
		r.Play(DiscoveryAway, 1)
		r.browse("GET", "http://as.test/.well-known/openid-configuration", "", "").refused(t, 503, "temporarily_unavailable")
		if e := r.last(); e.Fault != DiscoveryAway || e.Status != 503 {
			t.Errorf("event %+v", e)
		}
		r.discover(t)
	})
}

// TestMoveTokenEndpoint: a moved endpoint on loopback can still be reached.
func TestMoveTokenEndpoint(t *testing.T) {
	t.Parallel()
	for from, to := range map[string]string{
		"https://127.0.0.1:81/token": "https://localhost:81/token",
		"http://localhost/token":     "http://127.0.0.1/token",
		"http://as.test:1/token":     "http://moved.as.test:1/token",
		"http://%zz/token":           "http://%zz/token",
	} {
		m := members{{"issuer", `"x"`}, {"token_endpoint", quote(from)}}
		if got := moveTokenEndpoint(m)[1].text(); got != to {
			t.Errorf("%s: %s, want %s", from, got, to)
		}
	}
}

func TestRevokeAway(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		r.Play(RevokeAway, 1)
		r.token(refresh("x")).refused(t, 400, "invalid_grant") // not meant for it
		send(r.client, post(revokePath, form("token", p.Refresh))).refused(t, 503, "temporarily_unavailable")
		if e := r.last(); e.Fault != RevokeAway || e.Committed || r.call(p.Access) != 200 {
			t.Errorf("event %+v", e)
		}
		if a := send(r.client, post(revokePath, form("token", p.Refresh))); a.status != 200 || r.call(p.Access) != 401 {
			t.Errorf("then: %d", a.status)
		}
	})
}

// TestTruncatedEverywhere: the refresh token is whole and the JSON is not,
// wherever the member stands.
func TestTruncatedEverywhere(t *testing.T) {
	for _, provider := range Providers() {
		t.Run(provider, func(t *testing.T) {
			run(t, Config{Provider: provider, AlwaysRefreshToken: true}, func(t *testing.T, r *rig) {
				r.Play(Truncated, 1)
				a := r.exchangeJSON("password", "username", "sandbox-user", "password", "sandbox-password")
				_, rest, _ := strings.Cut(a.body, `"refresh_token":"`)
				token, _, closed := strings.Cut(rest, `"`)
				if !closed || strings.HasSuffix(a.body, "}") || a.err == nil {
					t.Fatalf("%s, %v", a.body, a.err)
				}
				r.exchangeJSON("refresh_token", "refresh_token", token).must(t)
				r.Play(Truncated, 1)
				if a := r.exchangeJSON("client_credentials"); a.err == nil || strings.HasSuffix(a.body, "}") {
					t.Errorf("without a refresh token: %s, %v", a.body, a.err)
				}
			})
		})
	}
}
