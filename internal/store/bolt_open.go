package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

const (
	schemaVersion = "1"
	// openTimeout is how long an opening waits for another process to let go of
	// the file: long enough for a restart that overlaps a little.
	openTimeout = 3 * time.Second
)

// OpenBolt opens the store in the file at path; if there is none, it is created
// with mode 0600, its directory with 0700. What looks unsafe, damaged or
// foreign is refused and left as it is, with an error that says what to do. An
// error wraps [oauth.ErrStoreInUse] if somebody else still has the file open
// after 3 seconds.
func OpenBolt(path string) (*Bolt, error) {
	return openBolt(path, openTimeout)
}

func openBolt(path string, timeout time.Duration) (*Bolt, error) {
	return openBoltAs(newStoreID(), path, timeout)
}

// openBoltAs opens a store, which gets the id if it has none.
func openBoltAs(id storeID, path string, timeout time.Duration) (*Bolt, error) {
	if path == "" {
		return nil, errors.New("opening the store: no path is given")
	}
	abs, err := filepath.Abs(path) // must outlive a change of directory
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	failpoint.Hit("database-opening")
	file, err := openOrCreate(abs, timeout)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", abs, err)
	}
	b := &Bolt{path: abs, locks: newKeyLocks(), file: file}
	failpoint.Hit("database-opened")
	if err = file.verify(); err == nil {
		b.id, b.sequence, err = file.identify(id)
	}
	if err != nil {
		_ = file.close() // the first error says more
		return nil, fmt.Errorf("opening store %s: %w", abs, err)
	}
	return b, nil
}

// identify returns the store's id, which is the given one from now on if it has
// none, and its sequence.
func (f *boltFile) identify(id storeID) (_ storeID, sequence uint64, err error) {
	err = guard(func() error {
		named := false
		err := f.db.View(func(tx *bbolt.Tx) error {
			sequence = tx.Bucket(sessionsBucket).Sequence()
			if stored, ok := decodeID(tx.Bucket(metaBucket).Get(idKey)); ok {
				id, named = stored, true
			}
			return nil
		})
		if err != nil || named {
			return err
		}
		failpoint.Hit("database-unidentified")
		return f.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(idKey, id.encode()) })
	})
	return id, sequence, err
}

func openOrCreate(path string, timeout time.Duration) (*boltFile, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the directory: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createFile(path); err != nil {
			return nil, fmt.Errorf("creating the file: %w", err)
		}
	}
	return openFile(path, timeout)
}

// createFile makes a complete, empty store under another name and then gives
// it its own, without replacing anything: a crash or a power cut leaves all or
// nothing, and an empty file is never one of ours.
func createFile(path string) error {
	dir, base := filepath.Split(path)
	tmp, err := os.CreateTemp(dir, "."+base+".new-*") // mode 0600
	if err != nil {
		return err
	}
	name := tmp.Name()
	defer os.Remove(name)
	if err := tmp.Close(); err != nil {
		return err
	}
	failpoint.Hit("database-creating")
	db, err := bbolt.Open(name, 0o600, boltOptions(openTimeout))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(sessionsBucket); err != nil {
			return err
		}
		return meta.Put(versionKey, []byte(schemaVersion))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	failpoint.Hit("database-unnamed")
	if err := nameFile(name, path); err != nil {
		return err
	}
	failpoint.Hit("database-named")
	// The directory may be new, too.
	return SyncDirs(dir)
}

// nameFile gives the file at tmp the name path, unless somebody else was
// faster: then theirs stays.
func nameFile(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	// Not every file system has hard links. A rename would replace a file that
	// appears right now; that's why it is only the second choice.
	if _, serr := os.Lstat(path); !errors.Is(serr, fs.ErrNotExist) {
		return errors.Join(err, serr)
	}
	return os.Rename(tmp, path)
}

// SyncDirs makes the names in a directory durable, and as well as that can be
// done those of the directories above it: each of them may be new.
func SyncDirs(dir string) error {
	dir = filepath.Clean(dir)
	err := syncDir(dir)
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		_ = syncDir(up) // what isn't ours to read isn't new
	}
	return err
}

func boltOptions(timeout time.Duration) *bbolt.Options {
	return &bbolt.Options{
		Timeout:      timeout,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
	}
}

// openFile opens a database that exists.
func openFile(path string, timeout time.Duration) (*boltFile, error) {
	file := &boltFile{}
	options := boltOptions(timeout)
	options.OpenFile = func(name string, flag int, perm fs.FileMode) (*os.File, error) {
		f, err := openChecked(name, flag&^os.O_CREATE, perm)
		if err == nil && file.os == nil { // a backup opens it once more
			file.os = f
			if hasLocks {
				err = checkLocked(f, timeout)
			}
		}
		return f, err
	}
	err := guard(func() (err error) {
		file.db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if err == nil {
		return file, nil
	}
	if file.os == nil {
		return nil, err // refused by openChecked
	}
	file.abandon()
	if isTimeout(err) || errors.Is(err, oauth.ErrStoreInUse) {
		return nil, fmt.Errorf("%w: only one process may have it open, most likely a running server has; "+
			"stop that one first, or use the `caddy bearer` commands, which talk to the running server instead",
			oauth.ErrStoreInUse)
	}
	return nil, damaged(err)
}

// checkLocked looks at a database before bbolt does. Without the lock it would
// see the half of what another process writes; bbolt takes it once more.
func checkLocked(f *os.File, timeout time.Duration) error {
	if err := lockFile(f, timeout); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkReachable(f, info.Size())
}

// openChecked opens a file of a store, see [openOwn].
func openChecked(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := openOwn(path, flag, perm)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		_ = f.Close()
		// bbolt would take it for a new one, and nobody would notice the loss.
		return nil, fmt.Errorf("it is empty, which a store never is: its content was lost: %w", errDamaged)
	}
	return f, nil
}

// ReadOwn reads a small file that this process or one before it has made for
// itself. What others could have written or may read is refused before it is
// read, as a store is.
func ReadOwn(path string) ([]byte, error) {
	f, err := openOwn(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// openOwn opens a file after it has been looked at, and makes sure that it is
// the one that was looked at.
func openOwn(path string, flag int, perm fs.FileMode) (*os.File, error) {
	seen, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := checkFile(path, seen); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flag|noFollow, perm)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(seen, opened) {
		err = errors.New("the file was replaced while it was being opened")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

var errDirectory = errors.New("it is a directory and not a regular file; give the path of a file that only this store uses")

func checkFile(path string, info fs.FileInfo) error {
	switch uid, _, owned := Owner(info); {
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link; give the path of the file itself (a directory on the way may be a link)")
	case info.IsDir():
		return errDirectory
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file; give the path of a file that only this store uses")
	case hasModes && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode %#o lets others in; run: chmod 600 %s", info.Mode().Perm(), path)
	case owned && uid != os.Geteuid():
		return fmt.Errorf("it belongs to user id %d, but this process runs as %d; run it as that user, or run: chown %d %s",
			uid, os.Geteuid(), os.Geteuid(), path)
	}
	return nil
}

// checkDir refuses a directory in which others could replace the file. It may
// be a symbolic link. One of root's is as good as our own: such are the mount
// points of volumes.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	switch uid, _, owned := Owner(info); {
	case hasModes && info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write to its directory (mode %#o); run: chmod go-w %s, "+
			"or give the store a directory of its own", info.Mode().Perm(), dir)
	case owned && uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("its directory belongs to user id %d, but this process runs as %d; run it as that user, "+
			"or run: chown %d %s, or give the store a directory of its own", uid, os.Geteuid(), os.Geteuid(), dir)
	}
	return nil
}
