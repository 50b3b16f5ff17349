package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// readObject reads a whole JSON object whose members are looked at one by one:
// one of a wrong type harms no other. Unlike with [json.Unmarshal], names are
// case-sensitive, and a member that says two things is refused: who reads the
// first and who reads the last must not be told different things. Errors quote
// nothing.
func readObject(body []byte) (map[string]json.RawMessage, error) {
	notJSON := errors.New("it is not a JSON object")
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, notJSON
	}
	object := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return nil, notJSON
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, notJSON
		}
		if first, again := object[name]; again && !bytes.Equal(first, value) {
			return nil, errors.New("it has a member twice, with different values")
		}
		object[name] = value
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, notJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, notJSON
	}
	return object, nil
}
