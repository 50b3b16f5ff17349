package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRotation(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		old := p
		for generation := 2; generation <= 4; generation++ {
			next := r.token(refresh(p.Refresh)).must(t)
			if next.Refresh == p.Refresh || next.Access == p.Access {
				t.Fatal("the tokens did not change")
			}
			e := r.last()
			if e.Presented != fmt.Sprintf("f1.g%d", generation-1) || e.Issued != fmt.Sprintf("f1.g%d", generation) ||
				e.Family != "f1" || e.Generation != generation || !e.Committed || !e.Replied || e.Status != 200 {
				t.Errorf("generation %d: %+v", generation, e)
			}
			p = next
		}
		if got := r.call(old.Access); got != 200 {
			t.Errorf("the first access token is %d after refreshes, want 200", got)
		}
		r.token(login).must(t)
		if got := r.last().Issued; got != "f2.g1" {
			t.Errorf("second login issued %s, want f2.g1", got)
		}
	})
}

func TestReuseEndsFamily(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		other := r.token(login).must(t)
		first := r.token(login).must(t)
		second := r.token(refresh(first.Refresh)).must(t)
		r.token(refresh(first.Refresh)).refused(t, 400, "invalid_grant")
		if e := r.last(); !e.Committed || e.Issued != "" || e.Presented != "f2.g1" {
			t.Errorf("the reuse: %+v", e)
		}
		r.token(refresh(second.Refresh)).refused(t, 400, "invalid_grant")
		for _, token := range []string{first.Access, second.Access} {
			if got := r.call(token); got != 401 {
				t.Errorf("access token of the ended family: %d, want 401", got)
			}
		}
		r.token(refresh(other.Refresh)).must(t)
		if got := r.call(other.Access); got != 200 {
			t.Errorf("access token of another family: %d, want 200", got)
		}
	})
}

func TestGrace(t *testing.T) {
	run(t, Config{Grace: 10 * time.Second}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		r.Play(LostReply, 2)
		for range 2 {
			if a := r.token(refresh(p.Refresh)); a.err == nil {
				t.Fatal("lost-reply was answered")
			}
		}
		time.Sleep(9 * time.Second)
		next := r.token(refresh(p.Refresh)).must(t)
		if e := r.last(); e.Presented != "f1.g1" || e.Issued != "f1.g4" {
			t.Errorf("replay within grace: %+v", e)
		}
		last := r.token(refresh(next.Refresh)).must(t)
		if got := r.call(last.Access); got != 200 {
			t.Errorf("access token: %d, want 200", got)
		}
		// g4 was used, so g1 is not the previous one any more.
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")
		if got := r.call(last.Access); got != 401 {
			t.Errorf("access token after reuse: %d, want 401", got)
		}
	})
}

func TestGraceEnds(t *testing.T) {
	run(t, Config{Grace: 10 * time.Second}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		next := r.token(refresh(p.Refresh)).must(t)
		time.Sleep(10 * time.Second)
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")
		r.token(refresh(next.Refresh)).refused(t, 400, "invalid_grant")
	})
}

func TestOneAccessToken(t *testing.T) {
	run(t, Config{OneAccessToken: true}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		next := r.token(refresh(p.Refresh)).must(t)
		if got := r.call(p.Access); got != 401 {
			t.Errorf("older access token: %d, want 401", got)
		}
		if got := r.call(next.Access); got != 200 {
			t.Errorf("newer access token: %d, want 200", got)
		}
	})
}

// TestParallelUse: of many who bring the same refresh token one gets an
// answer.
func TestParallelUse(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		var mu sync.Mutex
		var group sync.WaitGroup
		var got []int
		for range 20 {
			group.Go(func() {
				a := r.token(refresh(p.Refresh))
				mu.Lock()
				defer mu.Unlock()
				got = append(got, a.status)
			})
		}
		group.Wait()
		slices.Sort(got)
		if len(got) != 20 || got[0] != 200 || got[1] != 400 {
			t.Errorf("answers %v, want one 200 and 19 times 400", got)
		}
		if n := r.TokenRequests("refresh_token"); n != 20 {
			t.Errorf("%d refreshes counted, want 20", n)
		}
	})
}

func TestRevoke(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		revoke := func(token string) answer { return send(r.client, post(revokePath, form("token", token))) }
		p := r.token(login).must(t)
		if a := revoke(p.Access); a.status != 200 || a.body != "" {
			t.Fatalf("revoking an access token: %d %q", a.status, a.body)
		}
		if e := r.last(); e.Kind != KindRevoke || e.Presented != "f1.g1" || !e.Committed || e.ClientID != "sandbox-client" {
			t.Errorf("event %+v", e)
		}
		if got := r.call(p.Access); got != 401 {
			t.Errorf("revoked access token: %d, want 401", got)
		}
		p = r.token(refresh(p.Refresh)).must(t)
		if a := revoke(p.Refresh); a.status != 200 || a.body != "" {
			t.Fatalf("revoking a refresh token: %d %q", a.status, a.body)
		}
		if got := r.call(p.Access); got != 401 {
			t.Errorf("access token of the revoked refresh token: %d, want 401", got)
		}
		r.token(refresh(p.Refresh)).refused(t, 400, "invalid_grant")

		if a := revoke(p.Refresh); a.status != 200 || r.last().Committed {
			t.Errorf("revoking again: %d, %+v", a.status, r.last())
		}
		if a := revoke("unknown"); a.status != 200 || r.last().Committed {
			t.Errorf("revoking an unknown token: %d, %+v", a.status, r.last())
		}
		send(r.client, post(revokePath, form("x", "y"))).refused(t, 400, "invalid_request")
		wrong := post(revokePath, form("token", p.Refresh))
		wrong.SetBasicAuth("sandbox-client", "x")
		send(r.client, wrong).refused(t, 401, "invalid_client")
		get := post(revokePath, nil)
		get.Method = http.MethodGet
		send(r.client, get).refused(t, 405, "invalid_request")
	})
}

// TestPrune: what is remembered has an end, what is in use is kept.
func TestPrune(t *testing.T) {
	t.Parallel()
	var ts tokenState
	now := time.Now()
	c := Config{TokenLifetime: time.Second}
	idle := ts.newFamily()
	ts.issue(idle, nil, pair{access: "idle", refresh: "idle-r"}, c, now)
	busy := ts.newFamily()
	for i := range keptPairs + 100 {
		now = now.Add(time.Second)
		name := fmt.Sprint("busy", i)
		ts.issue(busy, busy.refresh, pair{access: name, refresh: name + "-r"}, c, now)
	}
	if len(ts.access) > keptPairs+1 || len(ts.refresh) > keptPairs+1 || len(ts.order) > keptPairs+1 {
		t.Errorf("kept %d access and %d refresh tokens", len(ts.access), len(ts.refresh))
	}
	if ts.findRefresh("idle-r") == nil {
		t.Error("the current refresh token of an idle family was forgotten")
	}
	if ts.findRefresh("busy0-r") != nil {
		t.Error("a refresh token spent long ago is still kept")
	}
}

func TestIdentifiers(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		for _, token := range []string{pageroRefreshToken(), pageroAccessToken(time.Now(), time.Minute)} {
			if seen[token] || strings.ContainsAny(token, "+/= \r\n") {
				t.Fatalf("token %q", token)
			}
			seen[token] = true
		}
	}
}
