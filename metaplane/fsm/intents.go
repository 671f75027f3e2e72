// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// keys returns the masks of an intent.
func keysOf(it *command.Intent) []mask {
	var ks []mask
	add := func(key string, subtree bool) {
		ks = append(ks, mask{key: key, id: it.Id, subtree: subtree})
	}
	switch it.Op {
	case metapb.IntentOp_INTENT_MKDIR:
		add(it.Source, true) // the topmost new directory
	case metapb.IntentOp_INTENT_PUT_EMPTY, metapb.IntentOp_INTENT_PERSIST:
		add(it.Target, false)
	case metapb.IntentOp_INTENT_RECEIVE:
		add(it.Target, it.Subtree)
	case metapb.IntentOp_INTENT_RENAME, metapb.IntentOp_INTENT_MOVE, metapb.IntentOp_INTENT_EXCHANGE:
		add(it.Source, it.Subtree)
		add(it.Target, it.Subtree)
	default:
		add(it.Source, it.Subtree)
		if it.Target != "" {
			add(it.Target, false)
		}
	}
	return ks
}

func (m *Machine) indexIntent(it *command.Intent) {
	m.intents[it.Id] = it
	m.indexTransfer(it)
	if it.Client != 0 && !it.Deferred {
		m.byCall[callKey{it.Client, it.Seq}] = it.Id
	}
	if it.Op == metapb.IntentOp_INTENT_REGROUP {
		m.regroups[orca.Ino(it.Ino)] = it
	}
	set := m.masks[it.MountId]
	if set == nil {
		set = &maskSet{}
		m.masks[it.MountId] = set
	}
	for _, k := range keysOf(it) {
		set.add(k)
	}
}

// addIntent stores a new intent on the mount of loc and puts it into the
// result. Busy: too many are undrained.
func (m *Machine) addIntent(c *call, it *command.Intent, loc located) *refusal {
	if len(m.intents) >= m.cfg.MaxIntents {
		return refuse(orca.Busy, uri(loc.mount, loc.key), "too many changes are on their way to the UFS")
	}
	if it.Op != metapb.IntentOp_INTENT_PERSIST {
		it.Client, it.Seq = c.cmd.Client, c.cmd.Seq
	}
	m.enterIntent(c, it, loc)
	c.res.Intent = it
	if it.Deferred {
		m.effect(Effect{Kind: EffectIntent, ID: it.Id})
	}
	return nil
}

func (m *Machine) enterIntent(c *call, it *command.Intent, loc located) {
	m.count.intent++
	it.Id, it.MountId, it.Created = m.count.intent, loc.id(), c.now
	m.indexIntent(it)
	m.holdIntent(it, 1)
	m.putRecord(inode.AppendKey8(nil, inode.SpaceIntent, it.Id), it)
}

// owned is what a store was told to give an object.
type owned struct{ mode, uid, gid uint32 }

// mend makes a store with owners agree with a file that was uploaded with
// attributes which have changed since. It knows no cap: it is one for an upload
// that had its own.
func (m *Machine) mend(c *call, n *node, name string, f *inode.File, has owned, mtime bool) {
	mask := uint32(0)
	if f.UID != has.uid || f.GID != has.gid {
		mask = setUID | setGID
	}
	if f.Mode != has.mode {
		mask |= setMode
	}
	if mtime {
		mask |= setAtime | setMtime
	}
	m.mendMask(c, n, name, f, mask)
}

// mendMask gives the object of a file some of the attributes that the file has,
// by an intent of nobody's: the executor runs it, and no sync takes over the
// object's own meanwhile.
func (m *Machine) mendMask(c *call, n *node, name string, f *inode.File, mask uint32) {
	loc := m.locateFile(n, name, f)
	if mask == 0 || loc.mount == nil || !loc.mount.Owners {
		return
	}
	if mask&(setUID|setGID) != 0 {
		mask |= setUID | setGID | setMode // a change of owner clears bits of the mode
	}
	op := &metapb.SetAttrOp{Target: &metapb.Target{Ino: uint64(f.Ino)}, Mask: mask, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Atime: f.Atime, Mtime: f.Mtime}
	it := &command.Intent{Op: metapb.IntentOp_INTENT_SETATTR, Source: loc.key, Ino: uint64(f.Ino), Version: f.Version,
		Command: &command.Command{Now: c.now, SetAttr: op}}
	m.enterIntent(c, it, loc)
	m.effect(Effect{Kind: EffectIntent, ID: it.Id})
}

// begin stores an undecided intent for an operation that a UFS call has to
// allow first; set gives the command its operation, with targets by inode.
func (m *Machine) begin(c *call, it *command.Intent, loc located, set func(*command.Command)) *refusal {
	it.Command = &command.Command{Now: c.now}
	if by := c.cmd.Caller; by != nil { // a copy: the command's own memory may be used again
		it.Command.Caller = &metapb.Caller{Uid: by.Uid, Gid: by.Gid, Groups: by.Groups}
	}
	set(it.Command)
	return m.addIntent(c, it, loc)
}

// changeIntent replaces the record of an intent, whose keys stay: readers hold
// the old one.
func (m *Machine) changeIntent(it *command.Intent, change func(next *command.Intent)) *command.Intent {
	next := proto.Clone(it).(*command.Intent)
	change(next)
	m.intents[next.Id] = next
	m.putRecord(inode.AppendKey8(nil, inode.SpaceIntent, next.Id), next)
	return next
}

