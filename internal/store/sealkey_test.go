package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// patternKey has bytes that are easy to find in whatever form.
func patternKey(t testing.TB) Key {
	t.Helper()
	raw := make([]byte, KeySize)
	for i := range raw {
		raw[i] = byte(0xc0 + i)
	}
	k, err := ParseKey(base64.StdEncoding.EncodeToString(raw))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyHasNoPrintableForm(t *testing.T) {
	t.Parallel()
	k := patternKey(t)
	type config struct {
		Name string
		Key  Key
		Ptr  *Key
		priv Key // fmt can't call methods here
		keys Keys
		ring *ring
	}
	c := config{"n", k, &k, k, Keys{k, []Key{k}}, &ring{current: k}}
	d := new(Durable)
	d.ring.Store(newRing(c.keys))
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%o", "%c", "%032b", "%T"} {
		for _, v := range []any{k, &k, c, &c, []Key{k}, map[string]Key{"k": k}, Keys{k, []Key{k}}, newRing(c.keys), d} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintln(&out, k, k.String(), k.GoString(), c, fmt.Errorf("%w: %v", errKeyText, k))
	type document struct {
		K Key
		P *Key
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
		b, err := marshal(document{k, &k})
		if err != nil {
			t.Error(err)
		}
		out.Write(b)
	}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("m", "key", k, "ptr", &k, "config", c, "group", slog.GroupValue(slog.Any("k", k)))
	}

	raw := k.secret()[:]
	text := strings.ToLower(out.String())
	for name, form := range map[string]string{
		"raw":        string(raw[:4]),
		"hex":        hex.EncodeToString(raw[:4]),
		"spaced hex": "c0 c1 c2",
		"go hex":     "0xc0, 0xc1",
		"decimal":    "192 193 194",
		"go decimal": "192, 193, 194",
		"json bytes": "192,193,194",
		"base64":     base64.StdEncoding.EncodeToString(raw[:6]),
		"binary":     "11000000 11000001",
	} {
		if strings.Contains(text, strings.ToLower(form)) {
			t.Errorf("the key was printed as %s", name)
		}
	}
	if !strings.Contains(text, masked) || !strings.Contains(text, `"k":"[sealing key]"`) {
		t.Error("the mask is missing")
	}
	if strings.Contains(hex.EncodeToString(raw), k.ID()) {
		t.Error("the id is a part of the key")
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	// These bytes need the two characters in which the alphabets differ.
	raw := bytes.Repeat([]byte{0xfb, 0xef, 0xff, 0x3e}, 8)
	std, url := base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw)
	for _, test := range []struct {
		name, text string
		ok         bool
	}{
		{"standard", std, true},
		{"standard, not padded", strings.TrimRight(std, "="), true},
		{"url", url, true},
		{"url, not padded", strings.TrimRight(url, "="), true},
		{"with line end", std + "\n", true},
		{"with DOS line end", std + "\r\n", true},
		{"with white space", " \t\n" + std + "  \n\n", true},
		{"empty", "", false},
		{"white space", " \n", false},
		{"padding", "=", false},
		{"hex", hex.EncodeToString(raw), false},
		{"31 bytes", base64.StdEncoding.EncodeToString(raw[:31]), false},
		{"33 bytes", base64.StdEncoding.EncodeToString(append(raw[:32:32], 1)), false},
		{"raw", string(raw), false},
		{"cut", std[:42], false},
		{"line end inside", std[:20] + "\n" + std[20:], false},
		{"space inside", std[:20] + " " + std[20:], false},
		{"padding inside", std[:20] + "=" + std[20:], false},
		{"stray bits", std[:42] + "/", false},
		{"two keys", std + "\n" + std, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseKey(test.text)
			if !test.ok {
				if err == nil || !k.IsZero() {
					t.Fatal("it was accepted")
				}
				if !strings.Contains(err.Error(), "openssl rand -base64 32") {
					t.Errorf("error %q doesn't say how to make a key", err)
				}
				if s := strings.TrimSpace(test.text); len(s) > 5 && strings.Contains(err.Error(), s[:5]) {
					t.Errorf("error %q quotes the key", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(k.secret()[:], raw) || k.Text() != std {
				t.Error("another key came back")
			}
		})
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	a, b := NewKey(), NewKey()
	if a.IsZero() || a.Text() == b.Text() || a.ID() == b.ID() || *a.secret() == [KeySize]byte{} {
		t.Error("new keys aren't random")
	}
	back, err := ParseKey(a.Text())
	if err != nil || *back.secret() != *a.secret() || back.ID() != a.ID() {
		t.Errorf("ParseKey(Text()) is another key, %v", err)
	}
	if (Key{}).Text() != "" || !(Key{}).IsZero() {
		t.Error("the zero Key is a key")
	}
}

// FuzzParseKey checks that what is accepted is 32 bytes, and that no error
// quotes the input.
func FuzzParseKey(f *testing.F) {
	f.Add(strings.Repeat("A", 43) + "=")
	f.Add(strings.Repeat("-_", 21) + "8\n")
	f.Add("secret")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			if err != errKeyText {
				t.Errorf("error %v", err)
			}
			return
		}
		back, err := ParseKey(k.Text())
		if err != nil || *back.secret() != *k.secret() {
			t.Errorf("the key doesn't survive Text, %v", err)
		}
	})
}
