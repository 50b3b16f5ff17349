package oauth

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever is wrong with a successful answer, its refresh token is kept: the
// one that was sent for it is spent.
func TestReadAnswerRefreshTokenFirst(t *testing.T) {
	t.Parallel()
	parts := []string{"access_token", "token_type", "expires_in", "scope", "claims"}
	values := []string{`null`, `true`, `0`, `-1.5e300`, `""`, `"x y\r\n"`, `[]`, `[[["refresh_token"]]]`, `{}`, `{"refresh_token":"no","a":{}}`}
	for _, part := range parts {
		for _, value := range values {
			var before, after strings.Builder
			for _, name := range parts {
				v := map[string]string{"access_token": `"AT"`, "token_type": `"bearer"`, "expires_in": `600`, "scope": `""`, "claims": `"c"`}[name]
				if name == part {
					v = value
				}
				fmt.Fprintf(&before, `%q:%s,`, name, v)
				fmt.Fprintf(&after, `,%q:%s`, name, v)
			}
			for _, body := range []string{`{` + before.String() + `"refresh_token":"RT"}`, `{"refresh_token":"RT"` + after.String() + `}`} {
				a := readAnswer(200, "application/json", []byte(body), true)
				if a.Tokens.RefreshToken.Reveal() != "RT" {
					t.Errorf("%s: %v without the refresh token", body, a.Outcome)
				}
				if a.Outcome == Granted && a.Tokens.AccessToken.Reveal() != "AT" {
					t.Errorf("%s: granted, but the access token is %q", body, a.Tokens.AccessToken.Reveal())
				}
			}
		}
	}
}

func TestReadAnswerUnusable(t *testing.T) {
	t.Parallel()
	long := `{"access_token":"AT","token_type":"bearer","refresh_token":"RT","pad":"` + strings.Repeat("x", maxAnswer) + `"}`
	tests := []struct {
		name  string
		body  string
		whole bool
	}{
		{"no token_type", `{"access_token":"AT","refresh_token":"RT"}`, true},
		{"token_type mac", strings.Replace(good, "bearer", "mac", 1), true},
		{"token_type no text", strings.Replace(good, `"bearer"`, "1", 1), true},
		{"access token with a line break", strings.Replace(good, "AT", `AT\r\nX-Injected: 1`, 1), true},
		{"access token with a space", strings.Replace(good, "AT", "A T", 1), true},
		{"access token with NUL", strings.Replace(good, "AT", `A\u0000T`, 1), true},
		{"access token not ASCII", strings.Replace(good, "AT", "AÉT", 1), true},
		{"access token empty", strings.Replace(good, "AT", "", 1), true},
		{"no access token", `{"refresh_token":"RT","token_type":"bearer"}`, true},
		{"broken off in a later name", good[:strings.Index(good, `"expires`)+4], false},
		{"broken off in a later value", good[:len(good)-3], false},
		{"broken off right behind it", good[:strings.Index(good, `"RT"`)+4], false},
		{"broken off, though the length was right", good[:strings.Index(good, `,"expires`)+1], true},
		{"not JSON behind it", `{"refresh_token":"RT",nonsense}`, true},
		{"too long", long[:maxAnswer+1], false},
		{"data behind the object", good + `{}`, true},
		{"text behind the object", good + `OK`, true},
		{"a member twice", `{"scope":"a",` + good[1:], true},
		{"the access token twice", `{"access_token":"other",` + good[1:], true},
		{"the refresh token twice", `{"refresh_token":"other",` + good[1:], true},
		{"the refresh token twice, then no text", good[:len(good)-1] + `,"refresh_token":1}`, true},
		{"the refresh token twice, then null", good[:len(good)-1] + `,"refresh_token":null}`, true},
		{"the refresh token twice, then empty", good[:len(good)-1] + `,"refresh_token":""}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := readAnswer(200, "application/json", []byte(tt.body), tt.whole)
			if a.Outcome != Unusable || a.Tokens.RefreshToken.Reveal() != "RT" || !a.Tokens.AccessToken.Empty() {
				t.Errorf("%v, refresh token %q, access token %q", a.Outcome, a.Tokens.RefreshToken.Reveal(), a.Tokens.AccessToken.Reveal())
			}
		})
	}
}

// A reply that says yes in an odd way has spent the old refresh token too.
func TestReadAnswerOddSuccess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		status      int
		media, body string
	}{
		{"as text/html", 200, "text/html; charset=utf-8", good},
		{"201", 201, "application/json", good},
		{"beside an empty error", 200, "application/json", `{"error":"",` + good[1:]},
		{"beside an unknown error", 200, "application/json", `{"error":"none",` + good[1:]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := readAnswer(tt.status, tt.media, []byte(tt.body), true)
			if a.Tokens.RefreshToken.Reveal() != "RT" {
				t.Errorf("%v (%s): the refresh token is lost", a.Outcome, a.Detail)
			}
		})
	}
}
