package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A server is what is learnt of an account's authorization server beyond its
// configuration, and kept in the store: the metadata of its issuer, and the
// iss of the first login. All sessions of the account share it.
type server struct {
	sessions *Sessions
	key      Key
	prober   prober

	first      chan struct{} // full while metadata is fetched for the first time
	mu         sync.Mutex    // never held while the network is asked
	loaded     bool
	generation uint64
	known      serverRecord
	fetching   bool
	tried      time.Time // when a fetch in the background ended
	moved      string    // newer metadata isn't used because of this
}

// serverRecord is what the store holds of a server. It has no secret.
type serverRecord struct {
	Version  int       `json:"version"`
	Metadata *Metadata `json:"metadata,omitempty"`
	Fetched  time.Time `json:"fetched,omitzero"`
	Pins     []pin     `json:"pins,omitempty"`
}

const (
	serverVersion = 1
	// metadataAge is how old metadata may become before it is fetched again.
	metadataAge = 24 * time.Hour
	// fetchTimeout is how long a fetch may take.
	fetchTimeout = 20 * time.Second
)

// serverKey is where an account's server is kept. No session has this key: an
// account's name is never empty.
func serverKey(account string) Key { return Key{User: account} }

func (ss *Sessions) newServer(account string) *server {
	return &server{sessions: ss, key: serverKey(account), first: make(chan struct{}, 1)}
}

// load reads what the store has, once. Call it with mu.
func (sv *server) load(ctx context.Context) error {
	if sv.loaded {
		return nil
	}
	e, err := sv.sessions.store.Load(ctx, sv.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("loading what is known of the authorization server: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(e.Value, &sv.known); err != nil || sv.known.Version != serverVersion {
			sv.known = serverRecord{} // it is learnt again
		}
		sv.generation = e.Generation
	}
	sv.loaded = true
	return nil
}

// save stores what is known. That it can't is no reason to stop: it is learnt
// again. Call it with mu.
func (sv *server) save(ctx context.Context) {
	sv.known.Version = serverVersion
	value, err := json.Marshal(sv.known)
	if err == nil {
		err = sv.sessions.store.Save(ctx, sv.key, Entry{Generation: sv.generation + 1, Value: value})
	}
	if err != nil {
		sv.sessions.log.Load().Warn("saving what is known of the authorization server", "account", sv.key.User, "error", err)
		if e, err := sv.sessions.store.Load(ctx, sv.key); err == nil {
			sv.generation = e.Generation // the next save may succeed
		}
		return
	}
	sv.generation++
}

// An endpointOf picks the endpoint that somebody is about to ask.
type endpointOf func(*Client) string

func tokenEndpoint(c *Client) string  { return c.TokenEndpoint }
func revokeEndpoint(c *Client) string { return c.RevokeEndpoint }

