// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inode

import (
	"encoding/binary"
	"math/bits"
	"strconv"

	"orca"
)

// A file's record is most of what a namespace costs, in the store and in the
// cache in front of it, and most files are alike: so a record says which fields
// it has, and the others are as they usually are (ADR 0024).

// What a record has, in this order; after it come the inode's counter and the
// change. The first fourteen are a byte shorter than the rest.
const (
	hasPersist  = 1 << iota // else Persisted
	hasWrite                // else WriteDefault
	hasFlags                // else none
	hasMode                 // else 0644
	hasOwner                // uid and gid; else root's
	hasLength               // else 0
	hasBlock                // else one block of at most MaxWholeBlock
	hasVersion              // version and last version; else 1
	hasCRC                  // else 0
	hasCtime                // else that of mtime
	hasAtime                // else that of mtime
	hasPrint                // a fingerprint, as text unless hasPacked is set, too
	hasPacked               // a fingerprint of numbers; without hasPrint of bytes in hex
	inSeconds               // mtime is a varint of seconds; else 8 bytes of nanoseconds
	hasGroup                // else the first
	hasType                 // else a file
	hasReplicas             // else 0
	hasRuns                 // else one, of the version
	hasTarget               // else none
	hasOverride             // else none
	hasWorkers              // else none
	hasAll      = 1<<iota - 1
)

const (
	usualMode  = 0o644
	usualGroup = 1
	second     = 1e9
)

// AppendFile appends the dentry of a file.
func AppendFile(dst []byte, f *File) []byte {
	var kind int // of fingerprint
	var num [3]uint64
	has := f.has()
	if f.Fingerprint != "" {
		kind = fingerprintKind(f.Fingerprint, &num)
		has |= uint64(kind)
	}
	dst = binary.AppendUvarint(append(dst, fileFormat), has)
	if has&hasGroup != 0 {
		dst = binary.BigEndian.AppendUint16(dst, f.Ino.Group())
	}
	dst = binary.AppendUvarint(dst, uint64(f.Ino)&(1<<48-1))
	dst = binary.AppendUvarint(dst, f.Change)
	if has&hasType != 0 {
		dst = append(dst, byte(f.Type))
	}
	if has&hasPersist != 0 {
		dst = append(dst, byte(f.Persist))
	}
	if has&hasWrite != 0 {
		dst = append(dst, byte(f.WriteType))
	}
	if has&hasFlags != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.Flags))
	}
	if has&hasMode != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.Mode))
	}
	if has&hasOwner != 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(f.UID)), uint64(f.GID))
	}
	if has&hasLength != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.Length))
	}
	if has&hasBlock != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.BlockSize))
	}
	if has&hasVersion != 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(f.Version)), uint64(f.LastVersion))
	}
	if has&hasReplicas != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.Replicas))
	}
	if has&hasCRC != 0 {
		dst = binary.BigEndian.AppendUint32(dst, f.CRC)
	}
	dst = f.appendTimes(dst, has)
	if has&hasRuns != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(f.Runs)))
		for _, r := range f.Runs {
			dst = binary.AppendUvarint(dst, uint64(r.First))
			dst = binary.AppendUvarint(dst, uint64(r.Version))
		}
	}
	dst = f.appendFingerprint(dst, kind, &num)
	return f.appendRare(dst, has)
}

// has is which fields a record has, the fingerprint left out.
func (f *File) has() uint64 {
	return on(hasPersist, f.Persist != orca.Persisted) | on(hasWrite, f.WriteType != orca.WriteDefault) | on(hasFlags, f.Flags != 0) |
		on(hasMode, f.Mode != usualMode) | on(hasOwner, f.UID|f.GID != 0) | on(hasLength, f.Length != 0) |
		on(hasBlock, f.BlockSize != orca.MaxWholeBlock) | on(hasVersion, f.Version != 1 || f.LastVersion != 1) | on(hasCRC, f.CRC != 0) |
		on(hasCtime, f.Ctime != f.Mtime) | on(hasAtime, f.Atime != f.Mtime) | on(inSeconds, f.Mtime%second == 0) |
		on(hasGroup, f.Ino.Group() != usualGroup) | on(hasType, f.Type != orca.TypeFile) | on(hasReplicas, f.Replicas != 0) |
		on(hasRuns, len(f.Runs) != 1 || f.Runs[0] != orca.Run{Version: f.Version}) | on(hasTarget, f.Target != "") |
		on(hasOverride, f.Override.By != 0) | on(hasWorkers, len(f.Workers) > 0)
}

func on(bit uint64, is bool) uint64 {
	if is {
		return bit
	}
	return 0
}

