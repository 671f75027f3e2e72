// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A rename between two groups of one mount is a transaction of both. The group
// of the source begins it, that of the target decides it (ADR 0022).
//
//	source: intent, the name is locked ─► target: intent, the name is locked
//	  ─► rename in the store ─► target: decided, the file is here, with a number
//	  of this group ─► source: the name is gone ─► target: forgets the decision
//	                         └► target: refused, on record ─► source: as it was
//
// The number of the source's intent is that of the transaction. Whoever leads
// the source's group asks the target's until it has a decision; there a number
// is decided once, however often and late it is asked for, and one below what
// the source has taken note of is refused for ever. Nothing else can end either
// intent. Until its end the source's name is read by nobody: the file may be at
// the other name by then.

// outcomes are what a group has decided about files of others.
type outcomes struct {
	decided   map[uint64]*metapb.TransferRecord // by transaction
	below     map[uint16]uint64                 // by group: under which none is kept
	receiving map[uint64]uint64                 // undecided intents by transaction
	leaving   map[nameKey]uint64                // names that are on their way to other groups
	dirs      map[orca.Ino]uint64               // those of leaving that are directories
}

func newOutcomes() outcomes {
	return outcomes{decided: map[uint64]*metapb.TransferRecord{}, below: map[uint16]uint64{},
		receiving: map[uint64]uint64{}, leaving: map[nameKey]uint64{}, dirs: map[orca.Ino]uint64{}}
}

// family is the mount of the first group that a mount is, or is a part of.
func family(mt *command.Mount) uint32 {
	if p := mt.GetMount().GetPart(); p != nil {
		return p.Mount
	}
	return mt.GetMount().GetId()
}

// leavingKey is the name that an intent takes to another group.
func leavingKey(it *command.Intent) nameKey {
	src := it.Command.GetRename().GetSrc()
	return nameKey{orca.Ino(src.GetIno()), src.GetPath()}
}

// indexTransfer notes an intent of a transfer.
func (m *Machine) indexTransfer(it *command.Intent) {
	switch it.Op {
	case metapb.IntentOp_INTENT_TRANSFER:
		m.outcomes.leaving[leavingKey(it)] = it.Id
		if it.Dir {
			m.outcomes.dirs[orca.Ino(it.Ino)] = it.Id
		}
	case metapb.IntentOp_INTENT_RECEIVE:
		m.outcomes.receiving[it.Command.GetTransfer().GetTx()] = it.Id
	}
}

func (m *Machine) dropTransfer(it *command.Intent) {
	switch it.Op {
	case metapb.IntentOp_INTENT_TRANSFER:
		delete(m.outcomes.leaving, leavingKey(it))
		delete(m.outcomes.dirs, orca.Ino(it.Ino))
	case metapb.IntentOp_INTENT_RECEIVE:
		delete(m.outcomes.receiving, it.Command.GetTransfer().GetTx())
	}
}

// notLeaving refuses with Busy what is about a file on its way to another group,
// or in a directory that may be there by now.
func (m *Machine) notLeaving(n *node, name, label string) *refusal {
	if len(m.outcomes.leaving) == 0 {
		return nil
	}
	if id := m.outcomes.leaving[nameKey{n.rec.Ino, name}]; id != 0 && !m.intents[id].Copying {
		return onItsWay(id, label)
	}
	return m.notAsked(n, label)
}

// notEmpty refuses what needs a directory to be empty that has names; those on
// their way to other groups may be there by now, so they are waited for.
func (m *Machine) notEmpty(n *node, label string) *refusal {
	first := uint64(0)
	for k, id := range m.outcomes.leaving {
		if k.dir == n.rec.Ino && (first == 0 || id < first) {
			first = id
		}
	}
	if first != 0 {
		return &refusal{kind: orca.Busy, path: label, busy: first, msg: "what is in it is on its way to a directory of another group"}
	}
	return refuse(orca.NotEmpty, label, "")
}