func (m *Machine) dropIntent(it *command.Intent) {
	m.holdIntent(it, -1)
	delete(m.intents, it.Id)
	m.dropTransfer(it)
	if !it.Deferred {
		delete(m.byCall, callKey{it.Client, it.Seq})
	}
	if it.Op == metapb.IntentOp_INTENT_REGROUP {
		delete(m.regroups, orca.Ino(it.Ino))
	}
	if set := m.masks[it.MountId]; set != nil {
		for _, k := range keysOf(it) {
			set.drop(k.key, it.Id)
		}
	}
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceIntent, it.Id))
}

// decide commits or aborts an undecided intent; its result is that of the
// operation, and is remembered for the request that began it.
func (m *Machine) decide(c *call, o *metapb.DecideOp) *refusal {
	it := m.intents[o.Intent]
	if it == nil || it.Deferred || it.Op == metapb.IntentOp_INTENT_PERSIST || it.Op == metapb.IntentOp_INTENT_REGROUP {
		return refuse(orca.NotFound, "", "no undecided intent of that id")
	}
	if r := undecidable(it, o); r != nil {
		return r
	}
	m.dropIntent(it)
	if o.Early {
		m.forgetTree(it.Id) // it was to go to another directory of this group
	}
	if o.Kind != uint32(orca.OK) {
		c.res.Kind, c.res.Msg = o.Kind, o.Msg
	} else {
		op := &call{cmd: it.Command, who: who(it.Command.Caller), now: c.now, res: c.res, decided: it, decide: o}
		m.execute(op)
		if c.res.Kind != uint32(orca.OK) {
			// What the intent locked has changed all the same: report it, for
			// the UFS has the effect already and sync will show it.
			c.res.Msg = "decided, but not applied: " + c.res.Msg
		}
	}
	m.decidedTransfer(c, it)
	if it.Client != 0 && final(c.res) {
		c.res.Index = m.batch.index
		if b, err := command.AppendResult(nil, c.res); err == nil {
			m.rememberFor(it.Client, it.Seq, b)
		}
	}
	return nil
}

// moving returns an undrained move.
func (m *Machine) moving(id uint64) (*command.Intent, *refusal) {
	it := m.intents[id]
	if it == nil || it.Op != metapb.IntentOp_INTENT_MOVE {
		return nil, refuse(orca.NotFound, "", "no such move")
	}
	return it, nil
}

// cutover gives one file of a move its new key, once its content is there.
func (m *Machine) cutover(c *call, o *metapb.CutoverOp) *refusal {
	it, r := m.moving(o.Intent)
	if r != nil {
		return r
	}
	n, name, f := m.byIno(orca.Ino(o.File))
	if f == nil || !m.attached(n) {
		return refuse(orca.NotFound, "", "no such file")
	}
	if f.Fingerprint != o.Want {
		return refuse(orca.Stale, name, "the file has changed since it was copied")
	}
	g := clone(f)
	g.Override = inode.Override{By: it.Id, Key: m.locateBut(n, name, true).key}
	g.Fingerprint, g.Change = o.Fingerprint, m.batch.index
	m.putFile(n, name, g)
	c.res.Attr = m.fileAttr(g, m.locateFile(n, name, g))
	m.event(metapb.EventKind_EVENT_ATTR, g.Ino, n.rec.Ino, name)
	return nil
}

// finishIntent ends a drained intent. Overrides that name it are void from
// now on, wherever they are.
func (m *Machine) finishIntent(c *call, o *metapb.FinishIntentOp) *refusal {
	it := m.intents[o.Intent]
	if it == nil {
		return nil
	}
	if !it.Deferred {
		return refuse(orca.Invalid, "", "the intent is to be decided, not finished")
	}
	m.dropIntent(it)
	if o.Noted {
		m.noteFinished(it)
	}
	ino := orca.Ino(it.Ino)
	if n := m.dirs[ino]; n != nil && n.rec.Override.By == it.Id {
		n.rec.Override = inode.Override{}
		if o.Noted {
			n.rec.Change = m.batch.index
		}
		m.dirtied(n)
		m.event(metapb.EventKind_EVENT_ATTR, ino, n.rec.Parent, n.rec.Name)
	} else if d, name, f := m.byIno(ino); f != nil && f.Override.By == it.Id {
		g := clone(f)
		g.Override = inode.Override{}
		if o.Noted {
			g.Change = m.batch.index
		}
		m.putFile(d, name, g)
		m.event(metapb.EventKind_EVENT_ATTR, ino, d.rec.Ino, name)
	}
	return nil
}

// noteFinished notes that what a drained intent was about left its UFS place
// only now: until here the mask kept a sync from bringing it back, and one that
// asked before may still come.
func (m *Machine) noteFinished(it *command.Intent) {
	mt := m.mounts[it.MountId]
	if mt == nil {
		return
	}
	n, key := m.dirs[orca.Ino(mt.Root)], it.Source
	for n != nil {
		head, tail, more := strings.Cut(key, "/")
		if !more {
			break
		}
		n, key = n.sub.get(head), tail
	}
	if n != nil && key != "" && m.lookup(n, key).none() {
		m.noteRemoved(n, key)
	}
}
