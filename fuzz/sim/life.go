// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/ufs"
	"orca/ufs/wrap"
)

// quiet is where the metaplane's words go.
var quiet = slog.New(slog.DiscardHandler)

// journal is the Raft log with the machine that applies it: what outlives a
// coordinator.
type journal struct {
	w       *world
	g       *group
	disk    *inodekv.Disk
	db      *inodekv.DB
	machine *fsm.Machine
	entries []fsm.Entry
	late    []*command.Command // proposed by the present life, still on their way
}

// proposal is a command at a gate, and what it came to.
type proposal struct {
	cmd *command.Command
	res *command.Result
	err error
}

// open opens the machine from its disk and replays the journal.
func (j *journal) open() {
	w := j.w
	var err error
	if j.db, err = inodekv.Open(inodekv.Config{Disk: j.disk, FlushEvery: 10 * time.Minute, CacheBytes: 1 << 20}, quiet); err != nil {
		w.broken("open", "%v", err)
		return
	}
	if j.machine, err = fsm.Open(fsm.Config{CacheEntries: 64, Group: j.g.number}, j.db, nil, quiet); err != nil {
		w.broken("open", "%v", err)
		return
	}
	at := j.machine.Applied()
	if w.bug.skipsEntry() && at > 0 {
		at++
	}
	todo := j.entries[min(int(at), len(j.entries)):]
	for len(todo) > 0 && err == nil {
		n := min(1+w.rng.IntN(8), len(todo))
		_, err = j.machine.Apply(todo[:n])
		todo = todo[n:]
	}
	if err == nil {
		err = j.machine.Check()
	}
	if err != nil {
		w.broken("replay", "%v", err)
		return
	}
	j.restorable()
}

// flush makes durable what was applied.
func (j *journal) flush() {
	if err := j.db.Flush(); err != nil {
		j.w.broken("flush", "%v", err)
	}
}

