// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package orca is the vocabulary of the project: the nouns that every room
// shares, and nothing else. It does no I/O and imports only the standard
// library.
//
// The rooms, from the floor up (imports point down only, see layers_test.go):
//
//	perf ─► bench ─► engine ─► jobs ─► tiers, metaplane ─► dataplane, ufs ─► orca
//
// Reading order for a newcomer: this package, then the contract at the top of
// each room (dataplane, ufs, tiers, metaplane, jobs), then engine/client.
package orca

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

const (
	// GrainSize is the unit of checksums and of partial fill, in bytes. Each
	// grain of a block has one bit (present) and one CRC32C.
	GrainSize = 64 << 10
	// PageSize is the default unit of a sequential fill from a UFS, in bytes.
	PageSize = 1 << 20
	// DefaultBlockSize is the size of a block of a file too long to be one
	// block, in bytes.
	DefaultBlockSize = 64 << 20
	// MaxWholeBlock is the default upper bound of the length of a file that
	// is kept as one block, in bytes (cluster fact block.whole_max).
	MaxWholeBlock = 4 << 30
	// MaxName is the longest name of a dentry, in bytes (as in Linux).
	MaxName = 255
	// MaxPath is the longest path, in bytes (PATH_MAX less the NUL).
	MaxPath = 4095
)

// Ino names an inode for ever: 16 bits of shard (Raft group), 48 bits of
// counter. It is allocated in apply and never reused.
type Ino uint64

// RootIno is the inode of "/".
const RootIno Ino = 1

// NewIno composes an inode number from its birth group and counter.
func NewIno(group uint16, counter uint64) Ino {
	return Ino(uint64(group)<<48 | counter&(1<<48-1))
}

// Group returns the birth group of the inode.
func (i Ino) Group() uint16 { return uint16(i >> 48) }

// Home is the number of the group that has the inode: the first one has those
// that no group handed out, such as the root.
func (i Ino) Home() uint16 { return max(i.Group(), 1) }

// String formats the inode in hex.
func (i Ino) String() string { return fmt.Sprintf("%x", uint64(i)) }

// BlockID names the immutable content of one block: a rewrite makes a new
// Version, never new bytes under an old BlockID.
type BlockID struct {
	File    Ino
	Version uint32
	Index   uint32
}

// BlockIDLen is the length of an encoded BlockID in bytes.
const BlockIDLen = 16

// AppendTo appends the big-endian encoding (BlockIDLen bytes) to b.
func (b BlockID) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.File))
	dst = binary.BigEndian.AppendUint32(dst, b.Version)
	return binary.BigEndian.AppendUint32(dst, b.Index)
}

// DecodeBlockID decodes what AppendTo wrote; ok is false when b is short.
func DecodeBlockID(b []byte) (id BlockID, ok bool) {
	if len(b) < BlockIDLen {
		return BlockID{}, false
	}
	return BlockID{
		File:    Ino(binary.BigEndian.Uint64(b)),
		Version: binary.BigEndian.Uint32(b[8:]),
		Index:   binary.BigEndian.Uint32(b[12:]),
	}, true
}

// String formats the id as file-version-index, the name of its block file.
func (b BlockID) String() string {
	return fmt.Sprintf("%016x-%08x-%08x", uint64(b.File), b.Version, b.Index)
}

// ParseBlockID parses what String formats, and nothing else.
func ParseBlockID(s string) (BlockID, error) {
	if len(s) == 34 && s[16] == '-' && s[25] == '-' {
		f, err1 := strconv.ParseUint(s[:16], 16, 64)
		v, err2 := strconv.ParseUint(s[17:25], 16, 32)
		i, err3 := strconv.ParseUint(s[26:], 16, 32)
		b := BlockID{File: Ino(f), Version: uint32(v), Index: uint32(i)}
		if err1 == nil && err2 == nil && err3 == nil && b.String() == s {
			return b, nil
		}
	}
	return BlockID{}, E("orca.ParseBlockID", Invalid, "not a block name: "+clip(s))
}

// Tier is a class of storage on a worker; smaller is faster.
type Tier uint8

// The tiers, fastest first.
const (
	MEM Tier = iota
	SSD
	HDD
)

// String returns MEM, SSD or HDD.
func (t Tier) String() string {
	switch t {
	case MEM:
		return "MEM"
	case SSD:
		return "SSD"
	case HDD:
		return "HDD"
	}
	return fmt.Sprintf("Tier(%d)", uint8(t))
}

// WriteType is the durability contract of one file's write; the table is in
// ARCHITECTURE.md.
type WriteType uint8

// The write types. The zero value means "the default of the path".
const (
	WriteDefault WriteType = iota
	MustCache
	CacheThrough
	AsyncThrough
	Through
)

var writeTypeNames = [...]string{"DEFAULT", "MUST_CACHE", "CACHE_THROUGH", "ASYNC_THROUGH", "THROUGH"}

