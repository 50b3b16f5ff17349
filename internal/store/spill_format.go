package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A spill file consists of blocks of 4096 bytes, the unit that page cache and
// disks write: what shares no block can't be torn together. Numbers are
// big-endian.
//
// Blocks 0 and 15 hold the same header, far enough apart that one blow doesn't
// hit both. Every other block is zero or belongs to a slot, which is a run of
// blocks with an image at its start:
//
//	magic 8 | salt 16 | blocks 4 | half 4 | start 8 | generation 8 |
//	sequence 8 | key length 4 | value length 4 | SHA-256 32 | key | value
//
// Slots come in pairs of equal size, side by side; half says which of the two
// it is, so that the room for the next save is found again at every opening.
// The hash is over all the rest. It is a strong one because salt and start are
// in it: names are foreign bytes, and nobody who doesn't know the salt can put
// something into a name that looks like an image; and an image that the disk
// wrote to another place isn't one. A CRC would do for accidents only.
const (
	spillBlock   = 4096
	spillExtent  = 16 // the file grows by multiples of so many blocks
	spillInitial = 2 * spillExtent

	spillHeaderMagic = "CBSPILLH"
	spillVersion     = 1
	spillHeaderSize  = 8 + 4 + 16 + 16 + 8 + 8 + sha256.Size

	spillImageMagic = "CBSPILLI"
	spillHashAt     = 8 + 16 + 4 + 4 + 8 + 8 + 8 + 4 + 4
	spillImageSize  = spillHashAt + sha256.Size // without key and value

	// Enough for 30,000 sessions of the largest size.
	longestSpill = 1 << 40
)

// spillHeaderAt tells the blocks of the two copies of the header.
var spillHeaderAt = [2]int64{0, spillExtent - 1}

// image is the state of a session after one save, sealed.
type image struct {
	key        oauth.Key
	generation uint64
	sequence   uint64 // number of the save, counted over all keys
	value      []byte
}

// size returns how many bytes an image takes.
func (im *image) size() int {
	return spillImageSize + len(encodeKey(im.key)) + len(im.value)
}

// spillHeader says what file this is.
type spillHeader struct {
	salt     [16]byte // made with the file
	id       storeID  // the file belongs to
	sequence uint64   // at least that of every image that was removed
	count    uint64   // of changes; the higher one of the two copies counts
}

func (h *spillHeader) encode() []byte {
	b := make([]byte, 0, spillBlock)
	b = append(b, spillHeaderMagic...)
	b = binary.BigEndian.AppendUint32(b, spillVersion)
	b = append(b, h.salt[:]...)
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint64(b, h.sequence)
	b = binary.BigEndian.AppendUint64(b, h.count)
	sum := headerHash(b)
	return append(b, sum[:]...)[:spillBlock]
}

func headerHash(b []byte) [sha256.Size]byte {
	return sha256.Sum256(b[:spillHeaderSize-sha256.Size])
}

// errSpillHeader is for one copy of the header; the other may be good.
var errSpillHeader = errors.New("its header is damaged or that of another program")

func decodeSpillHeader(b []byte) (*spillHeader, error) {
	if len(b) < spillHeaderSize || string(b[:8]) != spillHeaderMagic {
		return nil, errSpillHeader
	}
	if sum := headerHash(b); !bytes.Equal(sum[:], b[spillHeaderSize-len(sum):spillHeaderSize]) {
		return nil, errSpillHeader
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != spillVersion {
		return nil, fmt.Errorf("it has version %d, this program knows version %d; it was left as it is; "+
			"use the release that wrote it, or a newer one", v, spillVersion)
	}
	h := &spillHeader{
		sequence: binary.BigEndian.Uint64(b[44:]),
		count:    binary.BigEndian.Uint64(b[52:]),
	}
	copy(h.salt[:], b[12:])
	copy(h.id[:], b[28:])
	return h, nil
}

// encodeImage returns the bytes of an image in a slot.
func encodeImage(im *image, at slot, salt [16]byte) []byte {
	key := encodeKey(im.key)
	b := make([]byte, 0, at.blocks*spillBlock)
	b = append(b, spillImageMagic...)
	b = append(b, salt[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(at.blocks))
	b = binary.BigEndian.AppendUint32(b, uint32(at.half))
	b = binary.BigEndian.AppendUint64(b, uint64(at.start))
	b = binary.BigEndian.AppendUint64(b, im.generation)
	b = binary.BigEndian.AppendUint64(b, im.sequence)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(im.value)))
	b = append(b, make([]byte, sha256.Size)...)
	b = append(b, key...)
	b = append(b, im.value...)
	sum := imageHash(b)
	copy(b[spillHashAt:], sum[:])
	return b[:cap(b)] // whole blocks; the rest is zero
}

func imageHash(b []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(b[:spillHashAt])
	h.Write(b[spillImageSize:])
	h.Sum(sum[:0])
	return sum
}

// imageLength reads the start of a block. It returns the slot of an image that
// begins there, and the length of the image, if there may be one.
func imageLength(b []byte, start int64, salt [16]byte) (at slot, length int64, ok bool) {
	if len(b) < spillImageSize || string(b[:8]) != spillImageMagic || [16]byte(b[8:24]) != salt {
		return slot{}, 0, false
	}
	at = slot{
		run:        run{start, int64(binary.BigEndian.Uint32(b[24:]))},
		half:       int(binary.BigEndian.Uint32(b[28:])),
		generation: binary.BigEndian.Uint64(b[40:]),
		sequence:   binary.BigEndian.Uint64(b[48:]),
	}
	key, value := int64(binary.BigEndian.Uint32(b[56:])), int64(binary.BigEndian.Uint32(b[60:]))
	length = spillImageSize + key + value
	ok = binary.BigEndian.Uint64(b[32:]) == uint64(start) &&
		(at.half == 0 || at.half == 1) && at.generation > 0 &&
		key <= longestDBKey && value <= longestRecord && length <= at.blocks*spillBlock
	return at, length, ok
}

// decodeImage returns the image in b, which has the length that imageLength
// said, or nil if it isn't whole. The value refers to b.
func decodeImage(b []byte) *image {
	if sum := imageHash(b); !bytes.Equal(sum[:], b[spillHashAt:spillImageSize]) {
		return nil
	}
	value := spillImageSize + binary.BigEndian.Uint32(b[56:])
	key, err := decodeKey(b[spillImageSize:value])
	if err != nil {
		return nil
	}
	return &image{
		key:        key,
		generation: binary.BigEndian.Uint64(b[40:]),
		sequence:   binary.BigEndian.Uint64(b[48:]),
		value:      b[value:],
	}
}
