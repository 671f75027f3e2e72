// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
)

// reignFact is where the latest reign is kept. It is no number of the counters,
// so that a group without reigns looks as it always did.
const reignFact = "reign"

// underReign admits a command of the latest reign, of a later one, which is the
// latest from then on, and of none. What a leader proposed that serves no more
// is refused, even if its successor's journal took it in: what it was decided
// on may be out of date.
func (m *Machine) underReign(c *command.Command) *refusal {
	switch {
	case c.Reign == 0 || c.Reign == m.reign:
	case c.Reign < m.reign:
		return refuse(orca.NotLeader, "", "proposed by a leader that another one has followed")
	default:
		m.reign = c.Reign
		m.tx.Set(inode.AppendFact(nil, reignFact), binary.BigEndian.AppendUint64(nil, c.Reign))
	}
	return nil
}

func (m *Machine) loadReign() error {
	m.reign = 0
	v, err := m.db.Get(nil, inode.AppendFact(nil, reignFact))
	if err != nil || v == nil {
		return err
	}
	if len(v) != 8 {
		return orca.E("fsm.Open", orca.Corrupt, "bad reign")
	}
	m.reign = binary.BigEndian.Uint64(v)
	return nil
}

// Reign returns the latest reign that was applied; 0: none.
func (m *Machine) Reign() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.reign
}
