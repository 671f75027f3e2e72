// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package inode has the records of the namespace and the keys they are kept
// under in a group's store. docs/format/inodekeys.md is the format, testdata/
// its goldens.
//
// It sits between fsm, which works on the records, and inodekv, which keeps
// their bytes. It is pure, starts no goroutine and holds no lock. It refuses
// a record of an unknown format version and a truncated one with Corrupt, and
// ignores bytes after a record's last field, so that fields can be appended (to
// a file's: with a bit that says so, which older builds refuse).
package inode

import (
	"encoding/binary"

	"orca"
)

// The first byte of an encoded record is its format.
const (
	format = 1
	// fileFormat 2 leaves out what is as it is of most files (file.go); format 1,
	// in which each field has its place, is still read.
	fileFormat = 2
	// dirFormat 2 has the sum of the lengths; format 1, without it, is still
	// read. A build that knows only 1 refuses 2: it would not keep the sum.
	dirFormat = 2
)

// UnknownBytes is what Dir.Bytes is of a record in format 1.
const UnknownBytes = -1

// Tags of a dentry's value in format 1, its second byte.
const (
	tagFile = 1
	tagDir  = 2
	tagLink = 3 // the file's record is under SpaceLinked
)

// Flags of a record.
type Flags uint32

// The flags.
const (
	Pinned    Flags = 1 << iota // never evicted
	HasXattr                    // keys of SpaceXattr exist
	Durable                     // file: its sole copy is fsynced on a durable tier
	Loaded                      // directory: completely listed from its UFS once
	Persisted                   // directory: exists in its UFS
	HasSync                     // directory: SyncMS is set
	OwnMtime                    // file: its mtime was set while it was not persisted

	Replicated Flags = 1 << 20 // file: the bounds of its copies are at its key of SpaceReplicas
	Linked     Flags = 1 << 12 // file: it has several names, and its record is under SpaceLinked
)

// Has reports whether all bits of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// With returns f with the bits of g set to on.
func (f Flags) With(g Flags, on bool) Flags {
	if on {
		return f | g
	}
	return f &^ g
}

// Override says that content is not at the UFS key that the path implies, for
// as long as intent By is undrained.
type Override struct {
	By  uint64 // id of the intent; 0: none
	Key string // relative to the mount's root
}

// File is the record of a file or symbolic link; it lives in its dentry, or
// with several names (Linked) under a key of its own.
type File struct {
	Ino         orca.Ino
	Type        orca.FileType
	Mode        uint32
	UID, GID    uint32
	Length      int64
	BlockSize   int64
	Version     uint32
	LastVersion uint32 // highest version handed out to a writer, >= Version
	Runs        []orca.Run
	Mtime       int64 // times are unix ns
	Ctime       int64
	Atime       int64
	Persist     orca.PersistState
	Flags       Flags
	WriteType   orca.WriteType
	Replicas    uint32
	CRC         uint32 // CRC32C of the whole content, 0 if unknown
	Change      uint64 // Raft index of the last change of name, content or what its UFS keeps of attributes
	Fingerprint string // of what is at its UFS key; "": nothing is
	Target      string // of a symbolic link
	Override    Override
	Workers     []uint64 // that hold the only copies, while not persisted
	Links       uint32   // names, when Linked
}

// Dir is the record of a directory.
type Dir struct {
	Ino      orca.Ino
	Parent   orca.Ino
	Name     string
	Mode     uint32
	UID, GID uint32
	Mtime    int64 // times are unix ns
	Ctime    int64
	Atime    int64
	Change   uint64 // Raft index of the last change of its own name, or what its UFS keeps of attributes
	Entries  int64
	Subdirs  int64
	Flags    Flags
	Mount    uint32 // it is the root of this mount; 0: of none
	LoadedAt int64
	SyncMS   int64 // with HasSync
	Override Override
	// Bytes is the sum of the lengths of the files and links in it, not of
	// those further below. UnknownBytes after decoding an old record; to be
	// encoded it must be known.
	Bytes int64
}

// Quota is the most that may be below a directory; 0: no limit.
type Quota struct {
	Bytes  int64 // sum of the lengths of files and links
	Inodes int64 // number of files, links and directories
}

