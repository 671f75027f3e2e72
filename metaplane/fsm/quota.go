// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A quota limits the sums of a directory. It is asked, of the directory and of
// all above it, by whatever adds to them on behalf of a user; never by a sync,
// for what a store has is there whoever refuses it.
//
// What will be added later without being asked again is held free: the new
// file of an open write session, the length that a session's worker has
// announced before it commits the upload, and what an undecided intent would
// make. So a limit is never passed by what is under way.

// quota is that of one directory.
type quota struct {
	limit inode.Quota
	held  room // by the open sessions and undecided intents below
}

// room is what something takes, or would take.
type room struct{ bytes, inodes int64 }

// none reports whether nothing is wanted.
func (r room) none() bool { return r.bytes <= 0 && r.inodes <= 0 }

// fits refuses what would take a directory from n up over its quota; those from
// above up on are not asked, for the room is theirs already.
func (m *Machine) fits(n, above *node, want room, label string) *refusal {
	if len(m.quotas) == 0 || want.none() {
		return nil
	}
	for ; n != nil && n != above; n = n.parent {
		q := n.quota
		if q == nil {
			continue
		}
		inodes, bytes := n.below.Inodes()+q.held.inodes, n.below.Bytes+q.held.bytes
		var msg string
		switch {
		case want.inodes > 0 && q.limit.Inodes > 0 && inodes+want.inodes > q.limit.Inodes:
			msg = fmt.Sprintf("the quota of %s is %d files and directories, with %d there or being made: no room for %d more",
				n.path(), q.limit.Inodes, inodes, want.inodes)
		case want.bytes > 0 && q.limit.Bytes > 0 && bytes+want.bytes > q.limit.Bytes:
			msg = fmt.Sprintf("the quota of %s is %d bytes, with %d there or being written: no room for %d more",
				n.path(), q.limit.Bytes, bytes, want.bytes)
		default:
			continue
		}
		m.stats.overQuota.Add(1)
		return refuse(orca.OverQuota, label, msg)
	}
	return nil
}

// hold holds room free from n up to below above (sign 1), or gives it back (-1).
func (m *Machine) hold(n, above *node, r room, sign int64) {
	if len(m.quotas) == 0 || r == (room{}) {
		return
	}
	for ; n != nil && n != above; n = n.parent {
		if q := n.quota; q != nil {
			q.held.bytes += sign * r.bytes
			q.held.inodes += sign * r.inodes
		}
	}
}

// holdSession holds what an open session will need, or gives it back.
func (m *Machine) holdSession(s *command.Session, sign int64) {
	if s.State != stateOpen {
		return
	}
	r := room{bytes: s.HoldBytes}
	if s.Fresh {
		r.inodes = 1
	}
	m.hold(m.dirs[orca.Ino(s.Dir)], nil, r, sign)
}

// holdIntent holds what an undecided intent would make, or gives it back.
func (m *Machine) holdIntent(it *command.Intent, sign int64) {
	if it.HoldDir != 0 {
		m.hold(m.dirs[orca.Ino(it.HoldDir)], m.dirs[orca.Ino(it.HoldBelow)], room{it.HoldBytes, it.HoldInodes}, sign)
	}
	if it.BackDir != 0 {
		m.hold(m.dirs[orca.Ino(it.BackDir)], m.dirs[orca.Ino(it.BackBelow)], room{it.BackBytes, it.BackInodes}, sign)
	}
}

// holdAll holds anew what everything under way needs.
func (m *Machine) holdAll() {
	for _, n := range m.quotas {
		n.quota.held = room{}
	}
	for _, s := range m.sessions {
		m.holdSession(s, 1)
	}
	for _, it := range m.intents {
		m.holdIntent(it, 1)
	}
	m.holdBins(1)
}