// Leaving returns the intents that take names of a directory to other groups.
func (m *Machine) Leaving(dir orca.Ino) (ids []uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for k, id := range m.outcomes.leaving {
		if k.dir == dir && !m.intents[id].Copying {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TransfersDone returns the number below which this group asks for no decision of
// another one any more.
func (m *Machine) TransfersDone() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.transfersDone()
}

func (m *Machine) transfersDone() uint64 {
	below := m.count.intent + 1
	for _, id := range m.outcomes.leaving {
		below = min(below, id)
	}
	return below
}

// sendAway is a rename into a directory of another group: it begins the
// transaction, or, once that is decided, takes the name away.
func (m *Machine) sendAway(c *call, o *metapb.RenameOp) *refusal {
	src, r := m.resolve(&c.who, o.Src, c.decided == nil)
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &src); r != nil {
		return r
	}
	if src.none() {
		return refuse(orca.NotFound, src.path, "")
	}
	switch {
	case src.dentry.dir != nil && o.Exchange:
		return refuse(orca.CrossMount, src.path, "a directory changes places with nothing of another group")
	case src.dentry.dir != nil:
		return m.sendDirAway(c, o, &src)
	}
	if c.decided != nil {
		if f := src.file; f == nil || uint64(f.Ino) != c.decided.Ino {
			return refuse(orca.Internal, src.path, "it is another file by now")
		}
		c.res.Parent = uint64(src.dir.rec.Ino)
		return m.sent(c, o, &src)
	}
	if r := m.checkSendAway(c, &src); r != nil {
		return r
	}
	from := m.locateSpot(&src)
	if r := m.free(c, from, false, src.path); r != nil {
		return r
	}
	f := src.file
	it := &command.Intent{Op: metapb.IntentOp_INTENT_TRANSFER, Source: from.key, Ino: uint64(f.Ino), Version: f.Version, Want: f.Fingerprint}
	if r := m.roomBack(it, o, &src); r != nil {
		return r
	}
	op := &metapb.RenameOp{Src: here(&src), Away: proto.Clone(o.Away).(*metapb.Target), NoReplace: o.NoReplace,
		Exchange: o.Exchange, AwayBytes: o.AwayBytes}
	return m.begin(c, it, from, func(cmd *command.Command) { cmd.Rename = op })
}

// checkSendAway refuses what does not go to another group. What is CrossMount is
// copied by who asked.
func (m *Machine) checkSendAway(c *call, src *spot) *refusal {
	f, mt := src.file, m.mountOf(src.dir)
	switch {
	case mt == nil:
		return refuse(orca.CrossMount, src.path, "")
	case f.Flags.Has(inode.Linked):
		return refuse(orca.CrossMount, src.path, "a file with several names stays in its group")
	}
	if r := firstRefusal(writable(mt, src.path), m.idle(src.dir, src.name, nil, src.path), mayCut(&c.who, src)); r != nil {
		return r
	}
	if f.Type == orca.TypeFile && f.Persist != orca.Persisted {
		return refuse(orca.CrossMount, src.path, "only what its store has goes to another group: it is not persisted")
	}
	return copied(mt, f, src.path)
}

// Transfer returns what the group of the target is asked for an intent that
// takes a file there. NotFound: it is decided.
func (m *Machine) Transfer(id uint64) (*metapb.TransferOp, error) {
	const op = "fsm.Transfer"
	m.mu.RLock()
	defer m.mu.RUnlock()
	it := m.intents[id]
	if it == nil || it.Op != metapb.IntentOp_INTENT_TRANSFER {
		return nil, orca.E(op, orca.NotFound, "no such intent")
	}
	if it.Copying {
		return nil, orca.E(op, orca.Busy, "it is still being brought to the other group")
	}
	if it.Dir {
		return m.transferDir(it)
	}
	n, _, f := m.byIno(orca.Ino(it.Ino))
	mt := m.mounts[it.MountId]
	if err := m.failed(); err != nil {
		return nil, err
	}
	if f == nil || mt == nil {
		return nil, orca.E(op, orca.Internal, "the file of intent "+strconv.FormatUint(id, 10)+" is gone")
	}
	o := it.Command.Rename
	t := m.parcel(f)
	t.Tx, t.DoneBelow, t.Dst, t.NoReplace, t.Caller = id, m.transfersDone(), o.Away, o.NoReplace, it.Command.Caller
	t.Mount, t.Root, t.Key = family(m.mountOf(n)), mt.Mount.Uri, it.Source
	t.Exchange, t.Room = o.Exchange, max(o.AwayBytes, f.Length)
	return t, m.failed()
}

// parcel is what is kept of a file, to be handed to another group.
func (m *Machine) parcel(f *inode.File) *metapb.TransferOp {
	bounds := m.copies(f)
	t := &metapb.TransferOp{File: inode.AppendFile(nil, f), ReplicaMin: bounds.Min, ReplicaLimit: bounds.Max}
	if f.Flags.Has(inode.HasXattr) {
		for _, name := range m.xattrNames(f.Ino) {
			t.Xattrs = append(t.Xattrs, &metapb.TransferXattr{Name: name, Value: slices.Clone(m.get(inode.AppendXattr(nil, f.Ino, name)))})
		}
	}
	return t
}

// receive takes over a file of another group, once for each transaction: what
// was decided about one is what is answered for ever after.
func (m *Machine) receive(c *call, o *metapb.TransferOp) *refusal {
	if c.who.UID != 0 {
		return refuse(orca.Permission, label(o.Dst), "only groups hand files to each other")
	}
	if c.decided != nil {
		dst, r := m.resolve(&c.who, o.Dst, false)
		if r != nil {
			return r
		}
		if o.Dir {
			return m.installDir(c, o, &dst)
		}
		return m.arrive(c, o, &dst)
	}
	from := orca.Ino(max(o.Tx, o.DoneBelow)).Home()
	m.forgetDecided(from, o.DoneBelow)
	switch rec := m.outcomes.decided[o.Tx]; {
	case o.Tx == 0:
		return nil
	case rec != nil:
		c.res.Transfer = rec
		return nil
	case o.Tx < m.outcomes.below[from]:
		return refuse(orca.Stale, label(o.Dst), "the transfer was decided, and that was taken note of")
	case m.outcomes.receiving[o.Tx] != 0:
		c.res.Intent = m.intents[m.outcomes.receiving[o.Tx]]
		return nil
	case o.Abort != 0:
		m.noteDecided(c, o.Tx, &refusal{kind: orca.Kind(o.Abort), path: label(o.Dst), msg: o.AbortMsg})
		return nil
	}
	r := m.begins(c, o)
	if r == nil || m.passes(r, o.Tx) {
		return r
	}
	m.noteDecided(c, o.Tx, r)
	return nil
}

// passes reports whether what refuses a transfer is waited for. A transfer of a
// lower number is not: it may wait for this one, as it does for those of higher
// numbers. So of those that wait for each other in a ring one ends, and one is done.
func (m *Machine) passes(r *refusal, tx uint64) bool {
	if it := m.intents[r.busy]; it != nil && it.Op == metapb.IntentOp_INTENT_TRANSFER && it.Id < tx {
		return false
	}
	return r.busy != 0 || r.unknown || r.rehome != nil
}

// begins locks the name that a file of another group gets, or installs the file
// at once where the store has nothing to do.
func (m *Machine) begins(c *call, o *metapb.TransferOp) *refusal {
	by := who(o.Caller)
	dst, r := m.resolve(&by, o.Dst, true)
	if r != nil && r.kind == orca.Referral {
		return refuse(orca.CrossMount, dst.path, "")
	}
	if r != nil && r.kind == orca.NotFound && m.movedAway(orca.Ino(o.Dst.GetIno())) {
		return refuse(orca.Busy, dst.path, "the directory has just moved to another group")
	}
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &dst); r != nil {
		return r
	}
	if o.Dir {
		return m.beginsDir(c, o, &by, &dst)
	}
	f, err := transferred(o)
	if err != nil {
		return refuse(orca.KindOf(err), dst.path, "")
	}
	check := m.checkReceive
	if o.Exchange {
		check = m.checkTrade
	}
	if r := check(o, &by, &dst); r != nil {
		return r
	}
	to := m.locateName(&dst)
	if r := firstRefusal(m.free(c, to, true, dst.path), m.rehoming(c, &dst)); r != nil {
		return r
	}
	if r := copied(to.mount, f, dst.path); r != nil {
		return r
	}
	want := room{f.Length, 1}
	if dst.file != nil && !dst.file.Flags.Has(inode.Linked) { // as roomToMove has it
		less := m.takes(&dst)
		want = room{max(0, want.bytes-less.bytes), max(0, want.inodes-less.inodes)}
	}
	if r := m.fits(dst.dir, nil, want, dst.path); r != nil {
		return r
	}
	it := &command.Intent{Op: metapb.IntentOp_INTENT_RECEIVE, Target: to.key, Want: f.Fingerprint, Replaces: !dst.none(),
		HoldDir: uint64(dst.dir.rec.Ino), HoldBytes: want.bytes, HoldInodes: want.inodes}
	if m.objectAt(&dst) {
		it.Have = dst.file.Fingerprint
	}
	op := proto.Clone(o).(*metapb.TransferOp)
	op.Dst = here(&dst)
	switch {
	case it.Want != "":
	case it.Have != "" && o.Exchange: // it goes the other way
	case it.Have != "": // what replaces it is not in the store: the object has to go
		it.Ino, it.Want = uint64(dst.file.Ino), it.Have
	default:
		if r := m.arrive(c, op, &dst); r != nil {
			return r
		}
		m.noteDecided(c, o.Tx, nil)
		return nil
	}
	return m.begin(c, it, to, func(cmd *command.Command) { cmd.Transfer = op })
}

