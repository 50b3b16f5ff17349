package caddymodule

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Scripts read these: a member that is renamed or gone breaks them, and a new
// one has to be in the command's help, too.
const (
	statusGolden = `{"store":"text","store_problem":"text","store_mended":["text"],"portal":"text",` +
		`"accounts":[{"account":"text","user":"text","state":"text","users":7,"detail":"text","grant":"text","generation":7,` +
		`"obtained":"2026-03-01T12:00:00Z","expires":"2026-03-01T12:00:00Z","has_refresh_token":true,"refresh_expires":"2026-03-01T12:00:00Z",` +
		`"refreshed":"2026-03-01T12:00:00Z","signed_in":"2026-03-01T12:00:00Z","retry_at":"2026-03-01T12:00:00Z","unsaved":true,` +
		`"redirect_uri":"text","terminal":true}],"total":7,"next":"text"}`
	emptyStatusGolden = `{"store":"","accounts":[{"account":"","state":"","grant":"","generation":0,"has_refresh_token":false}]}`
	checkGolden       = `{"findings":[{"level":"text","account":"text","check":"text","what":"text","fix":"text"}],"failed":7,"warned":7}`
	emptyCheckGolden  = `{"findings":[{"level":"","check":"","what":""}],"failed":0,"warned":0}`
)

func TestJSONShape(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		full, empty   any
		golden, least string
	}{
		{"status", new(statusJSON), &statusJSON{Accounts: make([]accountStatus, 1)}, statusGolden, emptyStatusGolden},
		{"check", new(checkJSON), &checkJSON{Findings: make([]finding, 1)}, checkGolden, emptyCheckGolden},
	} {
		fill(t, reflect.ValueOf(tt.full).Elem())
		for want, v := range map[string]any{tt.golden: tt.full, tt.least: tt.empty} {
			got, err := json.Marshal(v)
			if err != nil || string(got) != want {
				t.Errorf("%s: %v\nit is\n%s\nwant\n%s", tt.name, err, got, want)
			}
		}
	}
}

// fill gives every field a value that isn't left out.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(statusNow))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	default:
		t.Fatalf("a field of kind %s: fill has to learn it", v.Kind())
	}
}

// Every member and every state is in the help of its command.
func TestJSONDocumented(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		help string
		of   []any
	}{
		{statusCommand().Long, []any{statusJSON{}, accountStatus{}}},
		{checkCommand().Long, []any{checkJSON{}, finding{}}},
	} {
		words := strings.FieldsFunc(tt.help, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
		said := map[string]bool{}
		for _, w := range words {
			said[w] = true
		}
		for _, v := range tt.of {
			for i := range reflect.TypeOf(v).NumField() {
				name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
				if !said[name] {
					t.Errorf("%T: the help is silent on %s", v, name)
				}
			}
		}
	}
	for _, state := range []oauth.State{
		oauth.StateReady, oauth.StateRefreshing, oauth.StateDegraded, oauth.StateAway, oauth.StateRefused, oauth.StateLoginRequired, oauth.StateUnknown,
	} {
		if !strings.Contains(statusCommand().Long, "\n    "+string(state)+" ") {
			t.Errorf("the help is silent on the state %s", state)
		}
		if !serves(state) && stateNotes[state] == "" {
			t.Errorf("nothing is said of an account that is %s", state)
		}
	}
}
