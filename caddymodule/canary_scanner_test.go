package caddymodule

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// A canaryScanner looks for secrets in bytes, in every spelling in which a
// program writes text down.
type canaryScanner struct {
	kinds   map[string]string               // a secret: what it is
	begins  map[[canaryPrefix]byte][]needle // by their first bytes
	present [1 << 16]bool                   // the first two bytes of a needle
}

// A needle is one spelling of one secret.
type needle struct {
	secret, spelling string
	text             []byte
}

const (
	canaryPrefix = 8 // no needle is shorter
	canaryShort  = 9 // a shorter secret could be found by chance
)

func newCanaryScanner() *canaryScanner {
	return &canaryScanner{kinds: map[string]string{}, begins: map[[canaryPrefix]byte][]needle{}}
}

// plant makes the scanner look for a secret. The same one may be planted again.
func (s *canaryScanner) plant(t testing.TB, kind, secret string) {
	t.Helper()
	if s.kinds[secret] != "" {
		return
	}
	if len(secret) < canaryShort {
		t.Errorf("the %s %q is too short to look for", kind, secret)
		return
	}
	s.kinds[secret] = kind
	for spelling, text := range spellings(secret) {
		if len(text) < canaryPrefix {
			continue
		}
		begin := [canaryPrefix]byte([]byte(text))
		s.begins[begin] = append(s.begins[begin], needle{secret, spelling, []byte(text)})
		s.present[binary.BigEndian.Uint16([]byte(text))] = true
	}
}

// spellings are all forms of a secret, by their names.
func spellings(secret string) map[string]string {
	all := map[string]string{
		"as it is": secret, "hex": hex.EncodeToString([]byte(secret)),
		"upper hex":   strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"bytes of %v": strings.Trim(fmt.Sprint([]byte(secret)), "[]"), "bytes of %#v": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", []byte(secret)), "[]byte{"), "}"),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret), "twice escaped": url.QueryEscape(url.QueryEscape(secret)),
		"every byte escaped": percent(secret), "query, lower hex": lowerEscapes(url.QueryEscape(secret)), "path, lower hex": lowerEscapes(url.PathEscape(secret)),
		"quoted": inner(strconv.Quote(secret)), "quoted ASCII": inner(strconv.QuoteToASCII(secret)),
		"JSON": inner(jsonText(secret, false)), "JSON for HTML": inner(jsonText(secret, true)),
		"JSON in JSON": inner(jsonText(inner(jsonText(secret, false)), false)), "HTML": html.EscapeString(secret),
		"UTF-16, little end": utf16Text(secret, binary.LittleEndian), "UTF-16, big end": utf16Text(secret, binary.BigEndian),
	}
	if len(secret) >= 24 { // what is cut off is a leak as well
		all["first half"], all["second half"] = secret[:len(secret)/2], secret[len(secret)/2:]
	}
	for shift := range 3 {
		std, web := base64Core(base64.StdEncoding, secret, shift), base64Core(base64.URLEncoding, secret, shift)
		all[fmt.Sprint("base64, shifted by ", shift)], all[fmt.Sprint("base64url, shifted by ", shift)] = std, web
		all[fmt.Sprint("base64, escaped, shifted by ", shift)] = url.QueryEscape(std)
	}
	return all
}

// base64Core is what a secret adds to a base64 text when shift bytes stand
// before it, whatever they are and whatever follows: the characters that
// depend on the secret alone.
func base64Core(e *base64.Encoding, secret string, shift int) string {
	text := e.WithPadding(base64.NoPadding).EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
	if (shift+len(secret))%3 != 0 {
		text = text[:len(text)-1]
	}
	return text[[3]int{0, 2, 3}[shift]:]
}

func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// lowerEscapes has the hexadecimal digits of %XX in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

func jsonText(s string, forHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(forHTML)
	_ = e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}

func utf16Text(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// hits tells which secrets are in data, also in gzip members in it, except
// those of a kind that may be there. It quotes none.
func (s *canaryScanner) hits(data []byte, may ...string) []string {
	found := map[string]bool{}
	s.search(data, "", may, found, 3)
	var list []string
	for hit := range found {
		list = append(list, hit)
	}
	slices.Sort(list)
	return list
}

func (s *canaryScanner) search(data []byte, within string, may []string, found map[string]bool, depth int) {
	for i := 0; i+canaryPrefix <= len(data); i++ {
		if data[i] == 0x1f && depth > 0 && bytes.HasPrefix(data[i:], []byte{0x1f, 0x8b, 8}) {
			s.search(unzipped(data[i:]), within+" in gzip", may, found, depth-1)
		}
		if !s.present[int(data[i])<<8|int(data[i+1])] {
			continue
		}
		for _, n := range s.begins[[canaryPrefix]byte(data[i:i+canaryPrefix])] {
			if kind := s.kinds[n.secret]; bytes.HasPrefix(data[i:], n.text) && !slices.Contains(may, kind) {
				found[kind+", "+n.spelling+within] = true
			}
		}
	}
}

// unzipped is what can be read of a gzip member, 16 MiB at most.
func unzipped(data []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	r.Multistream(false)
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(r, 16<<20)) // a member that is cut off has a beginning
	return out.Bytes()
}

