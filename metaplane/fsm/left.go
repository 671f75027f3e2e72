// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A store that cannot rename in one call has an object copied to another group's
// key instead, while both names are locked. The copy is all that is made before the
// decision: it can be made again, and changes nothing at the source. With the
// decision, in the apply that takes its name away, the source's group intends to
// remove the object that is left at its key, while it is still the one that was
// copied.

// MaxCopied is the longest object that is copied to another group under two locked
// names. A store that copies 50 MB/s takes 5 s for it, for which whoever meets one of
// the names waits (metaserver's BusyWait). What is longer is CrossMount, so that mv
// copies it with nothing locked.
const MaxCopied = 256 << 20

// copied refuses what would be copied for too long.
func copied(mt *command.Mount, f *inode.File, label string) *refusal {
	if f.Fingerprint == "" || mt.AtomicRename || f.Length <= MaxCopied {
		return nil
	}
	return refuse(orca.CrossMount, label, fmt.Sprintf("its store cannot rename in one call, and copies no more than %d MiB to another group", MaxCopied>>20))
}

// leaveObject goes before a file leaves for another group: where its object was
// copied, it is to be removed.
func (m *Machine) leaveObject(c *call, s *spot) {
	loc := m.locateSpot(s)
	if s.file.Fingerprint == "" || loc.mount == nil || loc.mount.AtomicRename {
		return
	}
	it := &command.Intent{Op: metapb.IntentOp_INTENT_LEFT, Deferred: true, Source: loc.key, Ino: uint64(s.file.Ino),
		Version: s.file.Version, Want: s.file.Fingerprint}
	m.enterIntent(c, it, loc) // no cap refuses it: the other group has decided
	m.effect(Effect{Kind: EffectIntent, ID: it.Id})
}