// dump is a digest of the whole store.
func (j *journal) dump() string {
	h := sha256.New()
	_ = j.db.Scan(nil, nil, func(k, v []byte) bool {
		fmt.Fprintf(h, "%x=%x\n", k, v)
		return true
	})
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// cut takes the power from the machine's disk and opens it again.
func (j *journal) cut() {
	before := j.dump()
	disk := j.disk.Crash(j.w.rng)
	j.close()
	j.disk = disk
	if j.open(); j.w.over() {
		return
	}
	if after := j.dump(); after != before {
		j.w.broken("replay", "the journal gives another store than before: %s, was %s", after, before)
	}
}

func (j *journal) close() {
	if j.machine != nil {
		_ = j.machine.Close()
	}
	if j.db != nil {
		_ = j.db.Close(false)
	}
}

// within checks that no quota has been passed: what is below a directory and
// what is held free for it only grow within its limits, unless a sync has found
// more, a directory that has more has moved here, or the content of a file has
// gone on under another of its names. before
// is how it was when cmds were applied, and rehomed how often that had happened.
func (j *journal) within(before []fsm.QuotaView, rehomed int64, cmds []*command.Command) {
	if j.machine.Counts().Rehomed != rehomed {
		return
	}
	for _, c := range cmds {
		if c.SyncApply != nil || c.SetQuota != nil || c.Stage != nil {
			return
		}
	}
	old := map[orca.Ino]fsm.QuotaView{}
	for _, q := range before {
		old[q.Dir] = q
	}
	for _, q := range j.machine.Quotas(orca.Caller{}) {
		b, ok := old[q.Dir]
		grows := func(limit, now, was int64) bool { return ok && limit > 0 && now > was && now > limit }
		if grows(q.Limit.Bytes, q.Usage.Bytes+q.HeldBytes, b.Usage.Bytes+b.HeldBytes) ||
			grows(q.Limit.Inodes, q.Usage.Inodes()+q.HeldInodes, b.Usage.Inodes()+b.HeldInodes) {
			j.w.broken("quota", "%s (%s): %+v, before %+v", q.Path, describe(cmds[0]), q, b)
		}
	}
}

// append commits commands as one entry, applies it, and checks the machine.
func (j *journal) append(cmds []*command.Command) []*command.Result {
	w := j.w
	var e command.Entry
	for _, c := range cmds {
		raw, err := command.Append(nil, w.bug.onCommand(j.machine, c))
		if err != nil {
			w.broken("command", "%v", err)
			return nil
		}
		e.Add(raw)
	}
	entry := fsm.Entry{Index: uint64(len(j.entries) + 1), Data: e.Bytes()}
	j.entries = append(j.entries, entry)
	w.stats.Entries++
	leaves, gives := j.switching(cmds), j.trading(cmds)
	before, rehomed, rows := j.machine.Quotas(orca.Caller{}), j.machine.Counts().Rehomed, j.machine.Mounts()
	outs, err := j.machine.Apply([]fsm.Entry{entry})
	if err != nil {
		w.broken("apply", "%v", err)
		return nil
	}
	var all []*command.Result
	err = command.Split(outs[0].Results, func(_ int, item []byte) error {
		r := &command.Result{}
		all = append(all, r)
		return command.DecodeResult(item, r)
	})
	if err != nil || len(all) != len(cmds) {
		w.broken("apply", "%d results of %d commands (%v)", len(all), len(cmds), err)
		return nil
	}
	for i, c := range cmds {
		w.tracef("  #%d %s -> %s", entry.Index, describe(c), told(all[i]))
	}
	if err := j.machine.Check(); err != nil {
		w.broken("check", "after entry %d (%s): %v", entry.Index, describe(cmds[0]), err)
	}
	j.within(before, rehomed, cmds)
	j.noted(rows)
	j.arrived(leaves)
	j.count(cmds, all)
	j.taken(all)
	j.traded(gives, cmds, all)
	if l := j.g.life; l != nil {
		for _, e := range outs[0].Effects {
			select {
			case l.effects <- e:
			default:
			}
		}
	}
	w.mu.Lock()
	w.touched = true
	w.mu.Unlock()
	for i, c := range cmds {
		if next := w.bug.after(c, all[i]); next != nil {
			j.append([]*command.Command{next})
		}
	}
	return all
}

// count notes what went between groups.
func (j *journal) count(cmds []*command.Command, all []*command.Result) {
	s := &j.w.stats
	for i, r := range all {
		switch x, o := r.Transfer, cmds[i].Regroup; {
		case x != nil && x.Kind == 0:
			s.Transfers++
		case x != nil:
			s.Refused++
		case o == nil || r.Kind != 0 || o.Intent == 0:
		case o.Root != 0:
			s.Moves++
		default:
			s.Stays++
		}
	}
}

// catchUp commits one of the commands whose proposers were told nothing.
func (j *journal) catchUp() {
	if len(j.late) == 0 {
		return
	}
	i := j.w.rng.IntN(len(j.late))
	c := j.late[i]
	j.late = append(j.late[:i], j.late[i+1:]...)
	j.w.tracef("LATE %s", describe(c))
	j.append([]*command.Command{c})
}

// commit lets a proposal into the journal, perhaps with others.
func (w *world) commit(g *gate, gates []*gate, f Faults) {
	switch {
	case w.chance(f.Proposals):
		w.tracef("%s IS LOST", g.label)
		g.prop.err = orca.E("sim.Propose", orca.Timeout, "lost")
		w.release(g, fail)
		return
	case w.chance(f.Proposals):
		w.tracef("%s COMES LATE", g.label)
		j := g.life.g.journal
		j.late = append(j.late, g.prop.cmd)
		g.prop.err = orca.E("sim.Propose", orca.Timeout, "no answer in time")
		w.release(g, late)
		return
	}
	batch := []*gate{g}
	if w.rng.IntN(4) == 0 {
		for _, o := range gates {
			if o != g && o.kind == gatePropose && o.life == g.life && w.rng.IntN(2) == 0 {
				batch = append(batch, o)
			}
		}
	}
	cmds := make([]*command.Command, len(batch))
	for i, b := range batch {
		cmds[i] = b.prop.cmd
	}
	res := g.life.g.journal.append(cmds)
	if res == nil {
		return
	}
	for i, b := range batch {
		v := pass
		b.prop.res, b.prop.err = res[i], command.Err("sim.Propose", res[i])
		if w.chance(f.Proposals) {
			w.tracef("%s LOSES ITS ANSWER", b.label)
			b.prop.res, b.prop.err, v = nil, orca.E("sim.Propose", orca.Timeout, "no answer in time"), lose
		}
		w.release(b, v)
	}
}

// life is one coordinator: a service that leads the group until it crashes. It
// is the metaserver.Group of its service.
type life struct {
	alone
	w       *world
	g       *group
	term    uint64
	machine *fsm.Machine
	svc     *metaserver.Service
	effects chan fsm.Effect
	changed chan struct{}
	dead    chan struct{}                  // closed when it is over
	others  map[string]*metaclient.Session // to other groups; GUARDED_BY(world.mu)
	asked   map[string]int                 // how often; GUARDED_BY(world.mu)
	over    bool                           // GUARDED_BY(world.mu)
}

var _ metaserver.Group = (*life)(nil)

// Propose implements ufsexec.Group.
func (l *life) Propose(ctx context.Context, c *command.Command) (*command.Result, error) {
	p := &proposal{cmd: proto.Clone(c).(*command.Command)}
	g := &gate{kind: gatePropose, life: l, prop: p, label: l.g.prefix() + who(ctx) + "propose " + describe(c)}
	if l.w.wait(ctx, g) == gone {
		return nil, orca.E("sim.Propose", orca.Timeout, "the group is closing; the outcome is unknown")
	}
	return p.res, p.err
}

// Machine implements ufsexec.Group.
func (l *life) Machine() *fsm.Machine { return l.machine }

// Leader implements ufsexec.Group.
func (l *life) Leader() (leading bool, term uint64) { return true, l.term }

// LeaderChanged implements ufsexec.Group.
func (l *life) LeaderChanged() <-chan struct{} { return l.changed }

// ReadReady implements metaserver.Group.
func (l *life) ReadReady(context.Context) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.over {
		return down("ReadReady")
	}
	return nil
}

