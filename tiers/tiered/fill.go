// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"time"

	"orca"
	"orca/tiers"
	"orca/tiers/alloc"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

const (
	// creditStep is how much quota a filler takes at a time.
	creditStep = orca.PageSize
	// recordRun is how many grains are gathered before an index record.
	recordRun = 64
)

// filler implements tiers.Filler. While one is open its block cannot be
// evicted.
type filler struct {
	s *Store
	b *block

	// The rest is GUARDED_BY(block.fill).
	f      *dir.File
	credit int64 // quota taken and not yet charged to the block
	first  int   // run of grains not yet in the index: [first, end)
	end    int
	closed bool
	huge   int64 // prepared with huge pages up to here
}

// Begin implements tiers.Store.
func (s *Store) Begin(ctx context.Context, id orca.BlockID, length int64) (tiers.Filler, error) {
	const op = "tiered.Begin"
	if length <= 0 || length > blockfile.MaxLength {
		return nil, &orca.Error{Op: op, Path: id.String(), Kind: orca.Invalid, Msg: "length of a block out of range"}
	}
	b, err := s.joinFill(op, id, length)
	if b != nil || err != nil {
		return s.startFill(b, nil, 0, err)
	}
	first := min(length, creditStep)
	p, err := s.takeRoom(ctx, op, alloc.Need{Length: length, Room: first}, false)
	if err != nil {
		return nil, err
	}
	fresh := &block{length: length, at: p, trusted: true, fillers: 1}
	fresh.ID = id
	fresh.sums = make([]uint32, blockfile.Grains(length))
	fresh.have = blockfile.NewGrainSet(len(fresh.sums))
	for {
		if b, err = s.joinFill(op, id, length); b != nil || err != nil {
			p.Return(first)
			return s.startFill(b, nil, 0, err)
		}
		s.mu.Lock()
		if s.blockLocked(id) == nil && s.arriving[id] == 0 && s.takeNameLocked(id, p) {
			break
		}
		s.mu.Unlock()
		if ctx.Err() != nil {
			p.Return(first)
			return nil, orca.PathE(op, id.String(), orca.Canceled, ctx.Err())
		}
		time.Sleep(time.Millisecond) // its file is being unlinked, or the block arrives
	}
	fresh.fill.Lock()
	fresh.pinLocked()
	s.insertLocked(fresh)
	s.mu.Unlock()
	var f *dir.File
	err = s.withSpace(ctx, op, p, orca.GrainSize, false, func() (err error) {
		f, err = p.Create(id, length)
		return err
	})
	fresh.fill.Unlock()
	if err != nil {
		p.Return(first)
		s.fault(p, err)
		s.mu.Lock()
		fresh.unlinked = true
		s.leaveLocked(fresh, false)
		if name := (fileName{id, p}); s.leaving[name] == fresh {
			delete(s.leaving, name) // removed meanwhile: nothing is left to unlink
		}
		s.mu.Unlock()
		s.unfill(fresh)
		return nil, err
	}
	s.mu.Lock()
	fresh.made = true
	s.mu.Unlock()
	return s.startFill(fresh, f, first, nil)
}

// joinFill adds a filler to a block that is there.
func (s *Store) joinFill(op string, id orca.BlockID, length int64) (*block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blockLocked(id)
	if b == nil {
		return nil, nil
	}
	if b.length != length {
		return nil, &orca.Error{Op: op, Path: id.String(), Kind: orca.Invalid, Msg: "block is cached with another length"}
	}
	if b.dirty && b.have != nil {
		return nil, &orca.Error{Op: op, Path: id.String(), Kind: orca.Corrupt, Msg: "the only copy is damaged"}
	}
	b.fillers++
	b.pinLocked()
	s.rankLocked(b)
	return b, nil
}

func (s *Store) startFill(b *block, f *dir.File, credit int64, err error) (tiers.Filler, error) {
	if err != nil {
		return nil, err
	}
	return &filler{s: s, b: b, f: f, credit: credit}, nil
}

// unfill ends one filler's hold on its block.
func (s *Store) unfill(b *block) {
	s.mu.Lock()
	b.fillers--
	s.rankLocked(b)
	if b.n > 0 && !b.gone {
		s.feed.add(b.ID)
	} else if b.n == 0 && b.fillers == 0 {
		s.leaveLocked(b, false) // nothing came
	}
	s.mu.Unlock()
	s.unpin(b)
}

// Missing implements tiers.Filler.
func (w *filler) Missing(off, n int64) (int64, int64) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	b := w.b
	if b.have == nil || n <= 0 || off >= b.length {
		return off, 0
	}
	end := blockfile.Grains(min(off+n, b.length))
	first := int(off / orca.GrainSize)
	for first < end && b.have.Has(first) {
		first = b.have.NextClear(first, end)
	}
	stop := b.have.NextSet(first, end)
	if first >= end {
		return off, 0
	}
	moff := int64(first) * orca.GrainSize
	return moff, min(int64(stop)*orca.GrainSize, b.length) - moff
}

