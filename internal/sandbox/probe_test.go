package sandbox

import (
	"net/http"
	"testing"
)

// TestProbe asks the token endpoint with GET, as one does who wants to know
// whether the server is there.
func TestProbe(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		probe := func() answer { return r.browse("GET", "http://as.test"+tokenPath, "", "") }
		a := probe()
		if a.refused(t, http.StatusMethodNotAllowed, "invalid_request"); a.header.Get("Allow") != "POST" {
			t.Errorf("Allow: %q, want POST", a.header.Get("Allow"))
		}
		if e := r.last(); e.Kind != KindProbe || e.Method != "GET" || e.Status != 405 || !e.Replied || e.ClientAuth != "none" || e.Committed {
			t.Errorf("the event is %+v", e)
		}
		for fault, want := range map[Fault]int{
			ServerError: 500, BadGateway: 502, TooManyRequests: 429, Unavailable: 503, HTML: 200, HTMLForbidden: 403, Redirect: 307,
			LateServerError: 405, LostReply: 405, InvalidClient: 405, Dead401: 405, Truncated: 405, API500: 405,
		} {
			r.Play(fault, 1)
			for range 3 { // it doesn't use the fault up
				if a := probe(); a.status != want {
					t.Errorf("%s: %d, want %d", fault, a.status, want)
				}
			}
			if e := r.last(); e.Kind != KindProbe || (e.Fault == fault) != (want != 405) {
				t.Errorf("%s: the event is %+v", fault, e)
			}
			if fault != API500 && fault != Dead401 {
				r.token(login)
				if e := r.last(); e.Kind != KindToken || e.Fault != fault {
					t.Errorf("%s is not played at the next token request: %+v", fault, e)
				}
			}
			r.Clear()
		}
		r.Play(Unavailable, -1)
		r.Play(InvalidScope, 1) // goes before it
		if a := probe(); a.status != 405 {
			t.Errorf("%d, want 405 while another fault is next", a.status)
		}
		r.Clear()
		before := r.TokenRequests("")
		probe()
		if n := r.TokenRequests("") - before; n != 0 {
			t.Errorf("a probe counts as %d token requests", n)
		}
	})
}