func (f *File) appendTimes(dst []byte, has uint64) []byte {
	if has&inSeconds != 0 {
		dst = binary.AppendVarint(dst, f.Mtime/second)
	} else {
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.Mtime))
	}
	if has&hasCtime != 0 {
		dst = binary.AppendVarint(dst, f.Ctime-f.Mtime)
	}
	if has&hasAtime != 0 {
		dst = binary.AppendVarint(dst, f.Atime-f.Mtime)
	}
	return dst
}

func (f *File) appendRare(dst []byte, has uint64) []byte {
	if has&hasTarget != 0 {
		dst = appendString(dst, f.Target)
	}
	if has&hasOverride != 0 {
		dst = appendOverride(dst, f.Override)
	}
	if has&hasWorkers != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(f.Workers)))
		for _, w := range f.Workers {
			dst = binary.BigEndian.AppendUint64(dst, w)
		}
	}
	if f.Flags.Has(Linked) {
		dst = binary.AppendUvarint(dst, uint64(f.Links))
	}
	return dst
}

// file decodes what AppendFile wrote after its first byte. f is empty but for
// memory of Runs and Workers.
func (r *reader) file(f *File) {
	has := r.uvarint()
	if has&^uint64(hasAll) != 0 { // of a later build: what it is cannot be told
		r.bad = true
		return
	}
	group := uint16(usualGroup)
	if has&hasGroup != 0 {
		group = uint16(r.byte())<<8 | uint16(r.byte())
	}
	f.Ino, f.Change = orca.NewIno(group, r.uvarint()), r.uvarint()
	f.Type, f.Persist, f.Mode = orca.TypeFile, orca.Persisted, usualMode
	f.BlockSize, f.Version, f.LastVersion = orca.MaxWholeBlock, 1, 1
	if has&hasType != 0 {
		f.Type = orca.FileType(r.byte())
	}
	if has&hasPersist != 0 {
		f.Persist = orca.PersistState(r.byte())
	}
	if has&hasWrite != 0 {
		f.WriteType = orca.WriteType(r.byte())
	}
	if has&hasFlags != 0 {
		f.Flags = Flags(r.uvarint())
	}
	if has&hasMode != 0 {
		f.Mode = uint32(r.uvarint())
	}
	if has&hasOwner != 0 {
		f.UID, f.GID = uint32(r.uvarint()), uint32(r.uvarint())
	}
	if has&hasLength != 0 {
		f.Length = int64(r.uvarint())
	}
	if has&hasBlock != 0 {
		f.BlockSize = int64(r.uvarint())
	}
	if has&hasVersion != 0 {
		f.Version, f.LastVersion = uint32(r.uvarint()), uint32(r.uvarint())
	}
	if has&hasReplicas != 0 {
		f.Replicas = uint32(r.uvarint())
	}
	if has&hasCRC != 0 {
		f.CRC = r.u32()
	}
	r.fileTimes(f, has)
	if has&hasRuns != 0 {
		r.runs(f)
	} else {
		f.Runs = append(f.Runs, orca.Run{Version: f.Version})
	}
	f.Fingerprint = r.fingerprint(f, int(has&(hasPrint|hasPacked)))
	r.rare(f, has)
}

func (r *reader) fileTimes(f *File, has uint64) {
	if has&inSeconds != 0 {
		f.Mtime = r.varint() * second
	} else {
		f.Mtime = int64(r.u64())
	}
	f.Ctime, f.Atime = f.Mtime, f.Mtime
	if has&hasCtime != 0 {
		f.Ctime += r.varint()
	}
	if has&hasAtime != 0 {
		f.Atime += r.varint()
	}
}

func (r *reader) rare(f *File, has uint64) {
	if has&hasTarget != 0 {
		f.Target = r.string()
	}
	if has&hasOverride != 0 {
		f.Override = r.override()
	}
	if has&hasWorkers != 0 {
		r.workers(f)
	}
	if f.Flags.Has(Linked) {
		f.Links = uint32(r.uvarint())
	}
}

func (r *reader) runs(f *File) {
	n := r.count(2)
	for range n {
		f.Runs = append(f.Runs, orca.Run{First: uint32(r.uvarint()), Version: uint32(r.uvarint())})
	}
}

func (r *reader) workers(f *File) {
	n := r.count(8)
	for range n {
		f.Workers = append(f.Workers, r.u64())
	}
}

