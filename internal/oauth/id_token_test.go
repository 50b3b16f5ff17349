package oauth

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

const (
	goodHeader = `{"alg":"RS256","typ":"JWT"}`
	goodClaims = `{"iss":"https://as.example","sub":"u","aud":"client","exp":1000,"iat":900,"nonce":"n-1"}`
)

// jws puts together a token whose signature nobody made.
func jws(header, payload, signature string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(header)) + "." + b64([]byte(payload)) + "." + b64([]byte(signature))
}

var goodRules = idTokenRules{Issuer: "https://as.example", ClientID: "client", Nonce: "n-1"}

// claims is goodClaims with some replaced; "" leaves one out.
func claims(replaced map[string]string) string {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(goodClaims), &object); err != nil {
		panic(err)
	}
	for name, value := range replaced {
		if value == "" {
			delete(object, name)
		} else {
			object[name] = json.RawMessage(value)
		}
	}
	out, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// B17, claim by claim.
func TestCheckIDTokenClaims(t *testing.T) {
	t.Parallel()
	type set = map[string]string
	tests := []struct {
		name  string
		claim set
		rules func(*idTokenRules)
		why   string // empty: accepted
	}{
		{"good", nil, nil, ""},
		{"other claims, of any type", set{"email": `5`, "amr": `{"a":[null]}`, "nbf": `"x"`, "at_hash": `null`}, nil, ""},

		{"iss of another", set{"iss": `"https://evil.example"`}, nil, "iss is not"},
		{"iss with a slash more", set{"iss": `"https://as.example/"`}, nil, "iss is not"},
		{"iss in other letters", set{"iss": `"https://AS.example"`}, nil, "iss is not"},
		{"no iss", set{"iss": ""}, nil, "iss is missing"},
		{"empty iss", set{"iss": `""`}, nil, "iss is missing"},
		{"iss of another type", set{"iss": `["https://as.example"]`}, nil, "iss is missing"},
		{"iss that isn't known", set{"iss": `"https://other.example"`}, func(r *idTokenRules) { r.Issuer = "" }, ""},
		{"no iss, which isn't known", set{"iss": ""}, func(r *idTokenRules) { r.Issuer = "" }, "iss is missing"},

		{"aud as list", set{"aud": `["client"]`}, nil, ""},
		{"aud of another", set{"aud": `"other"`}, nil, "aud does not name"},
		{"aud that begins alike", set{"aud": `"client2"`}, nil, "aud does not name"},
		{"aud as list of others", set{"aud": `["a","b"]`, "azp": `"client"`}, nil, "aud does not name"},
		{"no aud", set{"aud": ""}, nil, "aud is missing"},
		{"empty aud", set{"aud": `[]`}, nil, "aud is missing"},
		{"aud null", set{"aud": `null`}, nil, "aud is missing"},
		{"aud of another type", set{"aud": `{"client":1}`}, nil, "aud is missing"},
		{"aud with a number", set{"aud": `["client",1]`}, nil, "aud is missing"},
		{"aud with null", set{"aud": `["client",null]`}, nil, "aud is missing"},
		{"no client id to compare with", set{"aud": `""`}, func(r *idTokenRules) { r.ClientID = "" }, "aud does not name"},

		{"several aud with azp", set{"aud": `["other","client"]`, "azp": `"client"`}, nil, ""},
		{"several aud without azp", set{"aud": `["client","other"]`}, nil, "azp is missing"},
		{"several aud with azp null", set{"aud": `["client","other"]`, "azp": `null`}, nil, "azp is missing"},
		{"several aud with azp of another", set{"aud": `["client","other"]`, "azp": `"other"`}, nil, "azp is not"},
		{"one aud with azp", set{"azp": `"client"`}, nil, ""},
		{"one aud with azp null", set{"azp": `null`}, nil, ""},
		{"one aud with azp of another", set{"azp": `"other"`}, nil, "azp is not"},
		{"azp of another type", set{"azp": `["client"]`}, nil, "azp is not"},
		{"empty azp", set{"azp": `""`}, nil, "azp is not"},

		{"exp at the end of the leeway", set{"exp": `940`}, nil, "exp is past"},
		{"exp long ago", set{"exp": `890`}, nil, "exp is past"},
		{"exp within the leeway", set{"exp": `941`}, nil, ""},
		{"exp with a fraction", set{"exp": `940.5`}, nil, ""},
		{"exp far away", set{"exp": `1e300`}, nil, ""},
		{"exp negative", set{"exp": `-1e300`}, nil, "exp is past"},
		{"exp beyond numbers", set{"exp": `1e999`}, nil, "exp is missing"},
		{"no exp", set{"exp": ""}, nil, "exp is missing"},
		{"exp as text", set{"exp": `"2000"`}, nil, "exp is missing"},
		{"exp null", set{"exp": `null`}, nil, "exp is missing"},
		{"no iat", set{"iat": ""}, nil, "iat is missing"},
		{"iat as text", set{"iat": `"900"`}, nil, "iat is missing"},

		{"nonce of another", set{"nonce": `"n-2"`}, nil, "nonce is not"},
		{"nonce longer", set{"nonce": `"n-12"`}, nil, "nonce is not"},
		{"no nonce", set{"nonce": ""}, nil, "nonce is not"},
		{"nonce null", set{"nonce": `null`}, nil, "nonce is not"},
		{"nonce of another type", set{"nonce": `["n-1"]`}, nil, "nonce is not"},
		{"no nonce was sent", set{"nonce": ""}, func(r *idTokenRules) { r.Nonce = "" }, ""},
		{"a nonce that wasn't sent", nil, func(r *idTokenRules) { r.Nonce = "" }, ""},
	}
	now := time.Unix(1000, 0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rules := goodRules
			if tt.rules != nil {
				tt.rules(&rules)
			}
			err := checkIDToken(NewSecret(jws(goodHeader, claims(tt.claim), "sig")), rules, now)
			if (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("error %v, want %q", err, tt.why)
			}
			for _, value := range []string{"example", "other", "client2", "n-1"} {
				if err != nil && strings.Contains(err.Error(), value) {
					t.Errorf("the error quotes %s: %q", value, err)
				}
			}
		})
	}
}