// Dentry is the value of a dentry key: a file, the id of a file with several
// names, or the id of a directory.
type Dentry struct {
	File *File
	Link orca.Ino // when File is nil
	Dir  orca.Ino // when both are nil
}

// AppendLink appends a dentry of a file with several names.
func AppendLink(dst []byte, file orca.Ino) []byte {
	return binary.BigEndian.AppendUint64(append(dst, format, tagLink), uint64(file))
}

// AppendSubdir appends the dentry of a directory.
func AppendSubdir(dst []byte, dir orca.Ino) []byte {
	return binary.BigEndian.AppendUint64(append(dst, format, tagDir), uint64(dir))
}

// DecodeDentry decodes what AppendFile or AppendSubdir wrote.
func DecodeDentry(b []byte) (Dentry, error) {
	r := reader{b: b}
	switch r.byte() {
	case format:
	case fileFormat:
		one := &struct { // most have one run
			File
			run [1]orca.Run
		}{}
		f := &one.File
		f.Runs = one.run[:0:1]
		if r.file(f); len(f.Runs) == 0 {
			f.Runs = nil
		}
		return Dentry{File: f}, r.err("inode.DecodeDentry")
	default:
		return Dentry{}, r.fail("inode.DecodeDentry")
	}
	switch r.byte() {
	case tagDir:
		d := Dentry{Dir: orca.Ino(r.u64())}
		return d, r.err("inode.DecodeDentry")
	case tagLink:
		d := Dentry{Link: orca.Ino(r.u64())}
		return d, r.err("inode.DecodeDentry")
	case tagFile:
		f := &File{}
		r.wideFile(f)
		return Dentry{File: f}, r.err("inode.DecodeDentry")
	}
	return Dentry{}, r.fail("inode.DecodeDentry")
}

// DecodeDentryTo is DecodeDentry into f, whose memory is used again: file says
// that it is a file's, with several names if link is not 0 (then f is as it
// was). f must not be kept anywhere else.
func DecodeDentryTo(b []byte, f *File) (dir, link orca.Ino, file bool, err error) {
	const op = "inode.DecodeDentry"
	r := reader{b: b}
	switch r.byte() {
	case format:
	case fileFormat:
		*f = File{Runs: f.Runs[:0], Workers: f.Workers[:0]}
		r.file(f)
		return 0, 0, true, r.err(op)
	default:
		return 0, 0, false, r.fail(op)
	}
	switch r.byte() {
	case tagDir:
		dir = orca.Ino(r.u64())
		return dir, 0, false, r.err(op)
	case tagLink:
		link = orca.Ino(r.u64())
		return 0, link, true, r.err(op)
	case tagFile:
		*f = File{Runs: f.Runs[:0], Workers: f.Workers[:0]}
		r.wideFile(f)
		return 0, 0, true, r.err(op)
	}
	return 0, 0, false, r.fail(op)
}

// AppendDir appends a directory record.
func AppendDir(dst []byte, d *Dir) []byte {
	dst = append(dst, dirFormat)
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.Ino))
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.Parent))
	dst = appendString(dst, d.Name)
	dst = binary.AppendUvarint(dst, uint64(d.Flags))
	dst = binary.AppendUvarint(dst, uint64(d.Mode))
	dst = binary.AppendUvarint(dst, uint64(d.UID))
	dst = binary.AppendUvarint(dst, uint64(d.GID))
	dst = appendTimes(dst, d.Mtime, d.Ctime, d.Atime)
	dst = binary.AppendUvarint(dst, d.Change)
	dst = binary.AppendUvarint(dst, uint64(d.Entries))
	dst = binary.AppendUvarint(dst, uint64(d.Subdirs))
	dst = binary.AppendUvarint(dst, uint64(d.Mount))
	dst = binary.AppendVarint(dst, d.LoadedAt)
	dst = binary.AppendVarint(dst, d.SyncMS)
	dst = appendOverride(dst, d.Override)
	return binary.AppendUvarint(dst, uint64(d.Bytes))
}