// ReadProven implements metaserver.Group.
func (l *life) ReadProven() bool { return false }

// Start implements metaserver.Group. Requests that are answered without a
// goroutine are not simulated: reads are never proven here.
func (l *life) Start(*command.Command, time.Time, command.Waiter) error {
	return orca.E("sim.Start", orca.Unsupported, "not simulated")
}

// Effects implements metaserver.Group.
func (l *life) Effects() <-chan fsm.Effect { return l.effects }

// Watch implements metaserver.Group; nobody watches here.
func (l *life) Watch(ctx context.Context, cursor uint64) (events []fsm.Event, next uint64, lost bool) {
	<-ctx.Done()
	return nil, cursor, false
}

func (l *life) openStore(_ context.Context, m *metapb.Mount) (ufs.FS, error) {
	if p := l.w.placeOf(m.Uri); p.store != nil {
		return l.w.through(p, l), nil
	}
	return nil, orca.E("sim.open", orca.NotFound, "no such store "+m.Uri)
}

// through returns a handle on a store whose calls wait at gates. l is the life
// that they end with; nil for those of workers.
func (w *world) through(p place, l *life) ufs.FS {
	s, name := p.store, p.store.name
	if p.dir != "" {
		name += "/" + p.dir
	}
	if l != nil {
		name = l.g.prefix() + name
	}
	return wrap.Intercept(sub(s.faults.FS(), p.dir), func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
		g := &gate{kind: gateStore, life: l, token: c.Token, write: c.Op.Mutates() || c.Op == wrap.Abort || c.Op == wrap.Sweep,
			label: fmt.Sprintf("%s%s %s:%s %s", who(ctx), c.Op, name, c.Key, c.Dst)}
		v := w.wait(ctx, g)
		switch v {
		case gone:
			if err := ctx.Err(); err != nil {
				return &orca.Error{Op: "sim." + c.Op.String(), Path: c.Key, Kind: orca.Timeout, Err: err}
			}
			return down(c.Op.String())
		case fail:
			return w.trouble(c, l)
		}
		err := w.bug.onCall(ctx, c, do)
		if g.write {
			w.mu.Lock()
			w.touched = true
			w.mu.Unlock()
		}
		if err == nil && v == lose {
			return w.trouble(c, l)
		}
		w.note("%s%s %s -> %v", who(ctx), c.Op, c.Key, cmp.Or(orca.KindOf(err).String(), "ok"))
		return err
	})
}

