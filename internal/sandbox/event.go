package sandbox

import (
	"net/http"
	"sync"
	"time"
)

// The kinds of events.
const (
	KindToken     = "token"     // a request to the token endpoint
	KindProbe     = "probe"     // a GET of the token endpoint, which asks for no token
	KindRevoke    = "revoke"    // a request to the revocation endpoint, or that ends a session
	KindAPI       = "api"       // a request to the API
	KindFollowed  = "followed"  // the redirect of the fault redirect was followed
	KindAuthorize = "authorize" // a request to the authorization endpoint, or what Approve and Deny did
	KindDevice    = "device"    // a device authorization request
	KindDiscovery = "discovery" // a request for the discovery document
)

// Unknown stands in an event for a client, user or grant type that the sandbox
// doesn't know: what was sent may be a secret in the wrong place.
const Unknown = "unknown"

// An Event is what the sandbox noted about one request. It holds no secret.
// It is logged when the request has arrived and filled in while it is
// answered; what a client can see of an answer is noted before it is sent.
type Event struct {
	Seq  int       `json:"seq"` // from 1, in order of arrival, never reused
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`

	Grant      string `json:"grant,omitempty"`
	ClientID   string `json:"client_id,omitempty"`
	ClientAuth string `json:"client_auth,omitempty"` // basic, post, private_key_jwt, tls, none; both: more than one

	// Username is the user of a login: that of a password request, also a
	// refused one, and who approved an authorization. Where there are
	// Config.Users, a refresh and an API request tell whose token was used.
	Username string `json:"username,omitempty"`

	// Family is one login and all that came of it, as "f1"; Generation is the
	// server's own count of token answers within it: the one issued or, where
	// nothing was, the presented token's.
	Family     string `json:"family,omitempty"`
	Generation int    `json:"generation,omitempty"`

	// Presented names the token that the request brought, Issued what it got,
	// as "f1.g3": of a token request the refresh token, of an API request the
	// access token. An unknown token has no name.
	Presented string `json:"presented,omitempty"`
	Issued    string `json:"issued,omitempty"`

	Status    int    `json:"status"`          // 0: no answer yet, or none sent
	Error     string `json:"error,omitempty"` // the OAuth error code
	Fault     Fault  `json:"fault,omitempty"`
	Committed bool   `json:"committed"` // tokens were issued or revoked
	Replied   bool   `json:"replied"`   // the whole answer was sent, as far as the server can tell

	ConnID string `json:"conn_id"` // the same for requests of one connection
	Method string `json:"method"`
	Path   string `json:"path"` // without the query, which may hold secrets
}

func newEvent(kind string, r *http.Request) Event {
	return Event{
		Kind:   kind,
		ConnID: r.RemoteAddr,
		Method: shorten(r.Method),
		Path:   shorten(r.URL.Path),
	}
}

// shorten keeps a hostile request from filling the log.
func shorten(text string) string {
	const most = 256
	if len(text) > most {
		return text[:most]
	}
	return text
}

// An eventLog keeps the newest events, and counts that outlive them.
type eventLog struct {
	mu     sync.Mutex
	limit  int
	seq    int
	events []*Event
	total  int            // token requests
	grants map[string]int // token requests by grant type
}

// add logs a new event and returns it to be filled in by change.
func (l *eventLog) add(e Event) *Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.At = l.seq, time.Now()
	if e.Kind == KindToken {
		l.total++
		if l.grants == nil {
			l.grants = map[string]int{}
		}
		l.grants[e.Grant]++
	}
	logged := &e
	l.events = append(l.events, logged)
	if len(l.events) > l.limit {
		l.events[0] = nil // the array lives on for a while, the event should not
		l.events = l.events[1:]
	}
	return logged
}

func (l *eventLog) change(e *Event, f func(*Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(e)
}

func (l *eventLog) list() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Event, len(l.events))
	for i, e := range l.events {
		list[i] = *e
	}
	return list
}

func (l *eventLog) tokenRequests(grant string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if grant == "" {
		return l.total
	}
	return l.grants[grant]
}

// An exchange is one request being answered. It notes status and reply in the
// request's event before the client can see them.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	log     *eventLog
	event   *Event
	started bool

	user     string   // whose access token an API request brought
	encoding encoding // of answers of the token and revocation endpoints
}

func (s *Sandbox) begin(w http.ResponseWriter, r *http.Request, e Event) *exchange {
	return &exchange{ResponseWriter: w, request: r, log: &s.log, event: s.log.add(e)}
}

func (x *exchange) note(f func(*Event)) { x.log.change(x.event, f) }

// WriteHeader notes the answer and then sends it. A client that has hung up by
// now counts as not answered.
func (x *exchange) WriteHeader(status int) {
	if !x.started {
		x.started = true
		there := x.request.Context().Err() == nil
		x.note(func(e *Event) { e.Status, e.Replied = status, there })
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write writes the answer's body.
func (x *exchange) Write(b []byte) (int, error) {
	if !x.started {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(b)
	if err != nil {
		x.cut()
	}
	return n, err
}

// cut notes that the answer didn't go out whole.
func (x *exchange) cut() { x.note(func(e *Event) { e.Replied = false }) }

// Unwrap is for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
