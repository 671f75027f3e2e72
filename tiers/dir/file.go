// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/cryptfile"
)

// keyMark is the file in an encrypted directory by which its key is known.
const keyMark = "key"

// File is the open file of a block. What is in it is read and written through
// its directory.
type File struct {
	*os.File
	box     *cryptfile.Box // nil: in the clear
	length  int64          // of the block; with box
	entries *os.File       // where the trailer is read; nil: File
}

// Close closes the file.
func (f *File) Close() error {
	err := f.File.Close()
	if f.entries != nil {
		err = errors.Join(err, f.entries.Close())
	}
	return err
}

// Encrypted reports whether block files cannot be read as they are.
func (d *Dir) Encrypted() bool { return d.key != nil }

// Key returns the key of an encrypted directory, else nil.
func (d *Dir) Key() *cryptfile.Key { return d.key }

// unlock loads the key and compares it with the mark in the directory, which a
// new one gets. It changes nothing in a directory that it refuses.
func (d *Dir) unlock() error {
	const op = "dir.Open"
	path := filepath.Join(d.Path, keyMark)
	mark, err := os.ReadFile(path)
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return blockfile.Fail(op, path, err)
	case d.KeyFile == "" && err != nil:
		return nil
	case d.KeyFile == "":
		return &orca.Error{Op: op, Path: d.Path, Kind: orca.Permission, Msg: "the directory is encrypted, and no key file is given"}
	}
	key, kerr := cryptfile.Load(d.KeyFile)
	if kerr != nil {
		return kerr
	}
	if err == nil {
		if err := key.Fits(mark); err != nil {
			return &orca.Error{Op: op, Path: d.Path, Kind: orca.KindOf(err), Err: err}
		}
		d.key = key
		return nil
	}
	if _, err := os.Stat(filepath.Join(d.Path, blockfile.IndexName)); !errors.Is(err, os.ErrNotExist) {
		return &orca.Error{Op: op, Path: d.Path, Kind: orca.Invalid, Msg: "the directory was begun without encryption: give a new one the key, and remove this one"}
	}
	d.key = key
	return d.writeMark(path, key.Mark())
}

// writeMark is durable before the first block is: a directory without the mark
// has none.
func (d *Dir) writeMark(path string, mark []byte) error {
	f, err := d.ops.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return blockfile.Fail("dir.Open", path, err)
	}
	_, err = d.ops.WriteAt(f, mark, 0)
	if err == nil {
		err = d.ops.Datasync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.ops.Rename(path+".tmp", path)
	}
	if err == nil {
		err = d.ops.SyncDir(d.Path)
	}
	return blockfile.Fail("dir.Open", path, err)
}

// fileLen returns how long the file of a block is.
func (d *Dir) fileLen(length int64) int64 {
	if d.key == nil {
		return length
	}
	return cryptfile.FileLen(length)
}

// begin gives a new block file its length, and its head.
func (d *Dir) begin(f *os.File, id orca.BlockID, length int64) (*File, error) {
	if err := d.ops.Truncate(f, d.fileLen(length)); err != nil || d.key == nil {
		return &File{File: f}, err
	}
	box := d.key.NewBox()
	_, err := d.ops.WriteAt(f, box.Head(id, length), cryptfile.TrailerOff(length))
	return &File{File: f, box: box, length: length}, err
}

// openBox reads the head of a block file.
func (d *Dir) openBox(f *File, id orca.BlockID, length int64) error {
	head := make([]byte, cryptfile.HeadLen)
	if _, err := d.ops.ReadAt(f.File, head, cryptfile.TrailerOff(length)); err != nil && err != io.EOF {
		return err
	}
	box, err := d.key.Open(head, id, length)
	f.box, f.length = box, length
	return err
}

// checkPrivate refuses a private file that is not encrypted as the block that
// it is to be: nothing else comes into the directory.
func (d *Dir) checkPrivate(id orca.BlockID, from string, length int64) error {
	f, err := d.ops.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return d.vanished(err)
	}
	defer f.Close()
	return d.openBox(&File{File: f}, id, length)
}

// MaxUnit is the most that Read and Write take at a time of an encrypted file,
// in bytes: more is done in steps.
const MaxUnit = 16 * orca.GrainSize

// unit is memory for one step.
type unit struct {
	data    [MaxUnit + cryptfile.TagLen]byte
	entries [MaxUnit / orca.GrainSize * cryptfile.EntryLen]byte
}

var units = sync.Pool{New: func() any { return new(unit) }}

