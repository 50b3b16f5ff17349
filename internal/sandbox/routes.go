package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var documents = []map[string]any{
	{"id": "0f8fad5b-d9cb-469f-a165-70867728950e", "documentType": "Invoice", "direction": "Received", "documentNumber": "1001"},
	{"id": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "documentType": "Invoice", "direction": "Sent", "documentNumber": "1002"},
	{"id": "16fd2706-8baf-433b-82eb-8c7fada847da", "documentType": "Order", "direction": "Received", "documentNumber": "1003"},
}

func serveDocuments(x *exchange, r *http.Request) {
	limit, offset := 20, 0
	for name, field := range map[string]*int{"limit": &limit, "offset": &offset} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			apiError(x, http.StatusBadRequest, "invalid_request", name+" must be a number from 0")
			return
		}
		*field = n
	}
	rest := documents[min(offset, len(documents)):]
	items := rest[:min(limit, len(rest))]
	writeJSON(x, http.StatusOK, map[string]any{
		"items": items,
		"meta":  map[string]int{"count": len(items), "limit": limit, "offset": offset, "total": len(documents)},
	})
}

// readBody reads a body of any size without keeping it. A body that breaks off
// gets no answer: its sender has gone.
func readBody(r *http.Request) (size int64, sum string) {
	hash := sha256.New()
	size, err := io.Copy(hash, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return size, hex.EncodeToString(hash.Sum(nil))
}

func serveUpload(x *exchange, r *http.Request) {
	size, sum := readBody(r)
	writeJSON(x, http.StatusCreated, map[string]any{"id": newUUID(), "bytes": size, "sha256": sum})
}

func serveEcho(x *exchange, r *http.Request) {
	size, sum := readBody(r)
	header := r.Header.Clone()
	header.Del("Authorization")
	// As it was on the wire: r.URL is decoded.
	path, query, _ := strings.Cut(r.RequestURI, "?")
	writeJSON(x, http.StatusOK, map[string]any{
		"method":            r.Method,
		"path":              path,
		"query":             query,
		"host":              r.Host,
		"headers":           header,
		"bytes":             size,
		"sha256":            sum,
		"proto":             r.Proto,
		"content_length":    r.ContentLength, // -1: chunked
		"transfer_encoding": r.TransferEncoding,
		"token_user":        x.user, // whose token it was; empty: the client's own
	})
}

func serveStream(x *exchange, argument string) {
	size, err := strconv.ParseInt(argument, 10, 64)
	if err != nil || size < 0 {
		apiError(x, http.StatusBadRequest, "invalid_request", "the number of bytes must be a number from 0")
		return
	}
	x.Header().Set("Content-Type", "application/octet-stream")
	x.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(x)
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 2048)
	for size > 0 {
		n, err := x.Write(chunk[:min(size, int64(len(chunk)))])
		if err != nil || flusher.Flush() != nil {
			x.cut()
			return
		}
		size -= int64(n)
	}
}

func serveSSE(x *exchange, r *http.Request) {
	x.Header().Set("Content-Type", "text/event-stream")
	x.Header().Set("Cache-Control", "no-store")
	flusher := http.NewResponseController(x)
	for n := 1; n <= 3; n++ {
		if n > 1 {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-r.Context().Done():
				x.cut()
				return
			}
		}
		if _, err := fmt.Fprintf(x, "id: %d\ndata: {\"n\":%d}\n\n", n, n); err != nil || flusher.Flush() != nil {
			x.cut()
			return
		}
	}
}

// serveTrailers answers with two trailers; request trailers are known only
// once the body has been read.
func serveTrailers(x *exchange, r *http.Request) {
	size, sum := readBody(r)
	x.Header().Set("Trailer", "X-Sandbox-Bytes, X-Sandbox-Sha256")
	x.Header().Set("Content-Type", "application/json")
	x.WriteHeader(http.StatusOK)
	trailers := members{}
	for name, values := range r.Trailer {
		trailers = append(trailers, member{name, quote(strings.Join(values, ", "))})
	}
	_, _ = x.Write(members{{"trailers", string(trailers.encode())}}.encode())
	x.Header().Set("X-Sandbox-Bytes", strconv.FormatInt(size, 10))
	x.Header().Set("X-Sandbox-Sha256", sum)
}

func serveStatus(x *exchange, argument string) {
	code, err := strconv.Atoi(argument)
	if err != nil || code < 200 || code > 599 {
		apiError(x, http.StatusBadRequest, "invalid_request", "the status must be a number from 200 to 599")
		return
	}
	if code == http.StatusNoContent || code == http.StatusNotModified {
		x.WriteHeader(code) // these have no body
		return
	}
	writeJSON(x, code, map[string]any{"status": code})
}
