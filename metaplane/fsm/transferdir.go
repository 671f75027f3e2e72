// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A rename of a directory into a directory of another group is the transaction of
// transfer.go with a copy before it (ADR 0028). All that is below comes to the
// target's group first, as a tree that has no place yet (stagedtree.go), and the
// decision gives it one.
//
//	source: intent, copying ─► target: staged, sealed ─► source: asked
//	  │  (whoever would change something below waits; reads go on)
//	  └► given up, as it was                   ─► target: decides, as of a file
//	                                              ─► source: detached, or as it was
//
// While it copies the source's group may give the move up by itself: nobody has
// been asked to decide anything. From asked on only the decision ends it, and
// nobody reads at or below the directory: it may be at the other name by then.

// sendDirAway begins to take a directory to another group, or, once that has
// decided, takes it from here.
func (m *Machine) sendDirAway(c *call, o *metapb.RenameOp, src *spot) *refusal {
	d := src.dentry.dir
	if c.decided != nil {
		if uint64(d.rec.Ino) != c.decided.Ino {
			return refuse(orca.Internal, src.path, "it is another directory by now")
		}
		c.res.Parent = uint64(src.dir.rec.Ino)
		m.detachTo(d, c.decided.Root)
		m.event(metapb.EventKind_EVENT_ENTRY, d.rec.Ino, src.dir.rec.Ino, src.name)
		return nil
	}
	if r := m.checkSendDir(c, src); r != nil {
		return r
	}
	loc := m.locate(d, "")
	if r := m.free(c, loc, false, src.path); r != nil {
		return r
	}
	if id := m.goingBelow(d); id != 0 {
		return onItsWay(id, src.path)
	}
	op := &metapb.RenameOp{Src: here(src), Away: proto.Clone(o.Away).(*metapb.Target), NoReplace: o.NoReplace}
	return m.begin(c, &command.Intent{
		Op: metapb.IntentOp_INTENT_TRANSFER, Source: loc.key, Ino: uint64(d.rec.Ino), Dir: true, Subtree: true, Copying: true,
	}, loc, func(cmd *command.Command) { cmd.Rename = op })
}

// checkSendDir refuses what does not go to another group, and who may not have it
// go there. What is CrossMount is copied by who asked.
func (m *Machine) checkSendDir(c *call, src *spot) *refusal {
	d := src.dentry.dir
	mt := m.mountOf(d)
	switch {
	case src.isRoot() || mt == nil:
		return refuse(orca.CrossMount, src.path, "")
	case d.rec.Mount != 0:
		return refuse(orca.CrossMount, src.path, "a mount, or a directory that lives in a group of its own, stays where it is")
	}
	if r := firstRefusal(writable(mt, src.path), mayCut(&c.who, src)); r != nil {
		return r
	}
	if !allowedDir(&c.who, d, mayWrite) { // its parent changes
		return refuse(orca.Permission, src.path, "")
	}
	if r := m.stays(d, src.path); r != nil {
		return refuse(orca.CrossMount, src.path, r.msg)
	}
	switch {
	case !d.rec.Flags.Has(inode.Persisted):
		return refuse(orca.CrossMount, src.path, "only what its store has goes to another group")
	case !mt.AtomicRename:
		return refuse(orca.CrossMount, src.path, "its store cannot rename a directory in one call")
	}
	return nil
}

// goingBelow returns the first of the intents that take a directory below one to
// another group; 0 if there is none.
func (m *Machine) goingBelow(n *node) (first uint64) {
	if it := m.regroupBelow(n); it != nil {
		first = it.Id
	}
	for ino, id := range m.outcomes.dirs {
		if (first == 0 || id < first) && under(m.dirs[ino], n) {
			first = id
		}
	}
	return first
}

func onItsWay(id uint64, label string) *refusal {
	return &refusal{kind: orca.Busy, path: label, busy: id, msg: "it is on its way to a directory of another group"}
}

// notAsked refuses with Busy to read at or below a directory that another group
// has been asked to take.
func (m *Machine) notAsked(n *node, label string) *refusal {
	if m.applying || len(m.outcomes.dirs) == 0 {
		return nil
	}
	for ; n != nil; n = n.parent {
		if id := m.outcomes.dirs[n.rec.Ino]; id != 0 && !m.intents[id].Copying {
			return onItsWay(id, label)
		}
	}
	return nil
}

