// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"
	"time"

	"orca"
)

// removal is a name about to be removed or replaced by this mount. What is read
// through the daemon must be copied before, since the metaplane frees the
// content of an inode with its last name, whoever has it open here.
//
// No open may fall between that copy and the removal. So a removal is listed
// first and copies what is open then, and an open lists its handle first and
// copies what it reads when it finds a removal of its inode: whichever comes
// second sees the other. Nobody waits for that.
//
// What is being written of the inode is told that the name may be going, last
// before the removal, and whether it has gone, after it. In between nothing is
// published, and who would publish (a close) waits for the outcome. So a
// removal must not wait for anything in between that such a one may hold (a
// node's mu).
type removal struct {
	at entryKey

	// Guarded by gateway.mu.
	ino     orca.Ino   // 0: was not looked up, since nothing was open
	leaving []*writing // told that the name may be going
	outcome outcome
}

type outcome uint8

const (
	undecided outcome = iota
	hasGone
	hasStayed
)

// beginRemoval prepares for the end of the inode at dir/name: its write session
// ends, and what is open through the daemon is copied. done must be called with
// the outcome.
func (g *gateway) beginRemoval(ctx context.Context, c orca.Caller, dir orca.Ino, name string) (done func(error)) {
	r := &removal{at: entryKey{dir, name}}
	g.mu.Lock()
	g.removals[r] = struct{}{}
	idle := len(g.handles) == 0
	g.mu.Unlock()
	done = func(err error) { g.endRemoval(r, err) }
	if idle {
		return done
	}
	e, err := g.fs.Lookup(ctx, c, dir, name)
	if err != nil || e.Type != orca.TypeFile {
		return done
	}
	if more, unlock := g.otherNames(ctx, c, dir, name, &e); more {
		if w := g.writingOf(e.Ino); w != nil {
			w.cutOff(ctx)
		}
		return func(err error) {
			g.endRemoval(r, errStays)
			if err == nil {
				g.lostName(ctx, e.Ino)
			}
			unlock()
		}
	}
	g.mu.Lock()
	r.ino = e.Ino
	g.mu.Unlock()
	var going []*writing
	if w := g.writingOf(e.Ino); w != nil {
		w.cutOff(ctx)
		going = append(going, w)
	}
	for _, n := range g.openNodes(e.Ino) {
		if err := g.keep(ctx, n, func(w *writing) { going = append(going, w) }); err != nil {
			g.cfg.Logger.Warn("an open file was removed without a copy", "ino", e.Ino, "err", err)
		}
		g.drop(n)
	}
	for _, w := range going {
		g.leaveWith(r, w)
	}
	return done
}

// errStays is the outcome of a removal for an inode that has more names.
var errStays error = orca.E("fusegw.removal", orca.Exists, "the inode has other names")

func (g *gateway) endRemoval(r *removal, err error) {
	g.mu.Lock()
	delete(g.removals, r)
	r.outcome = hasGone
	if err != nil {
		r.outcome = hasStayed
	}
	ws := r.leaving
	g.mu.Unlock()
	for _, w := range ws {
		w.left(err == nil)
	}
}

// leaveWith tells w that its name goes with a removal, and has it told the
// outcome.
func (g *gateway) leaveWith(r *removal, w *writing) {
	w.leave()
	g.mu.Lock()
	known := r.outcome
	if known == undecided {
		r.leaving = append(r.leaving, w)
	}
	g.mu.Unlock()
	if known != undecided {
		w.left(known == hasGone)
	}
}

// keepLeaving copies what a new handle of n reads through the daemon when its
// inode is being removed. It fails when the inode went first.
func (g *gateway) keepLeaving(ctx context.Context, n *node) error {
	g.mu.Lock()
	if len(g.removals) == 0 {
		g.mu.Unlock()
		return nil
	}
	rs := make([]*removal, 0, len(g.removals))
	inos := make([]orca.Ino, 0, len(g.removals))
	for r := range g.removals {
		rs, inos = append(rs, r), append(inos, r.ino)
	}
	g.mu.Unlock()
	for i, r := range rs {
		if inos[i] == 0 {
			if e, err := g.fs.Lookup(ctx, orca.Caller{}, r.at.dir, r.at.name); err == nil {
				inos[i] = e.Ino
			}
		}
		if inos[i] == n.ino {
			return g.keep(ctx, n, func(w *writing) { g.leaveWith(r, w) })
		}
	}
	// None of them, or the one has been removed by now.
	if _, err := g.fs.Stat(ctx, orca.Caller{}, n.ino); orca.KindOf(err) == orca.NotFound {
		return g.keep(ctx, n, func(w *writing) { g.leaveWith(&removal{outcome: hasGone}, w) })
	}
	return nil
}

// keep copies what the handles of n read through the daemon, unless it is here
// already. A write that has not copied the old content yet gets it now; leaving
// is called with it before.
func (g *gateway) keep(ctx context.Context, n *node, leaving func(*writing)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.open
	if o == nil || o.b != nil || o.file == nil || o.w == nil && n.kept.Load() != nil || o.w != nil && o.w.file() != nil {
		return nil
	}
	if o.attr.Length > g.cfg.SpoolUnlinked {
		return nil
	}
	f, err := scratchFile(g.cfg.SpoolDir)
	if err != nil {
		return err
	}
	if _, err := copyOld(ctx, f, o.file, o.file.Attr().Length); err != nil {
		_ = f.Close()
		return err
	}
	if o.w == nil {
		n.kept.Store(f)
		return nil
	}
	leaving(o.w)
	return o.w.keepOld(f)
}

// keepOld makes f, a copy of the old content, the private file of a write whose
// name may be going.
func (w *writing) keepOld(f *os.File) error {
	w.pub.Lock()
	defer w.pub.Unlock()
	if w.file() != nil { // prepared meanwhile
		return f.Close()
	}
	return w.start(f, nil)
}

// leaving copies what is open of an inode that others are about to remove. What is
// open for writing without having been written gets its private file now; whether
// there is a name to publish under its close finds out.
func (g *gateway) leaving(ino orca.Ino) {
	ctx, cancel := context.WithTimeout(context.Background(), leavingFor)
	defer cancel()
	if g.removes(ctx, ino) {
		return
	}
	for _, n := range g.openNodes(ino) {
		if err := g.keep(ctx, n, func(*writing) {}); err != nil {
			g.cfg.Logger.Warn("an open file is removed elsewhere and was not copied", "ino", ino, "err", err)
		}
		g.drop(n)
	}
}

// removes reports whether this mount itself is removing an inode: what is open of it
// was copied before, or is by who opens it. To wait for a node's mu here would be to
// have the removal wait for it.
func (g *gateway) removes(ctx context.Context, ino orca.Ino) bool {
	g.mu.Lock()
	var unknown []entryKey
	for r := range g.removals {
		if r.ino == ino {
			g.mu.Unlock()
			return true
		}
		if r.ino == 0 {
			unknown = append(unknown, r.at)
		}
	}
	g.mu.Unlock()
	for _, at := range unknown {
		if e, err := g.fs.Lookup(ctx, orca.Caller{}, at.dir, at.name); err == nil && e.Ino == ino {
			return true
		}
	}
	return false
}

// leavingFor bounds the copying of what others remove: they wait for less.
const leavingFor = 10 * time.Second
