package store

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// F17: store on NFS or SMB · refuses with explanation. What statfs(2) tells
// decides; on a FUSE file system that is mounted here, where that is possible.
func TestF17StoreOnNetworkFS(t *testing.T) {
	t.Parallel()
	kinds := map[uint32]string{ // of linux/magic.h and of the file systems themselves
		0x6969: "NFS", 0x517b: "SMB", 0xff534d42: "CIFS", 0xfe534d42: "SMB 2", 0x01021997: "9P", 0x65735546: "FUSE", 0x00c36400: "Ceph",
		0x5346414f: "AFS", 0x6b414653: "AFS", 0x73757245: "Coda", 0x7461636f: "OCFS2", 0x01161970: "GFS2", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS",
		0x19830326: "BeeGFS", 0x20030528: "OrangeFS", 0xaad7aaea: "PanFS", 0x564c: "NCP",
		0x786f4256: "VirtualBox", 0xbacbacbc: "VMware", 0x7c7c6673: "Parallels",
	}
	refused := 0
	for kind, name := range kinds {
		err := refuseFS("/srv/tokens", kind)
		if err == nil || !containsAll(err.Error(), "/srv/tokens", name, "allow_network_fs", "local disk") {
			t.Errorf("%#x, %s: %v", kind, name, err)
			continue
		}
		refused++
	}
	if refused != len(networkFS) {
		t.Errorf("%d kinds are tested, %d are refused", refused, len(networkFS))
	}
	local := map[string]uint32{
		"ext4": 0xef53, "xfs": 0x58465342, "btrfs": 0x9123683e, "zfs": 0x2fc12fc1, "tmpfs": 0x01021994, "ramfs": 0x858458f6, "overlayfs": 0x794c7630,
		"f2fs": 0xf2f52010, "bcachefs": 0xca451a4e, "erofs": 0xe0f5e1e2, "squashfs": 0x73717368, "nilfs": 0x3434, "jfs": 0x3153464a,
		"ubifs": 0x24051905, "exfat": 0x2011bab0, "vfat": 0x4d44, "ecryptfs": 0xf15f,
	}
	for name, kind := range local {
		if err := refuseFS("/srv/tokens", kind); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	real := "no FUSE mount here"
	if dir := mountFUSE(t); dir != "" {
		real = "so is a mounted FUSE, for the database and for the spill"
		refusesFUSE(t, dir)
	}
	t.Logf("F17: severity 0; %d kinds of network file system refused with the way out, %d local ones taken; %s", refused, len(local), real)
}

// refusesFUSE opens stores with a file below a FUSE mount.
func refusesFUSE(t *testing.T, mount string) {
	t.Helper()
	local := t.TempDir()
	database := filepath.Join(local, "data", "tokens.db")
	for name, place := range map[string]Place{
		"the database there":           {Database: filepath.Join(mount, "tokens.db")},
		"in a directory that isn't":    {Database: filepath.Join(mount, "a", "b", "tokens.db")},
		"the spill there":              {Database: database, Spill: filepath.Join(mount, "tokens.db.spill")},
		"the database, spill is local": {Database: filepath.Join(mount, "tokens.db"), Spill: database + ".spill"},
	} {
		d, err := Open(place)
		if err == nil {
			_ = d.Close()
		}
		if err == nil || !containsAll(err.Error(), mount, "FUSE", "allow_network_fs") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Dir(database)); !os.IsNotExist(err) {
			t.Errorf("%s: a refused opening made files: %v", name, err)
		}
		place.NetworkFS = true // then it is the file system that refuses: ours has no files
		if d, err = Open(place); err == nil {
			_ = d.Close()
		}
		if err != nil && strings.Contains(err.Error(), "allow_network_fs") {
			t.Errorf("%s, allowed: %v", name, err)
		}
		_ = os.RemoveAll(filepath.Dir(database))
	}
}

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// mountFUSE mounts a file system that is empty and takes nothing, and returns
// where, or "" if that isn't possible here.
func mountFUSE(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Log("no FUSE:", err)
		return ""
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Getuid(), os.Getgid())
	if err := syscall.Mount("caddy-bearer-test", dir, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		_ = syscall.Close(fd)
		t.Log("no FUSE:", err)
		return ""
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serveFUSE(fd)
	}()
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		<-served
		_ = syscall.Close(fd)
	})
	return dir
}

// Opcodes of the kernel's protocol, linux/fuse.h.
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseStatfs      = 17
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42
)

// serveFUSE answers the kernel until the file system is unmounted.
func serveFUSE(fd int) {
	request := make([]byte, 1<<17)
	for {
		n, err := syscall.Read(fd, request)
		if err == syscall.EINTR || err == syscall.ENOENT { // broken off
			continue
		}
		if err != nil || n < 40 {
			return
		}
		var body []byte
		errno := syscall.ENOSYS
		switch binary.NativeEndian.Uint32(request[4:]) {
		case fuseForget, fuseBatchForget, fuseInterrupt:
			continue // want no answer
		case fuseInit:
			body, errno = make([]byte, 64), 0
			binary.NativeEndian.PutUint32(body, 7)
			binary.NativeEndian.PutUint32(body[4:], 31)
			binary.NativeEndian.PutUint32(body[20:], 4096) // max_write
		case fuseStatfs:
			body, errno = make([]byte, 80), 0
			binary.NativeEndian.PutUint32(body[40:], 4096) // bsize
			binary.NativeEndian.PutUint32(body[44:], 255)  // namelen
		case fuseLookup:
			errno = syscall.ENOENT
		}
		answer := make([]byte, 16, 16+len(body))
		binary.NativeEndian.PutUint32(answer, uint32(16+len(body)))
		binary.NativeEndian.PutUint32(answer[4:], uint32(-int32(errno)))
		copy(answer[8:16], request[8:16]) // which request it is
		if _, err := syscall.Write(fd, append(answer, body...)); err != nil && err != syscall.ENOENT {
			return
		}
	}
}
