package oauth

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestTotalDeadline(t *testing.T) {
	t.Parallel()
	dribble := func(first, each string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, first)
			for err == nil {
				time.Sleep(10 * time.Millisecond)
				_, err = io.WriteString(c, each)
			}
		}
	}
	head := "HTTP/1.1 200 OK\r\n" + jsonHeader + "Content-Length: 60000\r\n\r\n"
	tests := []struct {
		name   string
		answer func(net.Conn)
		want   Outcome
	}{
		{"no answer", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, Lost},
		{"slow head", dribble("HTTP/1.1 200 OK\r\nX: ", "x"), Lost},
		{"interim answers without end", dribble("", "HTTP/1.1 103 Early Hints\r\n\r\n"), Lost},
		{"slow body", dribble(head+"{", " "), Lost},
		{"slow body behind the refresh token", dribble(head+good[:len(good)-1], " "), Unusable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, nil, tt.answer)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			a := w.client(AuthBasic).refresh(ctx, NewSecret("RT"), "")
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			if a.Outcome != tt.want {
				t.Errorf("%v (%s), want %v", a.Outcome, a.Detail, tt.want)
			}
			if n := len(w.seen()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Not parallel: it measures what the whole process allocates.
func TestHugeAnswers(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, good+strings.Repeat(" ", 8<<20))
	_ = z.Close()
	var small bytes.Buffer
	z = gzip.NewWriter(&small)
	_, _ = io.WriteString(z, good)
	_ = z.Close()
	gz := jsonHeader + "Content-Encoding: gzip\r\n"
	filler := bytes.Repeat([]byte(" "), 64<<10)
	tests := []struct {
		name   string
		answer func(net.Conn)
		want   Outcome
	}{
		{"1 GiB", func(c net.Conn) {
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n", jsonHeader, 1<<30)
			for sent := 0; err == nil && sent < 1<<30; sent += len(filler) {
				_, err = c.Write(filler)
			}
		}, Lost},
		{"1 GiB behind the refresh token", func(c net.Conn) {
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", jsonHeader, 1<<30, good)
			for sent := 0; err == nil && sent < 1<<30; sent += len(filler) {
				_, err = c.Write(filler)
			}
		}, Unusable},
		{"gzip bomb", send(200, gz, bomb.String()), Lost},
		{"gzip that nobody asked for", send(200, gz, small.String()), Lost},
		{"deep nesting", send(200, jsonHeader, `{"refresh_token":"RT","a":`+strings.Repeat("[", 60000)), Unusable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t, nil, tt.answer)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			a := w.refresh(t, w.client(AuthBasic))
			took := time.Since(begin)
			runtime.ReadMemStats(&after)
			if a.Outcome != tt.want {
				t.Errorf("%v (%s), want %v", a.Outcome, a.Detail, tt.want)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			if took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
