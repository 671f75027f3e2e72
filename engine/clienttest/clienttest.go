// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package clienttest is one table of what a file system must do, run through
// every door that leads to Orca: the Go API (API), a mount (OS on its folder),
// and any other gateway that can satisfy Door. The table is checked against a
// plain folder of the host's own file system first, so that a row is what
// POSIX users get elsewhere, not what Orca happens to do.
//
// Flow: All(t, door) ─► one subtest per row, each in a fresh folder of the
// door. It starts no goroutines but those of concurrent rows, and refuses to
// excuse a door: what one cannot do is declared in its Caps.
package clienttest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"
)

// Door is a way to a file system. Paths are relative to the door's root and
// slash separated. Errors must carry what Errno finds.
type Door interface {
	Mkdir(path string, mode fs.FileMode) error
	Stat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error) // in the order of the names
	Rename(src, dst string) error
	Remove(path string) error // a file or an empty directory
	RemoveAll(path string) error
	Chmod(path string, mode fs.FileMode) error
	Chtimes(path string, atime, mtime time.Time) error
	Symlink(text, path string) error
	Readlink(path string) (string, error)
	// Open opens for reading.
	Open(path string) (Reader, error)
	// OpenFile opens for writing with os.O_CREATE, O_EXCL, O_TRUNC and
	// O_APPEND (implying O_WRONLY).
	OpenFile(path string, flag int, mode fs.FileMode) (Writer, error)
	// Errno returns the error number a program would see; 0 for nil.
	Errno(err error) syscall.Errno
}

// Reader is an open file.
type Reader interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Writer is a file open for writing. What was written is visible to others at
// the latest when Close has returned without an error.
type Writer interface {
	io.WriteCloser
	io.WriterAt
	Truncate(length int64) error
	Sync() error
}

// Caps declares what a door's file system has beyond the table.
type Caps struct {
	// AtomicPublish: an open writer's bytes are seen by nobody before Close.
	AtomicPublish bool
	// Symlinks, Modes, Times: the calls of these names work.
	Symlinks, Modes, Times bool
}

// errnoOf finds an errno in an error of package os.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrExist):
		return syscall.EEXIST
	}
	return syscall.EIO
}

// All runs the table; every row gets a folder of its own below the root.
func All(t *testing.T, d Door, caps Caps) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.need != nil && !row.need(caps) {
				t.Skip("not offered by this door")
			}
			dir := "t-" + row.name
			if err := d.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			row.run(t, &door{Door: d, t: t, dir: dir})
			if err := d.RemoveAll(dir); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
}

// OS is the door to a folder of the host: a mount, or the reference.
type OS string

var _ Door = OS("")

func (o OS) at(p string) string { return string(o) + "/" + p }

// Mkdir implements Door.
func (o OS) Mkdir(p string, mode fs.FileMode) error { return os.Mkdir(o.at(p), mode) }

// Stat implements Door.
func (o OS) Stat(p string) (fs.FileInfo, error) { return os.Lstat(o.at(p)) }

// ReadDir implements Door.
func (o OS) ReadDir(p string) ([]fs.DirEntry, error) { return os.ReadDir(o.at(p)) }

// Rename implements Door.
func (o OS) Rename(a, b string) error { return syscall.Rename(o.at(a), o.at(b)) }

// Remove implements Door.
func (o OS) Remove(p string) error { return os.Remove(o.at(p)) }

// RemoveAll implements Door.
func (o OS) RemoveAll(p string) error { return os.RemoveAll(o.at(p)) }

// Chmod implements Door.
func (o OS) Chmod(p string, mode fs.FileMode) error { return os.Chmod(o.at(p), mode) }

// Chtimes implements Door.
func (o OS) Chtimes(p string, a, m time.Time) error { return os.Chtimes(o.at(p), a, m) }

// Symlink implements Door.
func (o OS) Symlink(text, p string) error { return os.Symlink(text, o.at(p)) }

// Readlink implements Door.
func (o OS) Readlink(p string) (string, error) { return os.Readlink(o.at(p)) }

// Open implements Door; opening a directory is EISDIR, as reading it would be.
func (o OS) Open(p string) (Reader, error) {
	f, err := os.Open(o.at(p))
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, errors.Join(syscall.EISDIR, f.Close())
	}
	return f, nil
}

// OpenFile implements Door.
func (o OS) OpenFile(p string, flag int, mode fs.FileMode) (Writer, error) {
	f, err := os.OpenFile(o.at(p), flag|os.O_WRONLY, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Errno implements Door.
func (OS) Errno(err error) syscall.Errno { return errnoOf(err) }