// roomToCreate refuses a new file, or a known length, that quotas have no room
// for.
func (m *Machine) roomToCreate(o *metapb.CreateOp, s *spot) *refusal {
	if len(m.quotas) == 0 {
		return nil
	}
	want := room{bytes: max(o.ExpectLength, int64(len(o.Symlink))), inodes: int64(len(s.rest))}
	if s.file != nil {
		want.bytes -= s.file.Length
	}
	if h := m.sessions[m.byName[nameKey{s.dir.rec.Ino, s.name}]]; h != nil && h.State == stateOpen { // to be stolen
		want.bytes -= h.HoldBytes
		if h.Fresh {
			want.inodes--
		}
	}
	return m.fits(s.dir, nil, want, s.path)
}

// announce refuses a session's length that quotas have no room for; else it
// returns what is to be held for it.
func (m *Machine) announce(s *command.Session, length int64) (hold int64, _ *refusal) {
	n := m.dirs[orca.Ino(s.Dir)]
	if n == nil {
		return 0, nil
	}
	if old := m.lookup(n, s.Name).file; old != nil {
		length -= old.Length
	}
	hold = max(0, length)
	return hold, m.fits(n, nil, room{bytes: hold - s.HoldBytes}, s.Name)
}

// roomToComplete refuses to publish what quotas have no room for, unless it is
// in its UFS already: then room was held, or it is there whoever refuses it.
// The blocks of what is refused go.
func (m *Machine) roomToComplete(n *node, s *command.Session, o *metapb.CompleteOp, old *inode.File) *refusal {
	if o.Fingerprint != "" {
		return nil
	}
	grow := o.Length - s.HoldBytes
	if old != nil {
		grow -= old.Length
	}
	r := m.fits(n, nil, room{bytes: grow}, s.Name)
	if r != nil && old == nil {
		m.effect(Effect{Kind: EffectFree, File: orca.Ino(s.File)})
	} else if r != nil {
		m.effect(Effect{Kind: EffectFreeOld, File: orca.Ino(s.File), Version: old.Version})
	}
	return r
}

// move is what comes below to, and those above it up to below above, that have
// it already.
type move struct {
	want      room
	to, above *node
}

// holdBy has an intent hold the room.
func (v move) holdBy(it *command.Intent) {
	if !v.want.none() {
		it.HoldDir, it.HoldBelow = uint64(v.to.rec.Ino), uint64(v.above.ino())
		it.HoldBytes, it.HoldInodes = v.want.bytes, v.want.inodes
	}
}

// holdBackBy has an intent hold the room at the other side of an exchange.
func (v move) holdBackBy(it *command.Intent) {
	if !v.want.none() {
		it.BackDir, it.BackBelow = uint64(v.to.rec.Ino), uint64(v.above.ino())
		it.BackBytes, it.BackInodes = v.want.bytes, v.want.inodes
	}
}

// roomToMove refuses a rename that takes more below a directory than its quota
// allows; else it returns what it needs. A file that is replaced and has other
// names goes on under one of those, maybe in the same directory: it makes no
// room.
func (m *Machine) roomToMove(src, dst *spot) (move, *refusal) {
	var less room
	if dst.file == nil || !dst.file.Flags.Has(inode.Linked) {
		less = m.takes(dst)
	}
	return m.roomFor(m.takes(src), less, src, dst)
}

// roomToExchange is roomToMove both ways.
func (m *Machine) roomToExchange(src, dst *spot) (there, back move, _ *refusal) {
	a, b := m.takes(src), m.takes(dst)
	there, r := m.roomFor(a, b, src, dst)
	if r == nil {
		back, r = m.roomFor(b, a, dst, src)
	}
	return there, back, r
}

// roomFor refuses what leaves no room at dst for what src takes, where less
// goes.
func (m *Machine) roomFor(want, less room, src, dst *spot) (move, *refusal) {
	v := move{want: room{max(0, want.bytes-less.bytes), max(0, want.inodes-less.inodes)}, to: dst.dir, above: dst.dir}
	for v.above != nil && !under(src.dir, v.above) {
		v.above = v.above.parent
	}
	return v, m.fits(dst.dir, v.above, v.want, dst.path)
}

// ino is the number of a directory, 0 of none.
func (n *node) ino() orca.Ino {
	if n == nil {
		return 0
	}
	return n.rec.Ino
}

