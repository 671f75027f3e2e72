// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package blockfile is how a tier directory looks on disk: one file per block
// and one append-only index beside them (docs/format/blockfile.md).
//
// A block file has the full logical length of its block and is sparse while
// the block is partial. Whether a grain is there, and what its CRC32C is,
// stands in the index alone: a file system's idea of holes survives a crash
// without its data being right. Package dir owns a directory of these,
// package tiered decides what is in it.
//
// Index starts no goroutines; mu guards its buffer and file, and is a leaf.
// Everything reaches the disk through Ops, which tests replace to inject
// faults.
package blockfile

import (
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"orca"
)

// Castagnoli is the table of every sum in this room.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Ops are the calls that change or read a tier directory.
type Ops interface {
	OpenFile(path string, flag int, perm os.FileMode) (*os.File, error)
	WriteAt(f *os.File, p []byte, off int64) (int, error)
	ReadAt(f *os.File, p []byte, off int64) (int, error)
	// Datasync makes content and length durable, not times.
	Datasync(f *os.File) error
	// SyncDir makes the entries of a folder durable.
	SyncDir(path string) error
	Truncate(f *os.File, length int64) error
	Chmod(path string, perm os.FileMode) error
	Rename(from, to string) error
	Remove(path string) error
	MkdirAll(path string) error
}

// OS is Ops on the operating system.
type OS struct{}

var _ Ops = OS{}

// OpenFile is os.OpenFile.
func (OS) OpenFile(path string, flag int, perm os.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, perm)
}

// WriteAt is pwrite until all is written.
func (OS) WriteAt(f *os.File, p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// ReadAt is pread until p is full.
func (OS) ReadAt(f *os.File, p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

// Datasync is fdatasync.
func (OS) Datasync(f *os.File) error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// SyncDir is fsync of the folder.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Truncate is ftruncate.
func (OS) Truncate(f *os.File, length int64) error { return f.Truncate(length) }

// Chmod is chmod.
func (OS) Chmod(path string, perm os.FileMode) error { return os.Chmod(path, perm) }

// Rename is rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is unlink or rmdir.
func (OS) Remove(path string) error { return os.Remove(path) }

// MkdirAll is mkdir -p, private to the owner.
func (OS) MkdirAll(path string) error { return os.MkdirAll(path, 0o700) }

// Path returns the path of a block file below the folder of blocks: two
// levels of fan-out by a hash of the file number (so that all blocks of a file
// are in one folder), then the block's name.
func Path(root string, id orca.BlockID) string {
	return filepath.Join(Folder(root, id), id.String())
}

// Folders is how many folders the block files of a directory are spread over.
const Folders = 1 << 16

// Folder returns the folder that Path is in.
func Folder(root string, id orca.BlockID) string {
	return FolderAt(root, int(uint64(id.File)*0x9E3779B97F4A7C15>>48))
}

// FolderAt returns the nth of the Folders below the folder of blocks.
func FolderAt(root string, n int) string {
	const hex = "0123456789abcdef"
	a, b := byte(n>>8), byte(n)
	return filepath.Join(root, string([]byte{hex[a>>4], hex[a&15]}), string([]byte{hex[b>>4], hex[b&15]}))
}

// Grains returns the number of grains of a block of this length.
func Grains(length int64) int {
	return int((length + orca.GrainSize - 1) / orca.GrainSize)
}

// GrainLen returns the length in bytes of grain i of a block.
func GrainLen(length int64, i int) int64 {
	return min(orca.GrainSize, length-int64(i)*orca.GrainSize)
}

// AppendSums appends the CRC32C of each grain of p, which starts at a grain.
func AppendSums(sums []uint32, p []byte) []uint32 {
	for len(p) > 0 {
		n := min(len(p), orca.GrainSize)
		sums = append(sums, crc32.Checksum(p[:n], Castagnoli))
		p = p[n:]
	}
	return sums
}

// SumFile computes the sums of the first length bytes of f, and the CRC32C of
// all of them. A file shorter than that is Corrupt.
func SumFile(ops Ops, f *os.File, length int64) (sums []uint32, whole uint32, err error) {
	sums = make([]uint32, 0, Grains(length))
	buf := make([]byte, min(4*orca.GrainSize, max(length, 1)))
	for off := int64(0); off < length; {
		p := buf[:min(int64(len(buf)), length-off)]
		n, err := ops.ReadAt(f, p, off)
		if n < len(p) {
			if err == nil || err == io.EOF {
				return nil, 0, &orca.Error{Op: "blockfile.SumFile", Path: f.Name(), Kind: orca.Corrupt, Msg: "file is shorter than its block"}
			}
			return nil, 0, Fail("blockfile.SumFile", f.Name(), err)
		}
		sums = AppendSums(sums, p)
		whole = crc32.Update(whole, Castagnoli, p)
		off += int64(len(p))
	}
	return sums, whole, nil
}

// Fail gives an error of the file system its kind: NoSpace, NotFound, or
// Internal for the rest. The kind of an orca.Error is kept.
func Fail(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if k := orca.KindOf(err); k != orca.Internal {
		return err
	}
	return orca.PathE(op, path, kindOf(err), err)
}