// transferred decodes the file of a transfer.
func transferred(o *metapb.TransferOp) (*inode.File, error) {
	d, err := inode.DecodeDentry(o.File)
	if err == nil && d.File == nil {
		err = orca.E("fsm.transferred", orca.Corrupt, "a transfer without a file")
	}
	return d.File, err
}

// checkReceive refuses what cannot be, and who may not.
func (m *Machine) checkReceive(o *metapb.TransferOp, by *orca.Caller, dst *spot) *refusal {
	mt := m.mountOf(dst.dir)
	switch {
	case dst.isRoot():
		return refuse(orca.IsDir, dst.path, "")
	case len(dst.rest) > 1:
		return refuse(orca.NotFound, dst.path, "")
	case mt == nil || family(mt) != o.Mount:
		return refuse(orca.CrossMount, dst.path, "")
	case !dst.none() && o.NoReplace:
		return refuse(orca.Exists, dst.path, "")
	case dst.dentry.dir != nil:
		return refuse(orca.IsDir, dst.path, "")
	}
	if r := firstRefusal(writable(mt, dst.path), m.idle(dst.dir, dst.name, nil, dst.path)); r != nil {
		return r
	}
	if dst.none() {
		return firstRefusal(checkNew(dst.dir, dst.rest, dst.path), mayChange(by, dst.dir, dst.path))
	}
	return mayCut(by, dst)
}