// wideFile decodes a record of format 1 after its tag.
func (r *reader) wideFile(f *File) {
	f.Ino = orca.Ino(r.u64())
	f.Type = orca.FileType(r.byte())
	f.Persist = orca.PersistState(r.byte())
	f.WriteType = orca.WriteType(r.byte())
	f.Flags = Flags(r.uvarint())
	f.Mode = uint32(r.uvarint())
	f.UID = uint32(r.uvarint())
	f.GID = uint32(r.uvarint())
	f.Length = int64(r.uvarint())
	f.BlockSize = int64(r.uvarint())
	f.Version = uint32(r.uvarint())
	f.LastVersion = uint32(r.uvarint())
	f.Replicas = uint32(r.uvarint())
	f.CRC = r.u32()
	f.Mtime, f.Ctime, f.Atime = r.times()
	f.Change = r.uvarint()
	r.runs(f)
	f.Fingerprint = r.string()
	f.Target = r.string()
	f.Override = r.override()
	r.workers(f)
	if f.Flags.Has(Linked) {
		f.Links = uint32(r.uvarint())
	}
}

// Fingerprints are texts whose meaning is the store's alone, but those of local
// stores are three numbers in base 36, the last two mostly length and mtime, and
// those of object stores a hash in hex, with a number of parts behind it if there
// were several. They are kept as what they stand for if that gives the same text
// again.
const (
	asText    = hasPrint
	asHex     = hasPacked
	asNumbers = hasPrint | hasPacked

	maxHash  = 64 // bytes
	hexDigit = "0123456789abcdef"
)

// fingerprintKind is how a text is kept; num is set asNumbers.
func fingerprintKind(s string, num *[3]uint64) int {
	if hash, parts := splitHash(s); hash > 0 && hash <= maxHash && parts >= 0 {
		return asHex
	}
	at := 0
	for i := range num {
		begin := at
		for at < len(s) && s[at] != '-' {
			at++
		}
		v, ok := base36(s[begin:at])
		if !ok || (at < len(s)) != (i < len(num)-1) {
			return asText
		}
		num[i] = v
		at++
	}
	return asNumbers
}

// splitHash returns the bytes of the hash that a text begins with and the number
// of parts behind it, 0 if there is none; parts < 0: the text is something else.
func splitHash(s string) (hash, parts int) {
	n := 0
	for n < len(s) && hexValue(s[n]) >= 0 {
		n++
	}
	switch {
	case n%2 != 0 || n < 16:
		return 0, -1
	case n == len(s):
		return n / 2, 0
	case s[n] != '-' || len(s)-n > 7 || len(s) == n+1 || s[n+1] == '0':
		return 0, -1
	}
	for _, c := range []byte(s[n+1:]) {
		if c < '0' || c > '9' {
			return 0, -1
		}
		parts = parts*10 + int(c-'0')
	}
	return n / 2, parts
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// base36 reads a number as strconv writes it; not ok: it is none, or too large.
func base36(s string) (v uint64, ok bool) {
	if s == "" || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for i := range len(s) {
		d := uint64(s[i])
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'z':
			d -= 'a' - 10
		default:
			return 0, false
		}
		hi, lo := bits.Mul64(v, 36)
		if hi != 0 || lo > ^d {
			return 0, false
		}
		v = lo + d
	}
	return v, true
}

// appendFingerprint writes numbers as their distance from what they mostly are.
func (f *File) appendFingerprint(dst []byte, kind int, num *[3]uint64) []byte {
	switch kind {
	case asText:
		return appendString(dst, f.Fingerprint)
	case asNumbers:
		dst = binary.AppendUvarint(dst, num[0])
		dst = binary.AppendVarint(dst, int64(num[1]-uint64(f.Length)))
		return binary.AppendVarint(dst, int64(num[2]-uint64(f.Mtime)))
	case asHex:
		hash, parts := splitHash(f.Fingerprint)
		dst = append(dst, byte(hash))
		for i := range hash {
			dst = append(dst, byte(hexValue(f.Fingerprint[2*i])<<4|hexValue(f.Fingerprint[2*i+1])))
		}
		return binary.AppendUvarint(dst, uint64(parts))
	}
	return dst
}

func (r *reader) fingerprint(f *File, kind int) string {
	var buf [2*maxHash + 24]byte
	b := buf[:0]
	switch kind {
	case asText:
		return r.string()
	case asNumbers:
		b = strconv.AppendUint(b, r.uvarint(), 36)
		b = strconv.AppendUint(append(b, '-'), uint64(f.Length)+uint64(r.varint()), 36)
		b = strconv.AppendUint(append(b, '-'), uint64(f.Mtime)+uint64(r.varint()), 36)
	case asHex:
		n := int(r.byte())
		r.bad = r.bad || n > maxHash
		for _, c := range r.take(n) {
			b = append(b, hexDigit[c>>4], hexDigit[c&15])
		}
		if parts := r.uvarint(); parts > 0 {
			b = strconv.AppendUint(append(b, '-'), parts, 10)
		}
	}
	return string(b)
}