// Write writes p, whole grains of the block from off on, to a block file that
// Create or OpenBlock opened.
func (d *Dir) Write(f *File, p []byte, off int64) error {
	const op = "dir.Write"
	d.spare.feed(int64(len(p)))
	if f.box == nil {
		_, err := d.ops.WriteAt(f.File, p, off)
		return blockfile.Fail(op, f.Name(), err)
	}
	u := units.Get().(*unit)
	defer units.Put(u)
	for len(p) > 0 {
		n := min(len(p), MaxUnit)
		first := int(off / orca.GrainSize)
		entries := u.entries[:blockfile.Grains(int64(n))*cryptfile.EntryLen]
		f.box.Seal(u.data[:n+cryptfile.TagLen], p[:n], first, entries)
		_, err := d.ops.WriteAt(f.File, u.data[:n], off)
		if err == nil {
			_, err = d.ops.WriteAt(f.File, entries, cryptfile.EntryOff(f.length, first))
		}
		if err != nil {
			return blockfile.Fail(op, f.Name(), err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Read reads whole grains of a block (the last may be short) from off on into
// p; n is short at the end of the file. bad are the numbers of grains that are
// not what was written, as far as the file itself says: those of an encrypted
// one. Their bytes are zero.
func (d *Dir) Read(f *File, p []byte, off int64) (n int, bad []int, err error) {
	if f.box == nil {
		n, err = d.ops.ReadAt(f.File, p, off)
		return n, nil, err
	}
	u := units.Get().(*unit)
	defer units.Put(u)
	for n < len(p) {
		step := p[n:min(n+MaxUnit, len(p))]
		k, spoilt, err := d.readUnit(f, u, step, off+int64(n))
		copy(step, u.data[:k])
		bad = append(bad, spoilt...)
		if n += k; err != nil || k < len(step) {
			return n, bad, err
		}
	}
	return n, bad, nil
}

// readUnit decrypts up to len(p) bytes into u.data.
func (d *Dir) readUnit(f *File, u *unit, p []byte, off int64) (int, []int, error) {
	want := len(p)
	if f.entries != nil { // direct: into the caller's memory, which is aligned
		k, err := d.ops.ReadAt(f.File, p, off)
		if err != nil && err != io.EOF {
			return 0, nil, err
		}
		want = copy(u.data[:], p[:min(int64(k), max(f.length-off, 0))])
	} else {
		want = int(min(int64(want), max(f.length-off, 0)))
		k, err := d.ops.ReadAt(f.File, u.data[:want], off)
		if err != nil && err != io.EOF {
			return 0, nil, err
		}
		want = k
	}
	bad, err := d.unseal(f, u, want, off)
	if err == nil && want < len(p) {
		err = io.EOF
	}
	return want, bad, err
}

// unseal decrypts n bytes in u.data, of the block from off on.
func (d *Dir) unseal(f *File, u *unit, n int, off int64) ([]int, error) {
	first := int(off / orca.GrainSize)
	entries := u.entries[:blockfile.Grains(int64(n))*cryptfile.EntryLen]
	at := f.entries
	if at == nil {
		at = f.File
	}
	if k, err := d.ops.ReadAt(at, entries, cryptfile.EntryOff(f.length, first)); k < len(entries) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return f.box.Unseal(u.data[:n], first, entries), nil
}

// Clear is content of an encrypted block, decrypted in memory that Release
// gives back.
type Clear struct {
	Bytes []byte
	u     *unit
}

// Release gives the memory back; Bytes must not be used any more.
func (c *Clear) Release() { units.Put(c.u) }

// Decrypt returns n bytes, at most MaxUnit, of an encrypted block from a grain
// on: Corrupt with the number of the first grain that is not what was written.
func (d *Dir) Decrypt(f *File, off int64, n int) (c Clear, bad int, err error) {
	const op = "dir.Decrypt"
	u := units.Get().(*unit)
	got, err := d.ops.ReadAt(f.File, u.data[:n], off)
	if err == io.EOF && got == n {
		err = nil
	}
	var spoilt []int
	if err == nil {
		spoilt, err = d.unseal(f, u, n, off)
	}
	switch {
	case err != nil:
		units.Put(u)
		return Clear{}, -1, blockfile.Fail(op, f.Name(), err)
	case len(spoilt) > 0:
		units.Put(u)
		return Clear{}, spoilt[0], &orca.Error{Op: op, Path: f.Name(), Kind: orca.Corrupt, Msg: "an encrypted grain is not what was written"}
	}
	return Clear{u.data[:n], u}, -1, nil
}
