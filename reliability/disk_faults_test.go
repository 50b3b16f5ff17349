//go:build linux

package reliability

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var diskFull = flag.Duration("diskfull", 12*time.Second, "how long the disk is full in TestG07DiskFullForAnHour")

// TestF09FullDisk lets every write to the store fail, as full disks, quotas and
// read-only ones do: callers notice nothing, the status says it, and it recovers
// by itself.
func TestF09FullDisk(t *testing.T) {
	needStrace(t)
	for _, errno := range []string{"ENOSPC", "EDQUOT", "EROFS"} {
		t.Run(errno, func(t *testing.T) {
			t.Parallel()
			p := newDiskProxy(t, 3*time.Second, "", "")
			p.start()
			if err := p.login("erp"); err != nil {
				t.Fatal(err)
			}
			end := p.traffic()
			before := p.refreshes()
			i := p.inject(writes, errno, "1+", p.database, p.spill)
			p.eventually(15*time.Second, "two refreshes while the disk is full", func() bool { return p.refreshes() >= before+2 })
			if st := p.status(); !st.degraded() {
				t.Errorf("the status doesn't say that the disk can't be written: %+v", st)
			}
			if i.failed() == 0 {
				t.Error("no write failed")
			}
			i.end()
			took := p.eventually(10*time.Second, "recovered", func() bool { return !p.status().degraded() })
			calls, failures := end()
			t.Logf("F09: severity 0; every write refused during two refreshes: %d calls, %d failed; recovered after %v", calls, len(failures), took.Round(time.Millisecond))
			if len(failures) > 0 {
				t.Errorf("%d of %d calls failed: %v", len(failures), calls, failures[0])
			}
			p.restarted() // what was in memory only is on the disk now
		})
	}
	t.Run("killed meanwhile", func(t *testing.T) {
		t.Parallel()
		// The spill is on another disk; only the database's is full.
		p := newDiskProxy(t, time.Minute, filepath.Join(smallDisk(t, 1<<20), "data", "tokens.db"), filepath.Join(t.TempDir(), "spill"))
		p.start()
		if err := p.login("erp"); err != nil {
			t.Fatal(err)
		}
		ballast := fill(t, filepath.Dir(filepath.Dir(p.database)))
		p.inject(writes, "ENOSPC", "1+", p.database) // also where the file has its room already
		for range 3 {
			if err := p.refresh(); err != nil {
				t.Error(err)
			}
		}
		if st := p.status(); !st.degraded() {
			t.Errorf("the status doesn't say that the disk can't be written: %+v", st)
		}
		p.stop(syscall.SIGKILL)
		p.start() // the disk is full now, too
		if err := errors.Join(p.call(), p.refresh()); err != nil {
			t.Error(err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		p.eventually(10*time.Second, "recovered", func() bool { return !p.status().degraded() })
		p.refreshes()
	})
}

// TestG07DiskFullForAnHour fills the disk of database and spill for as long as
// six tokens live, an hour of 10 min each with -diskfull 1h.
func TestG07DiskFullForAnHour(t *testing.T) {
	needStrace(t)
	t.Parallel()
	const tokens = 6
	disk := smallDisk(t, 1<<20)
	p := newDiskProxy(t, *diskFull/tokens, filepath.Join(disk, "data", "tokens.db"), "")
	p.start()
	if err := p.login("erp"); err != nil {
		t.Fatal(err)
	}
	end := p.traffic()
	ballast := fill(t, disk)
	// What a file has already can be overwritten on this file system; on one that
	// copies on write it can't.
	i := p.inject(writes, "ENOSPC", "1+", p.database, p.spill)
	before := p.refreshes()
	p.eventually(*diskFull+*diskFull/2+10*time.Second, "six refreshes while the disk is full", func() bool { return p.refreshes() >= before+tokens })
	if st := p.status(); !st.degraded() {
		t.Errorf("the status doesn't say that the disk can't be written: %+v", st)
	}
	failed := i.failed()
	i.end()
	if err := os.Remove(ballast); err != nil {
		t.Error(err)
	}
	took := p.eventually(10*time.Second, "recovered", func() bool { return !p.status().degraded() })
	refreshed := p.refreshes() - before
	calls, failures := end()
	t.Logf("G7: disk full for %v: %d writes refused, %d refreshes, %d calls, %d failed; recovered %v after there was room",
		*diskFull, failed, refreshed, calls, len(failures), took.Round(time.Millisecond))
	if len(failures) > 0 || failed == 0 {
		t.Errorf("%d of %d calls failed: %v", len(failures), calls, failures)
	}
	p.restarted()
}

// restarted kills the process between two refreshes and makes sure that the next
// one goes on with the newest refresh token.
func (p *diskProxy) restarted() {
	p.Helper()
	p.eventually(p.lifetime+10*time.Second, "no refresh under way", func() bool { return !p.refreshing() })
	p.stop(syscall.SIGKILL)
	p.start()
	if err := errors.Join(p.call(), p.refresh()); err != nil {
		p.Error(err)
	}
	p.refreshes()
}

// TestF10EIO lets syncs fail: that of a commit's data, that of its meta page, and
// all of them, once with a kill behind it. What was written before the sync may
// be there or not; an old refresh token must never be used after a new one was
// known.
func TestF10EIO(t *testing.T) {
	needStrace(t)
	for _, tt := range []struct {
		name, when string
		spill      bool // the spill's, too
		kill       bool // before it has recovered
	}{
		{"data", "1", false, false},
		{"meta", "2+2", false, false}, // strace counts by thread, and Go changes threads
		{"data and spill", "1", true, false},
		{"all of the database, killed", "1+", false, true},
		// With a kill, too, the newest token would be gone with the memory.
		{"all, for a while", "1+", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newDiskProxy(t, time.Minute, "", "")
			p.start()
			if err := p.login("erp"); err != nil {
				t.Fatal(err)
			}
			paths := []string{p.database}
			if tt.spill {
				paths = append(paths, p.spill)
			}
			i := p.inject("fdatasync,fsync", "EIO", tt.when, paths...)
			end := p.traffic()
			for n := 0; n < 3 || n < 30 && tt.name == "meta"; n++ {
				if err := p.refresh(); err != nil {
					t.Error(err)
				}
				if _, meta := i.commits(); n >= 2 && meta > 0 {
					break
				}
			}
			if data, meta := i.commits(); tt.name == "data" && data == 0 || tt.name == "meta" && meta == 0 || i.failed() == 0 {
				t.Errorf("%d syncs of data failed, %d of meta pages, %d in all", data, meta, i.failed())
			}
			if tt.kill {
				_, failures := end()
				if len(failures) > 0 {
					t.Error(failures)
				}
				p.stop(syscall.SIGKILL)
				i.end()
				p.start()
			} else {
				i.end()
				took := p.eventually(10*time.Second, "recovered", func() bool { return !p.status().degraded() })
				calls, failures := end()
				t.Logf("F10: severity 0; %d syncs failed, %d calls, %d failed; recovered after %v", i.failed(), calls, len(failures), took.Round(time.Millisecond))
				if len(failures) > 0 {
					t.Error(failures)
				}
			}
			if err := errors.Join(p.call(), p.refresh()); err != nil {
				t.Error(err)
			}
			p.restarted()
		})
	}
}
