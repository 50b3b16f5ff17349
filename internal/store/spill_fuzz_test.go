package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

var fuzzHeader = spillHeader{salt: [16]byte{1, 2, 3}, id: storeID{4}, sequence: 5, count: 6}

// fuzzPart is how many bytes of the input make one block of a file.
const fuzzPart = 256

// forge makes a file in which each part of data is the start of a block; where
// an image begins, magic, salt, place and hash are put right if they can be.
func forge(data []byte) []byte {
	var parts [][]byte
	for part := range slices.Chunk(data, fuzzPart) {
		parts = append(parts, part)
	}
	file := make([]byte, max(len(parts)+1, spillExtent+1)*spillBlock)
	for i, part := range parts {
		copy(file[(i+1)*spillBlock:], part)
	}
	for _, at := range spillHeaderAt {
		copy(file[at*spillBlock:], fuzzHeader.encode())
	}
	for i := 1; i <= len(parts); i++ {
		b := file[i*spillBlock:]
		if b[0] != spillImageMagic[0] {
			continue
		}
		copy(b, spillImageMagic)
		copy(b[8:], fuzzHeader.salt[:])
		binary.BigEndian.PutUint64(b[32:], uint64(i))
		length := spillImageSize + uint64(binary.BigEndian.Uint32(b[56:])) + uint64(binary.BigEndian.Uint32(b[60:]))
		if length <= uint64(len(b)) {
			sum := imageHash(b[:length])
			copy(b[spillHashAt:], sum[:])
		}
	}
	return file
}

// FuzzSpillSlot opens a file of any bytes, or with forge one that looks better:
// it is refused, or gives images that are in it, the same each time.
func FuzzSpillSlot(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	var seed []byte
	for i, im := range []image{testImage(testKey, 1, "one"), testImage(testKey, 2, "two"), testImage(oauth.Key{User: "b"}, 1, "three")} {
		seed = append(seed, encodeImage(&im, slot{run{int64(i + 1), 1}, i % 2, 0, 0}, fuzzHeader.salt)[:fuzzPart]...)
	}
	f.Add(seed, true)
	f.Add([]byte("CBSPILLH"), false)
	f.Add(fuzzHeader.encode()[:spillHeaderSize], false)
	// A large seed would keep the fuzzer busy with making it smaller.
	f.Fuzz(func(t *testing.T, data []byte, forged bool) {
		if forged {
			data = forge(data[:min(len(data), 60*fuzzPart)])
		}
		path := filepath.Join(dir, "spill")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var first string
		for round := range 2 {
			s, err := openSpill(path)
			if err != nil {
				if !errors.Is(err, errDamaged) && !errors.Is(err, errSpillHeader) {
					t.Fatal(err)
				}
				return
			}
			checkLayout(t, s.layout)
			all := fuzzImages(t, s, data)
			if round == 0 {
				first = all
			} else if all != first || s.damagedSlots() > 0 {
				t.Fatalf("the second opening found\n%s, %d damaged; the first\n%s", all, s.damagedSlots(), first)
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// fuzzImages checks each image against the bytes of the file.
func fuzzImages(t *testing.T, s *spill, data []byte) string {
	t.Helper()
	var all string
	total := 0
	for _, key := range s.keys() {
		images := s.images(key)
		e := s.layout.entries[key]
		for i, at := range []slot{e.newest, e.second}[:len(images)] {
			im := images[i]
			raw := data[at.start*spillBlock:][:im.size()]
			hash := sha256.New()
			hash.Write(raw[:64])
			hash.Write(raw[96:])
			if !bytes.Equal(hash.Sum(nil), raw[64:96]) || !bytes.HasSuffix(raw, im.value) || !bytes.Equal(raw[96:len(raw)-len(im.value)], encodeKey(key)) {
				t.Fatalf("an image of %q isn't in the file", key)
			}
			total += im.size()
		}
		if len(images) == 0 || len(images) == 2 && e.newest.newer(e.second) <= 0 {
			t.Fatalf("%q has the images\n%s", key, describe(images))
		}
		all += describe(images)
	}
	if total > len(data) {
		t.Fatalf("images of %d bytes in a file of %d", total, len(data))
	}
	return all
}