// trouble is a failure of a store; which kind depends on the call alone.
func (w *world) trouble(c wrap.Call, l *life) error {
	kinds := []orca.Kind{orca.Unavailable, orca.Timeout, orca.Unavailable, orca.UFSFailure}
	n := len(c.Key) + int(c.Op)
	if l != nil {
		n += int(l.term)
	}
	return &orca.Error{Op: "sim." + c.Op.String(), Path: c.Key, Kind: kinds[n%len(kinds)], Msg: "injected"}
}

// againKey is the key of a repeated message's number.
type againKey struct{}

// whoKey is the key of a context's client.
type whoKey struct{}

// who is the prefix of labels: the client that a call is made for.
func who(ctx context.Context) string {
	if s, ok := ctx.Value(whoKey{}).(string); ok {
		return s + ": "
	}
	return ""
}

// describe names a command in a line.
func describe(c *command.Command) string {
	id := ""
	if c.Client != 0 {
		id = fmt.Sprintf("%x#%d ", c.Client&0xfff, c.Seq)
	}
	t := func(t *metapb.Target) string { return fmt.Sprintf("%d%s", t.GetIno()&0xffff, t.GetPath()) }
	switch {
	case c.Create != nil:
		return fmt.Sprintf("%screate %s complete=%v steal=%v", id, t(c.Create.Target), c.Create.Complete, c.Create.Steal)
	case c.Complete != nil:
		return fmt.Sprintf("%scomplete s%d len=%d %s", id, c.Complete.Session, c.Complete.Length, c.Complete.Fingerprint)
	case c.Abandon != nil:
		return fmt.Sprintf("%sabandon s%d", id, c.Abandon.Session)
	case c.Renew != nil:
		return fmt.Sprintf("%srenew %v fence=%d", id, c.Renew.Sessions, c.Renew.Fence)
	case c.Mkdir.GetGroup() > 1:
		return fmt.Sprintf("%smkdir %s group %d", id, t(c.Mkdir.Target), c.Mkdir.Group)
	case c.Mkdir != nil:
		return fmt.Sprintf("%smkdir %s", id, t(c.Mkdir.Target))
	case c.Rename != nil:
		if c.Rename.Away != nil {
			return fmt.Sprintf("%srename %s away to %s", id, t(c.Rename.Src), t(c.Rename.Away))
		}
		return fmt.Sprintf("%srename %s %s", id, t(c.Rename.Src), t(c.Rename.Dst))
	case c.Delete != nil:
		return fmt.Sprintf("%sdelete %s recursive=%v", id, t(c.Delete.Target), c.Delete.Recursive)
	case c.SetAttr != nil:
		return fmt.Sprintf("%schmod %s %o", id, t(c.SetAttr.Target), c.SetAttr.Mode)
	case c.Decide != nil:
		return fmt.Sprintf("decide i%d %v %s", c.Decide.Intent, orca.Kind(c.Decide.Kind), c.Decide.Fingerprint)
	case c.Cutover != nil:
		return fmt.Sprintf("cutover i%d f%d %s->%s", c.Cutover.Intent, c.Cutover.File&0xffff, c.Cutover.Want, c.Cutover.Fingerprint)
	case c.FinishIntent != nil:
		return fmt.Sprintf("finish i%d", c.FinishIntent.Intent)
	case c.SyncApply != nil:
		return describeSync(c.SyncApply)
	}
	return id + describeRest(c)
}

