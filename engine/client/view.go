// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"

	"orca"
)

// maxCopied bounds a view that has to be copied, in bytes.
const maxCopied = 1 << 30

// View is a range of a file, lent until Release. It is a value: copies of it
// are the same view, and the first Release ends all of them. The zero View is
// empty.
//
// A mapped view is the memory of the tier itself. It must not be written (the
// process would be killed), and stays good after the block was evicted, the
// File and the FS closed, and the worker died: a block file is never changed
// or cut, only unlinked, and its space is free again when the last view of it
// has gone. So release views soon.
//
// What is left is hardware: a block on a disk that fails after Slice has
// faulted the range in and the kernel has dropped the page again, or a memory
// error, raises SIGBUS at the access. That access is the user's; a Go program
// that wants a panic instead of its end calls debug.SetPanicOnFault(true) in
// the goroutine that reads Bytes. The client does so for its own copies only.
type View struct {
	slot   *viewSlot
	turn   uint64 // of slot, while this view is alive
	b      []byte
	mapped bool
}

// viewSlot is what one view holds. It is used again after its release, with
// the next turn, so that a late second Release finds that its own is over.
type viewSlot struct {
	turn   atomic.Uint64
	m      *mapping
	buf    []byte // of a pool, when m is nil
	owner  *views
	behind *viewSlot // on the free list
}

// views counts the views of one FS and keeps their slots.
type views struct {
	mu   sync.Mutex
	free *viewSlot // GUARDED_BY(mu)
	held int       // GUARDED_BY(mu)
}

func (s *views) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// lendOut returns a view of b, which m or the pooled buf keeps alive.
func (s *views) lendOut(b []byte, m *mapping, buf []byte) View {
	s.mu.Lock()
	slot := s.free
	if slot == nil {
		slot = &viewSlot{owner: s}
	} else {
		s.free = slot.behind
	}
	slot.m, slot.buf, slot.behind = m, buf, nil
	s.held++
	s.mu.Unlock()
	return View{slot: slot, turn: slot.turn.Load(), b: b, mapped: m != nil}
}

// Bytes returns the content; nil once the view was released. The slice must
// not be used after Release.
func (v View) Bytes() []byte {
	if v.slot == nil || v.slot.turn.Load() != v.turn {
		return nil
	}
	return v.b
}

// Mapped reports whether the bytes are the tier's own memory; else they were
// copied into a buffer.
func (v View) Mapped() bool { return v.mapped }

// Release gives the memory back. It may be called more than once.
func (v View) Release() {
	if v.slot == nil || !v.slot.turn.CompareAndSwap(v.turn, v.turn+1) {
		return
	}
	slot, s := v.slot, v.slot.owner
	m, buf := slot.m, slot.buf
	s.mu.Lock()
	slot.m, slot.buf, slot.behind = nil, nil, s.free
	s.free = slot
	s.held--
	s.mu.Unlock()
	if m != nil {
		m.release()
	} else {
		giveBuffer(buf)
	}
}

// Slice lends [off, off+n) of the file, less where the file ends; io.EOF from
// its end on. A range within one block that is complete on a local worker is
// the block itself, mapped once for all readers: no byte is copied and, once
// it is mapped, nothing allocated. Any other (remote, partial, across blocks,
// Config.Mappings held by other views, or a read type that asks for the
// worker) is read into a pooled buffer; View.Mapped tells. TooLarge for more
// than 1 GiB that cannot be mapped.
//
// A mapped block on a disk is read in before Slice returns.
func (f *File) Slice(ctx context.Context, off, n int64) (View, error) {
	if off < 0 || n < 0 {
		return View{}, orca.E("client.Slice", orca.Invalid, "negative offset or length")
	}
	if f.closed.Load() {
		return View{}, errClosed
	}
	rest := f.info.Length - off
	if n == 0 {
		return View{}, nil
	}
	if rest <= 0 {
		return View{}, io.EOF
	}
	n = min(n, rest)
	if v, ok := f.lend(ctx, off, n); ok {
		return v, nil
	}
	if n > maxCopied {
		return View{}, &orca.Error{Op: "client.Slice", Path: f.info.Name, Kind: orca.TooLarge, Msg: "more than 1 GiB that is not one block on this host: read it in parts"}
	}
	buf := takeBuffer(n)
	if _, err := f.ReadAtContext(ctx, buf[:n], off); err != nil && err != io.EOF {
		giveBuffer(buf)
		return View{}, err
	}
	f.fs.stats.CopiedViews.Add(1)
	f.fs.stats.CopiedBytes.Add(n)
	return f.fs.views.lendOut(buf[:n:n], nil, buf), nil
}

// lend returns a mapped view, if there can be one.
func (f *File) lend(ctx context.Context, off, n int64) (View, bool) {
	i := off / f.info.BlockSize
	off -= i * f.info.BlockSize
	if off+n > f.info.BlockSize {
		return View{}, false
	}
	idx := uint32(i)
	d := f.local(ctx, idx)
	if d == nil {
		return View{}, false
	}
	defer d.release()
	m := d.lend()
	if m == nil {
		return View{}, false
	}
	if !m.populate(ctx, off, n) {
		m.release()
		if ctx.Err() == nil {
			f.unpin(idx, d) // a bad disk: the worker has other sources
			f.postpone(idx)
		}
		return View{}, false
	}
	f.fs.stats.MappedViews.Add(1)
	f.fs.stats.MappedBytes.Add(n)
	return f.fs.views.lendOut(m.mem[off:off+n:off+n], m, nil), true
}

// viewBuffers are pools of buffers of 4 KiB << index.
var viewBuffers [19]sync.Pool

const smallestBuffer = 4 << 10

func bufferClass(n int64) int {
	if n <= smallestBuffer {
		return 0
	}
	return bits.Len64(uint64((n - 1) / smallestBuffer))
}

// takeBuffer returns a buffer of at least n bytes, at most maxCopied.
func takeBuffer(n int64) []byte {
	c := bufferClass(n)
	if b, ok := viewBuffers[c].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, smallestBuffer<<c)
}

func giveBuffer(b []byte) {
	b = b[:cap(b)]
	viewBuffers[bufferClass(int64(len(b)))].Put(&b)
}
