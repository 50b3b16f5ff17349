//go:build linux

package reliability

import (
	"slices"
	"syscall"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A soakFault breaks a thing for a time and mends it.
type soakFault struct {
	kind    string
	excuses func(soakFailure) bool // which failed requests it explains; nil: none
	play    func(time.Duration)
}

// restarts end the process. Callers get no answer, and may wait for a token
// afterwards: the outcome of a login may be unknown.
func (s *soak) restarts() []soakFault {
	restart := func(sig syscall.Signal) func(time.Duration) {
		return func(time.Duration) {
			s.stop(sig)
			s.start()
		}
	}
	down := func(f soakFailure) bool { return noAnswer(f) || away(f) }
	return []soakFault{
		{"kill -9", down, restart(syscall.SIGKILL)},
		{"SIGTERM", down, restart(syscall.SIGTERM)},
	}
}

// faults are all others. Those of the authorization server hit one server or
// both.
func (s *soak) faults() []soakFault {
	list := []soakFault{
		{"reload", noAnswer, func(time.Duration) { s.reload(s.config("INFO", "")) }},
		{"reload with another log level", noAnswer, func(d time.Duration) {
			s.reload(s.config("DEBUG", ""))
			time.Sleep(d)
			s.reload(s.config("INFO", ""))
		}},
		{"callers leave", nil, func(d time.Duration) {
			s.calls.leaving.Store(true)
			time.Sleep(d)
			s.calls.leaving.Store(false)
		}},
		{"API refuses a token", nil, func(time.Duration) {
			s.strict.sb.Play(sandbox.RejectAccessToken, 1)
			s.graceful.sb.Play(sandbox.RejectAccessToken, 1)
		}},
		s.accountAway(),
	}
	for wire, kind := range soakWires {
		if wire != wireFine {
			list = append(list, s.serverFault(kind, func(server *soakServer) { server.wire.Store(int32(wire)) },
				func(server *soakServer) { server.wire.Store(wireFine) }))
		}
	}
	list = append(list, s.serverFault("connection refused", (*soakServer).refuse, (*soakServer).listen))
	for _, fault := range []sandbox.Fault{
		sandbox.ServerError, sandbox.LateServerError, sandbox.BadGateway, sandbox.TooManyRequests, sandbox.HTML,
		sandbox.HTMLForbidden, sandbox.Truncated, sandbox.LostReply, sandbox.Slow,
	} {
		list = append(list, s.serverFault(string(fault), func(server *soakServer) { server.sb.Play(fault, -1) },
			func(server *soakServer) { server.sb.Clear() }))
	}
	return list
}

// serverFault breaks one authorization server, or both at once.
func (s *soak) serverFault(kind string, begin, end func(*soakServer)) soakFault {
	hit := [][]*soakServer{{s.strict}, {s.graceful}, {s.strict, s.graceful}}[s.random.IntN(3)]
	if kind == string(sandbox.HTMLForbidden) {
		hit = []*soakServer{s.graceful} // a login that is refused with 403 is not tried again before somebody changes something
	}
	excuses := func(f soakFailure) bool {
		theirs := s.graceful
		if f.session == "erp" || f.session == "api" {
			theirs = s.strict
		}
		return away(f) && slices.Contains(hit, theirs)
	}
	return soakFault{kind, excuses, func(d time.Duration) {
		for _, server := range hit {
			begin(server)
		}
		time.Sleep(d)
		for _, server := range hit {
			end(server)
		}
	}}
}

// accountAway takes an account out of the configuration and puts it back.
func (s *soak) accountAway() soakFault {
	account := soakSessions[s.random.IntN(len(soakSessions))].account
	return soakFault{"account removed and added", func(f soakFailure) bool {
		return (noAnswer(f) || f.code == "unknown_account") && slices.ContainsFunc(soakSessions, func(one soakSession) bool {
			return one.name == f.session && one.account == account
		})
	}, func(d time.Duration) {
		s.reload(s.config("INFO", account))
		time.Sleep(d)
		s.reload(s.config("INFO", ""))
	}}
}
