// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"orca/bench/hist"
	"orca/bench/workload"
)

// WriteFile makes the file named by seed at path with size bytes, durable. On
// a tmpfs that allows it the pages are huge, so that the native side is not
// the weaker one for having been written by a plain copy.
func WriteFile(path string, seed uint64, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(size); err != nil || size == 0 {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE) // tmpfs with huge=advise; elsewhere a no-op
	workload.Fill(m, seed, 0)
	if err := unix.Munmap(m); err != nil {
		return os.NewSyscallError("munmap", err)
	}
	return f.Sync()
}

// WriteTree makes n files of size bytes in dir, file i from seed+i, and
// returns their paths.
func WriteTree(dir string, seed uint64, n int, size int64) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	names := workload.Names("file", n)
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
		if err := WriteFile(names[i], seed+uint64(i), size); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// Verify compares the whole file at path with the content of seed.
func Verify(path string, seed uint64, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, want := make([]byte, Chunk), make([]byte, Chunk)
	for off := int64(0); off < size; off += Chunk {
		n := min(Chunk, size-off)
		if _, err := f.ReadAt(got[:n], off); err != nil {
			return fmt.Errorf("read %s at %d: %w", path, off, err)
		}
		workload.Fill(want[:n], seed, off)
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("%s: wrong bytes near %d: the case would measure garbage", path, off)
		}
	}
	return nil
}

// OpenRead opens path read-only by a bare system call.
func OpenRead(path string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// CachedPages returns how many pages of an open file the kernel caches for the
// file itself (of a FUSE file in passthrough: not those of its backing file).
// Kernels before 6.5 answer errors.ErrUnsupported.
func CachedPages(fd int) (int64, error) {
	var st unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &st, 0) // length 0: to the end
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, errors.ErrUnsupported
	}
	return int64(st.Cache), os.NewSyscallError("cachestat", err)
}

// ReadAll reads size bytes of an open file in order into buf, again and again.
func ReadAll(fd int, size int64, buf []byte) (time.Duration, error) {
	start := time.Now()
	for off := int64(0); off < size; {
		n, err := retry(func() (int, error) { return unix.Pread(fd, buf, off) })
		if err != nil {
			return 0, os.NewSyscallError("pread", err)
		}
		if n == 0 {
			return 0, fmt.Errorf("file ends at %d instead of %d", off, size)
		}
		off += int64(n)
	}
	return time.Since(start), nil
}

// ReadOffsets reads len(buf) bytes at each offset, timing each into h.
func ReadOffsets(fd int, offs []int64, buf []byte, h *hist.Hist) (time.Duration, error) {
	start := time.Now()
	last := start
	for _, off := range offs {
		n, err := retry(func() (int, error) { return unix.Pread(fd, buf, off) })
		if err != nil || n != len(buf) {
			return 0, fmt.Errorf("pread at %d: %d bytes: %w", off, n, err)
		}
		now := time.Now()
		h.Record(now.Sub(last))
		last = now
	}
	return time.Since(start), nil
}

// OpenReadClose opens, reads wholly and closes each file, timing each into h.
func OpenReadClose(paths []string, size int64, buf []byte, h *hist.Hist) (time.Duration, error) {
	start := time.Now()
	last := start
	for _, p := range paths {
		fd, err := OpenRead(p)
		if err != nil {
			return 0, err
		}
		_, err = ReadAll(fd, size, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return 0, fmt.Errorf("%s: %w", p, err)
		}
		now := time.Now()
		h.Record(now.Sub(last))
		last = now
	}
	return time.Since(start), nil
}

// StatAll stats each path, timing each into h, and checks the size.
func StatAll(paths []string, size int64, h *hist.Hist) (time.Duration, error) {
	start := time.Now()
	last := start
	var st unix.Stat_t
	for _, p := range paths {
		if err := unix.Lstat(p, &st); err != nil {
			return 0, &os.PathError{Op: "lstat", Path: p, Err: err}
		}
		if st.Size != size {
			return 0, fmt.Errorf("lstat %s: size %d, want %d", p, st.Size, size)
		}
		now := time.Now()
		h.Record(now.Sub(last))
		last = now
	}
	return time.Since(start), nil
}

// ListLong reads the whole directory and stats each entry, as ls -l does
// (without sorting and printing, which would dilute the difference), and
// checks the number of entries.
func ListLong(dir string, want int) (time.Duration, error) {
	start := time.Now()
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10) // what glibc's readdir uses
	seen := 0
	var st unix.Stat_t
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return 0, os.NewSyscallError("getdents64", err)
		}
		if n == 0 {
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			var name []byte
			name, rest = nextDirent(rest)
			if string(name) == "." || string(name) == ".." {
				continue
			}
			if err := unix.Fstatat(fd, string(name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return 0, &os.PathError{Op: "fstatat", Path: string(name), Err: err}
			}
			seen++
		}
	}
	if seen != want {
		return 0, fmt.Errorf("%s: %d entries, want %d", dir, seen, want)
	}
	return time.Since(start), nil
}

// nextDirent splits the first linux_dirent64 off b: ino 8, off 8, reclen 2,
// type 1, then the NUL-terminated name.
func nextDirent(b []byte) (name, rest []byte) {
	const nameAt = 19
	n := int(binary.NativeEndian.Uint16(b[16:]))
	name = b[nameAt:n]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return name, b[n:]
}

// Fdatasync writes p at the start of f and makes it durable, n times.
func Fdatasync(f *os.File, p []byte, n int, h *hist.Hist) (time.Duration, error) {
	return writes(f, p, n, h, unix.Fdatasync)
}

// Write is Fdatasync without the making durable.
func Write(f *os.File, p []byte, n int, h *hist.Hist) (time.Duration, error) {
	return writes(f, p, n, h, func(int) error { return nil })
}

func writes(f *os.File, p []byte, n int, h *hist.Hist, then func(fd int) error) (time.Duration, error) {
	fd := int(f.Fd())
	start := time.Now()
	last := start
	for range n {
		if _, err := unix.Pwrite(fd, p, 0); err != nil {
			return 0, os.NewSyscallError("pwrite", err)
		}
		if err := then(fd); err != nil {
			return 0, os.NewSyscallError("fdatasync", err)
		}
		now := time.Now()
		h.Record(now.Sub(last))
		last = now
	}
	return time.Since(start), nil
}

// retry repeats a system call that a signal has interrupted (Go's preemption
// signal reaches bare calls too).
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
