package oauth_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A process is one life of the program, from its start to its end or its kill:
// its sessions, and all that it can reach the world by. After a kill nothing that
// is left of it has an effect any more.
type process struct {
	number   int
	world    *world
	sessions *oauth.Sessions
	session  *oauth.Session
	store    oauth.Store
	wire     http.RoundTripper
	ctx      context.Context // ends at the kill
	kill     context.CancelFunc

	mu       sync.Mutex
	fuse     int // the kill comes at so many steps from now; 0: none is to come
	inFlight int
	at       time.Time // of the last step
	idle     int       // steps at that one moment
}

var errKilled = errors.New("the process is dead")

// step is one moment at which a process can die: before and after each use of
// the store and of the wire. It reports whether the life goes on.
func (l *process) step() bool {
	l.mu.Lock()
	last := l.fuse == 1
	l.fuse = max(l.fuse-1, 0)
	if now := time.Now(); now.After(l.at) {
		l.at, l.idle = now, 0
	}
	l.idle++
	spins := l.idle > 1000
	l.mu.Unlock()
	if spins {
		l.world.violate("it goes round and round, and no time passes")
	}
	if last || spins {
		l.world.disturb()
		l.kill()
	}
	return !l.dead()
}

func (l *process) dead() bool { return l.ctx.Err() != nil }

// blow sets when the life ends; 0 takes that back.
func (l *process) blow(steps int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fuse = steps
}

// A processStore is the store as a life sees it.
type processStore struct {
	oauth.Store
	life *process
}

// An outage is what is wrong with the store.
type outage struct {
	load, save bool // they fail
	late       bool // a save takes effect, and fails then
}

func (s *processStore) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	switch out := s.life.world.outageNow(); {
	case !s.life.step():
		return oauth.Entry{}, errKilled
	case out.load:
		return oauth.Entry{}, errDisk
	}
	return s.Store.Load(ctx, key)
}

func (s *processStore) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	out := s.life.world.outageNow()
	if !s.life.step() {
		return errKilled
	}
	s.life.world.saving(s.life, e.Value)
	if out.save {
		return errDisk
	}
	time.Sleep(20 * time.Millisecond) // a disk takes its time
	err := s.Store.Save(ctx, key, e)
	if err == nil {
		s.life.world.saved(e.Value)
	}
	switch {
	case !s.life.step():
		return errKilled
	case err == nil && out.late:
		return errDisk
	}
	return err
}

// Close leaves the file alone after a kill: it may be the next life's already.
func (s *processStore) Close() error {
	if s.life.dead() {
		return nil
	}
	return s.Store.Close()
}

// A posted is a token request as it left, and its answer.
type posted struct {
	grant, user, password string
	refreshToken, client  string
	status                int // 0: there was no answer
	html, whole           bool
	body                  []byte
}

// RoundTrip carries token requests, and tells the world of each.
func (l *process) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost {
		return l.wire.RoundTrip(req)
	}
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, err
	}
	s := &posted{
		grant: form.Get("grant_type"), user: form.Get("username"), password: form.Get("password"),
		refreshToken: form.Get("refresh_token"), client: req.Header.Get("Authorization"),
	}
	if err := req.Context().Err(); err != nil {
		return nil, err // as the transport does
	}
	if !l.step() {
		return nil, errKilled
	}
	l.flights(+1)
	defer l.flights(-1)
	l.world.sending(l, s)

	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	req = req.Clone(ctx)
	req.Body, req.GetBody = io.NopCloser(bytes.NewReader(raw)), nil
	req.Header.Set("X-Life", strconv.Itoa(l.number))
	res, err := l.wire.RoundTrip(req)
	if err == nil {
		defer res.Body.Close()
		s.status, s.html = res.StatusCode, res.Header.Get("Content-Type") == "text/html; charset=utf-8"
		var readErr error
		s.body, readErr = io.ReadAll(io.LimitReader(res.Body, 1<<17))
		s.whole = readErr == nil && len(s.body) < 1<<16
		res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(s.body), bodyEnd{readErr}))
	}
	if !l.step() {
		return nil, errKilled
	}
	l.world.answered(l, s)
	return res, err
}

// A bodyEnd is the end of a body.
type bodyEnd struct{ err error }

func (e bodyEnd) Read([]byte) (int, error) { return 0, cmp.Or(e.err, io.EOF) }

func (l *process) flights(n int) {
	l.mu.Lock()
	l.inFlight += n
	many := l.inFlight > 1
	l.mu.Unlock()
	if many {
		l.world.violate("two token requests of one session at a time")
	}
}

// busy reports whether a token request is under way.
func (l *process) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight > 0
}

// A storedModel is what the model reads of a stored record.
type storedModel struct {
	Fingerprint struct {
		Username string `json:"username"`
	} `json:"fingerprint"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Intent       *struct {
		Grant string `json:"grant"`
	} `json:"intent"`
	Doubt *struct {
		Count int `json:"count"`
	} `json:"doubt"`
	Latch    *struct{} `json:"latch"`
	SignedIn bool      `json:"signed_in"`
}

// lost is the grant of the request whose outcome isn't known.
func (r storedModel) lost() string {
	if r.Intent == nil {
		return ""
	}
	return r.Intent.Grant
}

func decodeStored(value []byte) ([]storedModel, error) {
	var all struct {
		Version int           `json:"version"`
		Records []storedModel `json:"records"`
	}
	if err := json.Unmarshal(value, &all); err != nil {
		return nil, err
	}
	if all.Version == 0 {
		return nil, errors.New("the records have no version")
	}
	return all.Records, nil
}
