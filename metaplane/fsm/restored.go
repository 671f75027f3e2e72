// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
)

// What was acknowledged after a backup was taken is not in it, but is not gone
// from the world: stores have the files, workers have the blocks. A state that
// comes from a backup must not give away again what was given away then. So
// Renewed leaves a gap in everything that counts, and from the fact that it
// leaves behind the machine knows how old the rest is.
const (
	// restoredFact says that the state was restored; see restored.
	restoredFact = "restored"
	// counterGap is the gap in inodes, sessions, intents and workers: more of
	// them than can have been made after the backup.
	counterGap = 1 << 32
	// versionGap is that in the versions of a file. A file can be restored
	// four thousand times.
	versionGap = 1 << 20
	// restoredBytes is the length of the fact's value.
	restoredBytes = 8 + 8 + 4
)

// restored is what a machine knows of its last restore. Zero: there was none.
type restored struct {
	// at is when the backup was taken, in unix ns, intent the last intent in it.
	at     int64
	intent uint64
	// version: those up to it may have been handed out before.
	version uint32
}

// GroupFact is the prefix of the facts of the first group that say which groups
// there are: by number, the members that the group began with.
const GroupFact = "group."

// Renewal turns the records of one group of a backup into those of a state to go
// on with.
type Renewal struct {
	// Created is when the backup was taken, in unix ns.
	Created int64
	// Members are the members that all groups begin with anew, as a GroupFact
	// has them.
	Members string
	now     restored
	before  restored // the backup's state was restored itself
	counted bool
}

// Record returns the record to be written in place of one, and whether there is
// one to be written. Records of kinds that are not known are kept as they are.
func (r *Renewal) Record(key, value []byte) (newValue []byte, keep bool, err error) {
	switch key[0] {
	case inode.SpaceApplied:
		return nil, false, nil
	case inode.SpaceCounters:
		return r.counters(value)
	case inode.SpaceFact:
		return r.fact(string(key[1:]), value)
	case inode.SpaceSession:
		return r.session(value)
	case inode.SpaceDir:
		// What its store has may have changed: it is listed again.
		v, err := inode.ClearDirFlags(value, inode.Loaded)
		return v, true, err
	}
	return value, true, nil
}

// session ends a write session: its writer has gone on, or is gone, and what it
// left in its store is looked at as after any other expiry.
func (r *Renewal) session(v []byte) ([]byte, bool, error) {
	s := &command.Session{}
	if len(v) == 0 || v[0] != recordFormat || s.UnmarshalVT(v[1:]) != nil {
		return nil, false, orca.E("fsm.Renewal", orca.Corrupt, "bad write session")
	}
	if s.State != stateOpen {
		return v, true, nil
	}
	s.State = stateExpired
	b, err := s.MarshalVT()
	if err != nil {
		return nil, false, orca.PathE("fsm.Renewal", "", orca.Internal, err)
	}
	return append([]byte{recordFormat}, b...), true, nil
}

func (r *Renewal) counters(v []byte) ([]byte, bool, error) {
	if len(v) < countersLen || v[0] != countersFormat {
		return nil, false, orca.E("fsm.Renewal", orca.Corrupt, "bad counters")
	}
	v = append([]byte(nil), v...)
	for i := range 4 { // inode, session, intent, worker
		n := binary.BigEndian.Uint64(v[1+8*i:])
		if i == 2 {
			r.now.intent = n
		}
		binary.BigEndian.PutUint64(v[1+8*i:], n+counterGap)
	}
	r.counted = true
	return v, true, nil
}

// fact drops what is of the members that there were, and of their terms.
func (r *Renewal) fact(name string, v []byte) ([]byte, bool, error) {
	switch {
	case name == reignFact, name == "grant.key", strings.HasPrefix(name, "member."):
		return nil, false, nil
	case strings.HasPrefix(name, GroupFact):
		return []byte(r.Members), true, nil
	case name == restoredFact:
		var err error
		r.before, err = decodeRestored(v)
		return nil, false, err
	}
	return v, true, nil
}

// Rest gives the records that go behind all others.
func (r *Renewal) Rest(put func(key, value []byte)) error {
	if !r.counted { // nothing was ever done
		v := binary.BigEndian.AppendUint64([]byte{countersFormat}, firstCounter)
		v, _, err := r.counters(append(v, make([]byte, countersLen-len(v))...))
		if err != nil {
			return err
		}
		put(inode.CountersKey, v)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, r.now.intent)
	put(inode.AppendFact(nil, restoredFact), binary.BigEndian.AppendUint32(b, r.before.version+versionGap))
	return nil
}

func decodeRestored(v []byte) (restored, error) {
	if len(v) < restoredBytes {
		return restored{}, orca.E("fsm.Open", orca.Corrupt, "bad fact of the restore")
	}
	return restored{
		at: int64(binary.BigEndian.Uint64(v)), intent: binary.BigEndian.Uint64(v[8:]), version: binary.BigEndian.Uint32(v[16:]),
	}, nil
}

func (m *Machine) loadRestored() error {
	m.restored = restored{}
	v, err := m.db.Get(nil, inode.AppendFact(nil, restoredFact))
	if err == nil && v != nil {
		m.restored, err = decodeRestored(v)
	}
	return err
}

// nextVersion returns the version that follows last, whatever was handed out
// after the backup that the state comes from.
func (m *Machine) nextVersion(last uint32) uint32 { return max(last, m.restored.version) + 1 }

// RestoredIntent reports whether an intent comes from a backup, and when that
// was taken, in unix ns: its store may have gone on since.
func (m *Machine) RestoredIntent(id uint64) (at int64, restored bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.restored.at, m.restored.at != 0 && id <= m.restored.intent
}