// B17: what is read at all.
func TestCheckIDTokenForm(t *testing.T) {
	t.Parallel()
	good := jws(goodHeader, goodClaims, "sig")
	parts := strings.Split(good, ".")
	padding := func(n int) string { return strings.Repeat("A", n) }
	tests := []struct{ name, token, why string }{
		{"good", good, ""},
		{"alg we can't verify", jws(`{"alg":"XY999"}`, goodClaims, "sig"), ""},
		{"alg HS256", jws(`{"alg":"HS256","kid":"1"}`, goodClaims, "sig"), ""},
		{"none at all", "", "there is none"},
		{"one part", "abc", "no JWS"},
		{"two parts", parts[0] + "." + parts[1], "no JWS"},
		{"four parts", good + ".x", "no JWS"},
		{"five parts", good + ".x.y", "encrypted"},
		{"no signature", parts[0] + "." + parts[1] + ".", "no JWS"},
		{"no payload", parts[0] + ".." + parts[2], "no JWS"},
		{"JSON serialization", `{"payload":"e30","signatures":[]}`, "no JWS"},
		{"padded", parts[0] + "=." + parts[1] + "." + parts[2], "no JWS"},
		{"a line break", parts[0] + "." + parts[1] + "\n." + parts[2], "no JWS"},
		{"a space", parts[0] + ". " + parts[1] + "." + parts[2], "no JWS"},
		{"the other alphabet", parts[0] + "." + parts[1] + ".+/+/", "no JWS"},
		{"loose bits at the end", parts[0] + "." + parts[1] + ".AB", "no JWS"},
		{"alg none", jws(`{"alg":"none"}`, goodClaims, "sig"), "not signed"},
		{"alg None", jws(`{"alg":"NonE"}`, goodClaims, "sig"), "not signed"},
		{"alg none without signature", strings.TrimSuffix(jws(`{"alg":"none"}`, goodClaims, "x"), "eA"), "no JWS"},
		{"no alg", jws(`{"typ":"JWT"}`, goodClaims, "sig"), "no alg"},
		{"alg of another type", jws(`{"alg":1}`, goodClaims, "sig"), "no alg"},
		{"alg under another name", jws(`{"ALG":"RS256"}`, goodClaims, "sig"), "no alg"},
		{"alg twice", jws(`{"alg":"RS256","alg":"none"}`, goodClaims, "sig"), "header"},
		{"crit", jws(`{"alg":"RS256","crit":["b64"],"b64":false}`, goodClaims, "sig"), "crit"},
		{"header no object", jws(`[]`, goodClaims, "sig"), "header"},
		{"payload no object", jws(goodHeader, `"x"`, "sig"), "payload"},
		{"payload a token", jws(goodHeader, good, "sig"), "payload"},
		{"payload broken off", jws(goodHeader, goodClaims[:50], "sig"), "payload"},
		{"payload with more behind", jws(goodHeader, goodClaims+"{}", "sig"), "payload"},
		{"iss twice", jws(goodHeader, `{"iss":"https://evil.example",`+goodClaims[1:], "sig"), "payload"},
		{"aud twice", jws(goodHeader, strings.TrimSuffix(goodClaims, "}")+`,"aud":"x"}`, "sig"), "payload"},
		{"claims in other letters", jws(goodHeader, strings.ToUpper(goodClaims), "sig"), "iss is missing"},
		{"the largest", good + padding((maxIDToken-len(good))/4*4), ""},
		{"too long", good + padding(maxIDToken), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := checkIDToken(NewSecret(tt.token), goodRules, time.Unix(950, 0))
			if (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
				t.Errorf("error %v, want %q", err, tt.why)
			}
		})
	}
}

