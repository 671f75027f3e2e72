// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// resolve keeps the kernel's path walk inside the root.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

// walkRetries bounds how often a path walk is repeated when it raced with a
// rename (openat2 answers EAGAIN, since ".." may have led out).
const walkRetries = 32

// open opens key beneath the root and returns a raw descriptor; the caller
// closes it.
func (f *FS) open(key string, flags int, mode uint32) (int, error) {
	if key == "" {
		key = "."
	}
	if f.beside != nil {
		return f.openByComponent(key, flags, mode)
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for i := 0; ; i++ {
		fd, err := unix.Openat2(int(f.dir.Fd()), key, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && i < walkRetries {
			continue
		}
		return fd, err
	}
}

// openByComponent does the same with os.Root. O_PATH is left out, since os.Root
// would take a symbolic link itself for the target.
func (f *FS) openByComponent(key string, flags int, mode uint32) (int, error) {
	if flags&unix.O_PATH != 0 {
		flags = flags&^unix.O_PATH | unix.O_RDONLY | unix.O_NONBLOCK
	}
	file, err := f.beside.OpenFile(key, flags, fs.FileMode(mode))
	if err != nil {
		return -1, err
	}
	defer file.Close()
	return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// escapes reports whether os.Root refused a path that leads out of the root.
func escapes(err error) bool {
	var pe *fs.PathError
	var no unix.Errno
	return errors.As(err, &pe) && !errors.As(err, &no) && !errors.Is(err, os.ErrClosed)
}

// parent opens the directory of key and returns it with the last name. The
// name is not resolved, so that *at calls that do not follow links are safe.
func (f *FS) parent(key string) (fd int, name string, err error) {
	dir, name := split(key)
	fd, err = f.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return fd, name, err
}

// split splits a key into directory ("" is the root) and last name.
func split(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '/')
	return key[:max(i, 0)], key[i+1:]
}

// syncDir makes the entries of a directory durable.
func syncDir(fd int) error {
	for {
		err := unix.Fsync(fd)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EINVAL) { // a file system without directory sync
			return nil
		}
		return err
	}
}
