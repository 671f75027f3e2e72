// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// holds are the files that mounts have open and read through their daemons, soft
// state of the leader (ADR 0031). Before it has the content of one of them removed
// it recalls the file: it tells the holders, on their watch streams, and waits until
// they have copied what they need, or recallWait is over.
//
// A recall has two parts. At first whoever opens the file holds it, too, and is
// recalled like the others. When none is left the file is closed: an open waits
// until the removal has been decided. So no open falls between the last copy and
// the removal. What is waited for in the second part is only the removal itself.
type holds struct {
	known atomic.Int64 // holders; while there are none nothing of this costs anything

	mu      sync.Mutex
	files   map[orca.Ino]*heldFile // GUARDED_BY(mu)
	holders map[uint64]*holder     // GUARDED_BY(mu)
	changed chan struct{}          // closed when something was given back; nil: nobody waits; GUARDED_BY(mu)
}

// heldFile is one file that somebody holds, or whose removal has begun.
type heldFile struct {
	by     map[uint64]hold // by holder
	closed int             // removals that nobody may open it before the end of
	opened chan struct{}   // closed when closed is 0 again
}

// hold is what one holder has of one file.
type hold struct {
	number uint64 // of his last opening of it
	back   uint64 // up to which he does not need it any more
}

// holder is who has files open.
type holder struct {
	heard   time.Time // when the last of his watch requests ended
	polls   int       // of them that wait
	wake    chan struct{}
	leaving map[orca.Ino]struct{} // that he is still to be told of
}

const (
	// recallWait is how long a removal waits for those who have the file open.
	recallWait = 5 * time.Second
	// recallAgain is after how long a holder is told once more.
	recallAgain = 500 * time.Millisecond
	// lateWait is how long it waits after that for those who have opened it since.
	lateWait = 250 * time.Millisecond
	// holderTerm is for how long a holder counts that does not watch.
	holderTerm = 5 * time.Second
	// holderKept is after how long one is forgotten.
	holderKept = time.Minute
	// maxHeld bounds the files that are held; who opens more does without.
	maxHeld = 1 << 20
)

// any reports whether anybody may hold something, without a lock.
func (h *holds) any() bool { return h.known.Load() > 0 }

func (h *holds) holderLocked(id uint64) *holder {
	p := h.holders[id]
	if p == nil {
		p = &holder{heard: time.Now(), wake: make(chan struct{}, 1), leaving: map[orca.Ino]struct{}{}}
		if h.holders == nil {
			h.holders = map[uint64]*holder{}
		}
		h.holders[id] = p
		h.known.Add(1)
	}
	return p
}

func (h *holds) fileLocked(ino orca.Ino) *heldFile {
	f := h.files[ino]
	if f == nil {
		f = &heldFile{by: map[uint64]hold{}}
		if h.files == nil {
			h.files = map[orca.Ino]*heldFile{}
		}
		h.files[ino] = f
	}
	return f
}

func (h *holds) reapLocked(ino orca.Ino) {
	if f := h.files[ino]; f != nil && len(f.by) == 0 && f.closed == 0 {
		delete(h.files, ino)
	}
}

// take has a holder hold a file. When a removal of it is being decided it waits
// for the outcome.
func (h *holds) take(ctx context.Context, id, number uint64, ino orca.Ino) error {
	for {
		h.mu.Lock()
		if f := h.files[ino]; f == nil && len(h.files) >= maxHeld {
			h.mu.Unlock()
			return nil
		}
		f := h.fileLocked(ino)
		if f.closed == 0 {
			h.takeLocked(f, id, number)
			h.mu.Unlock()
			return nil
		}
		opened := f.opened
		h.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return orca.PathE("metaserver.Open", ino.String(), orca.Canceled, ctx.Err())
		}
	}
}

func (h *holds) takeLocked(f *heldFile, id, number uint64) {
	h.holderLocked(id)
	k := f.by[id]
	k.number = max(k.number, number)
	f.by[id] = k
}

// giveBack says that a holder does not need a file any more, of what he opened up
// to a number.
func (h *holds) giveBack(id, number uint64, ino orca.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.backLocked(id, number, ino)
}

func (h *holds) backLocked(id, number uint64, ino orca.Ino) {
	f := h.files[ino]
	if f == nil {
		return
	}
	k, ok := f.by[id]
	if !ok {
		return
	}
	if k.back = max(k.back, number); k.back < k.number {
		f.by[id] = k
	} else {
		delete(f.by, id)
		h.reapLocked(ino)
	}
	h.changedLocked()
}