// undecidable refuses to decide about a directory that is being brought to another
// group as if that had been asked, and to give up what it was asked for.
func undecidable(it *command.Intent, o *metapb.DecideOp) *refusal {
	switch {
	case o.Early != it.Copying:
		return refuse(orca.Busy, "", "the move is further, or not as far")
	case o.Early && o.Kind == uint32(orca.OK):
		return refuse(orca.Invalid, "", "the other group has not been asked yet")
	}
	return nil
}

// brought says that all that is below a directory is in the other group: from now
// on that decides.
func (m *Machine) brought(o *metapb.BroughtOp) *refusal {
	it := m.intents[o.Intent]
	switch {
	case it == nil || it.Op != metapb.IntentOp_INTENT_TRANSFER || !it.Dir:
		return refuse(orca.NotFound, "", "no such move: it was given up, or has ended")
	case !it.Copying:
		return nil
	case o.Root == 0:
		return refuse(orca.Invalid, "", "it has no number there")
	}
	d := m.dirs[orca.Ino(it.Ino)]
	if r := firstRefusal(m.restless(it, d), m.stays(d, d.path())); r != nil {
		return r
	}
	m.changeIntent(it, func(next *command.Intent) { next.Copying, next.Root = false, o.Root })
	return nil
}

// LeavingTo returns what another group will be asked for a directory that is being
// brought there. NotFound: it is over, or that group has been asked.
func (m *Machine) LeavingTo(intent uint64) (*command.Intent, *metapb.TransferOp, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	it := m.intents[intent]
	if it == nil || !it.Copying {
		return nil, nil, orca.E("fsm.LeavingTo", orca.NotFound, "no such move: it was given up, or is further")
	}
	o, err := m.transferDir(it)
	return it, o, err
}

// transferDir is what another group is asked for a directory.
func (m *Machine) transferDir(it *command.Intent) (*metapb.TransferOp, error) {
	const op = "fsm.Transfer"
	d, mt := m.dirs[orca.Ino(it.Ino)], m.mounts[it.MountId]
	switch {
	case m.failed() != nil:
		return nil, m.failed()
	case d == nil || mt == nil || !m.attached(d):
		return nil, orca.E(op, orca.Internal, "the directory of a move is gone")
	}
	o := it.Command.Rename
	return &metapb.TransferOp{
		Tx: it.Id, DoneBelow: m.transfersDone(), Dst: o.Away, NoReplace: o.NoReplace, Caller: it.Command.Caller,
		Mount: family(mt), Root: mt.Mount.Uri, Key: it.Source, Dir: true,
	}, nil
}

// beginsDir locks the name that a directory of another group gets.
func (m *Machine) beginsDir(c *call, o *metapb.TransferOp, by *orca.Caller, dst *spot) *refusal {
	root := m.stagedTree(o.Tx)
	if root == nil {
		return refuse(orca.Internal, dst.path, "what is below it is not here")
	}
	if r := m.checkReceiveDir(c, o, by, dst); r != nil {
		return r
	}
	to := m.locateName(dst)
	if r := m.free(c, to, true, dst.path); r != nil {
		return r
	}
	if !to.mount.AtomicRename {
		return refuse(orca.CrossMount, dst.path, "its store cannot rename a directory in one call")
	}
	less := m.takes(dst)
	want := room{max(0, root.below.Bytes-less.bytes), max(0, root.below.Inodes()+1-less.inodes)}
	if r := m.fits(dst.dir, nil, want, dst.path); r != nil {
		return r
	}
	op := proto.Clone(o).(*metapb.TransferOp)
	op.Dst = here(dst)
	return m.begin(c, &command.Intent{
		Op: metapb.IntentOp_INTENT_RECEIVE, Target: to.key, Dir: true, Subtree: true, Replaces: !dst.none(),
		HoldDir: uint64(dst.dir.rec.Ino), HoldBytes: want.bytes, HoldInodes: want.inodes,
	}, to, func(cmd *command.Command) { cmd.Transfer = op })
}