func describeRest(c *command.Command) string {
	t := func(t *metapb.Target) string { return fmt.Sprintf("%d%s", t.GetIno()&0xffff, t.GetPath()) }
	switch {
	case c.Expire != nil:
		return "expire"
	case c.DropSession != nil:
		return fmt.Sprintf("drop s%d", c.DropSession.Session)
	case c.PersistPrepare != nil:
		return fmt.Sprintf("prepare f%d v%d", c.PersistPrepare.File&0xffff, c.PersistPrepare.Version)
	case c.PersistCommit != nil:
		return fmt.Sprintf("persisted i%d %s unsure=%v", c.PersistCommit.Intent, c.PersistCommit.Fingerprint, c.PersistCommit.Unsure)
	case c.SweepTrash != nil:
		return "sweep"
	case c.RestoreTrash != nil:
		return fmt.Sprintf("undelete f%d %s", c.RestoreTrash.Ino&0xffff, c.RestoreTrash.Dst.GetPath())
	case c.PurgeTrash != nil:
		return fmt.Sprintf("purge %d expired=%v", len(c.PurgeTrash.Inos), c.PurgeTrash.Expired)
	case c.Mount != nil:
		return fmt.Sprintf("mount %s m%d group %d", c.Mount.Mount.GetPath(), c.Mount.Mount.GetId(), c.Mount.Mount.GetGroup())
	case c.Unmount != nil:
		return fmt.Sprintf("unmount %s m%d empty=%v", c.Unmount.Path, c.Unmount.Id, c.Unmount.Empty)
	case c.Junction != nil:
		return fmt.Sprintf("junction m%d %v->%v removing=%v", c.Junction.Mount, c.Junction.From, c.Junction.To, c.Junction.Removing)
	case c.SetFact != nil:
		return "fact " + c.SetFact.Key
	case c.Transfer != nil:
		return fmt.Sprintf("transfer %s to %s done below %s abort=%v", number(c.Transfer.Tx), t(c.Transfer.Dst), number(c.Transfer.DoneBelow), orca.Kind(c.Transfer.Abort))
	case c.Regroup.GetCleared() != 0:
		return fmt.Sprintf("cleared m%d", c.Regroup.Cleared)
	case c.Regroup.GetSettled() != 0:
		return fmt.Sprintf("settled m%d", c.Regroup.Settled)
	case c.Regroup != nil:
		return fmt.Sprintf("regroup %s group %d i%d root %x", t(c.Regroup.Target), c.Regroup.Group, c.Regroup.Intent, c.Regroup.Root)
	case c.Stage != nil:
		return fmt.Sprintf("stage m%d t%s self=%v pages=%d seal=%v", c.Stage.Mount, number(c.Stage.Tx), c.Stage.Self != nil, len(c.Stage.Pages), c.Stage.Seal)
	case c.Brought != nil:
		return fmt.Sprintf("brought i%d root %x", c.Brought.Intent, c.Brought.Root)
	case c.Depart != nil:
		return fmt.Sprintf("depart m%d for m%d %v root %x", c.Depart.Mount, c.Depart.Part, c.Depart.Step, c.Depart.Root)
	case c.Xattr != nil:
		return "xattr " + t(c.Xattr.Target)
	case c.Link != nil:
		return fmt.Sprintf("link %s %s", t(c.Link.Src), t(c.Link.Dst))
	case c.SetQuota != nil:
		return fmt.Sprintf("quota %s %d %d", t(c.SetQuota.Target), c.SetQuota.Bytes, c.SetQuota.Inodes)
	}
	return "?"
}

// number is a number with the group that it carries.
func number(n uint64) string {
	if g := orca.Ino(n).Group(); g > 1 {
		return fmt.Sprintf("%d.%d", g, n&(1<<48-1))
	}
	return fmt.Sprint(n)
}

func describeSync(o *metapb.SyncApplyOp) string {
	var b strings.Builder
	fmt.Fprintf(&b, "sync d%d since=%d", o.Dir&0xffff, o.Change)
	for _, e := range o.Entries {
		fmt.Fprintf(&b, " +%s", cmp.Or(e.Fingerprint, "/")+":"+e.Name)
	}
	for _, n := range o.Missing {
		b.WriteString(" -" + n)
	}
	if o.Loaded {
		b.WriteString(" loaded")
	}
	if o.Intent != 0 || o.Session != 0 {
		fmt.Fprintf(&b, " i%d s%d", o.Intent, o.Session)
	}
	return b.String()
}

// told names a result in a few words.
func told(r *command.Result) string {
	s := orca.Kind(r.Kind).String()
	if r.Msg != "" {
		s += " (" + r.Msg + ")"
	}
	if it := r.Intent; it != nil {
		s += fmt.Sprintf(" i%d %s %q %q", it.Id, it.Op, it.Source, it.Target)
	}
	if r.BusyIntent != 0 {
		s += fmt.Sprintf(" by i%d", r.BusyIntent)
	}
	if r.Session != nil {
		s += fmt.Sprintf(" s%d", r.Session.Id)
	}
	if x := r.Transfer; x != nil {
		s += fmt.Sprintf(" decided %s: %v", number(x.Tx), orca.Kind(x.Kind))
	}
	if y := r.Sync; y != nil {
		s += fmt.Sprintf(" +%d ~%d -%d skipped %d", y.Created, y.Changed, y.Removed, y.Skipped)
	}
	return s
}