// WriteGrains implements tiers.Filler.
func (w *filler) WriteGrains(ctx context.Context, p []byte, off int64) error {
	const op = "tiered.WriteGrains"
	b := w.b
	if off%orca.GrainSize != 0 || off < 0 || off+int64(len(p)) > b.length ||
		len(p)%orca.GrainSize != 0 && off+int64(len(p)) != b.length {
		return &orca.Error{Op: op, Path: b.ID.String(), Kind: orca.Invalid, Msg: "not whole grains of the block"}
	}
	b.fill.Lock()
	defer b.fill.Unlock()
	if w.closed {
		return &orca.Error{Op: op, Path: b.ID.String(), Kind: orca.Invalid, Msg: "filler is closed"}
	}
	for len(p) > 0 {
		moff, mn := w.Missing(off, int64(len(p)))
		if mn == 0 {
			return nil
		}
		if v := b.overlaps(moff, mn); v != nil {
			b.fill.Unlock()
			select {
			case <-v.done:
			case <-ctx.Done():
			}
			b.fill.Lock()
			if ctx.Err() != nil {
				return orca.PathE(op, b.ID.String(), orca.Canceled, ctx.Err())
			}
			continue
		}
		p = p[moff-off:]
		if err := w.writeRun(ctx, p[:mn], moff); err != nil {
			return err
		}
		p, off = p[mn:], moff+mn
	}
	return nil
}

// writeRun stores absent grains; b.fill is held.
func (w *filler) writeRun(ctx context.Context, p []byte, off int64) error {
	const op = "tiered.WriteGrains"
	b, s := w.b, w.s
	if err := w.takeCredit(ctx, off, int64(len(p))); err != nil {
		return err
	}
	if err := w.openFile(); err != nil {
		return err
	}
	first := int(off / orca.GrainSize)
	end := first + blockfile.Grains(int64(len(p)))
	// Not for the first grain, which somebody waits for: clearing memory for
	// more takes as long as its way from a near store.
	if b.at.Huge() && (w.end == first && first > 0 || len(p) >= 4*orca.GrainSize) {
		w.prepare(off, off+int64(len(p)))
	}
	blockfile.AppendSums(b.sums[first:first], p)
	if err := s.withSpace(ctx, op, b.at, int64(len(p)), false, func() error { return b.at.Write(w.f, p, off) }); err != nil {
		s.fault(b.at, err)
		return err
	}
	w.credit -= int64(len(p))
	return w.landed(first, end, int64(len(p)))
}

// takeCredit sees to n bytes of quota; b.fill is held.
func (w *filler) takeCredit(ctx context.Context, off, n int64) error {
	need := n - w.credit
	if need <= 0 {
		return nil
	}
	if rest := w.b.length - off; need < creditStep {
		need = min(creditStep, max(need, rest-w.credit))
	}
	if err := w.s.takeMore(ctx, "tiered.WriteGrains", w.b.at, need, false); err != nil {
		return err
	}
	w.credit += need
	return nil
}

// openFile opens the block's file for writing; b.fill is held.
func (w *filler) openFile() error {
	if w.f != nil {
		return nil
	}
	f, err := w.b.at.OpenBlock(w.b.ID, w.b.length, true)
	if err != nil {
		return w.s.lost(w.b, err)
	}
	w.s.mu.Lock()
	gone := w.b.gone
	w.s.mu.Unlock()
	if gone { // and its name may be that of a new block's file
		f.Close()
		return errAbsent
	}
	w.f = f
	return nil
}

// landed makes grains [first, end) of n bytes present, written and summed as
// they are; b.fill is held.
func (w *filler) landed(first, end int, n int64) error {
	b, s := w.b, w.s
	if w.end != first {
		w.record()
		w.first = first
	}
	w.end = end
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.gone {
		b.at.Return(n) // in an unlinked file that no one will read
		return errAbsent
	}
	b.have.AddRange(first, end)
	if b.n == 0 {
		s.feed.add(b.ID) // from now on it can be asked for, and freed
	}
	if b.checked == nil && !b.trusted {
		b.checked = blockfile.NewGrainSet(len(b.sums))
	}
	if !b.trusted {
		b.checked.AddRange(first, end)
	}
	b.n += end - first
	b.at.grains += int64(end - first)
	b.cached += n
	b.charged += n
	s.Metrics.FilledBytes.Add(n)
	if b.n == len(b.sums) {
		b.have = nil
		w.recordLocked()
		s.feed.add(b.ID)
	} else if w.end-w.first >= recordRun {
		w.recordLocked()
	}
	return nil
}

// prepare gives a filler that writes in order huge pages for what it comes to,
// as far as the quota has them and nothing of the block is there yet.
func (w *filler) prepare(off, end int64) {
	const page = dir.HugeStep / 2
	at := max(w.huge, (off+page-1)/page*page)
	for at < end {
		n := min(dir.HugeStep, (w.b.length-at)/page*page)
		if moff, mn := w.Missing(at, n); n == 0 || moff != at || mn < n {
			return
		}
		if need := at + n - off - w.credit; need > 0 {
			if !w.b.at.Take(need) {
				return
			}
			w.credit += need
		}
		w.b.at.Prepare(w.f, at, n)
		at += n
		w.huge = at
	}
}

// record appends the pending run to the index.
func (w *filler) record() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.recordLocked()
}

func (w *filler) recordLocked() {
	if w.end > w.first && !w.b.gone {
		w.b.at.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: w.b.flagsLocked(), ID: w.b.ID,
			Length: w.b.length, First: uint32(w.first), Sums: w.b.sums[w.first:w.end]})
	}
	w.first = w.end
}

// Close implements tiers.Filler.
func (w *filler) Close() error {
	w.b.fill.Lock()
	if w.closed {
		w.b.fill.Unlock()
		return nil
	}
	w.closed = true
	w.record()
	if w.f != nil {
		w.f.Close()
	}
	if w.credit > 0 {
		w.b.at.Return(w.credit)
		w.s.mu.Lock()
		w.s.freedLocked()
		w.s.mu.Unlock()
	}
	w.b.fill.Unlock()
	w.s.unfill(w.b)
	return nil
}