// checkReceiveDir refuses what a rename of a directory within the group is refused
// for (checkRename).
func (m *Machine) checkReceiveDir(c *call, o *metapb.TransferOp, by *orca.Caller, dst *spot) *refusal {
	mt, e := m.mountOf(dst.dir), dst.dentry.dir
	switch {
	case dst.isRoot():
		return refuse(orca.Invalid, dst.path, "it is the root of all")
	case len(dst.rest) > 1:
		return refuse(orca.NotFound, dst.path, "")
	case mt == nil || family(mt) != o.Mount || m.part(e) != nil:
		return refuse(orca.CrossMount, dst.path, "")
	case e != nil && e.rec.Mount != 0:
		return refuse(orca.Invalid, dst.path, "it is a mount point")
	case !dst.none() && o.NoReplace:
		return refuse(orca.Exists, dst.path, "")
	case dst.file != nil:
		return refuse(orca.NotDir, dst.path, "")
	case e != nil && e.rec.Entries > 0:
		return refuse(orca.NotEmpty, dst.path, "")
	}
	if r := firstRefusal(writable(mt, dst.path), m.idle(dst.dir, dst.name, e, dst.path)); r != nil {
		return r
	}
	if dst.none() {
		return firstRefusal(checkNew(dst.dir, dst.rest, dst.path), mayChange(by, dst.dir, dst.path))
	}
	return firstRefusal(m.unknownContent(c, e, dst.path), mayCut(by, dst))
}

// refusedEarly says what forbids to place a directory that is about to be staged,
// so that none is in vain. What may pass is no refusal, nor what is not known yet.
func (m *Machine) refusedEarly(o *metapb.TransferOp) *refusal {
	if o.GetDst() == nil {
		return nil
	}
	by := who(o.Caller)
	dst, r := m.resolve(&by, o.Dst, true)
	switch {
	case r != nil && r.kind == orca.Referral:
		r = refuse(orca.CrossMount, dst.path, "")
	case r == nil:
		r = m.checkReceiveDir(&call{cmd: &command.Command{}}, o, &by, &dst)
	}
	if r != nil && (r.kind.Retryable() || dst.none() && dst.dir != nil && !dst.dir.rec.Flags.Has(inode.Loaded)) {
		return nil
	}
	return r
}

// installDir gives a directory of another group its place, and with that all that
// is below it.
func (m *Machine) installDir(c *call, o *metapb.TransferOp, dst *spot) *refusal {
	if m.stagedTree(o.Tx) == nil {
		return refuse(orca.Internal, dst.path, "BUG: what is below it is gone")
	}
	if !dst.none() {
		c.res.Replaced = uint64(dst.ino())
		m.erase(&spot{dir: dst.dir, name: dst.name, dentry: dst.dentry})
	}
	n := m.placeTree(o.Tx, dst.dir, dst.name)
	m.event(metapb.EventKind_EVENT_ENTRY, n.rec.Ino, dst.dir.rec.Ino, n.rec.Name)
	c.res.Attr = m.dirAttr(n, m.locate(n, ""))
	c.res.Parent = uint64(dst.dir.rec.Ino)
	return nil
}

// sendsDir checks an intent that takes a directory to another group.
func (c *checker) sendsDir(id uint64, it *command.Intent) {
	d := c.m.dirs[orca.Ino(it.Ino)]
	switch {
	case it.Dir != (d != nil) || it.Copying && !it.Dir:
		c.wrong("intent %d takes away a directory, or a file, and the other", id)
	case it.Dir && (c.m.outcomes.dirs[d.rec.Ino] != id || !it.Subtree || it.Copying == (it.Root != 0)):
		c.wrong("intent %d takes away directory %v, which is not known, or open to changes", id, d.rec.Ino)
	}
}

// receivesDir checks that what comes in place of a directory is here.
func (c *checker) receivesDir(id uint64, it *command.Intent) {
	tx := it.Command.GetTransfer().GetTx()
	if it.Dir != it.Command.GetTransfer().GetDir() || it.Dir && (c.m.stagedTree(tx) == nil || !it.Subtree) {
		c.wrong("intent %d puts the tree of %d in its place, which is not here", id, tx)
	}
}
