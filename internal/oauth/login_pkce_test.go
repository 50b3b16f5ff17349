package oauth_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// B4: a server that refuses PKCE refuses the login. Nothing is tried without.
func TestPKCEHasNoFallBack(t *testing.T) {
	t.Parallel()
	t.Run("refused at the authorization endpoint", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			for range 3 {
				l := r.begin(s, anns())
				q := r.asked(l)
				if q.Get("code_challenge_method") != "S256" || !random43.MatchString(q.Get("code_challenge")) {
					t.Fatalf("the challenge is %q, %q", q["code_challenge"], q["code_challenge_method"])
				}
				_, err := r.finish(url.Values{"error": {"invalid_request"}, "error_description": {"transform algorithm not supported"}, "state": q["state"]})
				r.refused(err, oauth.ErrLoginDenied)
			}
			r.codes(0)
		})
	})
	t.Run("refused at the token endpoint", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			r.wire.answers(func(s sent) *http.Response {
				if s.Form.Has("code_verifier") {
					return reply(400, `{"error":"invalid_request","error_description":"unknown parameter code_verifier"}`)
				}
				return nil
			})
			for range 3 {
				_, err := r.finish(r.approve(r.begin(s, anns())))
				r.refused(err, oauth.ErrLoginFailed)
			}
			after(1e12)
			requests := r.wire.to(r.endpoints.Token)
			if len(requests) != 3 {
				t.Errorf("%d token requests for 3 codes", len(requests))
			}
			for _, s := range requests {
				if !random43.MatchString(s.Form.Get("code_verifier")) {
					t.Error("a code was sent without its verifier")
				}
			}
			r.empty(s)
		})
	})
	t.Run("demanded, and off", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{RequirePKCE: true}, func(r *loginRig) {
			a := r.person()
			a.Grant.(*oauth.AuthorizationCode).PKCE = false
			s := r.start(a)
			defer r.stop()
			_, err := r.finish(r.approve(r.begin(s, anns())))
			r.refused(err, oauth.ErrLoginDenied)
			r.codes(0)
		})
	})
}

// A command line brings a redirect URI of its own: it is in both requests.
func TestRedirectURIOfTheCommandLine(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		a := r.person()
		a.Grant.(*oauth.AuthorizationCode).RedirectURI = "http://127.0.0.1/cb"
		s := r.start(a)
		defer r.stop()
		const own = "http://127.0.0.1:49152/cb"
		start := anns()
		start.RedirectURI = own
		l := r.begin(s, start)
		if _, err := r.finish(r.approve(l)); err != nil {
			t.Fatal(err)
		}
		if in, out := r.asked(l).Get("redirect_uri"), r.wire.to(r.endpoints.Token)[0].Form.Get("redirect_uri"); in != own || out != own {
			t.Errorf("redirect_uri is %q and %q, want %q", in, out, own)
		}
	})
}

// A grant that needs nobody has no such login.
func TestNoLogin(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		machine, brought := r.account(), r.person()
		machine.Name, brought.Name, brought.Grant = "machine", "brought", oauth.RefreshToken{}
		person, noEndpoint := r.person(), r.person()
		person.Name, noEndpoint.Name, noEndpoint.Client.AuthorizeEndpoint = "person", "none", ""
		r.start(machine, brought, person, noEndpoint)
		defer r.stop()
		all := r.sessions.All()
		for _, name := range []string{"machine", "brought"} {
			_, err := all[name].BeginLogin(r.Context(), anns())
			r.refused(err, oauth.ErrNoLogin)
		}
		_, err := all["none"].BeginLogin(r.Context(), anns())
		r.refused(err, oauth.ErrLoginFailed)
		for _, name := range []string{"person", "brought"} {
			r.refused(all[name].Login(r.Context()), oauth.ErrNoLogin)
		}
	})
}
