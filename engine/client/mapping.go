// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// mapMin is the shortest block that reading maps, in bytes; a View maps any.
	mapMin = 2 << 20
	// mapReads is after how many reads a block is mapped that has not been
	// read through once.
	mapReads = 1024
	// populateStep is how much of a block on disk one call faults in.
	populateStep = 4 << 20
)

// mapping is one block in the memory of this process. Its bytes stay good as
// long as a reference is held, whatever becomes of the block: a block file is
// unlinked, never changed or cut.
type mapping struct {
	mem  []byte
	disk bool // not a tmpfs: a page may have to be read
	maps *maps
	refs atomic.Int64 // the descriptor's, readers' and views'; 0: unmapped, for ever
	used atomic.Int64 // maps.tick of the last use
}

// acquire takes a reference unless the mapping has ended.
func (m *mapping) acquire() bool {
	for {
		n := m.refs.Load()
		if n <= 0 {
			return false
		}
		if m.refs.CompareAndSwap(n, n+1) {
			m.used.Store(m.maps.tick.Add(1))
			return true
		}
	}
}

func (m *mapping) release() {
	if m.refs.Add(-1) == 0 {
		m.maps.unmap(m)
	}
}

// populate faults [off, off+n) in, so that a disk that cannot be read fails
// here and not under the user's hands. It reports false then.
func (m *mapping) populate(ctx context.Context, off, n int64) bool {
	if !m.disk {
		return true
	}
	page := int64(os.Getpagesize())
	for at := off / page * page; at < off+n; {
		if ctx.Err() != nil {
			return false
		}
		switch err := unix.Madvise(m.mem[at:min(at+populateStep, off+n)], unix.MADV_POPULATE_READ); err {
		case nil:
			at += populateStep
		case unix.EAGAIN, unix.EINTR:
		case unix.EINVAL:
			return true // a kernel before 5.14
		default:
			return false
		}
	}
	return true
}

// maps bounds the mappings of one FS. The least recently used one that nobody
// holds gives way; when all are held, no block is mapped any more.
type maps struct {
	limit int
	tick  atomic.Int64

	mu   sync.Mutex
	live map[*mapping]*descriptor // GUARDED_BY(mu)
}

func newMaps(limit int) *maps {
	return &maps{limit: limit, live: map[*mapping]*descriptor{}}
}

// add maps the block of d, which the caller holds, and returns the mapping
// referenced for the caller; nil when that cannot be had: pread does as well.
// disk allows a block that is not in memory.
func (s *maps) add(d *descriptor, disk bool) *mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := d.mapped.Load(); m != nil && m.acquire() {
		return m
	}
	fd := int(d.file.Fd())
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || unix.Fstat(fd, &st) != nil || int64(int(d.length)) != d.length {
		return nil
	}
	onDisk := fs.Type != unix.TMPFS_MAGIC
	if onDisk && !disk || st.Size < d.length || !s.roomLocked() {
		return nil
	}
	mem, err := unix.Mmap(fd, 0, int(d.length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	m := &mapping{mem: mem, disk: onDisk, maps: s}
	m.refs.Store(2) // the descriptor's and the caller's
	m.used.Store(s.tick.Add(1))
	s.live[m] = d
	d.mapped.Store(m)
	return m
}

// roomLocked makes room for one more mapping, and reports whether it could.
func (s *maps) roomLocked() bool {
	for len(s.live) >= s.limit {
		var old *mapping
		for m, d := range s.live {
			if m.refs.Load() == 1 && d.mapped.Load() == m && (old == nil || m.used.Load() < old.used.Load()) {
				old = m
			}
		}
		if old == nil {
			return false
		}
		d := s.live[old]
		if !d.mapped.CompareAndSwap(old, nil) {
			continue // its descriptor was closed meanwhile
		}
		d.forgetReads()
		if old.refs.Add(-1) == 0 {
			s.unmapLocked(old)
		}
	}
	return true
}

func (s *maps) unmap(m *mapping) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unmapLocked(m)
}

func (s *maps) unmapLocked(m *mapping) {
	delete(s.live, m)
	_ = unix.Munmap(m.mem)
	m.mem = nil
}

// count returns how many blocks are mapped.
func (s *maps) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// readAt fills p from the block: by pread, and once the block has been read
// through, from a mapping of it if it lies in memory. A mapping saves the call
// and the kernel's walk, a fifth of a long read and two thirds of a short one,
// but its page faults make a single pass dearer. The caller holds a reference
// and stays within the block.
func (d *descriptor) readAt(p []byte, off int64) (int, error) {
	if m := d.mapped.Load(); m != nil {
		if !m.disk && m.acquire() {
			ok := copyMapped(p, m.mem[off:])
			m.release()
			if ok {
				return len(p), nil
			}
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
	if m := d.maps.add(d, false); m != nil {
		m.release()
	}
}

// forgetReads starts the count anew that leads to a mapping.
func (d *descriptor) forgetReads() {
	d.read.Store(0)
	d.reads.Store(0)
	d.tried.Store(false)
}

// lend returns a referenced mapping of the block, nil if there can be none.
func (d *descriptor) lend() *mapping {
	if m := d.mapped.Load(); m != nil && m.acquire() {
		return m
	}
	return d.maps.add(d, true)
}

// unmap ends the descriptor's hold on the mapping; nobody holds a reference to
// the descriptor any more, views may hold the mapping.
func (d *descriptor) unmap() {
	if m := d.mapped.Swap(nil); m != nil {
		m.release()
	}
}

// copyMapped fills dst from a mapping. Blocks are never cut, only unlinked, so
// no page of one can be missing but for a failing machine: then it reports
// false instead of ending the process.
func copyMapped(dst, src []byte) (ok bool) {
	if len(src) < len(dst) {
		return false
	}
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
