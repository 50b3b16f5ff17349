package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// A Fault names one scripted misbehaviour.
type Fault string

// The faults; [Faults] describes them.
const (
	LostReply       Fault = "lost-reply"
	Slow            Fault = "slow"
	ServerError     Fault = "5xx"
	LateServerError Fault = "5xx-after-commit"
	BadGateway      Fault = "502-html"
	TooManyRequests Fault = "429"
	Unavailable     Fault = "503"
	HTML            Fault = "html"
	HTMLForbidden   Fault = "html-403"
	Redirect        Fault = "redirect"
	Huge            Fault = "huge"
	Truncated       Fault = "truncated"

	NoExpiry       Fault = "no-expiry"
	StringExpiry   Fault = "string-expiry"
	FloatExpiry    Fault = "float-expiry"
	ZeroExpiry     Fault = "zero-expiry"
	NonsenseExpiry Fault = "nonsense-expiry"
	NegativeExpiry Fault = "negative-expiry"

	SameRefreshToken  Fault = "same-refresh-token"
	NoRefreshToken    Fault = "no-refresh-token"
	EmptyRefreshToken Fault = "empty-refresh-token"

	UpperTokenType Fault = "upper-token-type"
	MACTokenType   Fault = "mac-token-type"
	BadAccessToken Fault = "bad-access-token"
	ExtraMembers   Fault = "extra-members"
	TextPlain      Fault = "text-plain"

	Dead401               Fault = "dead-401"
	Dead400InvalidRequest Fault = "dead-400-invalid-request"
	Dead400Empty          Fault = "dead-400-empty"
	Empty401              Fault = "401-empty"
	WrongPassword         Fault = "wrong-password"
	WrongPassword401      Fault = "wrong-password-401"
	WrongPassword403      Fault = "wrong-password-403"
	InvalidClient         Fault = "invalid-client"
	InvalidScope          Fault = "invalid-scope"

	RejectAccessToken Fault = "reject-access-token"
	Reject403         Fault = "reject-403"
	API500            Fault = "api-500"
)

// The faults of a login.
const (
	AccessDenied       Fault = "access-denied"
	HostileDescription Fault = "hostile-description"
	WrongIss           Fault = "wrong-iss"
	NoIss              Fault = "no-iss"
	EmptyIss           Fault = "empty-iss"
	CodeAndError       Fault = "code-and-error"
	RepeatedCode       Fault = "repeated-code"
	RepeatedState      Fault = "repeated-state"
	WrongState         Fault = "wrong-state"
	NoState            Fault = "no-state"
	NoCode             Fault = "no-code"

	WrongFragmentState Fault = "wrong-fragment-state"
	OtherRedirect      Fault = "other-redirect"
	HugeFragment       Fault = "huge-fragment"

	WrongNonce     Fault = "wrong-nonce"
	WrongAudience  Fault = "wrong-audience"
	WrongIssuer    Fault = "wrong-issuer"
	ExpiredIDToken Fault = "expired-id-token"
	NoIDToken      Fault = "no-id-token"

	WrongDiscoveryIssuer Fault = "wrong-discovery-issuer"
	DiscoveryAway        Fault = "discovery-away"
	DiscoveryMoved       Fault = "discovery-moved"
	DiscoveryHTTP        Fault = "discovery-http"
	RevokeAway           Fault = "revoke-away"
)

// The endpoints at which faults are played.
const (
	endpointToken     = "token"
	endpointAPI       = "api"
	endpointAuthorize = "authorize"
	endpointDiscovery = "discovery"
	endpointRevoke    = "revoke"
)

// A FaultInfo describes a fault in one line.
type FaultInfo struct {
	Name        Fault
	Description string
	Endpoint    string // token, api, authorize, discovery or revoke
	Grant       string // the only grant type it is played for; empty: any
}

// Faults returns all faults.
func Faults() []FaultInfo {
	list := make([]FaultInfo, len(behaviours))
	for i, b := range behaviours {
		list[i] = b.info
	}
	return list
}

// ParseFault returns the fault of this name, or an error that lists them all.
func ParseFault(name string) (Fault, error) {
	if _, ok := findBehaviour(Fault(name)); ok {
		return Fault(name), nil
	}
	known := make([]string, len(behaviours))
	for i, b := range behaviours {
		known[i] = string(b.info.Name)
	}
	return "", fmt.Errorf("unknown fault %q; known are %s", name, strings.Join(known, ", "))
}

// Play plays f at its endpoint's next requests, so many times; -1 is until it
// is cleared and 0 clears it. Requests that it isn't meant for don't use it
// up: a fault of one grant type waits for it, and a fault of the API for a
// request with a live access token. Faults with a number are played in the
// order of the calls and go before those without, of which the latest counts.
// Play panics if f is unknown; see [ParseFault].
func (s *Sandbox) Play(f Fault, times int) {
	b, ok := findBehaviour(f)
	if !ok {
		_, err := ParseFault(string(f))
		panic("sandbox: " + err.Error())
	}
	s.faults.play(b, times)
}

// Clear ends all faults.
func (s *Sandbox) Clear() { s.faults.clear() }

func findBehaviour(f Fault) (behaviour, bool) {
	for _, b := range behaviours {
		if b.info.Name == f {
			return b, true
		}
	}
	return behaviour{}, false
}

// A faultQueue holds the faults to come.
type faultQueue struct {
	mu       sync.Mutex
	counted  []countedFault // in the order of play
	standing []behaviour    // until cleared, the latest first
}

type countedFault struct {
	behaviour
	left int
}

func (q *faultQueue) play(b behaviour, times int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if times > 0 {
		q.counted = append(q.counted, countedFault{b, times})
		return
	}
	q.remove(b.info.Name, times == 0)
	if times < 0 {
		q.standing = append([]behaviour{b}, q.standing...)
	}
}

// remove takes a fault from those that stand and, if counted is set, from
// those with a number.
func (q *faultQueue) remove(f Fault, counted bool) {
	var standing []behaviour
	for _, b := range q.standing {
		if b.info.Name != f {
			standing = append(standing, b)
		}
	}
	q.standing = standing
	if !counted {
		return
	}
	var rest []countedFault
	for _, c := range q.counted {
		if c.info.Name != f {
			rest = append(rest, c)
		}
	}
	q.counted = rest
}

func (q *faultQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counted, q.standing = nil, nil
}

// take returns what to do with a request, the zero behaviour if nothing is
// wrong, and counts the fault as played.
func (q *faultQueue) take(endpoint, grant string) behaviour {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.counted {
		c := &q.counted[i]
		if !c.meantFor(endpoint, grant) {
			continue
		}
		b := c.behaviour
		if c.left--; c.left == 0 {
			q.counted = append(q.counted[:i:i], q.counted[i+1:]...)
		}
		return b
	}
	for _, b := range q.standing {
		if b.meantFor(endpoint, grant) {
			return b
		}
	}
	return behaviour{}
}

// outage returns what to do with a request that no fault is meant for, because
// the next one played at the endpoint makes the server fail as a whole. It
// doesn't count as played.
func (q *faultQueue) outage(endpoint string) behaviour {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next []behaviour
	for _, c := range q.counted {
		next = append(next, c.behaviour)
	}
	next = append(next, q.standing...)
	i := slices.IndexFunc(next, func(b behaviour) bool { return b.meantFor(endpoint, "") })
	if i < 0 || !next[i].outage {
		return behaviour{}
	}
	return next[i]
}

func (b behaviour) meantFor(endpoint, grant string) bool {
	return b.info.Endpoint == endpoint && (b.info.Grant == "" || b.info.Grant == grant)
}
