//go:build linux

package reliability

import (
	"errors"
	"fmt"
	"strings"
)

// A replay follows the calls of one process.
type replay struct {
	*disk
	path string // of the root
	open map[int64]*openNode
}

type openNode struct {
	node        any
	position    int64
	append_     bool
	synchronous bool
}

// replay takes in the calls of one more process. It refuses those whose effect
// it doesn't know. A call without an end is one that a kill kept from beginning.
func (d *disk) replay(root string, calls []tracedCall) error {
	r := &replay{disk: d, path: root, open: map[int64]*openNode{}}
	before := d.end
	for _, c := range calls {
		if c.ret < 0 || c.end == never {
			continue // it did nothing
		}
		c.begin, c.end = c.begin+before, c.end+before
		d.end = max(d.end, c.end+1)
		if err := r.take(c); err != nil {
			return fmt.Errorf("%s(%.120s) = %d: %w", c.name, c.args, c.ret, err)
		}
	}
	return nil
}

func (r *replay) take(c tracedCall) error {
	switch c.name {
	case "openat":
		return r.takeOpen(c)
	case "mkdirat":
		if dir, name := r.find(c, 0, 1); dir != nil {
			r.rename(c, dirEntry{dir, name, &diskDir{now: map[string]any{}}})
		}
	case "linkat":
		from, old := r.find(c, 0, 1)
		to, name := r.find(c, 2, 3)
		if from != nil && to != nil {
			r.rename(c, dirEntry{to, name, from.now[old]})
		}
	case "renameat", "renameat2":
		from, old := r.find(c, 0, 1)
		to, name := r.find(c, 2, 3)
		if from != nil && to != nil {
			r.rename(c, dirEntry{from, old, nil}, dirEntry{to, name, from.now[old]})
		}
	case "unlinkat":
		if dir, name := r.find(c, 0, 1); dir != nil {
			r.rename(c, dirEntry{dir, name, nil})
		}
	case "open", "creat", "truncate", "rename", "link", "symlinkat", "unlink", "mkdir", "rmdir":
		if strings.Contains(c.args, spelled(r.path)) {
			return errUnknownCall
		}
	case "fchmodat", "sync":
	default:
		return r.takeFile(c)
	}
	return nil
}

var errUnknownCall = errors.New("the replay doesn't know what this does to the disk; teach it")

// spelled is a text as strace -xx writes it, without the quotes.
func spelled(text string) string {
	var b strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&b, `\x%02x`, text[i])
	}
	return b.String()
}

// takeFile takes a call whose first argument is a descriptor.
func (r *replay) takeFile(c tracedCall) error {
	fd := c.number(0)
	if c.name == "mmap" {
		fd = c.number(4)
	}
	if c.name == "write" && fd == 3 && r.open[3] == nil {
		r.messages = append(r.messages, message{c.begin, strings.TrimSpace(string(c.text(1)))})
		return nil
	}
	o := r.open[fd]
	if o == nil {
		return nil // none of ours
	}
	f, _ := o.node.(*diskFile)
	p := period{c.begin, c.end}
	switch c.name {
	case "close":
		delete(r.open, fd)
	case "fsync", "fdatasync":
		if f != nil {
			f.syncs = append(f.syncs, p)
		} else {
			d := o.node.(*diskDir)
			d.syncs = append(d.syncs, p)
		}
	case "read":
		o.position += c.ret
	case "lseek":
		o.position = c.ret
	case "write":
		if o.append_ {
			o.position = f.now
		}
		f.write(p, o, o.position, c.text(1)[:c.ret])
		o.position += c.ret
	case "pwrite64":
		f.write(p, o, c.number(3), c.text(1)[:c.ret])
	case "ftruncate":
		f.resize(p, o, c.number(1))
	case "fallocate":
		if c.fields()[1] != "0" {
			return errUnknownCall
		}
		f.resize(p, o, max(f.now, c.number(2)+c.number(3)))
	case "mmap":
		if strings.Contains(c.args, "PROT_WRITE") && strings.Contains(c.args, "MAP_SHARED") {
			return errors.New("writes through a mapping can't be seen")
		}
	case "fchmod":
	default:
		return errUnknownCall
	}
	return nil
}

func (f *diskFile) write(p period, o *openNode, offset int64, data []byte) {
	f.now = max(f.now, offset+int64(len(data)))
	f.change(o, change{period: p, offset: offset, data: data, size: f.now})
}

func (f *diskFile) resize(p period, o *openNode, size int64) {
	if size != f.now {
		f.now = size
		f.change(o, change{period: p, size: size})
	}
}

func (f *diskFile) change(o *openNode, c change) {
	f.changes = append(f.changes, c)
	if o.synchronous {
		f.syncs = append(f.syncs, period{c.end, c.end}) // durable as soon as it returns
	}
}

func (r *replay) takeOpen(c tracedCall) error {
	dir, name := r.find(c, 0, 1)
	if dir == nil {
		return nil
	}
	flags := "|" + c.fields()[2] + "|"
	has := func(flag string) bool { return strings.Contains(flags, "|"+flag+"|") }
	if has("O_TMPFILE") || has("O_DIRECT") {
		return errUnknownCall
	}
	o := &openNode{append_: has("O_APPEND"), synchronous: has("O_SYNC") || has("O_DSYNC")}
	if name == "" {
		o.node = dir
	} else if o.node = dir.now[name]; o.node == nil {
		o.node = &diskFile{}
		r.rename(c, dirEntry{dir, name, o.node})
	}
	if f, ok := o.node.(*diskFile); ok && has("O_TRUNC") {
		f.resize(period{c.begin, c.end}, o, 0)
	}
	r.open[c.ret] = o
	return nil
}

// rename changes names.
func (r *replay) rename(c tracedCall, entries ...dirEntry) {
	r.names = append(r.names, nameChange{period{c.begin, c.end}, entries})
	for _, e := range entries {
		e.apply(func(d *diskDir) map[string]any { return d.now })
	}
}

func (e dirEntry) apply(names func(*diskDir) map[string]any) {
	if e.node == nil {
		delete(names(e.dir), e.name)
	} else {
		names(e.dir)[e.name] = e.node
	}
}

// find returns the directory and the name in it that two arguments mean, the
// name empty for the root itself; nil if they are not below the root.
func (r *replay) find(c tracedCall, fd, path int) (*diskDir, string) {
	text := string(c.text(path))
	dir := r.root
	if below, ok := strings.CutPrefix(text, r.path); ok && (below == "" || below[0] == '/') {
		text = below
	} else if o := r.open[c.number(fd)]; o != nil && !strings.HasPrefix(text, "/") {
		dir = o.node.(*diskDir)
	} else {
		return nil, ""
	}
	var names []string
	for name := range strings.SplitSeq(text, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	for i, name := range names {
		sub, isDir := dir.now[name].(*diskDir)
		switch {
		case isDir:
			dir = sub
		case i == len(names)-1:
			return dir, name
		default:
			return nil, ""
		}
	}
	if c.name == "openat" || len(names) == 0 {
		return dir, "" // a directory itself
	}
	parent, name := r.parent(dir)
	return parent, name
}

// parent finds the directory that holds another.
func (r *replay) parent(of *diskDir) (*diskDir, string) {
	var search func(*diskDir) (*diskDir, string)
	search = func(d *diskDir) (*diskDir, string) {
		for name, node := range d.now {
			if sub, ok := node.(*diskDir); ok {
				if sub == of {
					return d, name
				}
				if p, n := search(sub); p != nil {
					return p, n
				}
			}
		}
		return nil, ""
	}
	return search(r.root)
}
