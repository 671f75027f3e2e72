// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// What a part goes through in the group that it leaves. Whether it moves, and when
// it has, is the first group's to say (regroup.go), and it says so until it is
// heard; here it is
//
//	held    by an undecided intent that masks all of its mount, as a directory of
//	        the first group is by its own: it is read, and whoever would change it waits
//	closed  read by nobody: where it lives is just being decided elsewhere, and
//	        what is written there from then on would be missing here
//	left    forgotten, and for a while who has a file open is sent after it
//	        or lifted: it stays, as it was
//
// A move is told from others of the same part by its number, the mount that it
// becomes, which rises from move to move: what comes late for one that is over is
// refused by the number of the last that was, or because the mount is forgotten.

// depart takes a step of a move away from here.
func (m *Machine) depart(c *call, o *metapb.DepartOp) *refusal {
	row := m.mounts[o.Mount]
	switch {
	case m.first() || c.who.UID != 0 || o.Part == 0:
		return refuse(orca.Invalid, "", "only the first group moves parts away from others")
	case row == nil && o.Step == metapb.DepartStep_DEPART_LEAVE && m.get(forgottenKey(o.Mount)) != nil:
		return nil // it has left
	case row == nil:
		return refuse(orca.Stale, "", "no such mount is here any more")
	}
	root := m.dirs[orca.Ino(row.Root)]
	it := m.regroups[root.rec.Ino]
	if it != nil && it.Part != o.Part {
		if o.Part < it.Part {
			return refuse(orca.Stale, row.Mount.Path, "that move is over")
		}
		return refuse(orca.Busy, row.Mount.Path, "an earlier move of it is not over here yet")
	}
	switch o.Step {
	case metapb.DepartStep_DEPART_HOLD:
		return m.holdPart(c, o, row, root, it)
	case metapb.DepartStep_DEPART_CLOSE:
		if it == nil {
			return refuse(orca.Stale, row.Mount.Path, "that move is over")
		}
		if r := m.restless(it, root); r != nil {
			return r
		}
		if !it.Closed {
			m.changeMove(it, func(next *command.Intent) { next.Closed = true })
		}
	case metapb.DepartStep_DEPART_LIFT:
		m.endMove(row, o.Part, it)
	case metapb.DepartStep_DEPART_LEAVE:
		if it == nil || !it.Closed || o.Root == 0 {
			return refuse(orca.Internal, row.Mount.Path, "BUG: what was not closed is said to be elsewhere")
		}
		m.leavePart(row, root, it, o.Root)
	default:
		return refuse(orca.Invalid, row.Mount.Path, "no such step of a move")
	}
	return nil
}

// holdPart has whoever would begin to change something in a part wait.
func (m *Machine) holdPart(c *call, o *metapb.DepartOp, row *command.Mount, root *node, it *command.Intent) *refusal {
	switch {
	case it != nil:
		c.res.Intent = it
		return nil
	case o.Part <= row.Ended:
		return refuse(orca.Stale, row.Mount.Path, "that move is over")
	case row.Mount.Junction != metapb.JunctionState_JUNCTION_NONE:
		return refuse(orca.Busy, row.Mount.Path, "it is just being moved here")
	case len(m.intents) >= m.cfg.MaxIntents:
		return refuse(orca.Busy, row.Mount.Path, "too many changes are on their way to the UFS")
	}
	it = &command.Intent{
		Op: metapb.IntentOp_INTENT_REGROUP, Ino: uint64(root.rec.Ino), Dir: true, Subtree: true, Group: o.Group, Part: o.Part,
	}
	m.enterIntent(c, it, m.locate(root, ""))
	c.res.Intent = it
	return nil
}

// changeMove replaces the record of the intent of a move.
func (m *Machine) changeMove(it *command.Intent, change func(next *command.Intent)) {
	m.regroups[orca.Ino(it.Ino)] = m.changeIntent(it, change)
}

// endMove ends a move away from here; it may never have begun.
func (m *Machine) endMove(row *command.Mount, move uint32, it *command.Intent) {
	if it != nil {
		m.dropIntent(it)
	}
	if move > row.Ended {
		next := proto.Clone(row).(*command.Mount)
		next.Ended = move
		m.putMount(next)
	}
}

