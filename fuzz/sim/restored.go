// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

// restorable checks, at a moment at which a process has ended, that a backup of
// the state would begin a namespace in which all holds that must: what
// orca admin restore would make of it.
func (j *journal) restorable() {
	w := j.w
	c, err := j.machine.Cursor()
	if err != nil {
		w.broken("backup", "%v", err)
		return
	}
	defer c.Close()
	db, err := inodekv.Open(inodekv.Config{Memory: true, CacheBytes: 1 << 20}, quiet)
	if err != nil {
		w.broken("restore", "%v", err)
		return
	}
	defer func() { _ = db.Close(false) }()
	r := &fsm.Renewal{Created: 1}
	var rest [][2][]byte
	over := false
	err = db.Fill(c.Applied, func() ([]byte, []byte, error) {
		for !over {
			k, v, err := c.Next()
			if err != nil {
				return nil, nil, err
			}
			if k == nil {
				over = true
				if err := r.Rest(func(k, v []byte) { rest = append(rest, [2][]byte{k, v}) }); err != nil {
					return nil, nil, err
				}
				break
			}
			v, keep, err := r.Record(k, v)
			if err != nil {
				return nil, nil, err
			}
			if keep {
				return k, v, nil
			}
		}
		if len(rest) == 0 {
			return nil, nil, nil
		}
		kv := rest[0]
		rest = rest[1:]
		return kv[0], kv[1], nil
	})
	var m *fsm.Machine
	if err == nil {
		m, err = fsm.Open(fsm.Config{CacheEntries: 64, Group: j.g.number}, db, nil, quiet)
	}
	if err == nil {
		err = m.Check()
	}
	if err != nil {
		w.broken("restore", "%v", err)
		return
	}
	was, is := j.machine.Counts(), m.Counts()
	if was.Files != is.Files || was.Dirs != is.Dirs || was.Intents != is.Intents || was.Sessions != is.Sessions || was.Trash != is.Trash {
		w.broken("restore", "was %+v, is %+v", was, is)
	}
	for _, s := range m.Sessions() {
		if s.State == metapb.SessionState_SESSION_OPEN {
			w.broken("restore", "write session %d is open", s.Id)
		}
	}
	for _, in := range m.Intents() {
		if _, restored := m.RestoredIntent(in.Id); !restored {
			w.broken("restore", "intent %d is not known to come from the backup", in.Id)
		}
	}
	_ = m.Close()
}