// install is the effect of a transfer on the namespace of its target: the file,
// with all that is kept of it, under a number of this group, in the place of what
// was there.
func (m *Machine) install(c *call, o *metapb.TransferOp, dst *spot) *refusal {
	f, err := transferred(o)
	if err != nil {
		return refuse(orca.KindOf(err), dst.path, "")
	}
	if !dst.none() {
		c.res.Replaced = uint64(dst.ino())
		m.erase(&spot{dir: dst.dir, name: dst.name, dentry: dst.dentry})
	}
	f.Ino, f.Version, f.LastVersion, f.Runs = m.newIno(), 1, 1, wholeRuns(1)
	f.Flags &= inode.Pinned | inode.OwnMtime
	f.Workers, f.Links, f.Override = nil, 0, inode.Override{}
	f.Ctime, f.Change = c.now, m.batch.index
	if fp := c.decide.GetFingerprint(); fp != "" && f.Fingerprint != "" {
		f.Fingerprint = fp
	}
	for _, x := range o.Xattrs {
		f.Flags |= inode.HasXattr
		m.tx.Set(inode.AppendXattr(nil, f.Ino, x.Name), x.Value)
	}
	if b := (inode.Copies{Min: o.ReplicaMin, Max: o.ReplicaLimit}); b != (inode.Copies{}) {
		m.setCopies(f, b)
	}
	name := strings.Clone(dst.name)
	m.count.files++
	m.addFile(dst.dir, name, f)
	if f.Fingerprint != "" {
		m.markPersisted(dst.dir)
	}
	if f.Flags.Has(inode.Pinned) {
		m.effect(Effect{Kind: EffectPin, File: f.Ino, Version: f.Version})
	}
	m.event(metapb.EventKind_EVENT_ENTRY, f.Ino, dst.dir.rec.Ino, name)
	c.res.Attr = m.fileAttr(f, m.locateFile(dst.dir, name, f))
	c.res.Parent = uint64(dst.dir.rec.Ino)
	return nil
}

// noteDecided puts on record what has become of a transfer: r, or that the file is
// here.
func (m *Machine) noteDecided(c *call, tx uint64, r *refusal) {
	rec := &metapb.TransferRecord{Tx: tx, Ino: c.res.Attr.GetIno(), Back: c.res.Transfer.GetBack()}
	if r != nil {
		rec.Kind, rec.Path, rec.Msg = uint32(r.kind), r.path, r.msg
	}
	m.putDecided(c, rec)
}

