package sandbox

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func apiRequest(method, target string, body io.Reader, token string) *http.Request {
	r, err := http.NewRequest(method, "http://api.test"+target, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])
}

func TestAdmission(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for _, test := range []struct {
			name          string
			query         string
			authorization []string
			status        int
			challenge     string
		}{
			{"live", "", []string{"Bearer " + p.Access}, 200, ""},
			{"none", "", nil, 401, `Bearer realm="sandbox"`},
			{"empty", "", []string{"Bearer "}, 401, `Bearer realm="sandbox"`},
			{"Basic", "", []string{"Basic " + p.Access}, 401, `Bearer realm="sandbox"`},
			{"lower case", "", []string{"bearer " + p.Access}, 401, `Bearer realm="sandbox"`},
			{"unknown", "", []string{"Bearer x"}, 401, `Bearer error="invalid_token"`},
			{"refresh token", "", []string{"Bearer " + p.Refresh}, 401, `Bearer error="invalid_token"`},
			{"two spaces", "", []string{"Bearer  " + p.Access}, 401, `Bearer error="invalid_token"`},
			{"twice", "", []string{"Bearer " + p.Access, "Bearer " + p.Access}, 400, ""},
			{"joined", "", []string{"Bearer " + p.Access + ", Bearer " + p.Access}, 401, `Bearer error="invalid_token"`},
			{"query", "?access_token=x", []string{"Bearer " + p.Access}, 400, ""},
			{"other query", "?a=1&b=" + p.Access, []string{"Bearer " + p.Access}, 400, ""},
			{"refresh token in the query", "?a=" + p.Refresh, []string{"Bearer " + p.Access}, 400, ""},
		} {
			req := apiRequest("GET", "/echo"+test.query, nil, "")
			req.Header["Authorization"] = test.authorization
			a := send(r.caller, req)
			if a.status != test.status || a.header.Get("WWW-Authenticate") != test.challenge {
				t.Errorf("%s: %d, WWW-Authenticate %q", test.name, a.status, a.header.Get("WWW-Authenticate"))
			}
			switch test.status {
			case 401:
				a.refused(t, 401, "invalid_token")
			case 400:
				a.refused(t, 400, "invalid_request")
			}
			if e := r.last(); e.Status != test.status || (e.Error == "") != (test.status == 200) {
				t.Errorf("%s: event %+v", test.name, e)
			}
		}
	})
}

func TestAPIFaults(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for _, test := range []struct {
			fault           Fault
			status          int
			code, challenge string
		}{
			{RejectAccessToken, 401, "invalid_token", `Bearer error="invalid_token"`},
			{Reject403, 403, "forbidden", ""},
			{API500, 500, "server_error", ""},
		} {
			r.Play(test.fault, 1)
			if got := r.call("dead"); got != 401 {
				t.Errorf("%s: a dead token: %d, want 401", test.fault, got)
			}
			r.token(refresh("unknown")).refused(t, 400, "invalid_grant") // doesn't use it up either
			a := send(r.caller, apiRequest("GET", "/echo", nil, p.Access))
			a.refused(t, test.status, test.code)
			if got := a.header.Get("WWW-Authenticate"); got != test.challenge {
				t.Errorf("%s: WWW-Authenticate %q", test.fault, got)
			}
			if e := r.last(); e.Fault != test.fault || e.Presented != "f1.g1" || e.Error != test.code {
				t.Errorf("%s: event %+v", test.fault, e)
			}
			if got := r.call(p.Access); got != 200 {
				t.Errorf("%s: then %d, want 200", test.fault, got)
			}
		}
	})
}

func TestDocuments(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for query, want := range map[string]string{
			"":                    `"meta":{"count":3,"limit":20,"offset":0,"total":3}}`,
			"?limit=2":            `"meta":{"count":2,"limit":2,"offset":0,"total":3}}`,
			"?limit=2&offset=2":   `"meta":{"count":1,"limit":2,"offset":2,"total":3}}`,
			"?limit=0&offset=100": `{"items":[],"meta":{"count":0,"limit":0,"offset":100,"total":3}}`,
			"?limit=-1":           `"error":"invalid_request"`,
			"?offset=x":           `"error":"invalid_request"`,
		} {
			a := send(r.caller, apiRequest("GET", "/document/v1/documents"+query, nil, p.Access))
			if !strings.Contains(a.body, want) || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %d %s, want %s", query, a.status, a.body, want)
			}
		}
	})
}