// String returns Alluxio's spelling, such as CACHE_THROUGH.
func (w WriteType) String() string {
	if int(w) < len(writeTypeNames) {
		return writeTypeNames[w]
	}
	return fmt.Sprintf("WriteType(%d)", uint8(w))
}

// ParseWriteType parses Alluxio's spelling in any case.
func ParseWriteType(s string) (WriteType, error) {
	for i, n := range writeTypeNames {
		if equalFold(s, n) {
			return WriteType(i), nil
		}
	}
	return 0, E("orca.ParseWriteType", Invalid, "unknown write type "+s+" (want MUST_CACHE, CACHE_THROUGH, ASYNC_THROUGH or THROUGH)")
}

// ReadType says what a read leaves in the cache.
type ReadType uint8

// The read types. The zero value is the default: Cache.
const (
	// ReadCache caches what is read and leaves it in its tier.
	ReadCache ReadType = iota
	// ReadCachePromote also moves what is read to the fastest tier.
	ReadCachePromote
	// ReadNoCache leaves nothing behind.
	ReadNoCache
)

var readTypeNames = [...]string{"CACHE", "CACHE_PROMOTE", "NO_CACHE"}

// String returns Alluxio's spelling, such as NO_CACHE.
func (r ReadType) String() string {
	if int(r) < len(readTypeNames) {
		return readTypeNames[r]
	}
	return fmt.Sprintf("ReadType(%d)", uint8(r))
}

// ParseReadType parses Alluxio's spelling in any case.
func ParseReadType(s string) (ReadType, error) {
	for i, n := range readTypeNames {
		if equalFold(s, n) {
			return ReadType(i), nil
		}
	}
	return 0, E("orca.ParseReadType", Invalid, "unknown read type "+s+" (want CACHE, CACHE_PROMOTE or NO_CACHE)")
}

// FileType is the type of an inode.
type FileType uint8

// The file types.
const (
	TypeFile FileType = iota + 1
	TypeDir
	TypeSymlink
)

// PersistState says whether the content of an inode is in its UFS.
type PersistState uint8

// The persist states, as Alluxio names them.
const (
	NotPersisted PersistState = iota
	ToBePersisted
	Persisted
	Lost
)

var persistNames = [...]string{"NOT_PERSISTED", "TO_BE_PERSISTED", "PERSISTED", "LOST"}

// String returns Alluxio's spelling, such as TO_BE_PERSISTED.
func (p PersistState) String() string {
	if int(p) < len(persistNames) {
		return persistNames[p]
	}
	return fmt.Sprintf("PersistState(%d)", uint8(p))
}

// Run says that the blocks from index First on (to the next run's First)
// carry Version.
type Run struct {
	First   uint32
	Version uint32
}

// Attr is what a stat returns of one inode.
type Attr struct {
	Ino       Ino
	Type      FileType
	Mode      uint32 // permission bits incl. setuid, setgid, sticky; no type bits
	UID, GID  uint32
	Nlink     uint32
	Length    int64 // bytes; of a directory: number of entries known
	BlockSize int64 // bytes; one block holds the whole file when Length <= BlockSize
	Version   uint32
	Runs      []Run // block versions; never empty for a complete file
	Mtime     time.Time
	Ctime     time.Time
	Atime     time.Time
	Persist   PersistState
	Pinned    bool
	MountID   uint32
	UFSPath   string // where the content is or will be in its UFS, as a full URI; "" when under no persisted mount
	// UFSPending is true while a durable intent has still to bring the UFS in
	// line with the namespace (ufs=PENDING in stat).
	UFSPending bool
	// Fingerprint identifies the UFS content that this version was loaded
	// from or persisted as.
	Fingerprint string
	// CachedBytes is how many bytes of the file workers hold (soft state).
	CachedBytes int64
	Target      string // of a symlink
	// ReplicaMin and ReplicaMax say on how many workers the file is to be, at
	// least and at most; -1 is no bound.
	ReplicaMin, ReplicaMax int
}

// IsDir reports whether the inode is a directory.
func (a *Attr) IsDir() bool { return a.Type == TypeDir }

// BlockVersion returns the version of block index of the file.
func (a *Attr) BlockVersion(index uint32) uint32 {
	v := a.Version
	for _, r := range a.Runs {
		if r.First > index {
			break
		}
		v = r.Version
	}
	return v
}

// BlockID returns the id of the block that holds byte off.
func (a *Attr) BlockID(off int64) BlockID {
	i := uint32(off / a.BlockSize)
	return BlockID{File: a.Ino, Version: a.BlockVersion(i), Index: i}
}

// BlockLength returns the length in bytes of block index.
func (a *Attr) BlockLength(index uint32) int64 {
	return min(a.BlockSize, a.Length-int64(index)*a.BlockSize)
}

// Caller is who asks: numeric POSIX identity. The zero value is root.
type Caller struct {
	UID, GID uint32
	Groups   []uint32
}

func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if 'a' <= x && x <= 'z' {
			x -= 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
