//go:build linux

package reliability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A soakSample is the size of the process at one time.
type soakSample struct {
	at         time.Time
	pid        int
	goroutines int
	files      int   // open
	rss        int64 // bytes, after a garbage collection
	disk       int64 // bytes of all files of store and configuration
}

func (s soakSample) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %.1f MiB, %.0f KiB on disk", s.goroutines, s.files,
		float64(s.rss)/(1<<20), float64(s.disk)/(1<<10))
}

// sample runs until ctx ends; while the process is down there is no sample.
func (p *soakProxy) sample(ctx context.Context, every time.Duration) (samples []soakSample) {
	for ctx.Err() == nil {
		if s, err := p.measure(); err == nil {
			samples = append(samples, s)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
	return samples
}

func (p *soakProxy) measure() (s soakSample, err error) {
	s.at, s.pid = time.Now(), int(p.pid.Load())
	if _, err := p.get("/debug/pprof/heap?gc=1&debug=1"); err != nil { // collects first
		return s, err
	}
	text, err := p.get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return s, err
	}
	first, _, _ := strings.Cut(text, "\n")
	if s.goroutines, err = strconv.Atoi(strings.TrimPrefix(first, "goroutine profile: total ")); err != nil {
		return s, err
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	if err != nil {
		return s, err
	}
	s.files = len(open)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(status)) {
		if field, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(field)[0], 10, 64)
			if err != nil {
				return s, err
			}
			s.rss = kib << 10
		}
	}
	for _, dir := range []string{"data", "config"} {
		err := filepath.WalkDir(filepath.Join(p.dir, dir), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // it may have just gone
			}
			if info, err := d.Info(); err == nil {
				s.disk += info.Size()
			}
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	if s.pid != int(p.pid.Load()) {
		return s, errors.New("it was restarted meanwhile")
	}
	return s, nil
}

func (p *soakProxy) get(path string) (string, error) {
	res, err := p.admin.Get("http://127.0.0.1" + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return string(text), err
}

// flat compares the second quarter of the time with the last one, in which it
// is the same process: restarts are in the first quarter.
func flat(t *testing.T, samples []soakSample, begin time.Time, d time.Duration) (first, last soakSample) {
	t.Helper()
	var second, fourth []soakSample
	for _, s := range samples {
		switch quarter := s.at.Sub(begin) * 4 / d; {
		case quarter == 1:
			second = append(second, s)
		case quarter >= 3:
			fourth = append(fourth, s)
		}
	}
	if len(second) < 5 || len(fourth) < 5 || len(samples) < 60 {
		t.Errorf("%d samples, %d and %d in the quarters that count; want 60", len(samples), len(second), len(fourth))
		return first, last
	}
	// The process that ended the first quarter may have begun in the second one.
	for second[0].pid != fourth[0].pid && len(second) > 5 {
		second = second[1:]
	}
	first, last = median(second), median(fourth)
	if first.pid != last.pid {
		t.Errorf("another process: %d, then %d", first.pid, last.pid)
	}
	for _, grew := range []struct {
		what        string
		from, to    int64
		most, least int64
	}{
		{"goroutines", int64(first.goroutines), int64(last.goroutines), 10 + soakCallers, 10 + soakCallers},
		{"open files", int64(first.files), int64(last.files), 10 + soakCallers, 10 + soakCallers},
		{"bytes of memory", first.rss, last.rss, first.rss/10 + 8<<20, first.rss},
		{"bytes on disk", first.disk, last.disk, 64 << 10, first.disk},
	} {
		if grew.to > grew.from+grew.most || grew.to < grew.from-grew.least {
			t.Errorf("not flat: %d %s in the second quarter, %d in the last", grew.from, grew.what, grew.to)
		}
	}
	return first, last
}

// median is that of each figure.
func median(samples []soakSample) soakSample {
	of := func(figure func(soakSample) int64) int64 {
		var all []int64
		for _, s := range samples {
			all = append(all, figure(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return soakSample{
		at: samples[0].at, pid: samples[len(samples)-1].pid,
		goroutines: int(of(func(s soakSample) int64 { return int64(s.goroutines) })),
		files:      int(of(func(s soakSample) int64 { return int64(s.files) })),
		rss:        of(func(s soakSample) int64 { return s.rss }),
		disk:       of(func(s soakSample) int64 { return s.disk }),
	}
}

// logLines calls f for each line of the proxy's log; at is zero where the line
// tells no time.
func (p *soakProxy) logLines(f func(at time.Time, line []byte)) {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		p.Error(err)
	}
	for line := range bytes.Lines(text) {
		var entry struct {
			TS float64 `json:"ts"`
		}
		at := time.Time{}
		if json.Unmarshal(line, &entry) == nil {
			at = time.UnixMicro(int64(entry.TS * 1e6))
		}
		f(at, bytes.TrimSpace(line))
	}
}

// logAround is what the proxy said near a time, without what is said always.
func (p *soakProxy) logAround(from, to time.Time) string {
	var b strings.Builder
	n := 0
	p.logLines(func(at time.Time, line []byte) {
		if at.Before(from.Add(-3*time.Second)) || at.After(to.Add(time.Second)) || usual(line) {
			return
		}
		if n++; n <= 40 {
			fmt.Fprintf(&b, "\n    %s", line)
		}
	})
	return b.String()
}

// usual is what the proxy says when all is well.
func usual(line []byte) bool {
	return bytes.Contains(line, []byte(`"level":"debug"`)) || bytes.Contains(line, []byte(`"got a token"`))
}

func (p *soakProxy) logTail(n int) string {
	var lines []string
	p.logLines(func(_ time.Time, line []byte) {
		if !usual(line) {
			lines = append(lines, string(line))
		}
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// panics looks for what no log may have.
func (p *soakProxy) panics() {
	p.logLines(func(_ time.Time, line []byte) {
		for _, word := range []string{"panic", "fatal error", "DATA RACE"} {
			if bytes.Contains(line, []byte(word)) {
				p.Errorf("the log says: %s", line)
				return
			}
		}
	})
}
