package oauth_test

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// nonsense, and a user's name, is imported as a refresh token.
const nonsense = "nonsense of "

// A world is what outlives the lives: the authorization server, what it
// counted, the store, and what the model makes of all that.
type world struct {
	sandbox *sandbox.Sandbox
	grace   time.Duration

	mu     sync.Mutex
	broken string // the first rule that was broken
	detail string
	story  []string // what happened last
	out    outage
	lives  []*process
	// as configured
	user      string
	policy    oauth.OnLostReply
	relogin   bool
	changedAt time.Time

	stored   map[string]bool // access tokens that were ever stored
	mended   time.Time       // when the last outage of the store ended
	last     lastToken
	rejected map[string]bool // access tokens that the API refused
	forgot   int             // the last event before the last forget
	operator bool            // somebody changes the tokens by hand
	sour     bool            // the client or the configuration was refused

	refresh, access map[string]issued // what the server gave out, by token
	families        map[string]*family
	byConn          map[string]origin
	got             map[string]bool    // names of the refresh tokens that arrived
	disturbed       []time.Time        // kills, starts, changes, outages
	beliefs         map[string]*belief // by user
	refusals        map[string]*refusal
}

// An issued token is one that the server gave out.
type issued struct {
	family     string
	generation int
	user       string
	seq        int // of the event
	at         time.Time
}

// A lastToken was handed out last, and is good until then.
type lastToken struct {
	token string
	life  *process
	until time.Time
}

// A family is what the model knows of one login at the server.
type family struct {
	gone    bool // revoked, ended by a reuse, or said to be dead
	durable int  // the newest generation of refresh token that was ever stored
	held    int  // and that was ever in the memory of this life
}

// An origin is who sent a token request, when which policy was in force.
type origin struct {
	life   *process
	policy oauth.OnLostReply
}

// A belief is what the client should know of an identity; lives forget what
// isn't stored.
type belief struct{ now, stored knowledge }

type knowledge struct {
	token    string // the refresh token; empty: none, or a dead one
	lost     string // the grant of a request without known outcome
	doubt    int
	signedIn bool
	unsure   bool // an operator was told that it didn't work
}

// A refusal is that of a password.
type refusal struct {
	user   string
	stored bool
	all    bool // it wasn't the password that was refused
}

func newWorld(s *sandbox.Sandbox, grace time.Duration) *world {
	return &world{
		sandbox: s, grace: grace,
		refresh: map[string]issued{}, access: map[string]issued{}, families: map[string]*family{},
		byConn: map[string]origin{}, got: map[string]bool{}, rejected: map[string]bool{}, stored: map[string]bool{}, beliefs: map[string]*belief{}, refusals: map[string]*refusal{},
	}
}

// violate notes a broken rule; rule is the same for all that break it.
func (w *world) violate(rule string, detail ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violated(rule, detail...)
}

func (w *world) violated(rule string, detail ...any) {
	if w.broken != "" {
		return
	}
	w.broken, w.detail = rule, fmt.Sprint(detail...)
	tellOnce.Do(func() {
		fmt.Fprintf(os.Stderr, "the first story in which %s %s:\n%s\n", rule, w.detail, strings.Join(w.story, "\n"))
	})
}

// tellOnce is for the story that can't be had again: what only chance or a
// race brought about isn't found by cutting the case down.
var tellOnce sync.Once

// tell adds to the story.
func (w *world) tell(parts ...any) {
	const most = 80
	w.story = append(w.story, time.Now().Format("02 15:04:05.000 ")+strings.TrimSpace(fmt.Sprintln(parts...)))
	w.story = w.story[max(0, len(w.story)-most):]
}

func (w *world) outageNow() outage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out
}

// disturb notes that what happens now excuses a missed grace.
func (w *world) disturb() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disturbed = append(w.disturbed, time.Now())
	w.tell("a kill, a start, a change or an outage")
}

func (w *world) belief(user string) *belief {
	b := w.beliefs[user]
	if b == nil {
		b = new(belief)
		w.beliefs[user] = b
	}
	return b
}

func (w *world) family(name string) *family {
	f := w.families[name]
	if f == nil {
		f = new(family)
		w.families[name] = f
	}
	return f
}

// hold notes that this life has a refresh token.
func (w *world) hold(token string) {
	if is, ok := w.refresh[token]; ok {
		f := w.family(is.family)
		f.held = max(f.held, is.generation)
		w.got[fmt.Sprintf("%s.g%d", is.family, is.generation)] = true
	}
}

// died makes the model forget what only the memory of a life knew.
func (w *world) died() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell("a life is over")
	for _, b := range w.beliefs {
		b.now = b.stored
	}
	for _, f := range w.families {
		f.held = 0
	}
	maps.DeleteFunc(w.refusals, func(_ string, r *refusal) bool { return !r.stored })
}