// A place is what left the process or reached the disk, and the kinds of
// secrets that may be there: a person's own browser has the person's cookie.
type place struct {
	data []byte
	may  []string
}

// check looks for all secrets in all places, and makes sure that it would have
// seen one in each.
func (s *canaryScanner) check(t testing.TB, places map[string]place) (size int) {
	t.Helper()
	marker := "marker-7Jq2Vd9x-of-the-scanner" // never planted in a place but here
	s.plant(t, "marker", marker)
	for name, p := range places {
		size += len(p.data)
		for _, hit := range s.hits(p.data, p.may...) {
			t.Errorf("%s: a secret is there: %s", name, hit)
		}
	}
	for name, p := range places {
		cut := len(p.data) / 2
		leaky := slices.Concat(p.data[max(0, cut-512):cut], []byte(marker), p.data[cut:min(len(p.data), cut+512)])
		if len(s.hits(leaky, p.may...)) == 0 {
			t.Errorf("%s: a secret in it isn't seen", name)
		}
	}
	return size
}

// Each spelling of a secret is found wherever it stands, and nothing is found
// where none stands: what the canary tests rely on.
func TestCanaryScannerSeesLeaks(t *testing.T) {
	t.Parallel()
	s := newCanaryScanner()
	const secret = "s3cr3t/+\"<ü&%_Wq8ZpL5nRt~of-all"
	s.plant(t, "token", secret)
	zip := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	b64 := func(e *base64.Encoding, before, after string) string {
		return e.EncodeToString([]byte(before + secret + after))
	}
	asJSON, _ := json.Marshal(map[string]string{"msg": secret})
	var plainJSON bytes.Buffer
	e := json.NewEncoder(&plainJSON)
	e.SetEscapeHTML(false)
	_ = e.Encode(secret)
	twice, _ := json.Marshal(string(asJSON))
	var wide []byte
	for _, u := range utf16.Encode([]rune(secret)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	leaks := map[string]string{
		"as it is": secret, "in a line": "x=" + secret + " y", "%q": fmt.Sprintf("%q", secret), "%+q": fmt.Sprintf("%+q", secret),
		"%x": fmt.Sprintf("%x", secret), "%X": fmt.Sprintf("%X", secret), "%v of bytes": fmt.Sprintf("%v", []byte(secret)),
		"%#v of bytes": fmt.Sprintf("%#v", []byte(secret)), "JSON": string(asJSON), "JSON, not for HTML": plainJSON.String(), "JSON in JSON": string(twice),
		"query": "https://x/?a=" + url.QueryEscape(secret) + "&b", "path": "/x/" + url.PathEscape(secret) + "/y", "form": url.Values{"code": {secret}}.Encode(),
		"a URL in a query": "?next=" + url.QueryEscape("/?code="+url.QueryEscape(secret)), "HTML": "<b>" + html.EscapeString(secret) + "</b>",
		"UTF-16 LE": string(wide), "UTF-16 BE": "\x00" + string(wide), "gzip": "junk" + zip("a "+secret), "gzip in gzip": zip("a" + zip(secret)), "gzip, cut off": zip(strings.Repeat(secret, 99))[:60],
		"JSON in gzip": zip(string(asJSON)), "first half": secret[:len(secret)/2], "second half": secret[len(secret)/2:],
	}
	for _, before := range []string{"", "1", "12", "123", "user:"} {
		for _, after := range []string{"", "1", "12"} {
			for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw std": base64.RawStdEncoding, "url": base64.URLEncoding, "raw url": base64.RawURLEncoding} {
				leaks["base64 "+name+" "+before+" "+after] = b64(e, before, after)
			}
		}
	}
	noise := strings.Repeat("level=info msg=\"a line without any of it\" \x1f\x8b\x08 \x00\x01", 9)
	for name, leak := range leaks {
		for _, text := range []string{leak, noise + leak, leak + noise, noise + "?" + leak + "." + noise} {
			if len(s.hits([]byte(text))) == 0 {
				t.Errorf("%s: the leak isn't seen", name)
				break
			}
		}
		if hits := s.hits([]byte(noise+leak), "token"); len(hits) > 0 {
			t.Errorf("%s: found although it may be there: %s", name, hits)
		}
	}
	for _, text := range []string{"", noise, secret[:9], strings.ToUpper(secret[1:]), base64.StdEncoding.EncodeToString([]byte(noise))} {
		if hits := s.hits([]byte(text)); len(hits) > 0 {
			t.Errorf("%q: %s", text, hits)
		}
	}
	for _, hit := range s.hits([]byte(secret)) {
		if strings.Contains(hit, secret[:6]) {
			t.Error("a hit quotes the secret")
		}
	}
}
