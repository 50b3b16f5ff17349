//go:build linux

package reliability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// call makes one request through the site and returns what is wrong with it.
func (p *diskProxy) call() error {
	res, err := p.caller.Get("http://localhost/echo")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", res.StatusCode, text)
	}
	return err
}

// ask makes a request to the admin endpoint.
func (p *diskProxy) ask(method, path, body string, answer any) error {
	req, err := http.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := p.admin.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%d %s", res.StatusCode, text)
	case answer != nil:
		return json.Unmarshal(text, answer)
	}
	return nil
}

// login gives an account a refresh token that nobody else has.
func (p *diskProxy) login(account string) error {
	form := strings.NewReader("grant_type=password&username=sandbox-user&password=sandbox-password&client_id=sandbox-client&client_secret=sandbox-secret")
	res, err := http.Post(p.servers.AuthorizationServerURL+"/oauth/v2/oauth-token", "application/x-www-form-urlencoded", form)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var token struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&token); err != nil {
		return err
	}
	return p.ask("POST", "/bearer/import", fmt.Sprintf(`{"account":%q,"refresh_token":%q}`, account, token.RefreshToken), nil)
}

func (p *diskProxy) refresh() error {
	return p.ask("POST", "/bearer/refresh", `{"account":"erp"}`, nil)
}

// diskStatus is the part of the status that these tests look at.
type diskStatus struct {
	Problem  string   `json:"store_problem"`
	Mended   []string `json:"store_mended"`
	Accounts []struct {
		Account, State, Detail string
		Unsaved                bool
		Expires                time.Time
	}
}

func (p *diskProxy) status() (st diskStatus) {
	p.Helper()
	if err := p.ask("GET", "/bearer/status", "", &st); err != nil {
		p.Fatal(err)
	}
	return st
}

// degraded reports whether anything says that a disk can't be written.
func (st diskStatus) degraded() bool {
	for _, a := range st.Accounts {
		if a.Unsaved || a.State == "degraded" {
			return true
		}
	}
	return st.Problem != ""
}

// refreshing reports whether a refresh of the first account may be under way.
func (p *diskProxy) refreshing() bool {
	p.Helper()
	for _, a := range p.status().Accounts {
		if a.Account == "erp" {
			idle := a.State == "ready" && a.Expires.IsZero()
			return !idle && time.Until(a.Expires) < p.lifetime/2
		}
	}
	return false
}

// eventually waits until what holds, and returns how long that took.
func (p *diskProxy) eventually(most time.Duration, what string, holds func() bool) time.Duration {
	p.Helper()
	begin := time.Now()
	for !holds() {
		if time.Since(begin) > most {
			p.Fatalf("after %v still not: %s (status %+v)", most, what, p.status())
		}
		time.Sleep(max(20*time.Millisecond, most/1000))
	}
	return time.Since(begin)
}

// traffic calls the site, 2,000 times in a token's life and at most 100 times a
// second, until the returned function is called,
// which tells how many calls there were and those that failed.
func (p *diskProxy) traffic() (end func() (calls int, failures []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	calls, failures := 0, []error(nil)
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(max(10*time.Millisecond, p.lifetime/2000)) {
			calls++
			if err := p.call(); err != nil {
				failures = append(failures, err)
			}
		}
	}()
	return func() (int, []error) {
		cancel()
		<-done
		return calls, failures
	}
}

// refreshes are those of the server's log. Each refresh token may be in it once,
// and none refused: else one was lost, or an old one used again.
func (p *diskProxy) refreshes() (n int) {
	p.Helper()
	times := map[string]int{}
	for _, e := range p.sb.Events() {
		if e.Kind != sandbox.KindToken || e.Grant != "refresh_token" {
			continue
		}
		n++
		if times[e.Presented]++; times[e.Presented] > 1 || e.Error != "" {
			p.Errorf("refresh token %q was used %d times, the last time with status %d %s", e.Presented, times[e.Presented], e.Status, e.Error)
		}
	}
	return n
}

// says reports whether the log has a text.
func (p *diskProxy) says(text string) bool {
	all, err := os.ReadFile(p.log.Name())
	return err == nil && bytes.Contains(all, []byte(text))
}
