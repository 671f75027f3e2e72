// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockfile

import (
	"encoding/binary"
	"hash/crc32"

	"orca"
)

// Version is the version of the index format that is written and read.
const Version = 1

const (
	headerLen = 32
	recordLen = 48 // of a record without sums
	// maxCount is the most sums in one record.
	maxCount = 1 << 16
)

// magic starts an index file.
const magic = "orcablk\n"

// Flags of a block.
type Flags uint8

// The flags: numbers on disk, append only.
const (
	FlagComplete Flags = 1 << iota
	FlagDirty
	FlagPinned
)

// Kind of a record.
type Kind uint8

// The kinds of records.
const (
	// KindState adds a run of grains to a block (none: only the flags) and
	// replaces its flags; the first one of a block creates it.
	KindState Kind = 1
	// KindRemove ends a block.
	KindRemove Kind = 2
)

// Record is one entry of the index.
type Record struct {
	Kind   Kind
	Flags  Flags
	ID     orca.BlockID
	Length int64  // of the block
	First  uint32 // grain that Sums starts at
	Sums   []uint32
}

// AppendTo appends the encoding of r. Its Sums must be at most 65,536.
func (r *Record) AppendTo(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, 8)...)
	dst = append(dst, byte(r.Kind), byte(r.Flags), 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, r.First)
	dst = r.ID.AppendTo(dst)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Length))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Sums)))
	dst = append(dst, 0, 0, 0, 0)
	for _, s := range r.Sums {
		dst = binary.BigEndian.AppendUint32(dst, s)
	}
	b := dst[at:]
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], Castagnoli))
	return dst
}

// appendState appends as many state records as the sums need.
func appendState(dst []byte, r Record) []byte {
	sums := r.Sums
	for {
		n := min(len(sums), maxCount)
		r.Sums = sums[:n]
		dst = r.AppendTo(dst)
		if sums = sums[n:]; len(sums) == 0 {
			return dst
		}
		r.First += uint32(n)
	}
}

// Decode decodes the record at the start of b into r and returns its length; 0
// when there is no valid record. r.Sums is reused when it is large enough.
func (r *Record) Decode(b []byte) int {
	if len(b) < recordLen {
		return 0
	}
	n := binary.BigEndian.Uint32(b[4:])
	count := binary.BigEndian.Uint32(b[40:])
	if count > maxCount || n != recordLen+4*count || int64(n) > int64(len(b)) {
		return 0
	}
	if k := Kind(b[8]); k != KindState && k != KindRemove {
		return 0
	}
	if b[10]|b[11]|b[44]|b[45]|b[46]|b[47] != 0 {
		return 0
	}
	if crc32.Checksum(b[4:n], Castagnoli) != binary.BigEndian.Uint32(b) {
		return 0
	}
	r.Kind, r.Flags = Kind(b[8]), Flags(b[9])
	r.First = binary.BigEndian.Uint32(b[12:])
	r.ID, _ = orca.DecodeBlockID(b[16:])
	r.Length = int64(binary.BigEndian.Uint64(b[32:]))
	if r.Length <= 0 || r.Length > MaxLength || int64(r.First)+int64(count) > int64(Grains(r.Length)) {
		return 0
	}
	r.Sums = r.Sums[:0]
	for p := b[recordLen:n]; len(p) > 0; p = p[4:] {
		r.Sums = append(r.Sums, binary.BigEndian.Uint32(p))
	}
	return int(n)
}

// MaxLength bounds the length of a block, in bytes.
const MaxLength = 1 << 40

// appendHeader appends the header of an index file.
func appendHeader(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint16(dst, Version)
	dst = binary.BigEndian.AppendUint16(dst, headerLen)
	dst = binary.BigEndian.AppendUint32(dst, orca.GrainSize)
	dst = append(dst, make([]byte, headerLen-4-16)...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[at:], Castagnoli))
}

// checkHeader refuses a header that this version cannot read.
func checkHeader(path string, b []byte) error {
	const op = "blockfile.Open"
	if string(b[:8]) != magic || crc32.Checksum(b[:headerLen-4], Castagnoli) != binary.BigEndian.Uint32(b[headerLen-4:]) {
		return &orca.Error{Op: op, Path: path, Kind: orca.Corrupt, Msg: "not a block index, or its header is damaged"}
	}
	if v, g := binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint32(b[12:]); v != Version || g != orca.GrainSize {
		return &orca.Error{Op: op, Path: path, Kind: orca.Unsupported, Msg: "block index of another format version"}
	}
	return nil
}