// leavePart forgets a part that is elsewhere, for ever.
func (m *Machine) leavePart(row *command.Mount, root *node, it *command.Intent, to uint64) {
	m.dropIntent(it)
	up := root.parent
	m.dropMount(row, root)
	m.detachTo(root, to)
	m.event(metapb.EventKind_EVENT_ENTRY, root.rec.Ino, up.rec.Ino, root.rec.Name)
	m.mountChanged(root)
	m.forgetMount(row.Mount.Id, up)
}

// forgetMount forgets a number for ever, and the directories that led to its
// mount only.
func (m *Machine) forgetMount(id uint32, n *node) {
	for n != nil && n != m.root && n.rec.Mount == 0 && n.rec.Entries == 0 {
		up := n.parent
		m.detach(n, 0)
		n = up
	}
	m.tx.Set(forgottenKey(id), []byte{1})
}

// closed refuses to read a part whose place is just being decided; nil if it is
// none.
func (m *Machine) closed(row *command.Mount, path string) *refusal {
	if len(m.regroups) == 0 || m.first() {
		return nil
	}
	if it := m.regroups[orca.Ino(row.Root)]; it != nil && it.Closed {
		return &refusal{kind: orca.Busy, path: path, busy: it.Id, msg: fmt.Sprintf("it is just being moved to group %d", it.Group)}
	}
	return nil
}

// Held is a part that is held for a move away from here.
type Held struct {
	Self Leaving // its root
	Usage
}

// Held returns a part that is held for a move, once it is at rest. Busy: something
// from before is still under way in it. Stale: the move is over.
func (m *Machine) Held(mount, move uint32) (Held, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	it, root, err := m.heldPart(mount, move)
	if err != nil {
		return Held{}, err
	}
	if r := m.restless(it, root); r != nil {
		return Held{}, r.err("fsm.Held")
	}
	return Held{m.leavingDir(root), root.below.Usage}, m.failed()
}

// heldPart returns the intent of a move away from here and the root of its mount.
func (m *Machine) heldPart(mount, move uint32) (*command.Intent, *node, error) {
	if row := m.mounts[mount]; row != nil && !m.first() {
		root := m.dirs[orca.Ino(row.Root)]
		if it := m.regroups[root.rec.Ino]; it != nil && it.Part == move {
			return it, root, nil
		}
	}
	return nil, nil, orca.E("fsm.Held", orca.Stale, "no such move away from here")
}

// DepartingPage is LeavingPage of a directory of a part, 0 for its root. With a
// move that is over it is Stale; without one it looks only whether all may move.
func (m *Machine) DepartingPage(mount, move uint32, dir orca.Ino, after string, limit, size int) (out []Leaving, more bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	row := m.mounts[mount]
	if row == nil || m.first() {
		return nil, false, orca.E("fsm.DepartingPage", orca.Stale, "no such mount is here any more")
	}
	root := m.dirs[orca.Ino(row.Root)]
	if move != 0 {
		if _, _, err := m.heldPart(mount, move); err != nil {
			return nil, false, err
		}
	}
	n := root
	if dir != 0 {
		n = m.dirs[dir]
	}
	if n == nil || !under(n, root) {
		return nil, false, orca.PathE("fsm.DepartingPage", dir.String(), orca.NotFound, nil)
	}
	return m.leavingPage(n, after, limit, size)
}

// moves checks that moves away from here are of parts that are here, and are not
// over.
func (c *checker) moves() {
	for ino, it := range c.m.regroups {
		n := c.m.dirs[ino]
		if n == nil || !c.m.attached(n) || c.m.intents[it.Id] != it {
			c.wrong("the move of %v is of no directory", ino)
			continue
		}
		if c.m.first() {
			continue
		}
		if row := c.m.mounts[n.rec.Mount]; row == nil || n.rec.Mount != it.MountId || it.Part <= row.Ended {
			c.wrong("the move of %v is over, or of no mount", ino)
		}
	}
}