func (h *holds) changedLocked() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// set is what a holder says that he has open.
func (h *holds) set(r *metapb.HoldRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Whole != 0 {
		now := make(map[orca.Ino]struct{}, len(r.Taken))
		for _, t := range r.Taken {
			ino := orca.Ino(t.Ino)
			if now[ino] = struct{}{}; h.files[ino] != nil || len(h.files) < maxHeld {
				h.takeLocked(h.fileLocked(ino), r.Holder, t.Number)
			}
		}
		for ino, f := range h.files {
			if _, has := now[ino]; !has && f.by[r.Holder].number != 0 {
				h.backLocked(r.Holder, r.Whole, ino)
			}
		}
	}
	for _, b := range r.Back {
		h.backLocked(r.Holder, b.Number, orca.Ino(b.Ino))
	}
}

// listen notes that a holder watches; end must be called when he does not wait any
// more, and returns what he is to be told.
func (h *holds) listen(id uint64) (wake <-chan struct{}, end func() []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.holderLocked(id)
	p.polls++
	return p.wake, func() []uint64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		p.polls--
		p.heard = time.Now()
		var out []uint64
		for ino := range p.leaving {
			out = append(out, uint64(ino))
		}
		clear(p.leaving)
		return out
	}
}

// expire forgets holders that have not been heard of for long.
func (h *holds) expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, p := range h.holders {
		if p.polls > 0 || now.Sub(p.heard) < holderKept {
			continue
		}
		delete(h.holders, id)
		h.known.Add(-1)
		for ino, f := range h.files {
			delete(f.by, id)
			h.reapLocked(ino)
		}
	}
}

// held returns the files that are held.
func (h *holds) held() []orca.Ino {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]orca.Ino, 0, len(h.files))
	for ino := range h.files {
		out = append(out, ino)
	}
	return out
}

// recalled is one recall on its way.
type recalled struct {
	h    *holds
	inos []orca.Ino
	// first are the openings that it began with; told those whose holders were told.
	first, told map[holdKey]uint64
	late        time.Time // until then those are waited for who came later; zero: not yet
}

type holdKey struct {
	holder uint64
	ino    orca.Ino
}

// recall waits until nobody needs the content of files any more, but no longer than
// recallWait, and keeps them from being opened until end is called. It says whether
// it waited, and whether that was in vain.
func (h *holds) recall(ctx context.Context, inos []orca.Ino) (end func(), waited, cut bool) {
	ctx, cancel := context.WithTimeout(ctx, recallWait)
	defer cancel()
	again := time.NewTicker(recallAgain)
	defer again.Stop()
	r := &recalled{h: h, inos: inos, told: map[holdKey]uint64{}}
	for tell := true; ; {
		h.mu.Lock()
		waits := r.waitsLocked(tell, time.Now())
		if !waits || ctx.Err() != nil {
			r.closeLocked()
			h.mu.Unlock()
			return r.end, waited, waits
		}
		waited = true
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		var late <-chan time.Time
		if !r.late.IsZero() {
			late = time.After(time.Until(r.late))
		}
		tell = false
		select {
		case <-changed:
		case <-again.C:
			tell = true
		case <-late:
		case <-ctx.Done():
		}
	}
}

// waitsLocked reports whether somebody is to be waited for, and tells those who do
// not know yet, or all.
func (r *recalled) waitsLocked(all bool, now time.Time) bool {
	begins := r.first == nil
	if begins {
		r.first = map[holdKey]uint64{}
	}
	old, more := false, false
	for _, ino := range r.inos {
		f := r.h.files[ino]
		if f == nil {
			continue
		}
		for id, k := range f.by {
			p, key := r.h.holders[id], holdKey{id, ino}
			if p == nil || p.polls == 0 && now.Sub(p.heard) > holderTerm {
				continue
			}
			if begins {
				r.first[key] = k.number
			}
			if n, ok := r.first[key]; ok && k.back < n {
				old = true
			} else {
				more = true
			}
			if all || r.told[key] != k.number {
				r.told[key] = k.number
				p.tell(ino)
			}
		}
	}
	if !old && more && r.late.IsZero() {
		r.late = now.Add(lateWait)
	}
	return old || more && now.Before(r.late)
}

// tell has a holder hear of a file; under the lock.
func (p *holder) tell(ino orca.Ino) {
	p.leaving[ino] = struct{}{}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (r *recalled) closeLocked() {
	for _, ino := range r.inos {
		f := r.h.fileLocked(ino)
		if f.closed++; f.closed == 1 {
			f.opened = make(chan struct{})
		}
	}
}

func (r *recalled) end() {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	for _, ino := range r.inos {
		f := r.h.files[ino]
		if f.closed--; f.closed == 0 {
			close(f.opened)
			r.h.reapLocked(ino)
		}
	}
}
