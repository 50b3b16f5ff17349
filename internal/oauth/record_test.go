package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"
)

const canary = "CANARY"

// fullRecords has every field set, with a canary in all that is secret.
func fullRecords() records {
	full := record{
		Holder:      "another",
		Fingerprint: fingerprint{ClientID: "client", Username: "user", Scope: "all", Host: "as.test"},
		Tokens: TokenSet{
			AccessToken: NewSecret("AT" + canary), RefreshToken: NewSecret("RT" + canary), Scope: "all",
			Obtained: someTime, Lifetime: 600 * time.Second, RefreshObtained: someTime.Add(-time.Hour),
		},
		Fallback: NewSecret("FB" + canary),
		Intent:   &intent{Grant: "refresh_token", Started: someTime, Tries: 2},
		Dead:     &tombstone{At: someTime, Code: "invalid_grant"},
		Doubt:    &doubt{Count: 2, First: someTime, Last: someTime.Add(time.Minute)},
		Latch:    &latch{Salt: []byte("salt"), Key: []byte("key"), All: true, Misconfigured: true, At: someTime, Detail: "detail"},
		SignedIn: true, Refreshed: someTime,
	}
	return records{full, {Fingerprint: fingerprint{ClientID: "other", Host: "as.test"}}}
}

// sameRecords compares what is stored of records. A lifetime may lose
// nanoseconds on its way.
func sameRecords(t *testing.T, got, want records) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if d := g.Tokens.Lifetime - w.Tokens.Lifetime; d < -time.Microsecond || d > time.Microsecond {
			t.Errorf("record %d: lifetime %v, want %v", i, g.Tokens.Lifetime, w.Tokens.Lifetime)
		}
		g.Tokens.Lifetime, w.Tokens.Lifetime = 0, 0
		gb, gErr := records{g}.encode("here")
		wb, wErr := records{w}.encode("here")
		if gErr != nil || wErr != nil || !bytes.Equal(gb, wb) {
			t.Errorf("record %d:\n%s (%v)\nwant\n%s (%v)", i, gb, gErr, wb, wErr)
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	t.Parallel()
	want := fullRecords()
	value, err := want.encode("here")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecords(value, "here")
	if err != nil {
		t.Fatal(err)
	}
	sameRecords(t, got, want)
	r := got[0]
	if r.Fallback.Reveal() != "FB"+canary || r.Tokens.RefreshToken.Reveal() != "RT"+canary || r.Tokens.AccessToken.Reveal() != "AT"+canary ||
		r.Tokens.Lifetime != 600*time.Second || !r.Tokens.Obtained.Equal(someTime) || !r.Tokens.RefreshObtained.Equal(someTime.Add(-time.Hour)) ||
		*r.Intent != *want[0].Intent || *r.Dead != *want[0].Dead || *r.Doubt != *want[0].Doubt || !r.SignedIn || !r.Refreshed.Equal(someTime) {
		t.Errorf("%s came back as %+v", value, r)
	}
	if old, err := decodeRecords([]byte(`{"version":1,"records":[{"refresh_token":"RT"}]}`), ""); err != nil || !old[0].Fallback.Empty() {
		t.Errorf("a record of the first form came back as %+v, %v", old, err)
	}
	if empty := got[1]; empty.Intent != nil || empty.Dead != nil || empty.Doubt != nil || empty.Latch != nil || empty.SignedIn || !empty.Tokens.Obtained.IsZero() {
		t.Errorf("an empty record came back as %+v", empty)
	}
}

func TestDecodeRecordsRefuses(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"", "null", "{}", "[]", `"x"`, `{"version":0}`, `{"version":2,"records":[]}`, `{"version":1}{}`, `{"version":1,"records":{}}`,
		`{"version":1,"records":[{"refresh_token":{"` + canary + `":1}}]}`, `{"version":1,"records":[{"obtained":"` + canary + `"}]}`, canary,
	} {
		rs, err := decodeRecords([]byte(value), "")
		if !errors.Is(err, ErrUnreadable) || rs != nil {
			t.Errorf("%q: %v, %v; want ErrUnreadable", value, rs, err)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("the error quotes the record: %v", err)
		}
	}
}

// everyForm prints a value in all the ways that a careless line of code would.
func everyForm(v any) map[string]string {
	forms := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		forms[verb] = fmt.Sprintf(verb, v)
	}
	b, err := json.Marshal(v)
	forms["json"] = fmt.Sprint(string(b), err)
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v, slog.Group("g", "v", v))
	slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "v", v, slog.Group("g", "v", v))
	forms["slog text"], forms["slog json"] = text.String(), js.String()
	return forms
}

