package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"
)

// readToken reads a token request, which some providers take as JSON too.
func (s *Sandbox) readToken(w http.ResponseWriter, r *http.Request) (map[string]string, *refusal) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !s.provider.json || err != nil || media != "application/json" {
		return readForm(w, r)
	}
	body, refused := readAll(w, r)
	if refused != nil {
		return nil, refused
	}
	form, err := parseJSONForm(body)
	if err != nil {
		return nil, invalidRequest("%v", err)
	}
	if r.URL.RawQuery != "" {
		return form, invalidRequest("parameters in the URI")
	}
	return form, nil
}

// parseJSONForm reads one JSON object of strings. A name may be there once,
// and an empty value is as if omitted, as in a form.
func parseJSONForm(body []byte) (map[string]string, error) {
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("the body is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, fmt.Errorf("the body is not a JSON object")
	}
	form, seen := map[string]string{}, map[string]bool{}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("the body is not JSON")
		}
		value, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("the body is not JSON")
		}
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("a member is not a string")
		}
		key := name.(string) // the decoder allows nothing else
		if seen[key] {
			return nil, fmt.Errorf("a member is repeated")
		}
		if seen[key] = true; text != "" {
			form[key] = text
		}
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("the body is not JSON")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object")
	}
	return form, nil
}
