package store

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// networkFS are the kinds of file system (statfs(2)) on which the lock of a
// file may hold on one machine only, or not at all.
var networkFS = map[uint32]string{
	0x6969:     "NFS",
	0x517b:     "SMB",
	0xff534d42: "CIFS",
	0xfe534d42: "SMB 2",
	0x01021997: "9P",
	0x65735546: "FUSE",
	0x00c36400: "Ceph",
	0x5346414f: "AFS",
	0x6b414653: "AFS",
	0x73757245: "Coda",
	0x7461636f: "OCFS2",
	0x01161970: "GFS2",
	0x0bd00bd0: "Lustre",
	0x47504653: "GPFS",
	0x19830326: "BeeGFS",
	0x20030528: "OrangeFS",
	0xaad7aaea: "PanFS",
	0x0000564c: "NCP",
	0x786f4256: "VirtualBox shared folder",
	0xbacbacbc: "VMware shared folder",
	0x7c7c6673: "Parallels shared folder",
}

// refuseFS decides about a directory on a file system of a kind, as statfs(2)
// tells it; the type of that is another one on every architecture.
func refuseFS(dir string, kind uint32) error {
	name, shared := networkFS[kind]
	if !shared {
		return nil
	}
	return fmt.Errorf("%s is on a file system of the kind %s, where another machine may open the store at the same time and locks may not hold; "+
		"put the store on a local disk, or say allow_network_fs if nobody else can reach it", dir, name)
}

// checkFS refuses a directory, or the nearest one above that exists, on a file
// system of a network.
func checkFS(dir string) error {
	var st syscall.Statfs_t
	for {
		err := syscall.Statfs(dir, &st)
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !os.IsNotExist(err) || parent == dir {
			return fmt.Errorf("looking at the file system of %s: %w", dir, err)
		}
		dir = parent
	}
	return refuseFS(dir, uint32(st.Type))
}
