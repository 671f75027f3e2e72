// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// Holder is told before the content of a file that it has open is removed by
// somebody else, so that it can copy what it still needs (ADR 0031). It takes
// a Watch that it is given to, and Opens by inode that it is given to.
//
// The metaplane knows a file as held from the answer to its Open until it is told
// that the last File of it was closed, which takes up to holdPause.
type Holder struct {
	fs *FS
	id uint64

	mu      sync.Mutex
	leaving func(orca.Ino)         // GUARDED_BY(mu)
	last    uint64                 // number of the last opening; GUARDED_BY(mu)
	opening map[uint64]struct{}    // those that are not answered; GUARDED_BY(mu)
	files   map[orca.Ino]*heldFile // held, as far as known; GUARDED_BY(mu)
	closed  map[orca.Ino]uint64    // to be given back, up to these numbers; GUARDED_BY(mu)
	busy    map[orca.Ino]bool      // being copied; GUARDED_BY(mu)
	told    map[uint16]uint64      // holds of the groups that know what is here; GUARDED_BY(mu)
	due     bool                   // somebody sends what was closed; GUARDED_BY(mu)
}

type heldFile struct {
	opens  int
	number uint64 // of the last opening
}

const (
	// holdPause is how long closed files are gathered, holdWait how long telling
	// of them may take.
	holdPause = 200 * time.Millisecond
	holdWait  = 5 * time.Second
	// holdBatch bounds the files of one request.
	holdBatch = 8192
)

// NewHolder makes one.
func (fs *FS) NewHolder() *Holder {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return &Holder{
		fs: fs, id: binary.BigEndian.Uint64(b[:]) | 1, leaving: func(orca.Ino) {},
		opening: map[uint64]struct{}{}, files: map[orca.Ino]*heldFile{},
		closed: map[orca.Ino]uint64{}, busy: map[orca.Ino]bool{}, told: map[uint16]uint64{},
	}
}

// OnLeaving has fn called, in a goroutine of its own and once at a time for one
// file, with what is about to be removed; when it returns the content may go.
func (h *Holder) OnLeaving(fn func(orca.Ino)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = fn
}

// begin numbers an opening.
func (h *Holder) begin() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.opening[h.last] = struct{}{}
	return h.last
}

// failed ends an opening that came to nothing, or may have.
func (h *Holder) failed(number uint64, ino orca.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.opening, number)
	h.closedLocked(ino, number)
}

// opened ends one that has ino open.
func (h *Holder) opened(number uint64, ino orca.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.opening, number)
	f := h.files[ino]
	if f == nil {
		f = &heldFile{}
		h.files[ino] = f
	}
	f.opens++
	f.number = max(f.number, number)
	if c, ok := h.closed[ino]; ok && c >= f.number {
		// A later opening was answered, and closed, before: the metaplane knows
		// that number only.
		delete(h.closed, ino)
		f.number = c
	}
}

// release says that a File was closed.
func (h *Holder) release(ino orca.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files[ino]
	if f.opens--; f.opens == 0 {
		delete(h.files, ino)
		h.closedLocked(ino, f.number)
	}
}

func (h *Holder) closedLocked(ino orca.Ino, number uint64) {
	h.closed[ino] = max(h.closed[ino], number)
	if !h.due {
		h.due = true
		time.AfterFunc(holdPause, h.send)
	}
}

// settledLocked is the number up to which all openings are answered.
func (h *Holder) settledLocked() uint64 {
	n := h.last
	for o := range h.opening {
		n = min(n, o-1)
	}
	return n
}

// send tells the metaplane what was closed, as far as no answer is awaited that
// may open it again.
func (h *Holder) send() {
	h.mu.Lock()
	h.due = false
	settled := h.settledLocked()
	by := map[uint16][]*metapb.Hold{}
	for ino, number := range h.closed {
		if f := h.files[ino]; number > settled && (f == nil || f.number <= number) {
			continue // else it is open again, under a greater number
		}
		delete(h.closed, ino)
		by[ino.Home()] = append(by[ino.Home()], &metapb.Hold{Ino: uint64(ino), Number: number})
	}
	if len(h.closed) > 0 && !h.due {
		h.due = true
		time.AfterFunc(holdPause, h.send)
	}
	h.mu.Unlock()
	for group, back := range by {
		for len(back) > 0 {
			n := min(len(back), holdBatch)
			h.tell(group, &metapb.HoldRequest{Back: back[:n]})
			back = back[n:]
		}
	}
}

// tell sends one request. What does not arrive is found out when the metaplane
// asks for the file.
func (h *Holder) tell(group uint16, r *metapb.HoldRequest) bool {
	ctx, cancel := context.WithTimeout(context.Background(), holdWait)
	defer cancel()
	r.H = h.fs.header()
	r.H.Group, r.Holder = uint32(group), h.id
	_, err := h.fs.meta.Hold(ctx, r)
	return err == nil
}

// request adds to a watch of a group that this holder hears of it.
func (h *Holder) request(group uint16, r *metapb.WatchRequest) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Holder, r.Holds = h.id, h.told[group]
}

// heard is what a watch of a group said.
func (h *Holder) heard(group uint16, r *metapb.WatchReply) {
	if h == nil {
		return
	}
	h.mu.Lock()
	strange := h.told[group] != r.Holds
	h.mu.Unlock()
	if strange && h.tellAll(group) {
		h.mu.Lock()
		h.told[group] = r.Holds
		h.mu.Unlock()
	}
	for _, n := range r.Leaving {
		h.recalled(orca.Ino(n))
	}
}

// tellAll tells a group that knows nothing what is held of it.
func (h *Holder) tellAll(group uint16) bool {
	h.mu.Lock()
	r := &metapb.HoldRequest{Whole: h.settledLocked()}
	for ino, f := range h.files {
		if ino.Home() == group {
			r.Taken = append(r.Taken, &metapb.Hold{Ino: uint64(ino), Number: f.number})
		}
	}
	h.mu.Unlock()
	return r.Whole == 0 || h.tell(group, r)
}

// recalled has a file copied that is about to go, and gives it back.
func (h *Holder) recalled(ino orca.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[ino] {
		return
	}
	h.busy[ino] = true
	number := h.settledLocked()
	leaving := func(orca.Ino) {}
	if f := h.files[ino]; f != nil {
		leaving, number = h.leaving, f.number
	}
	go func() {
		leaving(ino)
		h.tell(ino.Home(), &metapb.HoldRequest{Back: []*metapb.Hold{{Ino: uint64(ino), Number: number}}})
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.busy, ino)
	}()
}