func FuzzCheckIDToken(f *testing.F) {
	f.Add("", goodHeader, goodClaims, "sig")
	f.Add("", goodHeader, `{"aud":["client","b"],"azp":"client","iss":"https://as.example","exp":1e3,"iat":0,"nonce":"n-1"}`, "s")
	f.Add("", `{"alg":"none"}`, goodClaims, "")
	f.Add("a.b.c.d.e", "", "", "")
	f.Add(jws(goodHeader, goodClaims, "x"), "", "", "")
	f.Fuzz(func(t *testing.T, token, header, payload, signature string) {
		if token == "" {
			token = jws(header, payload, signature)
		}
		err := checkIDToken(NewSecret(token), goodRules, time.Unix(950, 0))
		if err != nil {
			for _, r := range err.Error() {
				if r < ' ' || r > '~' {
					t.Errorf("error %q", err)
				}
			}
			return
		}
		// encoding/json as the second opinion.
		parts := strings.Split(token, ".")
		if len(parts) != 3 || len(token) > maxIDToken {
			t.Fatalf("accepted %q", token)
		}
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		var object map[string]any
		if err != nil || json.Unmarshal([]byte(strings.TrimPrefix(string(text), "\xef\xbb\xbf")), &object) != nil {
			t.Fatalf("accepted %q", text)
		}
		exp, _ := object["exp"].(float64)
		list, _ := object["aud"].([]any)
		named := object["aud"] == "client"
		for _, one := range list {
			named = named || one == "client"
		}
		if object["iss"] != goodRules.Issuer || object["nonce"] != goodRules.Nonce || exp <= 890 || math.IsNaN(exp) || !named {
			t.Errorf("accepted %s", text)
		}
		if azp := object["azp"]; azp != nil && azp != "client" || azp == nil && len(list) > 1 {
			t.Errorf("accepted %s", text)
		}
	})
}
