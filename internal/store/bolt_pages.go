package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// bbolt trusts what its pages say of themselves: with a damaged one it reads
// memory that isn't its own, and the process can't be saved then. So the pages
// that it is going to read are looked at before, as plain bytes.
//
// A page is a header of id (8 bytes), flags (2), count (2) and overflow (4), and
// as many elements of 16 bytes, each with a position, counted from itself, and
// sizes of what belongs to it.
const (
	pageHeader  = 16
	elementSize = 16
	branchFlag  = 0x01
	leafFlag    = 0x02
	freeFlag    = 0x10
	metaSize    = 64
	bucketSize  = 16 // root page and sequence
	boltMagic   = 0xed0cdaed
	boltVersion = 2
	noFreelist  = math.MaxUint64
)

// boltMeta is what a meta page says.
type boltMeta struct{ pageSize, root, freelist, end, txid uint64 }

// checkReachable makes sure that every page which can be reached from the newest
// meta page keeps within its bounds. What the pages hold isn't looked at.
func checkReachable(file io.ReaderAt, size int64) error {
	meta, err := newestMeta(file)
	if err != nil {
		return err
	}
	if meta.end > uint64(size)/meta.pageSize {
		return fmt.Errorf("%d bytes are missing at its end", meta.end*meta.pageSize-uint64(size))
	}
	w := &pageWalk{file: file, meta: meta, seen: map[uint64]bool{}}
	if meta.freelist != noFreelist {
		if err := w.freelist(meta.freelist); err != nil {
			return err
		}
	}
	return w.page(meta.root)
}

// newestMeta finds the meta page that bbolt will use.
func newestMeta(file io.ReaderAt) (boltMeta, error) {
	first, ok := readMeta(file, 0)
	if ok {
		if second, ok := readMeta(file, int64(first.pageSize)); ok && second.txid > first.txid && second.pageSize == first.pageSize {
			return second, nil
		}
		return first, nil
	}
	for pageSize := int64(1024); pageSize <= 16<<20; pageSize *= 2 {
		if second, ok := readMeta(file, pageSize); ok && second.pageSize == uint64(pageSize) {
			return second, nil
		}
	}
	return boltMeta{}, errors.New("it has no valid meta page")
}

func readMeta(file io.ReaderAt, at int64) (m boltMeta, ok bool) {
	b := make([]byte, metaSize)
	if _, err := file.ReadAt(b, at+pageHeader); err != nil {
		return m, false
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8])
	if u32(b) != boltMagic || u32(b[4:]) != boltVersion || u64(b[metaSize-8:]) != sum.Sum64() {
		return m, false
	}
	m = boltMeta{pageSize: uint64(u32(b[8:])), root: u64(b[16:]), freelist: u64(b[32:]), end: u64(b[40:]), txid: u64(b[48:])}
	return m, m.pageSize >= 1024 && m.pageSize <= 16<<20
}

// pageWalk goes over the pages of a database.
type pageWalk struct {
	file io.ReaderAt
	meta boltMeta
	seen map[uint64]bool
}

// read returns a page with all that follows it by its overflow.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	header := make([]byte, pageHeader)
	if id < 2 || id >= w.meta.end || w.seen[id] {
		return nil, fmt.Errorf("page %d can't be where it is said to be", id)
	}
	w.seen[id] = true
	if _, err := w.file.ReadAt(header, int64(id*w.meta.pageSize)); err != nil {
		return nil, err
	}
	pages := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	if binary.NativeEndian.Uint64(header) != id || pages > w.meta.end-id {
		return nil, fmt.Errorf("page %d is another one", id)
	}
	page := make([]byte, pages*w.meta.pageSize)
	_, err := w.file.ReadAt(page, int64(id*w.meta.pageSize))
	return page, err
}

func (w *pageWalk) freelist(id uint64) error {
	page, err := w.read(id)
	if err != nil {
		return err
	}
	count, ids := uint64(binary.NativeEndian.Uint16(page[10:])), page[pageHeader:]
	if count == math.MaxUint16 { // too many for the header
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(page[8:]) != freeFlag || count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d isn't a list of free pages", id)
	}
	for i := range count {
		if free := binary.NativeEndian.Uint64(ids[8*i:]); free < 2 || free >= w.meta.end {
			return fmt.Errorf("page %d can't be free", free)
		}
	}
	return nil
}

// page looks at a page of a tree and at all below it.
func (w *pageWalk) page(id uint64) error {
	page, err := w.read(id)
	if err != nil {
		return err
	}
	if err := w.elements(page); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

var errElement = errors.New("its elements don't fit")

func (w *pageWalk) elements(page []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branchFlag && flags != leafFlag || pageHeader+count*elementSize > len(page) || flags == branchFlag && count == 0 {
		return errElement
	}
	for i := range count {
		rest := page[pageHeader+i*elementSize:]
		u32 := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(rest[at:])) }
		if flags == branchFlag {
			if u32(0)+u32(4) > uint64(len(rest)) {
				return errElement
			}
			if err := w.page(binary.NativeEndian.Uint64(rest[8:])); err != nil {
				return err
			}
			continue
		}
		pos, keySize, valueSize := u32(4), u32(8), u32(12)
		if pos+keySize+valueSize > uint64(len(rest)) {
			return errElement
		}
		if u32(0) == 0 { // not a bucket
			continue
		}
		if err := w.bucket(rest[pos+keySize:][:valueSize]); err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at the tree of a bucket, or at its one page if that is inline.
func (w *pageWalk) bucket(value []byte) error {
	if len(value) < bucketSize {
		return errElement
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.page(root)
	}
	if inline := value[bucketSize:]; len(inline) >= pageHeader && binary.NativeEndian.Uint16(inline[8:]) == leafFlag {
		return w.elements(inline)
	}
	return errElement
}
