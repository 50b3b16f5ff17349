//go:build linux

package reliability

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// soakCallers is how many call at the same time, and soakPause how long each
// rests in the mean: about 50 requests/s in all.
const (
	soakCallers = 7
	soakPause   = 125 * time.Millisecond
)

// A soakFailure is a request that didn't get the API's right answer.
type soakFailure struct {
	from, to time.Time
	session  string
	method   string
	size     int    // of the body
	kept     bool   // the caller keeps its connections
	status   int    // 0: no answer
	code     string // Caddy-Bearer-Error
	text     string // body, or error
}

func (f soakFailure) String() string {
	return fmt.Sprintf("%s (%.3f s) %s %s of %d bytes: %d %q %s", f.from.Format("15:04:05.000"), f.to.Sub(f.from).Seconds(),
		f.session, f.method, f.size, f.status, f.code, f.text)
}

// soakCalls is what the callers did and saw.
type soakCalls struct {
	dir      string
	leaving  atomic.Bool // callers hang up at random
	requests atomic.Int64
	left     atomic.Int64

	mu       sync.Mutex
	failures []soakFailure
	good     map[string]time.Time // when the latest good request of a session began
}

// run calls until ctx ends.
func (c *soakCalls) run(ctx context.Context) {
	c.good = map[string]time.Time{}
	var running sync.WaitGroup
	for i := range soakCallers {
		s := soakSessions[i%len(soakSessions)]
		running.Go(func() {
			kept := i%2 == 0
			client := unixClient(c.dir+"/"+s.account+".sock", kept)
			for n := 0; ctx.Err() == nil; n++ {
				c.call(client, kept, s, n)
				select {
				case <-ctx.Done():
				case <-time.After(soakPause/2 + rand.N(soakPause)):
				}
			}
			client.CloseIdleConnections()
		})
	}
	running.Wait()
}

// call makes one request and checks the answer: the body arrived whole, and the
// token was that of the session.
func (c *soakCalls) call(client *http.Client, kept bool, s soakSession, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	leaving := c.leaving.Load() && rand.N(2) == 0
	if leaving {
		defer time.AfterFunc(rand.N(15*time.Millisecond), cancel).Stop()
	}
	req, size, sum := soakRequest(ctx, n)
	req.Header.Set("X-User", s.user)
	f := soakFailure{from: time.Now(), session: s.name, method: req.Method, size: size, kept: kept}
	var echo struct {
		Bytes     int    `json:"bytes"`
		SHA256    string `json:"sha256"`
		TokenUser string `json:"token_user"`
	}
	res, err := client.Do(req)
	var text []byte
	if err == nil {
		f.status, f.code = res.StatusCode, res.Header.Get("Caddy-Bearer-Error")
		text, err = io.ReadAll(io.LimitReader(res.Body, 64<<10))
		res.Body.Close()
	}
	f.to = time.Now()
	c.requests.Add(1)
	switch {
	case err != nil && leaving && ctx.Err() != nil:
		c.left.Add(1)
		return
	case err != nil:
		f.text = err.Error()
	case f.status != 200 || json.Unmarshal(text, &echo) != nil:
		f.text = string(text[:min(len(text), 300)])
	case echo.Bytes != size || echo.SHA256 != sum || echo.TokenUser != s.tokenUser:
		f.text = fmt.Sprintf("the API got %d bytes %s by the token of %q", echo.Bytes, echo.SHA256, echo.TokenUser)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.good[s.name].Before(f.from) {
			c.good[s.name] = f.from
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, f)
}

// soakRequest is mostly small. Its key lets Go's client send it again if a kept
// connection turns out to be closed, as it does with GET.
func soakRequest(ctx context.Context, n int) (req *http.Request, size int, sum string) {
	method, body := "POST", []byte(nil)
	switch n % 10 {
	case 3, 6:
		body = bytes.Repeat([]byte("order "), 1+rand.N(600))
	case 9:
		body = bytes.Repeat([]byte("document"), 8<<10+rand.N(56<<10)) // up to 512 KiB
	default:
		method = "GET"
	}
	req, _ = http.NewRequestWithContext(ctx, method, "http://localhost/echo", bytes.NewReader(body))
	req.Header.Set("Idempotency-Key", "soak")
	digest := sha256.Sum256(body)
	return req, len(body), hex.EncodeToString(digest[:])
}

// goodSince tells whether every session had a good request that began after at.
func (c *soakCalls) goodSince(at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range soakSessions {
		if !c.good[s.name].After(at) {
			return false
		}
	}
	return true
}
