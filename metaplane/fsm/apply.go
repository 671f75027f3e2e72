// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"unsafe"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// batch is what one Apply gathers.
type batch struct {
	index    uint64
	now      int64
	ops      int       // commands so far
	dirs     []*node   // dirty
	clients  []*client // dirty
	events   []Event
	effects  []Effect
	key, val []byte // scratch
	enc      []byte // scratch of a result
	marks    counters
	outs     []Output
	results  []*command.Result // handed out by this Apply
	spare    []*command.Result // empty, to be handed out
	attrs    []*metapb.Attr    // to be used again
	scratch  command.Scratch
	call     call
	rest     [8]string // of the last spots without an end, in turn
	turn     int
	text     []byte // memory of strings that are kept
	passing  []byte // memory of strings that are gone soon
}

// textChunk is how much memory kept strings share: it is held as long as one
// of them is.
const textChunk = 256

// hold returns n bytes of a chunk to make a string of, which nobody writes to
// again.
func hold(chunk *[]byte, n int) []byte {
	if cap(*chunk)-len(*chunk) < n {
		*chunk = make([]byte, 0, max(n, textChunk))
	}
	at := len(*chunk)
	*chunk = (*chunk)[:at+n]
	return (*chunk)[at : at+n : at+n]
}

// kept returns a copy of a part of a command that outlives it.
func (b *batch) kept(s string) string {
	return b.keptBytes(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// keptBytes is kept of bytes.
func (b *batch) keptBytes(s []byte) string {
	p := hold(&b.text, len(s))
	copy(p, s)
	return unsafe.String(unsafe.SliceData(p), len(p))
}

// missing returns the names of a spot that lacks just its last.
func (b *batch) missing(name string) []string {
	b.turn = (b.turn + 1) % len(b.rest)
	b.rest[b.turn] = name
	return b.rest[b.turn : b.turn+1 : b.turn+1]
}

// attr returns empty attributes for a result.
func (b *batch) attr() *metapb.Attr {
	n := len(b.attrs)
	if n == 0 {
		return &metapb.Attr{}
	}
	a := b.attrs[n-1]
	b.attrs = b.attrs[:n-1]
	return a
}

// giveBack takes back a result and its attributes, which nobody uses any more.
func (b *batch) giveBack(r *command.Result) {
	if a := r.Attr; a != nil {
		runs := a.Runs
		a.Reset()
		a.Runs = runs[:0]
		b.attrs = append(b.attrs, a)
	}
	r.Reset()
	b.spare = append(b.spare, r)
}

// result returns an empty Result.
func (b *batch) result() *command.Result {
	if n := len(b.spare); n > 0 {
		r := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return r
	}
	return &command.Result{}
}

// recycle takes back what the last Apply has handed out and nobody has kept.
func (b *batch) recycle() {
	for i, r := range b.results {
		if r != nil {
			b.giveBack(r)
		}
		b.results[i] = nil
	}
	b.results = b.results[:0]
	clear(b.events)
	clear(b.effects)
	clear(b.outs)
	b.events, b.effects, b.outs = b.events[:0], b.effects[:0], b.outs[:0]
}

// call is one command being applied.
type call struct {
	cmd *command.Command
	who orca.Caller
	now int64
	res *command.Result
	// decided is the intent that this command commits; nil when the command
	// comes straight from the journal. What was checked and locked when the
	// intent was made is not checked again.
	decided *command.Intent
	// fingerprint, mtime and existed are what the UFS said at decide.
	decide *metapb.DecideOp
}

// refusal is why a command changes nothing.
type refusal struct {
	kind orca.Kind
	path string
	msg  string
	busy uint64 // the intent in the way
	walk bool   // a walk, name by name, may still be allowed
	// unknown: the UFS has to be asked first
	unknown bool
	// junction: the walk ended at one that is the end of the path
	junction bool
	rehome   *metapb.RehomeOp // to be done first
}

func refuse(kind orca.Kind, path, msg string) *refusal {
	return &refusal{kind: kind, path: path, msg: msg}
}

func (r *refusal) err(op string) error {
	if r == nil {
		return nil
	}
	return &orca.Error{Op: op, Path: r.path, Kind: r.kind, Msg: r.msg}
}

// Apply applies committed entries in order, all in one batch of the store. An
// error means that the store has failed: nothing more can be applied. A
// command that cannot be decoded is refused, like any other, by its Result.
func (m *Machine) Apply(entries []Entry) ([]Output, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failed(); err != nil {
		return nil, err
	}
	m.applying = true
	defer func() { m.applying = false }()
	b := &m.batch
	b.recycle()
	b.marks, b.ops = m.count, 0
	for i := range entries {
		e := &entries[i]
		if e.Index <= m.applied.Load() {
			return nil, orca.E("fsm.Apply", orca.Internal, "an entry was applied before")
		}
		b.outs = append(b.outs, m.applyEntry(e))
		m.applied.Store(e.Index)
	}
	m.finishBatch()
	if err := m.failed(); err != nil {
		return nil, err
	}
	b.place()
	return b.outs, m.tx.Commit(m.applied.Load(), b.ops)
}

// place points the outputs at their parts of the slices of the batch, which
// have moved while they grew.
func (b *batch) place() {
	events, effects, results := b.events, b.effects, b.results
	for i := range b.outs {
		o := &b.outs[i]
		o.Events, events = events[:len(o.Events)], events[len(o.Events):]
		o.Effects, effects = effects[:len(o.Effects)], effects[len(o.Effects):]
		o.Decoded, results = results[:len(o.Decoded)], results[len(o.Decoded):]
	}
}

func (m *Machine) applyEntry(e *Entry) Output {
	b := &m.batch
	b.index = e.Index
	events, effects, results := len(b.events), len(b.effects), len(b.results)
	out := Output{Index: e.Index}
	var encoded command.Entry
	add := func(r *command.Result) {
		switch e.Want {
		case WantEncoded:
			b.enc = m.encode(b.enc[:0], r)
			encoded.Add(b.enc)
		case WantDecoded:
			b.results = append(b.results, r)
			return
		}
		b.giveBack(r)
	}
	err := command.Split(e.Data, func(_ int, item []byte) error {
		r := b.result()
		m.applyItem(item, r)
		add(r)
		return nil
	})
	if err != nil {
		r := b.result()
		r.Kind, r.Msg, r.Index = uint32(orca.KindOf(err)), err.Error(), e.Index
		add(r)
	}
	out.Results = encoded.Bytes()
	out.Events, out.Effects = b.events[events:], b.effects[effects:]
	out.Decoded = b.results[results:]
	return out
}

// finishBatch writes the records that many commands of a batch may touch.
func (m *Machine) finishBatch() {
	b := &m.batch
	for _, n := range b.dirs {
		n.dirty = false
		if n.gone {
			continue
		}
		b.key = inode.AppendKey8(b.key[:0], inode.SpaceDir, uint64(n.rec.Ino))
		b.val = inode.AppendDir(b.val[:0], &n.rec)
		m.tx.Set(b.key, b.val)
		m.storeRing(n)
	}
	for _, c := range b.clients {
		m.storeClient(c)
	}
	clear(b.dirs)
	clear(b.clients)
	b.dirs, b.clients = b.dirs[:0], b.clients[:0]
	if m.count != b.marks {
		m.storeCounters()
	}
}

// applyItem applies one encoded command and fills in its empty result.
func (m *Machine) applyItem(item []byte, res *command.Result) {
	m.stats.commands.Add(1)
	m.batch.ops++
	res.Index = m.batch.index
	cmd, ok := m.batch.scratch.Create(item)
	if !ok {
		cmd = &command.Command{}
		if err := command.Decode(item, cmd); err != nil {
			res.Kind, res.Msg = uint32(orca.KindOf(err)), err.Error()
			return
		}
	}
	if r := m.underReign(cmd); r != nil {
		res.Kind, res.Msg = uint32(r.kind), r.msg
		return
	}
	m.batch.now = cmd.Now
	c := &m.batch.call
	*c = call{cmd: cmd, now: cmd.Now, res: res, who: who(cmd.Caller)}
	if cmd.Client == 0 {
		m.execute(c)
		return
	}
	cl, done, r := m.admit(cmd)
	switch {
	case r != nil:
		res.Kind, res.Msg = uint32(r.kind), r.msg
		return
	case done != nil:
		m.stats.remembered.Add(1)
		res.Reset()
		if err := command.DecodeResult(done, res); err != nil {
			m.fail(err)
		}
		return
	}
	if id := m.byCall[callKey{cmd.Client, cmd.Seq}]; id != 0 {
		res.Intent = m.intents[id]
		return
	}
	m.execute(c)
	if final(res) {
		m.batch.enc = m.encode(m.batch.enc[:0], res)
		m.remember(cl, cmd.Seq, m.batch.enc)
	}
}

// final reports whether a result may be remembered: it is the end of its
// request, not an advice to try again.
func final(r *command.Result) bool {
	if r.Intent != nil && !r.Intent.Deferred {
		return false
	}
	return !orca.Kind(r.Kind).Retryable()
}

func (m *Machine) encode(dst []byte, r *command.Result) []byte {
	out, err := command.AppendResult(dst, r)
	if err != nil {
		out, _ = command.AppendResult(dst, &command.Result{Kind: uint32(orca.Internal), Msg: err.Error()})
	}
	return out
}

func who(c *metapb.Caller) orca.Caller {
	if c == nil {
		return orca.Caller{}
	}
	return orca.Caller{UID: c.Uid, GID: c.Gid, Groups: c.Groups}
}

// execute runs the operation of a command and fills in its result.
func (m *Machine) execute(c *call) {
	r := m.dispatch(c)
	m.reholdBins()
	if r == nil {
		return
	}
	c.res.Reset()
	c.res.Index = m.batch.index
	c.res.Kind, c.res.Path, c.res.Msg = uint32(r.kind), r.path, r.msg
	c.res.BusyIntent, c.res.NeedWalk, c.res.Unknown, c.res.Rehome = r.busy, r.walk, r.unknown, r.rehome
}

func (m *Machine) dispatch(c *call) *refusal {
	switch o := c.cmd; {
	case o.Create != nil:
		return m.create(c, o.Create)
	case o.Complete != nil:
		return m.complete(c, o.Complete)
	case o.Abandon != nil:
		return m.abandon(c, o.Abandon)
	case o.Renew != nil:
		return m.renew(c, o.Renew)
	case o.Expire != nil:
		return m.expire(c, o.Expire)
	case o.DropSession != nil:
		return m.dropSession(o.DropSession)
	case o.Mkdir != nil:
		return m.mkdir(c, o.Mkdir)
	case o.Rename != nil:
		return m.rename(c, o.Rename)
	case o.Link != nil:
		return m.link(c, o.Link)
	case o.Delete != nil:
		return m.remove(c, o.Delete)
	case o.SetAttr != nil:
		return m.setAttr(c, o.SetAttr)
	case o.Xattr != nil:
		return m.xattr(c, o.Xattr)
	}
	return m.dispatchInner(c)
}

// dispatchInner runs what only the metaplane and its operators propose.
func (m *Machine) dispatchInner(c *call) *refusal {
	switch o := c.cmd; {
	case o.Mount != nil:
		return m.mount(c, o.Mount)
	case o.Unmount != nil:
		return m.unmount(c, o.Unmount)
	case o.Decide != nil:
		return m.decide(c, o.Decide)
	case o.Rehome != nil:
		return m.rehome(c, o.Rehome)
	case o.Cutover != nil:
		return m.cutover(c, o.Cutover)
	case o.FinishIntent != nil:
		return m.finishIntent(c, o.FinishIntent)
	case o.SyncApply != nil:
		return m.syncApply(c, o.SyncApply)
	case o.Persist != nil:
		return m.persist(c, o.Persist)
	case o.PersistPrepare != nil:
		return m.persistPrepare(c, o.PersistPrepare)
	case o.PersistCommit != nil:
		return m.persistCommit(c, o.PersistCommit)
	case o.MarkLost != nil:
		return m.markLost(c, o.MarkLost)
	case o.SweepTrash != nil:
		return m.sweepTrash(c, o.SweepTrash)
	case o.RegisterWorker != nil:
		return m.registerWorker(c, o.RegisterWorker)
	case o.Junction != nil:
		return m.junction(c, o.Junction)
	case o.Hosted != nil:
		return m.applyHosted(c, o.Hosted)
	case o.SetFact != nil:
		return m.setFact(c, o.SetFact)
	case o.SetQuota != nil:
		return m.setQuota(c, o.SetQuota)
	case o.Hold != nil:
		return m.addHolders(c, o.Hold)
	case o.RestoreTrash != nil:
		return m.restoreTrash(c, o.RestoreTrash)
	case o.PurgeTrash != nil:
		return m.purgeTrash(c, o.PurgeTrash)
	case o.Transfer != nil:
		return m.receive(c, o.Transfer)
	case o.Stage != nil:
		return m.stage(c, o.Stage)
	case o.Regroup != nil:
		return m.regroup(c, o.Regroup)
	case o.Depart != nil:
		return m.depart(c, o.Depart)
	case o.Brought != nil:
		return m.brought(o.Brought)
	case o.Noop != nil:
		return nil
	}
	return refuse(orca.Invalid, "", "a command without an operation")
}

func (m *Machine) effect(e Effect) { m.batch.effects = append(m.batch.effects, e) }

func (m *Machine) event(kind metapb.EventKind, ino, parent orca.Ino, name string) {
	m.batch.events = append(m.batch.events, Event{
		Index: m.batch.index, Ino: ino, Parent: parent, Name: name, Kind: kind,
	})
}
