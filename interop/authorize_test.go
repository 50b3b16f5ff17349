package interop

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// verifier is one of RFC 7636 Appendix B.
const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

// redirectURI is the client's, with a port.
const redirectURI = "http://127.0.0.1:3846/callback"

// request is an authorization request's URL; changes replace its parameters,
// empty ones take them away.
func (r *rig) request(changes ...url.Values) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {r.ClientID}, "redirect_uri": {redirectURI},
		"scope": {ScopeAPI + " " + r.offline}, "state": {"a state of its own"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if r.prompt != "" {
		q.Set("prompt", r.prompt)
	}
	for _, change := range changes {
		maps.Copy(q, change)
	}
	maps.DeleteFunc(q, func(_ string, values []string) bool { return values[0] == "" })
	return r.url + r.paths.authorize + "?" + q.Encode()
}

// code signs the person in and returns the code.
func (r *rig) code(changes ...url.Values) string {
	r.Helper()
	callback, err := url.Parse(signIn(r.T, r.request(changes...), r.Username, r.Password))
	if err != nil {
		r.Fatal(err)
	}
	q := callback.Query()
	if q.Get("state") != "a state of its own" || q.Get("code") == "" || q.Has("error") {
		r.Fatalf("the callback has no code, or another state: %s %s", q.Get("error"), q.Get("error_description"))
	}
	if got, want := q.Get("iss"), map[bool]string{true: r.Issuer}[r.discovery]; got != want {
		r.Errorf("the callback's iss is %q, want %q", got, want)
	}
	return q.Get("code")
}

func exchange(code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier},
	}
}

// login is a code that is exchanged.
func (r *rig) login() answer {
	r.Helper()
	a := r.ask(exchange(r.code()))
	if a.status != http.StatusOK || a.AccessToken == "" || a.RefreshToken == "" {
		r.Fatalf("the code brought no tokens: %d %s", a.status, a.Error)
	}
	return a
}

// refused fails the test unless an answer is invalid_grant.
func (r *rig) refused(what string, a answer) {
	r.Helper()
	if a.status != http.StatusBadRequest || a.Error != "invalid_grant" {
		r.Errorf("%s: %d %s, want 400 invalid_grant", what, a.status, a.Error)
	}
}

// onServers runs a test against both servers, with tokens that outlive it.
func onServers(t *testing.T, test func(r *rig)) {
	for _, tt := range servers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			test(tt.rig(t, withLifetime(10*time.Minute), nil))
		})
	}
}

// A code is worth one set of tokens, refresh tokens rotate, and the second use
// of one kills its family.
func TestCodeAndRotation(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		first, other := r.login(), r.login()
		if user := r.user(first.AccessToken); user != r.Username {
			r.Errorf("the token's user is %q", user)
		}
		if first.IDToken != "" {
			r.Error("an id_token without scope openid")
		}
		if r.accepts(first.RefreshToken) {
			r.Error("the API takes a refresh token")
		}
		second := r.ask(refresh(first.RefreshToken))
		if second.status != http.StatusOK || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
			r.Fatalf("the refresh did not rotate: %d %s", second.status, second.Error)
		}
		if user := r.user(second.AccessToken); user != r.Username {
			r.Errorf("the new token's user is %q", user)
		}
		if got, want := r.accepts(first.AccessToken), r.discovery; got != want {
			r.Errorf("the former access token is live: %v, want %v", got, want)
		}
		r.refused("a spent refresh token", r.ask(refresh(first.RefreshToken)))
		if r.accepts(first.AccessToken) || r.accepts(second.AccessToken) {
			r.Error("the family's access tokens outlived the reuse")
		}
		r.refused("the family's newest refresh token", r.ask(refresh(second.RefreshToken)))
		if !r.accepts(other.AccessToken) || r.ask(refresh(other.RefreshToken)).status != http.StatusOK {
			r.Error("another family died with it")
		}
	})
}

