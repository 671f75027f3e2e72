// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"orca"
)

const (
	// graveFor is how long a replaced file can still be opened.
	graveFor = time.Second
	// gravesMax bounds the replaced files kept; the oldest leave first.
	gravesMax = 1024
)

// graves keeps files that a rename on this mount has just replaced. A process
// that has looked the name up but not yet opened it is to get the old file, as
// it would on a native file system, and not that there is none.
type graves struct {
	mu sync.Mutex
	by map[orca.Ino]*grave
	in []orca.Ino // in order of burial
}

// grave is the File of a replaced inode, shared by those who still open it.
type grave struct {
	File
	refs  atomic.Int32
	until time.Time
}

// Close gives back one use.
func (f *grave) Close() error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	return f.File.Close()
}

// bury opens what a rename is about to replace.
func (g *gateway) bury(ctx context.Context, ino orca.Ino) {
	f, err := g.fs.Open(ctx, orca.Caller{}, ino)
	if err != nil {
		return
	}
	f.Backing(ctx) // while it still can be had
	e := &grave{File: f, until: time.Now().Add(graveFor)}
	e.refs.Store(1)
	t := &g.graves
	t.mu.Lock()
	if t.by == nil {
		t.by = map[orca.Ino]*grave{}
	}
	old := t.by[ino]
	if old == nil {
		t.in = append(t.in, ino)
	}
	t.by[ino] = e
	if len(t.in) > gravesMax {
		old = t.by[t.in[0]]
		delete(t.by, t.in[0])
		t.in = t.in[1:]
	}
	t.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
}

// attr returns the attributes of a replaced file.
func (t *graves) attr(ino orca.Ino, a *orca.Attr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.by[ino]
	if e != nil {
		*a = e.Attr()
	}
	return e != nil
}

// exhume returns a replaced file, or nil.
func (t *graves) exhume(ino orca.Ino, c orca.Caller) File {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.by[ino]
	if e == nil || time.Now().After(e.until) {
		return nil
	}
	if a := e.Attr(); !allowed(&a, c, 4) {
		return nil
	}
	e.refs.Add(1)
	return e
}

// sweep lets go of what was kept long enough; the zero time: of all.
func (t *graves) sweep(now time.Time) {
	var old []*grave
	t.mu.Lock()
	for len(t.in) > 0 {
		e := t.by[t.in[0]]
		if !now.IsZero() && now.Before(e.until) {
			break
		}
		old = append(old, e)
		delete(t.by, t.in[0])
		t.in = t.in[1:]
	}
	t.mu.Unlock()
	for _, e := range old {
		_ = e.Close()
	}
}
