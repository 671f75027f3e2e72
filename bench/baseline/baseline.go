// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package baseline is what Orca is held against: the least that the machine
// could do for the same result, written with as few layers as Go allows. Each
// piece is the strongest form we know, since a weak baseline is a false claim:
//
//   - Memory: one thread copying out of a large mapping on huge pages;
//   - RawServe and RawReceive: sendfile(2) and recv(2) on blocking sockets in
//     two separate processes, no Go network poller, no framing;
//   - native file operations by bare system calls, the same functions for a
//     mount of Orca and for the file system beside it;
//   - Get: one HTTP GET of a signed URL, into a reused buffer;
//   - Fdatasync: a small write made durable.
//
// Flow: bench/suite calls these in turns with Orca. The two raw processes are
// this package's Main, run by the orcabench binary under a hidden command, and
// end when their standard input does.
package baseline

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"orca/bench/workload"
)

// Chunk is the size of the buffer that bulk cases read into, in bytes.
const Chunk = 1 << 20

// Memory is a mapped source that is larger than the processor's caches.
type Memory struct {
	src []byte
}

// NewMemory maps size bytes (on huge pages where the kernel grants them),
// filled with content so that no page is the shared zero page.
func NewMemory(size int64) (*Memory, error) {
	src, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	// Advice only: without huge pages the copy is a little slower.
	_ = unix.Madvise(src, unix.MADV_HUGEPAGE)
	workload.Fill(src, 1, 0)
	return &Memory{src: src}, nil
}

// Copy copies the source once into buf, again and again over the same bytes of
// buf, and returns the time it took.
func (m *Memory) Copy(buf []byte) time.Duration {
	start := time.Now()
	for off := 0; off < len(m.src); off += len(buf) {
		copy(buf, m.src[off:])
	}
	return time.Since(start)
}

// Size returns the bytes that Copy copies.
func (m *Memory) Size() int64 { return int64(len(m.src)) }

// Close unmaps the source.
func (m *Memory) Close() error { return unix.Munmap(m.src) }

// Buffer returns n zeroed bytes on pages of their own, already present: the
// reused buffer of both sides of a case.
func Buffer(n int) []byte {
	page := os.Getpagesize()
	b := make([]byte, n+page)
	shift := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(page))
	if shift != 0 {
		shift = page - shift
	}
	b = b[shift : shift+n : shift+n]
	for i := 0; i < n; i += page {
		b[i] = 1
	}
	return b
}