// A code works once, and with everything that it was asked for with.
func TestCodeRefused(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		a := r.ask(exchange(r.code()))
		code := r.code()
		first := r.ask(exchange(code))
		r.refused("a code for the second time", r.ask(exchange(code)))
		if r.accepts(first.AccessToken) {
			r.Error("the code's access token outlived its second use")
		}
		r.refused("the code's refresh token", r.ask(refresh(first.RefreshToken)))
		if !r.accepts(a.AccessToken) {
			r.Error("another code's token died with it")
		}

		for name, wrong := range map[string]url.Values{
			"verifier":             {"code_verifier": {strings.Repeat("x", 43)}},
			"no verifier":          {"code_verifier": nil},
			"redirect_uri":         {"redirect_uri": {"http://127.0.0.1:3847/callback"}},
			"code":                 {"code": {"nothing.like-a-code"}},
			"another one's client": {"client_id": {PublicClient}},
		} {
			params := exchange(r.code())
			maps.Copy(params, wrong)
			if wrong.Has("client_id") {
				r.refused(name, r.ask(params, "", ""))
			} else {
				r.refused(name, r.ask(params))
			}
		}
	})
}

// What the authorization endpoint refuses, it says at the redirect URI; but not
// at one that isn't the client's.
func TestAuthorizationRefused(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		for _, tt := range []struct {
			name, want string
			change     url.Values
			refuses    bool
		}{
			{"no PKCE", "invalid_request", url.Values{"code_challenge": {""}, "code_challenge_method": {""}}, false},
			{"PKCE plain", "invalid_request", url.Values{"code_challenge": {verifier}, "code_challenge_method": {"plain"}}, false},
			{"response_type", "unsupported_response_type", url.Values{"response_type": {"token"}}, false},
			{"the person says no", "access_denied", nil, true},
		} {
			p := newPerson(r.Username, r.Password)
			p.refuses = tt.refuses
			callback, err := p.visit(r.request(tt.change))
			if err != nil {
				r.Errorf("%s: %v", tt.name, err)
				continue
			}
			// With response_type token, the answer is in the fragment.
			u, _ := url.Parse(strings.Replace(callback, "#", "?", 1))
			if q := u.Query(); q.Get("error") != tt.want || q.Get("state") != "a state of its own" || q.Has("code") {
				r.Errorf("%s: error %s, want %s; state %q", tt.name, q.Get("error"), tt.want, q.Get("state"))
			}
		}
		for name, change := range map[string]url.Values{
			"client":       {"client_id": {"nobody"}},
			"redirect_uri": {"redirect_uri": {"http://127.0.0.1:3846/elsewhere"}},
			"host":         {"redirect_uri": {"http://evil.example/callback"}},
		} {
			if callback, err := newPerson(r.Username, r.Password).visit(r.request(change)); err == nil {
				r.Errorf("%s: it leads to %s", name, callback)
			}
		}
	})
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	if callback, err := newPerson(r.Username, "wrong").visit(r.request()); err == nil || !strings.Contains(err.Error(), "Wrong name or password") {
		t.Errorf("it leads to %q %v", callback, err)
	}
}

// With scope openid there is an id_token, with the nonce.
func TestIDToken(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		a := r.ask(exchange(r.code(url.Values{"scope": {"openid " + ScopeAPI + " " + r.offline}, "nonce": {"a nonce of its own"}})))
		var claims struct {
			Iss, Sub, Nonce string
			Aud             any
		}
		parts := strings.Split(a.IDToken, ".")
		if len(parts) != 3 {
			r.Fatalf("no id_token: %d %s", a.status, a.Error)
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil {
			err = json.Unmarshal(payload, &claims)
		}
		if err != nil || claims.Iss != r.Issuer || claims.Sub != r.Username || claims.Nonce != "a nonce of its own" {
			r.Errorf("%v %+v", err, claims)
		}
		if r.user(a.AccessToken) != r.Username {
			r.Error("the access token isn't live")
		}
	})
}
