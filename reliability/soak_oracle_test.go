//go:build linux

package reliability

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// soakSettle is after how long an event doesn't change any more.
const soakSettle = 15 * time.Second

// A soakJournal keeps what matters of a sandbox's events, which itself keeps
// the newest only.
type soakJournal struct {
	mu     sync.Mutex
	seq    int
	lost   int             // events that were gone before they were read
	tokens []sandbox.Event // token requests and probes
	used   map[string]bool // access tokens that the API has seen, by name
}

// settle takes over the events that don't change any more, or all of them.
func (s *soakServer) settle(all bool) {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.used == nil {
		j.used = map[string]bool{}
	}
	for _, e := range s.sb.Events() {
		if e.Seq <= j.seq {
			continue
		}
		if !all && time.Since(e.At) < soakSettle {
			return
		}
		j.lost += e.Seq - j.seq - 1
		j.seq = e.Seq
		switch {
		case e.Kind == sandbox.KindAPI:
			j.used[e.Presented] = true
		case e.Kind == sandbox.KindToken, e.Kind == sandbox.KindProbe:
			j.tokens = append(j.tokens, e)
		}
	}
}

// sessionOf is whose token request it was.
func (s *soakServer) sessionOf(e sandbox.Event) string {
	switch {
	case s.name == "graceful":
		return e.Username
	case e.Grant == "client_credentials":
		return "api"
	}
	return "erp"
}

// whole tells that a token answer reached the client, as far as the server can
// tell.
func whole(e sandbox.Event) bool {
	return e.Kind == sandbox.KindToken && e.Status == 200 && e.Replied && e.Issued != ""
}

// answeredSince returns the sessions that got a whole token answer for a
// request that began after at.
func (s *soakServer) answeredSince(at time.Time) []string {
	var names []string
	for _, e := range s.sb.Events() {
		if whole(e) && e.At.After(at) {
			names = append(names, s.sessionOf(e))
		}
	}
	return names
}

// A soakVerdict is what the server's log says of the rotation.
type soakVerdict struct {
	rotations int
	replays   int // refresh tokens that were presented again, rightly
	logins    int // by password, after the first
	wrong     []soakWrong
}

type soakWrong struct {
	at   time.Time
	text string
}

// judge reads the journal: every refresh token is presented once, and again
// only after its answer was lost; the password is used once, and again only
// after the server committed what the client can't know. Neither a refused
// refresh nor a login is ever right at the graceful server.
//
// An answer that went out whole was lost all the same if the process was killed
// just then, unless the API has seen the token: what is in use is on the disk.
func (s *soakServer) judge(kills []time.Time) soakVerdict {
	var v soakVerdict
	wrong := func(e sandbox.Event, text string) {
		v.wrong = append(v.wrong, soakWrong{e.At, fmt.Sprintf("%s: %s: %s", s.name, text, describeEvent(e))})
	}
	known := func(e sandbox.Event) bool { // the client has what the server issued
		return whole(e) && (s.journal.used[e.Issued] || !slices.ContainsFunc(kills, func(kill time.Time) bool {
			return kill.After(e.At) && kill.Before(e.At.Add(4*time.Second))
		}))
	}
	last := map[string]sandbox.Event{} // of each refresh token
	logins, doubt := 0, false
	for _, e := range s.journal.tokens {
		if e.Kind != sandbox.KindToken {
			continue
		}
		switch e.Grant {
		case "refresh_token":
			before, again := last[e.Presented]
			if e.Issued != "" {
				v.rotations++
			}
			switch {
			case e.Presented == "" && (e.Issued != "" || e.Status == 400 && e.Fault == ""):
				wrong(e, "an unknown refresh token was presented")
			case again && known(before):
				wrong(e, "a refresh token was presented again although the answer had come, at "+before.At.Format("15:04:05.000"))
			case again:
				v.replays++
			}
			if e.Status == 400 && e.Error == "invalid_grant" && s.name == "graceful" {
				wrong(e, "a session was lost")
			}
			if e.Presented != "" {
				last[e.Presented] = e
			}
		case "password":
			logins++
			if s.name == "strict" && logins > 1 {
				if v.logins++; !doubt {
					wrong(e, "a login without a loss")
				}
			}
		default:
			continue
		}
		if known(e) {
			doubt = false
		} else if e.Committed {
			doubt = true
		}
	}
	if s.journal.lost > 0 {
		v.wrong = append(v.wrong, soakWrong{time.Time{}, fmt.Sprintf("%s: %d events were not read", s.name, s.journal.lost)})
	}
	return v
}

