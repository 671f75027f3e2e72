// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"orca"
)

// Reader reads a backup and checks all of it on the way.
type Reader struct {
	// Header is there from the start.
	Header Header
	// Trailer is there once Next has returned io.EOF.
	Trailer Trailer

	in    *bufio.Reader
	zip   *zstd.Decoder
	sum   hash.Hash
	seen  Trailer // what was counted
	at    int64   // bytes read
	body  []byte
	raw   []byte
	group uint16
	left  uint32 // records of raw that were not handed out
	ended bool
}

// NewReader reads the head of a backup.
func NewReader(r io.Reader) (*Reader, error) {
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxFrame))
	if err != nil {
		return nil, orca.PathE("backup.NewReader", "", orca.Internal, err)
	}
	b := &Reader{in: bufio.NewReaderSize(r, 256<<10), zip: zip, sum: sha256.New(), seen: Trailer{Records: map[uint16]map[string]int64{}}}
	start := make([]byte, len(magic)+1)
	if n, err := io.ReadFull(b.in, start); err != nil {
		if cut(err) && n < len(start) && bytes.HasPrefix([]byte(magic), start[:min(n, len(magic))]) {
			return nil, corrupt("the backup is cut off: it has no header")
		}
		return nil, b.failed(err)
	}
	if string(start[:len(magic)]) != magic {
		return nil, orca.E("backup", orca.Invalid, "this is no backup of an Orca")
	}
	if v := start[len(magic)]; v != Format {
		return nil, orca.E("backup", orca.Unsupported, fmt.Sprintf("the backup has format %d, this Orca reads up to %d", v, Format))
	}
	b.sum.Write(start)
	b.at = int64(len(start))
	kind, err := b.frame()
	if err != nil {
		return nil, err
	}
	if kind != kindHeader || json.Unmarshal(b.body, &b.Header) != nil || len(b.Header.Groups) == 0 {
		return nil, corrupt("the backup does not begin with its header")
	}
	return b, nil
}

func cut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// failed is the error of a read that failed.
func (b *Reader) failed(err error) error {
	if cut(err) {
		return corrupt(fmt.Sprintf("the backup is cut off: it ends after %d bytes, without its trailer", b.at))
	}
	return orca.PathE("backup.Read", "", orca.Unavailable, err)
}

// frame reads the next frame into body.
func (b *Reader) frame() (kind byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(b.in, head[:]); err != nil {
		return 0, b.failed(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, corrupt(fmt.Sprintf("the frame at byte %d is longer than any can be", b.at))
	}
	b.body = grown(b.body, int(n)+4)
	if _, err := io.ReadFull(b.in, b.body); err != nil {
		return 0, b.failed(err)
	}
	want := binary.BigEndian.Uint32(b.body[n:])
	have := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, b.body[:n])
	if want != have {
		return 0, corrupt(fmt.Sprintf("the checksum of the frame at byte %d does not hold", b.at))
	}
	if head[0] != kindTrailer {
		b.sum.Write(head[:])
		b.sum.Write(b.body)
	}
	b.body = b.body[:n]
	b.at += frameHead + int64(n) + 4
	return head[0], nil
}

func grown(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// Next returns the next record and the group it is of; its memory is valid
// until the next call. io.EOF: that was all, and the whole file holds.
func (b *Reader) Next() (group uint16, key, value []byte, err error) {
	for b.left == 0 {
		if len(b.raw) > 0 {
			return 0, nil, nil, corrupt("a frame has more bytes than records")
		}
		if b.ended {
			return 0, nil, nil, io.EOF
		}
		if err := b.load(); err != nil {
			return 0, nil, nil, err
		}
	}
	b.left--
	var ok1, ok2 bool
	key, ok1 = b.field()
	value, ok2 = b.field()
	if !ok1 || !ok2 || len(key) == 0 {
		return 0, nil, nil, corrupt("a frame has fewer bytes than records")
	}
	spaces := b.seen.Records[b.group]
	spaces[string(rune(key[0]))]++
	b.seen.Total++
	b.seen.Bytes += int64(len(key) + len(value))
	return b.group, key, value, nil
}

func (b *Reader) field() ([]byte, bool) {
	n, w := binary.Uvarint(b.raw)
	if w <= 0 || n > uint64(len(b.raw)-w) {
		return nil, false
	}
	f := b.raw[w : w+int(n)]
	b.raw = b.raw[w+int(n):]
	return f, true
}

// load reads the next frame: records, or the trailer.
func (b *Reader) load() error {
	kind, err := b.frame()
	if err != nil {
		return err
	}
	if kind == kindTrailer {
		return b.end()
	}
	if kind != kindData || len(b.body) < 10 {
		return corrupt(fmt.Sprintf("an unknown frame before byte %d", b.at))
	}
	b.group, b.left = binary.BigEndian.Uint16(b.body), binary.BigEndian.Uint32(b.body[2:])
	n := binary.BigEndian.Uint32(b.body[6:])
	if n > MaxFrame {
		return corrupt(fmt.Sprintf("the frame before byte %d holds more than any can", b.at))
	}
	// The memory is that of the last frame's records, which are used up.
	b.raw, err = b.zip.DecodeAll(b.body[10:], grown(b.raw[:0], int(n))[:0])
	if err != nil || len(b.raw) != int(n) {
		return corrupt(fmt.Sprintf("the frame before byte %d does not decompress", b.at))
	}
	if b.seen.Records[b.group] == nil {
		b.seen.Records[b.group] = map[string]int64{}
	}
	b.seen.Frames++
	return nil
}

// end compares the trailer with what was read.
func (b *Reader) end() error {
	if json.Unmarshal(b.body, &b.Trailer) != nil {
		return corrupt("the trailer is not readable")
	}
	b.seen.Digest = hex.EncodeToString(b.sum.Sum(nil))
	for _, g := range b.Header.Groups { // one without records is counted, too
		if b.seen.Records[g.ID] == nil {
			b.seen.Records[g.ID] = map[string]int64{}
		}
	}
	if !b.Trailer.equal(&b.seen) {
		return corrupt("the trailer counts other records than there are")
	}
	if _, err := b.in.ReadByte(); err == nil {
		return corrupt("there is something behind the trailer")
	} else if !cut(err) {
		return b.failed(err)
	}
	b.ended = true
	return nil
}

// Verify reads all of a backup.
func Verify(r io.Reader) (*Reader, error) {
	b, err := NewReader(r)
	for err == nil {
		_, _, _, err = b.Next()
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