// takes is what is at the end of a spot, with all below it. A name that is not
// the home of its file takes nothing.
func (m *Machine) takes(s *spot) room {
	switch {
	case m.alias(s.dir, s.name, s.file):
	case s.file != nil:
		return room{s.file.Length, 1}
	case s.dentry.dir != nil:
		u := s.dentry.dir.below
		return room{u.Bytes, u.Inodes() + 1}
	}
	return room{}
}

// setQuota sets, changes or takes away the quota of a directory. What is there
// already is not refused: nothing can be added until there is room again.
func (m *Machine) setQuota(c *call, o *metapb.SetQuotaOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, true)
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	n := s.dentry.dir
	switch {
	case c.who.UID != 0:
		return refuse(orca.Permission, s.path, "only root sets quotas")
	case o.Bytes < -1 || o.Inodes < -1:
		return refuse(orca.Invalid, s.path, "a limit is -1 (as it is), 0 (none) or above")
	case s.none():
		return refuse(orca.NotFound, s.path, "")
	case n == nil:
		return refuse(orca.NotDir, s.path, "a quota is set on a directory")
	}
	var limit inode.Quota
	if n.quota != nil {
		limit = n.quota.limit
	}
	if o.Bytes >= 0 {
		limit.Bytes = o.Bytes
	}
	if o.Inodes >= 0 {
		limit.Inodes = o.Inodes
	}
	if limit != (inode.Quota{}) && m.first() {
		if r := m.partUnderWay(n, s.path); r != nil {
			return r
		}
	}
	if r := m.frozen(&s); r != nil {
		return r
	}
	key := inode.AppendKey8(nil, inode.SpaceQuota, uint64(n.rec.Ino))
	if limit == (inode.Quota{}) {
		m.forgetQuota(n)
	} else {
		m.tx.Set(key, inode.AppendQuota(nil, limit))
		m.enterQuota(n, limit)
		m.holdAll()
	}
	c.res.Id = uint64(n.rec.Ino)
	return nil
}

func (m *Machine) enterQuota(n *node, limit inode.Quota) {
	n.quota = &quota{limit: limit}
	m.quotas[n.rec.Ino] = n
}

func (m *Machine) forgetQuota(n *node) {
	if n.quota == nil {
		return
	}
	n.quota = nil
	delete(m.quotas, n.rec.Ino)
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceQuota, uint64(n.rec.Ino)))
}

func (m *Machine) loadQuotas() error {
	var bad error
	err := m.scan(inode.SpaceQuota, func(k, v []byte) bool {
		limit, err := inode.DecodeQuota(v)
		n := m.dirs[orca.Ino(inode.Number(k))]
		if err == nil && n == nil {
			err = orca.E("fsm.Open", orca.Corrupt, "a quota of no directory")
		}
		if bad = err; err == nil {
			m.enterQuota(n, limit)
		}
		return err == nil
	})
	m.holdAll()
	return firstErr(bad, err)
}

// QuotaView is a quota as a reader sees it. Held is kept free for what is
// under way.
type QuotaView struct {
	Dir                   orca.Ino
	Path                  string
	Limit                 inode.Quota
	Usage                 Usage
	HeldBytes, HeldInodes int64
}

func viewQuota(n *node) QuotaView {
	q := n.quota
	return QuotaView{n.rec.Ino, n.path(), q.limit, n.below.Usage, q.held.bytes, q.held.inodes}
}

// Quotas returns the quotas of the directories that the caller can reach, by
// path.
func (m *Machine) Quotas(c orca.Caller) []QuotaView {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var vs []QuotaView
	for _, n := range m.quotas {
		if m.attached(n) && reachable(&c, n) {
			vs = append(vs, viewQuota(n))
		}
	}
	slices.SortFunc(vs, func(a, b QuotaView) int { return cmp.Compare(a.Path, b.Path) })
	return vs
}

// reachable reports whether a caller may search all directories above one.
func reachable(c *orca.Caller, n *node) bool {
	for n = n.parent; n != nil; n = n.parent {
		if !allowedDir(c, n, mayExec) {
			return false
		}
	}
	return true
}
