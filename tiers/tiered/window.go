// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"runtime/debug"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

// window implements tiers.Window: a mapping of huge pages of the block file.
// Its grains are absent and belong to it alone until it is closed, so they are
// written and summed without a lock.
type window struct {
	w      *filler
	mem    []byte
	off, n int64 // of mem in the block
	stored int   // bytes of mem
	done   chan struct{}
}

var (
	_ tiers.Windower = (*filler)(nil)
	_ tiers.Window   = (*window)(nil)
)

// Window implements tiers.Windower: on a tmpfs that gives huge pages, for
// whole huge pages of which nothing is there. They are populated before they
// are handed out: an access cannot fail for lack of space any more.
func (w *filler) Window(ctx context.Context, off, n int64) tiers.Window {
	const page = dir.HugeStep / 2
	b := w.b
	if !b.at.Huge() || off%page != 0 || min(n, b.length-off) < page {
		return nil
	}
	n = min(n, b.length-off, dir.HugeStep) / page * page
	v, f := w.claim(ctx, off, n)
	if v == nil {
		return nil
	}
	// Without the lock: this takes as long as the kernel needs to clear n bytes.
	if v.mem = b.at.Map(f, off, n); v.mem == nil {
		v.Close()
		return nil
	}
	return v
}

// claim makes the window of a range of which nothing is there or claimed, and
// returns it with the file of the block.
func (w *filler) claim(ctx context.Context, off, n int64) (*window, *dir.File) {
	b := w.b
	b.fill.Lock()
	defer b.fill.Unlock()
	if moff, mn := w.Missing(off, n); w.closed || moff != off || mn < n || b.overlaps(off, n) != nil {
		return nil, nil
	}
	if w.openFile() != nil || w.takeCredit(ctx, off, n) != nil {
		return nil, nil // the ordinary way finds the words for it
	}
	w.credit -= n
	w.huge = max(w.huge, off+n)
	v := &window{w: w, off: off, n: n, done: make(chan struct{})}
	b.windows = append(b.windows, v)
	return v, w.f
}

// overlaps returns a window that holds part of a range; b.fill is held.
func (b *block) overlaps(off, n int64) *window {
	for _, v := range b.windows {
		if off < v.off+v.n && v.off < off+n {
			return v
		}
	}
	return nil
}

// Bytes implements tiers.Window.
func (v *window) Bytes() []byte { return v.mem[v.stored:] }

// Store implements tiers.Window.
func (v *window) Store(n int) error {
	if n%orca.GrainSize != 0 || n > len(v.mem)-v.stored {
		return &orca.Error{Op: "tiered.Store", Path: v.w.b.ID.String(), Kind: orca.Invalid, Msg: "not whole grains of the window"}
	}
	first := int((v.off + int64(v.stored)) / orca.GrainSize)
	if err := v.sum(first, v.mem[v.stored:v.stored+n]); err != nil {
		return err
	}
	v.stored += n
	v.w.b.fill.Lock()
	defer v.w.b.fill.Unlock()
	return v.w.landed(first, first+n/orca.GrainSize, int64(n))
}

// sum computes the sums of new grains. A page that the medium has lost is an
// error and not the end of the process.
func (v *window) sum(first int, p []byte) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			err = &orca.Error{Op: "tiered.Store", Path: v.w.b.ID.String(), Kind: orca.Busy, Msg: "memory of the tier was lost"}
		}
	}()
	blockfile.AppendSums(v.w.b.sums[first:first], p)
	return nil
}

// Close implements tiers.Window.
func (v *window) Close() {
	w, b := v.w, v.w.b
	if v.mem != nil {
		b.at.Unmap(v.mem)
	}
	b.fill.Lock()
	defer b.fill.Unlock()
	for i, o := range b.windows {
		if o == v {
			b.windows = append(b.windows[:i], b.windows[i+1:]...)
			break
		}
	}
	close(v.done)
	if left := v.n - int64(v.stored); w.closed {
		b.at.Return(left)
	} else {
		w.credit += left
	}
	v.mem = nil
}
