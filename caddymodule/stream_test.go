package caddymodule

import (
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

const gigabyte = 1 << 30

// A gigabyte passes in either direction while memory stays flat.
func TestGigabyte(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 3 GiB")
	}
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	for _, chunked := range []bool{false, true} {
		t.Run("up, chunked "+strconv.FormatBool(chunked), func(t *testing.T) {
			grown := heapGrowth(t)
			req, _ := http.NewRequest("POST", "http://"+r.address+"/file/v1/files", io.LimitReader(zeros{}, gigabyte))
			if !chunked {
				req.ContentLength = gigabyte
			}
			res, err := client.Do(req)
			if err != nil || res.StatusCode != 201 {
				t.Fatal(res, err)
			}
			res.Body.Close()
			grown()
		})
	}
	t.Run("down", func(t *testing.T) {
		grown := heapGrowth(t)
		res, err := client.Get("http://" + r.address + "/stream/" + strconv.Itoa(gigabyte))
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if n != gigabyte || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		grown()
	})
	r.requests(1, 0)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// heapGrowth watches the heap until the function that it returns is called:
// client, proxy and API together must not need more than a few buffers.
func heapGrowth(t *testing.T) func() {
	t.Helper()
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				most.Store(max(most.Load(), live()))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		if most.Load() > before+8<<20 {
			t.Errorf("the heap grew by %d KiB", (most.Load()-before)>>10)
		}
	}
}
