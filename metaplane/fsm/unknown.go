// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A directory that was never listed says nothing of the names it does not
// have. Who proposes a command asks the UFS before; but what is asked then is
// asked of the namespace as it was then, and a command may find another one: a
// directory that has just been moved to the place, say, where nothing was. So
// a command that depends on a missing name, or on a directory's being empty,
// carries what was asked (Command.absent), and is sent back with Busy and
// unknown when that is not what it meets.

// unknownName refuses a command that would take the end of a spot to be
// missing when the UFS may have it.
func (m *Machine) unknownName(c *call, s *spot) *refusal {
	if c.cmd.Checks&uint32(metapb.CommandCheck_CHECK_NAMES) == 0 || c.decided != nil || !s.none() ||
		s.dir.rec.Flags.Has(inode.Loaded) {
		return nil
	}
	for _, a := range c.cmd.Absent {
		if a.Dir == uint64(s.dir.rec.Ino) && a.Name == s.name {
			return nil
		}
	}
	at := m.locate(s.dir, s.name)
	switch {
	case at.mount == nil,
		m.byName[nameKey{s.dir.rec.Ino, s.name}] != 0, // its writer had asked
		checkNew(s.dir, s.rest[:1], "") != nil:        // no sync would take it up
		return nil
	}
	// Whoever intends something with just this key had asked, too, and until
	// it is decided the namespace knows best. An intent for a directory above
	// says nothing about what is in it.
	above := m.overlap(m.locate(s.dir, ""), false, 0)
	if above == 0 && m.masks[at.id()].at(at.key, true, 0) != 0 {
		return nil
	}
	return &refusal{kind: orca.Busy, path: s.path, busy: m.overlap(at, false, 0), unknown: true,
		msg: "it is not known yet whether the UFS has it"}
}

// unknownContent refuses a command that depends on what is in a directory that
// was never listed.
func (m *Machine) unknownContent(c *call, d *node, label string) *refusal {
	if c.cmd.Checks&uint32(metapb.CommandCheck_CHECK_CONTENT) == 0 || c.decided != nil || d.rec.Flags.Has(inode.Loaded) {
		return nil
	}
	at := m.locate(d, "")
	if at.mount == nil {
		return nil
	}
	return &refusal{kind: orca.Busy, path: label, busy: m.overlap(at, true, 0), unknown: true,
		msg: "it is not known yet what the UFS has in it"}
}
