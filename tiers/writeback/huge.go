// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"os"

	"golang.org/x/sys/unix"
)

// hugePage is what one entry of a page directory maps, in bytes.
const hugePage = 2 << 20

// hugeStep is how much is copied through one mapping, in bytes.
const hugeStep = 2 * hugePage

// onTmpfs reports whether a file lies in memory.
func onTmpfs(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// collapse moves what write(2) has put on small pages of a tmpfs to huge ones,
// from which it is read three times cheaper: by the checksum that follows and
// by everyone after. Holes stay holes. It is a hint: what fails stays as it
// is. It returns the bytes that lie on huge pages.
func collapse(f *os.File, length int64) (huge int64) {
	if length < hugePage || !onTmpfs(f) {
		return 0
	}
	fd := int(f.Fd())
	for off := int64(0); off+hugePage <= length; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			return huge // only a hole is left
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return huge
		}
		n, ok := collapseRange(fd, (data+hugePage-1)/hugePage*hugePage, hole/hugePage*hugePage)
		huge += n
		if !ok {
			return huge
		}
		off = max(hole, off+1)
	}
	return huge
}

// collapseRange does it for whole huge pages; false when it is no use to go
// on.
func collapseRange(fd int, off, end int64) (huge int64, ok bool) {
	const window = 1 << 30 // of address space
	for ; off < end; off += window {
		m, err := unix.Mmap(fd, off, int(min(window, end-off)), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return huge, false
		}
		for at := 0; at < len(m); at += hugePage {
			switch unix.Madvise(m[at:at+hugePage], unix.MADV_COLLAPSE) {
			case nil:
				huge += hugePage
			case unix.EAGAIN, unix.EBUSY: // somebody looks at one of the pages
			default: // no memory in one piece, or a kernel that cannot
				_ = unix.Munmap(m)
				return huge, false
			}
		}
		_ = unix.Munmap(m)
	}
	return huge, true
}

// copyHuge is copyRange into huge pages of a tmpfs, which costs a fourth. False
// when it was not done, or not wholly: dst is empty then.
func copyHuge(dst, src *os.File, off, n int64) bool {
	alloc, length := stored(src)
	if n < hugePage || off+n > length || alloc < length || !onTmpfs(dst) || dst.Truncate(n) != nil {
		return false
	}
	for at := int64(0); at < n; {
		step := min(hugeStep, (n-at)/hugePage*hugePage)
		if step == 0 {
			step = n - at // the tail stays on small pages
		}
		if !copyStep(dst, src, at, off+at, int(step), step%hugePage == 0) {
			_ = dst.Truncate(0)
			return false
		}
		at += step
	}
	return true
}

// copyStep fills [at, at+n) of dst through a mapping. Only the kernel touches
// it: what cannot be had is an error, not a signal.
func copyStep(dst, src *os.File, at, from int64, n int, huge bool) bool {
	m, err := unix.Mmap(int(dst.Fd()), at, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	defer unix.Munmap(m)
	if huge {
		_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	}
	if unix.Madvise(m, unix.MADV_POPULATE_WRITE) != nil {
		return false
	}
	got, err := src.ReadAt(m, from)
	return err == nil && got == n
}