func TestBodies(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		body := strings.Repeat("0123456789", 100_000)
		// A reader of unknown length is sent in chunks.
		a := send(r.caller, apiRequest("POST", "/file/v1/files", io.MultiReader(strings.NewReader(body)), p.Access))
		var upload struct {
			ID, Sha256 string
			Bytes      int
		}
		if err := json.Unmarshal([]byte(a.body), &upload); err != nil || a.status != 201 ||
			len(upload.ID) != 36 || upload.Bytes != 1_000_000 || upload.Sha256 != sum(body) {
			t.Errorf("upload: %d %s", a.status, a.body)
		}

		req := apiRequest("PATCH", "/echo/a%2Fb//c/../d?x=%20&y", strings.NewReader("body"), p.Access)
		req.Host = "other.test"
		req.Header["X-Many"] = []string{"1", "2"}
		a = send(r.caller, req)
		var echo struct {
			Method, Path, Query, Host, Proto, Sha256 string
			Headers                                  http.Header
			Bytes                                    int
			ContentLength                            int `json:"content_length"`
		}
		if err := json.Unmarshal([]byte(a.body), &echo); err != nil {
			t.Fatal(err)
		}
		if echo.Method != "PATCH" || echo.Path != "/echo/a%2Fb//c/../d" || echo.Query != "x=%20&y" || echo.Host != "other.test" ||
			echo.Proto != "HTTP/1.1" || echo.Bytes != 4 || echo.ContentLength != 4 || echo.Sha256 != sum("body") ||
			len(echo.Headers["X-Many"]) != 2 || echo.Headers["Authorization"] != nil || strings.Contains(a.body, p.Access) {
			t.Errorf("echo: %s", a.body)
		}
	})
}

// TestBrokenUpload: half a body is no upload.
func TestBrokenUpload(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		req := apiRequest("POST", "/file/v1/files", io.MultiReader(strings.NewReader("half"), badReader{}), p.Access)
		if a := send(r.caller, req); a.err == nil {
			t.Errorf("answered %d", a.status)
		}
		time.Sleep(time.Second)
		if e := r.last(); e.Status != 0 || e.Replied {
			t.Errorf("event %+v", e)
		}
	})
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestStreams(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for _, size := range []string{"0", "1", "100000"} {
			a := send(r.caller, apiRequest("GET", "/stream/"+size, nil, p.Access))
			if a.status != 200 || a.err != nil || len(a.body) != map[string]int{"0": 0, "1": 1, "100000": 100000}[size] {
				t.Errorf("stream of %s: %d, %d bytes, %v", size, a.status, len(a.body), a.err)
			}
		}
		send(r.caller, apiRequest("GET", "/stream/x", nil, p.Access)).refused(t, 400, "invalid_request")

		start := time.Now()
		resp, err := r.caller.Do(apiRequest("GET", "/events", nil, p.Access))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type: %q", got)
		}
		lines := bufio.NewScanner(resp.Body)
		var at []time.Duration
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				at = append(at, time.Since(start))
			}
		}
		if len(at) != 3 || at[0] != 0 || at[1] != 10*time.Millisecond || at[2] != 20*time.Millisecond {
			t.Errorf("events came after %v", at)
		}
	})
}

// TestStreamAbandoned: an endless stream ends with its reader.
func TestStreamAbandoned(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		resp, err := r.caller.Do(apiRequest("GET", "/stream/9223372036854775807", nil, p.Access))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		time.Sleep(time.Second)
		if e := r.last(); e.Replied {
			t.Errorf("event %+v", e)
		}
	})
}

func TestTrailers(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		req := apiRequest("POST", "/trailers", io.MultiReader(strings.NewReader("body")), p.Access)
		req.Trailer = http.Header{"X-Check": {"42"}}
		a := send(r.caller, req)
		if a.body != `{"trailers":{"X-Check":"42"}}` {
			t.Errorf("body %s", a.body)
		}
		if a.trailer.Get("X-Sandbox-Bytes") != "4" || a.trailer.Get("X-Sandbox-Sha256") != sum("body") {
			t.Errorf("trailers %v", a.trailer)
		}
	})
}

func TestStatusAndUnknown(t *testing.T) {
	run(t, Config{}, func(t *testing.T, r *rig) {
		p := r.token(login).must(t)
		for _, test := range []struct {
			method, target string
			status         int
		}{
			{"GET", "/status/200", 200},
			{"GET", "/status/204", 204},
			{"GET", "/status/302", 302},
			{"GET", "/status/304", 304},
			{"POST", "/status/418", 418},
			{"GET", "/status/599", 599},
			{"GET", "/status/100", 400},
			{"GET", "/status/600", 400},
			{"GET", "/status/", 400},
			{"GET", "/", 404},
			{"GET", "/status", 404},
			{"GET", "/status/2/200", 404},
			{"GET", "/file/v1/files", 404},
			{"POST", "/document/v1/documents", 404},
			{"GET", "//events", 404},
			{"HEAD", "/document/v1/documents", 200},
		} {
			a := send(r.caller, apiRequest(test.method, test.target, nil, p.Access))
			if a.status != test.status || a.err != nil {
				t.Errorf("%s %s: %d %v, want %d", test.method, test.target, a.status, a.err, test.status)
			}
			if test.status == 404 {
				a.refused(t, 404, "not_found")
			}
		}
	})
}