// DecodeDir decodes what AppendDir wrote, in this format or the one before.
func DecodeDir(b []byte) (Dir, error) {
	var d Dir
	err := DecodeDirTo(b, &d, nil)
	if err != nil {
		return Dir{}, err
	}
	return d, nil
}

// DecodeDirTo is DecodeDir into d, all of which it writes. keep, if not nil,
// makes the strings of the record, so that they can share memory. After an
// error d has no meaning.
func DecodeDirTo(b []byte, d *Dir, keep func([]byte) string) error {
	const op = "inode.DecodeDir"
	r := reader{b: b, keep: keep}
	f := r.byte()
	if f != format && f != dirFormat {
		return r.fail(op)
	}
	d.Ino, d.Parent, d.Name = orca.Ino(r.u64()), orca.Ino(r.u64()), r.string()
	d.Flags = Flags(r.uvarint())
	d.Mode = uint32(r.uvarint())
	d.UID = uint32(r.uvarint())
	d.GID = uint32(r.uvarint())
	d.Mtime, d.Ctime, d.Atime = r.times()
	d.Change = r.uvarint()
	d.Entries = int64(r.uvarint())
	d.Subdirs = int64(r.uvarint())
	d.Mount = uint32(r.uvarint())
	d.LoadedAt = r.varint()
	d.SyncMS = r.varint()
	d.Override = r.override()
	if d.Bytes = UnknownBytes; f == dirFormat {
		d.Bytes = int64(r.uvarint())
	}
	return r.err(op)
}

// AppendQuota appends the value of a q key.
func AppendQuota(dst []byte, q Quota) []byte {
	dst = binary.AppendUvarint(append(dst, format), uint64(q.Bytes))
	return binary.AppendUvarint(dst, uint64(q.Inodes))
}

// DecodeQuota decodes what AppendQuota wrote.
func DecodeQuota(b []byte) (Quota, error) {
	const op = "inode.DecodeQuota"
	r := reader{b: b}
	if r.byte() != format {
		return Quota{}, r.fail(op)
	}
	q := Quota{Bytes: int64(r.uvarint()), Inodes: int64(r.uvarint())}
	return q, r.err(op)
}

// ClearDirFlags returns a copy of a directory record without some flags; all
// else in it, known or not, stays as it is.
func ClearDirFlags(b []byte, clear Flags) ([]byte, error) {
	const op = "inode.ClearDirFlags"
	r := reader{b: b}
	if f := r.byte(); f != format && f != dirFormat {
		return nil, r.fail(op)
	}
	_, _, _ = r.u64(), r.u64(), r.string()
	at := len(b) - len(r.b)
	f := Flags(r.uvarint())
	if err := r.err(op); err != nil {
		return nil, err
	}
	return append(binary.AppendUvarint(append([]byte(nil), b[:at]...), uint64(f&^clear)), r.b...), nil
}

// Copies bounds on how many workers a file is to be.
type Copies struct {
	Min uint32
	Max uint32 // one more than the most; 0: there is no bound
}

// Any reports whether there are no bounds.
func (c Copies) Any() bool { return c == Copies{} }

// AppendCopies appends the value of an r key.
func AppendCopies(dst []byte, c Copies) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(dst, format), uint64(c.Min)), uint64(c.Max))
}

// DecodeCopies decodes what AppendCopies wrote.
func DecodeCopies(b []byte) (Copies, error) {
	r := reader{b: b}
	if r.byte() != format {
		return Copies{}, r.fail("inode.DecodeCopies")
	}
	c := Copies{Min: uint32(r.uvarint()), Max: uint32(r.uvarint())}
	return c, r.err("inode.DecodeCopies")
}

// AppendPlace appends the value of an i key: where a file is.
func AppendPlace(dst []byte, dir orca.Ino, name string) []byte {
	return append(binary.BigEndian.AppendUint64(append(dst, format), uint64(dir)), name...)
}

// DecodePlace decodes what AppendPlace wrote.
func DecodePlace(b []byte) (dir orca.Ino, name string, err error) {
	if len(b) < 9 || b[0] != format {
		return 0, "", orca.E("inode.DecodePlace", orca.Corrupt, "bad record")
	}
	return orca.Ino(binary.BigEndian.Uint64(b[1:])), string(b[9:]), nil
}