func TestSecretsNeverPrinted(t *testing.T) {
	t.Parallel()
	secret := NewSecret(canary)
	account := testAccount()
	rs := fullRecords()
	tok := newToken(rs[0].Tokens, 1, at(0, 0), 0.2, 0)
	sessions := NewSessions(slog.New(slog.DiscardHandler))
	session := &Session{key: Key{Account: "erp"}, sessions: sessions, state: snapshot{records: rs, generation: 3}}
	session.account.Store(account)
	session.token.Store(tok)
	session.flight = &flight{rejected: tok}
	session.failure = &Failure{Err: ErrUnavailable}
	sessions.byAccount.Store(&map[string]*Session{"erp": session})

	values := map[string]any{
		"Secret": secret, "*Secret": &secret, "[]Secret": []Secret{secret}, "map": map[string]Secret{"a": secret},
		"struct": struct{ S Secret }{secret}, "SecretFunc": Fixed(canary),
		"Token": tok, "TokenSet": rs[0].Tokens, "*TokenSet": &rs[0].Tokens,
		"Answer":       readAnswer(200, "", []byte(strings.ReplaceAll(good, "T\"", "T"+canary+"\"")), true),
		"error answer": readAnswer(400, "", []byte(`{"error":"invalid_grant","error_description":"`+canary+`"}`), true),
		"Account":      *account, "*Account": account, "Client": account.Client, "*Client": &account.Client,
		"Password": account.Grant, "record": rs[0], "*record": &rs[0], "records": rs,
		"*Session": session, "*Sessions": sessions,
		"Failure": session.failure, "Status": session.Status(),
	}
	if a := values["Answer"].(Answer); !strings.Contains(a.Tokens.RefreshToken.Reveal(), canary) {
		t.Fatal("there is no canary in the answer")
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for form, text := range everyForm(v) {
				upper := strings.ToUpper(text)
				if strings.Contains(upper, canary) || strings.Contains(upper, fmt.Sprintf("%X", canary)) {
					t.Errorf("%s shows a secret: %.300s", form, text)
				}
			}
		})
	}
}

// testAccount has a canary in every secret.
func testAccount() *Account {
	return &Account{
		Name: "erp",
		Client: Client{
			ID: "client", Secret: Fixed("CS" + canary), Auth: AuthBasic,
			TokenEndpoint: "https://as.test/token", TokenParams: url.Values{"audience": {"api"}},
		},
		Grant: &Password{User: Fixed("user"), Secret: Fixed("PW" + canary), Relogin: true},
		Scope: "all", RefreshAhead: 0.2, TokenTimeout: time.Second, RequestTimeout: time.Second, OnLostReply: LostReplay,
	}
}

func TestLatchKey(t *testing.T) {
	t.Parallel()
	salt := []byte("salt")
	base := testAccount().latchKey(salt)
	if !bytes.Equal(base, testAccount().latchKey(salt)) {
		t.Fatal("the same account has two keys")
	}
	if bytes.Equal(base, testAccount().latchKey([]byte("other"))) {
		t.Error("the key does not depend on the salt")
	}
	changes := map[string]func(*Account){
		"endpoint":       func(a *Account) { a.Client.TokenEndpoint += "2" },
		"client id":      func(a *Account) { a.Client.ID = "client2" },
		"client secret":  func(a *Account) { a.Client.Secret = Fixed("new") },
		"no secret":      func(a *Account) { a.Client.Secret = nil },
		"client_auth":    func(a *Account) { a.Client.Auth = AuthPost },
		"username":       func(a *Account) { a.Grant.(*Password).User = Fixed("user2") },
		"password":       func(a *Account) { a.Grant.(*Password).Secret = Fixed("new") },
		"scope":          func(a *Account) { a.Scope = "" },
		"token_param":    func(a *Account) { a.Client.TokenParams = url.Values{"audience": {"api2"}} },
		"no token_param": func(a *Account) { a.Client.TokenParams = nil },
	}
	for name, change := range changes {
		a := testAccount()
		change(a)
		if bytes.Equal(base, a.latchKey(salt)) {
			t.Errorf("the key does not depend on %s", name)
		}
	}
	same := testAccount()
	same.Name, same.TokenTimeout, same.Upstreams = "crm", time.Hour, []string{"api.test:443"}
	same.Grant.(*Password).Relogin = false
	if !bytes.Equal(base, same.latchKey(salt)) {
		t.Error("the key depends on more than what a token request proves itself with")
	}
}

