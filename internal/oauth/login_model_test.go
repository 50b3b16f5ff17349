package oauth_test

import (
	"math/rand/v2"
	"net/url"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A modelLogin is what the model knows of a login.
type modelLogin struct {
	by      string
	begun   time.Time
	query   url.Values
	session *oauth.Session
	done    bool // its state was spent
}

// FuzzLogins plays random sequences of logins that begin, are finished by
// anybody with anything, and expire, over reloads. Whatever comes: each state
// yields one token request at most, and only for the one who began it.
func FuzzLogins(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(seed, uint8(80))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		playLogin(t, annAndBob, func(r *loginRig) {
			playLogins(r, rand.New(rand.NewPCG(seed, 0)), int(steps))
		})
	})
}

func playLogins(r *loginRig, random *rand.Rand, steps int) {
	account := func() *oauth.Account {
		a := r.person()
		a.PerUser = true
		return a
	}
	r.users(account())
	defer r.stop()
	names := []string{"ann", "bob", "sandbox-user"}
	var all []*modelLogin
	waiting := map[string]int{} // of each, those since the model last saw 16
	requests := 0
	for range steps {
		switch random.IntN(10) {
		case 0, 1, 2:
			name := names[random.IntN(len(names))]
			if waiting[name]++; waiting[name] > 16 {
				continue // the oldest would give way: see TestPendingLoginsOfOne
			}
			s := r.user(name)
			l := r.begin(s, by(name))
			all = append(all, &modelLogin{by: name, begun: time.Now(), query: r.approveAs(l, name), session: s})
		case 3:
			after(time.Duration(random.IntN(400)) * time.Second)
		case 4:
			r.configure(account())
		default:
			if len(all) == 0 {
				continue
			}
			l := all[random.IntN(len(all))]
			q, browser, who, mine := l.query, l.by, l.by, true
			switch random.IntN(6) {
			case 0:
				browser, mine = names[random.IntN(len(names))], false
			case 1:
				who, mine = names[random.IntN(len(names))], false
			case 2:
				q, mine = with(q, "state", q.Get("state")+"x"), false
			case 3:
				q, mine = url.Values{"code": q["code"], "state": q["state"], "error": {"x"}}, false
			}
			if !mine && browser == l.by && who == l.by && q.Get("error") == "" && q.Get("state") == l.query.Get("state") {
				mine = true // chance gave it its own
			}
			good := mine && !l.done && time.Since(l.begun) < 10*time.Minute
			_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by(browser).Browser, By: who})
			if good {
				l.done = true
				requests++
			}
			if (err == nil) != good {
				r.Fatalf("a callback of %s by %s, %v after it began, spent before: %v; FinishLogin: %v", l.by, who, time.Since(l.begun), l.done && !good, err)
			}
			if n := r.sandbox.TokenRequests("authorization_code"); n != requests {
				r.Fatalf("%d token requests, want %d", n, requests)
			}
		}
	}
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindToken && !e.Committed {
			r.Errorf("a code was refused: %+v", e)
		}
	}
	for _, l := range all {
		if !l.done || l.session.Current() == nil {
			continue
		}
		if who := r.called(l.session).Username; who != l.by {
			r.Errorf("%s has the tokens of %s", l.by, who)
		}
	}
}
