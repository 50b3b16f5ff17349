//go:build linux

package reliability

import (
	"fmt"
	"os"
	"path/filepath"
)

// A disk is what a recorded life did to the files below a directory, in order:
// enough to say what can be there after a power cut at any point of it.
type disk struct {
	root     *diskDir
	names    []nameChange
	messages []message
	end      int // the place after the last call
}

// message is a line that the process wrote to descriptor 3.
type message struct {
	begin int
	text  string
}

// period is a place in the log, or two: something begins and ends.
type period struct{ begin, end int }

type diskFile struct {
	base    []byte // at the beginning, all of it durable
	now     int64  // size, as the process sees it
	changes []change
	syncs   []period
}

// change is a write, or with data nil a change of the size.
type change struct {
	period
	offset, size int64 // size of the file afterwards
	data         []byte
}

type diskDir struct {
	base  map[string]any // *diskFile or *diskDir
	now   map[string]any
	syncs []period
}

// nameChange is what one call does to the names in directories, all or nothing.
type nameChange struct {
	period
	entries []dirEntry
}

type dirEntry struct {
	dir  *diskDir
	name string
	node any // nil: the name is removed
}

// newDisk reads what is below a directory now.
func newDisk(root string) (*disk, error) {
	dir, err := readDir(root)
	return &disk{root: dir}, err
}

func readDir(path string) (*diskDir, error) {
	d := &diskDir{base: map[string]any{}, now: map[string]any{}}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var node any
		if e.IsDir() {
			node, err = readDir(filepath.Join(path, e.Name()))
		} else {
			var b []byte
			b, err = os.ReadFile(filepath.Join(path, e.Name()))
			node = &diskFile{base: b, now: int64(len(b))}
		}
		if err != nil {
			return nil, err
		}
		d.base[e.Name()], d.now[e.Name()] = node, node
	}
	return d, nil
}

// find returns what is at a path at the end, nil if nothing is.
func (d *disk) find(path ...string) (node any) {
	node = d.root
	for _, name := range path {
		dir, _ := node.(*diskDir)
		if dir == nil {
			return nil
		}
		node = dir.now[name]
	}
	return node
}

// tree describes the files for a person: how often each was changed and synced.
func (d *disk) tree() map[string]string {
	all := map[string]string{}
	var walk func(string, *diskDir)
	walk = func(path string, dir *diskDir) {
		all[path] = fmt.Sprintf("%d syncs", len(dir.syncs))
		for name, node := range dir.now {
			switch node := node.(type) {
			case *diskDir:
				walk(path+name+"/", node)
			case *diskFile:
				all[path+name] = fmt.Sprintf("%d changes, %d syncs, %d bytes", len(node.changes), len(node.syncs), node.now)
			}
		}
	}
	walk("/", d.root)
	return all
}
