// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	// mapMin is the shortest block that is ever mapped, in bytes.
	mapMin = 2 << 20
	// mapReads is after how many reads a block is mapped that has not been
	// read through once.
	mapReads = 1024
)

// readAt fills p from the block: by pread, and once the block has been read
// through, from a mapping of it if it lies in memory. A mapping saves the call
// and the kernel's walk, a fifth of a long read and two thirds of a short one,
// but its page faults make a single pass dearer. The caller holds a reference
// and stays within the block.
func (d *descriptor) readAt(p []byte, off int64) (int, error) {
	if m := d.mapped.Load(); m != nil {
		if off+int64(len(p)) <= int64(len(*m)) && copyMapped(p, (*m)[off:]) {
			return len(p), nil
		}
	} else if d.length >= mapMin && !d.tried.Load() {
		if n := d.read.Add(int64(len(p))); n > d.length || d.reads.Add(1) > mapReads {
			d.mapBlock()
		}
	}
	return d.file.ReadAt(p, off)
}

// mapBlock maps the block if it is on a tmpfs: elsewhere a fault may wait for
// a disk with the scheduler not knowing.
func (d *descriptor) mapBlock() {
	if d.tried.Swap(true) {
		return
	}
	fd := int(d.file.Fd())
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || int64(int(d.length)) != d.length {
		return
	}
	m, err := unix.Mmap(fd, 0, int(d.length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return // pread does as well
	}
	d.mapped.Store(&m)
}

// unmap ends the mapping; nobody holds a reference any more.
func (d *descriptor) unmap() {
	if m := d.mapped.Swap(nil); m != nil {
		_ = unix.Munmap(*m)
	}
}

// copyMapped fills dst from a mapping. Blocks are never cut, only unlinked, so
// no page of one can be missing but for a failing machine: then it reports
// false instead of ending the process.
func copyMapped(dst, src []byte) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(runtime.Error); !fault {
				panic(r)
			}
			ok = false
		}
	}()
	copy(dst, src)
	return true
}