func describeEvent(e sandbox.Event) string {
	return fmt.Sprintf("%s #%d %s %s presented=%s issued=%s %d %s fault=%s committed=%t replied=%t %s",
		e.At.Format("15:04:05.000"), e.Seq, e.Kind, e.Grant, e.Presented, e.Issued, e.Status, e.Error, e.Fault, e.Committed, e.Replied, e.Username)
}

// around lists the token requests and probes near a time.
func (s *soakServer) around(from, to time.Time) string {
	var b strings.Builder
	for _, e := range s.journal.tokens {
		if e.At.After(from.Add(-3*time.Second)) && e.At.Before(to.Add(time.Second)) {
			fmt.Fprintf(&b, "\n    %s %s", s.name, describeEvent(e))
		}
	}
	return b.String()
}

// A soakWindow is one fault: from its begin to its end, and for each session
// until it has a new token afterwards.
type soakWindow struct {
	kind       string
	begin, end time.Time
	over       map[string]time.Time
	excuses    func(soakFailure) bool // nil: nothing may fail
}

// explains tells whether a failure is what the fault must cause.
func (w *soakWindow) explains(f soakFailure) bool {
	over, ok := w.over[f.session]
	return w.excuses != nil && w.excuses(f) && !f.to.Before(w.begin) && (!ok || f.from.Before(over))
}

// away is what callers get while there is no token. Only what the fault can
// cause is explained: never login_required, for instance.
//
// A caller that asks for the connection to be closed, and still sends its body
// when the answer is out, may not see it: net/http reads no more of it then.
func away(f soakFailure) bool {
	unseen := f.status == 0 && f.size > 0 && !f.kept
	return f.status == 503 && f.code == "authorization_server_unavailable" || f.status == 504 && f.code == "token_timeout" ||
		unseen && (strings.Contains(f.text, "broken pipe") || strings.Contains(f.text, "connection reset"))
}

// noAnswer: the process, or the site, isn't there, or Caddy hands its listener over.
func noAnswer(f soakFailure) bool { return f.status == 0 }

// check fails the test for whatever nothing explains. It returns how many
// failed requests were explained and how many not.
func (p *soakProxy) check(t *testing.T, failures []soakFailure, windows []*soakWindow) (explained, unexplained int) {
	for _, f := range failures {
		if slices.ContainsFunc(windows, func(w *soakWindow) bool { return w.explains(f) }) {
			explained++
			continue
		}
		if unexplained++; unexplained > 10 {
			continue
		}
		var near []string
		for _, w := range windows {
			if w.end.After(f.from.Add(-40*time.Second)) && w.begin.Before(f.to.Add(time.Second)) {
				near = append(near, fmt.Sprintf("\n    fault %s from %s to %s, over for %s at %s", w.kind, w.begin.Format("15:04:05.000"),
					w.end.Format("15:04:05.000"), f.session, w.over[f.session].Format("15:04:05.000")))
			}
		}
		t.Errorf("unexplained: %v%s%s%s%s", f, strings.Join(near, ""), p.strict.around(f.from, f.to), p.graceful.around(f.from, f.to), p.logAround(f.from, f.to))
	}
	if unexplained > 10 {
		t.Errorf("… and %d more", unexplained-10)
	}
	return explained, unexplained
}