// resolve returns the client with its endpoints, needed among them. Metadata
// that is known is used as it is, and fetched again in the background when it
// is old: a server whose discovery is away can be asked for tokens all the
// same. Nobody waits for metadata if what is needed is configured.
func (sv *server) resolve(ctx context.Context, c *Client, needed endpointOf) (*Client, error) {
	if !c.Discover {
		return c, nil
	}
	configured := needed(c) != ""
	if m, err := sv.metadata(ctx, c, configured); err != nil || m != nil || configured {
		return c.with(m), err
	}
	select { // one asks, the others wait
	case sv.first <- struct{}{}:
		defer func() { <-sv.first }()
	case <-ctx.Done():
		return nil, errors.New("fetching metadata: time-out")
	}
	if m, err := sv.metadata(ctx, c, false); err != nil || m != nil {
		return c.with(m), err
	}
	m, err := c.fetchMetadata(ctx)
	if err != nil {
		return nil, err
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.learn(ctx, m)
	return c.with(&m), nil
}

// metadata returns what is known of the client's issuer; nil if nothing is:
// then it is fetched behind, if so wanted.
func (sv *server) metadata(ctx context.Context, c *Client, behind bool) (*Metadata, error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if err := sv.load(ctx); err != nil {
		return nil, err
	}
	m := sv.known.Metadata
	if m != nil && m.Issuer != c.Issuer {
		m, sv.known, sv.moved = nil, serverRecord{Pins: sv.known.Pins}, "" // of another one
	}
	age := sv.sessions.now().wall.Sub(sv.known.Fetched) // below 0: a clock is wrong or was
	if m == nil && behind || m != nil && (age >= metadataAge || age < 0) {
		sv.fetchBehind(c)
	}
	return m, nil
}

// fetchBehind fetches metadata in the background, and tries again after an
// hour if it can't. Call it with mu.
func (sv *server) fetchBehind(c *Client) {
	if sv.fetching || time.Since(sv.tried) < time.Hour {
		return
	}
	own := *c // the caller goes on to fill in its client
	c = &own
	sv.fetching = sv.sessions.takeOff(func() {
		ctx := sv.sessions.ctx
		m, err := c.fetchMetadata(ctx)
		log := sv.sessions.log.Load().With("account", sv.key.User)
		sv.mu.Lock()
		defer sv.mu.Unlock()
		sv.fetching, sv.tried = false, time.Now()
		if err != nil {
			log.Warn("fetching the authorization server's metadata; what is known stays in use", "error", err)
			return
		}
		sv.moved = ""
		var former Metadata
		if sv.known.Metadata != nil && sv.known.Metadata.Issuer == m.Issuer {
			former = *sv.known.Metadata
		}
		if what, ok := c.overrides(m).movedFrom(c.overrides(former)); ok && former.Issuer != "" {
			sv.moved = what + "; the former stays in use. To consent, set the endpoints in the account"
			log.Error("the authorization server's metadata names another host", "detail", sv.moved)
			sv.known.Fetched = sv.sessions.now().wall
			return
		}
		sv.learn(ctx, m)
	})
}

// fetchMetadata fetches the metadata of the client's issuer. What is wrong with
// endpoints that are configured doesn't matter.
func (c *Client) fetchMetadata(ctx context.Context) (Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	m, err := fetchMetadata(ctx, c.Transport, c.Issuer)
	var configured []string
	for option, endpoint := range map[string]string{
		"authorize_endpoint": c.AuthorizeEndpoint, "token_endpoint": c.TokenEndpoint,
		"revoke_endpoint": c.RevokeEndpoint, "device_endpoint": c.DeviceEndpoint,
	} {
		if endpoint != "" {
			configured = append(configured, option)
		}
	}
	return m, unlessOverridden(err, configured...)
}

// learn keeps metadata. Call it with mu.
func (sv *server) learn(ctx context.Context, m Metadata) {
	sv.known.Metadata, sv.known.Fetched, sv.moved = &m, sv.sessions.now().wall, ""
	sv.save(ctx)
}

// overrides puts what is configured in place of what the metadata says.
func (c *Client) overrides(m Metadata) Metadata {
	for _, e := range []struct {
		configured string
		found      *string
	}{
		{c.AuthorizeEndpoint, &m.AuthorizeEndpoint}, {c.TokenEndpoint, &m.TokenEndpoint},
		{c.RevokeEndpoint, &m.RevokeEndpoint}, {c.DeviceEndpoint, &m.DeviceEndpoint},
	} {
		if e.configured != "" {
			*e.found = e.configured
		}
	}
	return m
}

// with returns the client with the endpoints of its issuer's metadata.
func (c *Client) with(found *Metadata) *Client {
	if found == nil {
		return c
	}
	m, n := c.overrides(*found), *c
	n.AuthorizeEndpoint, n.TokenEndpoint, n.RevokeEndpoint, n.DeviceEndpoint = m.AuthorizeEndpoint, m.TokenEndpoint, m.RevokeEndpoint, m.DeviceEndpoint
	return &n
}

// warning says why newer metadata isn't used; empty if it is.
func (sv *server) warning() string {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.moved
}