func (m *Machine) putDecided(c *call, rec *metapb.TransferRecord) {
	m.forgetTree(rec.Tx) // unless it has its place by now
	m.outcomes.decided[rec.Tx] = rec
	m.putRecord(inode.AppendKey8(nil, inode.SpaceTransfer, rec.Tx), rec)
	c.res.Transfer = rec
}

// decidedTransfer puts on record what the decision of an intent came to.
func (m *Machine) decidedTransfer(c *call, it *command.Intent) {
	if it.Op != metapb.IntentOp_INTENT_RECEIVE {
		return
	}
	m.putDecided(c, &metapb.TransferRecord{Tx: it.Command.GetTransfer().GetTx(), Kind: c.res.Kind, Path: c.res.Path, Msg: c.res.Msg,
		Ino: c.res.Attr.GetIno(), Back: c.res.Transfer.GetBack()})
}

// forgetDecided forgets what the other group has taken note of.
func (m *Machine) forgetDecided(from uint16, below uint64) {
	if below <= m.outcomes.below[from] {
		return
	}
	m.outcomes.below[from] = below
	rec := &metapb.TransferRecord{Tx: firstTx(from), Below: below}
	m.putRecord(inode.AppendKey8(nil, inode.SpaceTransfer, rec.Tx), rec)
	for _, tx := range slices.Sorted(maps.Keys(m.outcomes.decided)) {
		if orca.Ino(tx).Home() == from && tx < below {
			delete(m.outcomes.decided, tx)
			m.tx.Delete(inode.AppendKey8(nil, inode.SpaceTransfer, tx))
		}
	}
	m.forgetTrees(from, below)
}

// Decided reports whether any decision is kept for a group.
func (m *Machine) Decided(from uint16) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for tx := range m.outcomes.decided {
		if orca.Ino(tx).Home() == from {
			return true
		}
	}
	return false
}

// IsDecided reports whether a transfer has been decided here, or was and is forgotten.
func (m *Machine) IsDecided(tx uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.outcomes.decided[tx] != nil || tx < m.outcomes.below[orca.Ino(tx).Home()]
}

// firstTx is a number of a group that no intent of it has.
func firstTx(group uint16) uint64 {
	if group <= 1 {
		return 0
	}
	return uint64(group) << 48
}

func (m *Machine) loadTransfers() error {
	return loadProto(m, inode.SpaceTransfer, func(r *metapb.TransferRecord) {
		if r.Below != 0 {
			m.outcomes.below[orca.Ino(r.Below).Home()] = r.Below
			return
		}
		m.outcomes.decided[r.Tx] = r
	})
}

// transfers checks that decisions are on record, and that no intent is about
// what is decided.
func (c *checker) transfers() {
	m := c.m
	c.space(inode.SpaceTransfer, int64(len(m.outcomes.decided)+len(m.outcomes.below)))
	var receiving, leaving int
	for id, it := range m.intents {
		switch it.Op {
		case metapb.IntentOp_INTENT_RECEIVE:
			receiving++
			c.receivesDir(id, it)
			tx := it.Command.GetTransfer().GetTx()
			if m.outcomes.receiving[tx] != id || m.outcomes.decided[tx] != nil || tx < m.outcomes.below[orca.Ino(tx).Home()] {
				c.wrong("intent %d is about transfer %d, which is decided or another's", id, tx)
			}
		case metapb.IntentOp_INTENT_TRANSFER:
			leaving++
			c.sendsDir(id, it)
			k := leavingKey(it)
			n := m.dirs[k.dir]
			if n == nil || uint64(m.lookup(n, k.name).ino()) != it.Ino || m.outcomes.leaving[k] != id {
				c.wrong("intent %d takes away %q of %v, which is another file", id, k.name, k.dir)
			}
		}
	}
	c.equal("transfers that come", int64(len(m.outcomes.receiving)), int64(receiving))
	c.equal("transfers that go", int64(len(m.outcomes.leaving)), int64(leaving))
	for ino, id := range m.outcomes.dirs {
		if it := m.intents[id]; it == nil || !it.Dir || it.Ino != uint64(ino) {
			c.wrong("directory %v is said to go to another group", ino)
		}
	}
}