// What belongs to one part must not pass for the end of another.
func TestLatchKeyBorders(t *testing.T) {
	t.Parallel()
	set := []func(*Account, string){
		func(a *Account, s string) { a.Client.TokenEndpoint = s },
		func(a *Account, s string) { a.Client.ID = s },
		func(a *Account, s string) { a.Client.Secret = Fixed(s) },
		func(a *Account, s string) { a.Client.Auth = ClientAuth(s) },
		func(a *Account, s string) { a.Scope = s },
		func(a *Account, s string) { a.Grant.(*Password).User = Fixed(s) },
		func(a *Account, s string) { a.Grant.(*Password).Secret = Fixed(s) },
	}
	seen := map[string]string{}
	for i := range set {
		for j := range set {
			for _, pair := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"\x00", "\x00\x00"}} {
				if i == j {
					continue
				}
				a := testAccount()
				for _, f := range set {
					f(a, "")
				}
				set[i](a, pair[0])
				set[j](a, pair[1])
				name := fmt.Sprintf("%d=%q", i, pair[0])
				if pair[1] != "" {
					if name = fmt.Sprintf("%d=%q %d=%q", i, pair[0], j, pair[1]); j < i {
						name = fmt.Sprintf("%d=%q %d=%q", j, pair[1], i, pair[0])
					}
				}
				key := string(a.latchKey(nil))
				if other, ok := seen[key]; ok && other != name {
					t.Errorf("%s and %s have the same key", name, other)
				}
				seen[key] = name
			}
		}
	}
}

func TestLatchHolds(t *testing.T) {
	t.Parallel()
	a := testAccount()
	l, l2 := newLatch(a, nil), newLatch(a, nil)
	if !l.holds(a) || !l2.holds(a) {
		t.Error("a latch does not hold the account that it was made for")
	}
	if bytes.Equal(l.Salt, l2.Salt) || bytes.Equal(l.Key, l2.Key) {
		t.Error("two latches look alike")
	}
	a.Client.Secret = Fixed("new")
	if l.holds(a) || (*latch)(nil).holds(a) || (&latch{}).holds(a) {
		t.Error("a latch holds what it was not made for")
	}
	if strings.Contains(string(l.Key)+string(l.Salt), canary) {
		t.Error("a latch shows a secret")
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	base := testAccount().fingerprint()
	tests := []struct {
		name   string
		change func(*Account)
		same   bool
	}{
		{"client id", func(a *Account) { a.Client.ID = "client2" }, false},
		{"username", func(a *Account) { a.Grant.(*Password).User = Fixed("user2") }, false},
		{"scope", func(a *Account) { a.Scope = "some" }, false},
		{"host", func(a *Account) { a.Client.TokenEndpoint = "https://as2.test/token" }, false},
		{"port", func(a *Account) { a.Client.TokenEndpoint = "https://as.test:8443/token" }, false},
		{"host in capitals", func(a *Account) { a.Client.TokenEndpoint = "https://AS.Test/token" }, true},
		{"path", func(a *Account) { a.Client.TokenEndpoint = "https://as.test/token2" }, true},
		{"client secret", func(a *Account) { a.Client.Secret = Fixed("new") }, true},
		{"password", func(a *Account) { a.Grant.(*Password).Secret = Fixed("new") }, true},
		{"client_auth", func(a *Account) { a.Client.Auth = AuthPost }, true},
		{"name", func(a *Account) { a.Name = "crm" }, true},
	}
	for _, tt := range tests {
		a := testAccount()
		tt.change(a)
		if (a.fingerprint() == base) != tt.same {
			t.Errorf("%s: same identity is %v, want %v", tt.name, !tt.same, tt.same)
		}
	}
}

func TestRecordsOfManyIdentities(t *testing.T) {
	t.Parallel()
	one, two := fingerprint{ClientID: "one"}, fingerprint{ClientID: "two"}
	token := func(s string) TokenSet { return TokenSet{RefreshToken: NewSecret(s)} }
	var rs records
	if r := rs.of(one); r.Fingerprint != one || !r.Tokens.RefreshToken.Empty() {
		t.Errorf("the record of a new identity is %+v", r)
	}
	rs = rs.with(record{Fingerprint: one, Tokens: token("RT1")})
	rs = rs.with(record{Fingerprint: two, Tokens: token("RT2")})
	before := rs
	rs = rs.with(record{Fingerprint: two, Tokens: token("RT2b")})
	if len(rs) != 2 || rs.of(one).Tokens.RefreshToken.Reveal() != "RT1" || rs.of(two).Tokens.RefreshToken.Reveal() != "RT2b" {
		t.Errorf("%d records; one has %q, two has %q", len(rs), rs.of(one).Tokens.RefreshToken.Reveal(), rs.of(two).Tokens.RefreshToken.Reveal())
	}
	if before.of(two).Tokens.RefreshToken.Reveal() != "RT2" {
		t.Error("with changes the records that it was called on")
	}
}
