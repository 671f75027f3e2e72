// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

const (
	// checkpointKeep is how many entries a checkpoint leaves in the journal:
	// members that are behind by less need not be sent the whole state.
	checkpointKeep = 512
	// journalPage bounds what Journal returns at once, in bytes.
	journalPage = 1 << 20
)

// Checkpoint makes the state durable and cuts the journal of this member, now,
// beside everything else. It returns the index of the last entry that the
// journal is not needed for any more.
func (g *Group) Checkpoint(ctx context.Context) (uint64, error) {
	index, err := g.checkpoint(ctx, checkpointKeep)
	return index + g.machine.Base(), err
}

// checkpoint leaves so many entries before the last one in the journal.
func (g *Group) checkpoint(ctx context.Context, keep uint64) (uint64, error) {
	const op = "metaplane.Checkpoint"
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	var index uint64
	since := g.machine.Applied()
	err := g.retry(ctx, func() (err error) {
		index, err = g.host.nh.SyncRequestSnapshot(ctx, g.shard, dragonboat.SnapshotOption{
			OverrideCompactionOverhead: true, CompactionOverhead: keep,
		})
		if !errors.Is(err, dragonboat.ErrRejected) {
			return err
		}
		r, err := g.host.nh.GetLogReader(g.shard)
		if err != nil {
			return err
		}
		if index = r.Snapshot().Index; index+g.machine.Base() >= since {
			return nil // there is one at this index
		}
		// An earlier one was just being taken. The engine takes note of the index that
		// it was asked for all the same, and refuses that from then on: another one is.
		if _, err := g.Propose(ctx, &command.Command{Noop: &metapb.NoopOp{}}); err != nil {
			return err
		}
		return dragonboat.ErrSystemBusy
	})
	return index, memberError(op, err)
}

// cutLoop cuts the journal whenever so many bytes were applied: dragonboat cuts
// it by the number of entries alone, and one may have 64 KiB.
func (g *Group) cutLoop() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-g.quit
		cancel()
	}()
	for {
		select {
		case <-g.cut:
		case <-g.quit:
			return
		}
		if _, err := g.checkpoint(ctx, g.host.cfg.SnapshotEntries/4); err != nil && ctx.Err() == nil {
			g.log.Warn("cutting the journal", "err", err)
		}
	}
}

// checkpointTimeout bounds a checkpoint, for it waits for the disk.
const checkpointTimeout = time.Minute

// Journal puts entries of the journal into rep from an index on (0: the first
// there is) up to one (0: the last), as many as fit a page, and which there
// are; end says that no more are wanted. NotFound: the journal was cut behind
// from. Indexes are those that entries are applied under.
func (g *Group) Journal(_ context.Context, from, to uint64, rep *metapb.UpkeepReply) error {
	r, err := g.host.nh.GetLogReader(g.shard)
	if err != nil {
		return memberError("metaplane.Journal", err)
	}
	first, last := r.GetRange()
	return journalPageOf(rep, first, last, g.machine.Base(), from, to, r.Entries)
}

// journalPageOf reads a page with entries, whose range is [low, high).
func journalPageOf(rep *metapb.UpkeepReply, first, last, base, from, to uint64, entries func(low, high, maxSize uint64) ([]pb.Entry, error)) error {
	const op = "metaplane.Journal"
	rep.First, rep.Last = first+base, last+base
	if from == 0 {
		from = rep.First
	}
	if to == 0 || to > rep.Last {
		to = rep.Last
	}
	if last < first || from > to {
		rep.End = true
		return nil
	}
	if from < rep.First {
		return orca.E(op, orca.NotFound, fmt.Sprintf("the journal begins with entry %d", rep.First))
	}
	es, err := entries(from-base, to-base+1, journalPage)
	if err != nil {
		return orca.PathE(op, "", orca.Unavailable, err)
	}
	if len(es) == 0 {
		return orca.E(op, orca.NotFound, "the journal was cut meanwhile")
	}
	for i := range es {
		e := &es[i]
		x := &metapb.JournalEntry{Index: e.Index + base, Term: e.Term, Membership: e.Type == pb.ConfigChangeEntry}
		if x.Data, err = payload(e); err != nil {
			return err
		}
		rep.Entries = append(rep.Entries, x)
	}
	rep.End = rep.Entries[len(rep.Entries)-1].Index >= to
	return nil
}

// payload takes what was proposed out of an entry: dragonboat puts a byte
// before it, which is 0 as long as nothing is compressed.
func payload(e *pb.Entry) ([]byte, error) {
	if e.Type != pb.EncodedEntry {
		return e.Cmd, nil
	}
	if len(e.Cmd) == 0 || e.Cmd[0] != 0 {
		return nil, orca.E("metaplane.Journal", orca.Unsupported, fmt.Sprintf("entry %d is encoded in another way", e.Index))
	}
	return e.Cmd[1:], nil
}

// Inspection is the folder of a host that does not run, opened to be read for
// one of its groups.
type Inspection struct {
	// Group is the number of the group.
	Group uint16
	// Cluster, Address, Replica, Restored and Term say whose it is.
	Cluster, Address, Restored string
	Replica, Term, Vote        uint64
	// Applied is the index of the last entry that the store holds.
	Applied uint64

	db      *inodekv.DB
	journal raftio.ILogDB // nil: there is none
	first   uint64
	last    uint64
	copied  string // the journal's folder, to be removed
	lock    *os.File
}

// Inspect opens the folder of a host that is stopped, for one of its groups (0:
// the first). It changes nothing in it: what has to be opened for writing is a
// copy. Busy: it runs. NotFound: it is not a host's, or has no such group.
func Inspect(dir string, group uint16, log *slog.Logger) (x *Inspection, err error) {
	const op = "raftgroup.Inspect"
	if !Used(dir) {
		return nil, &orca.Error{Op: op, Path: dir, Kind: orca.NotFound, Msg: "there is no member of a metaplane in this folder"}
	}
	lk, err := lock(dir)
	if err != nil {
		return nil, err
	}
	f, err := readFormat(filepath.Join(dir, formatFile))
	if err != nil {
		return nil, errors.Join(err, lk.Close())
	}
	x = &Inspection{Group: max(group, firstGroup), Cluster: f.Cluster, Address: f.Address, Restored: f.Restored, Replica: f.replica(), lock: lk}
	p, stores := &f.part, dir
	if x.Group > firstGroup {
		p, stores = f.Groups[uint64(group)], groupDir(dir, uint64(group))
	}
	if p == nil {
		return nil, errors.Join(&orca.Error{Op: op, Path: dir, Kind: orca.NotFound, Msg: fmt.Sprintf("this member has no group %d", group)}, x.Close())
	}
	if x.db, err = inodekv.Open(inodekv.Config{Dir: storeDir(stores, p.Store), ReadOnly: true}, log); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	x.Applied = x.db.Applied()
	routeRaftLog(log)
	if err := x.openJournal(dir, f); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// openJournal opens a copy of the journal: tan starts new files in a folder that
// it opens. Its logs, which it only reads then, are hard links.
func (x *Inspection) openJournal(dir string, f *format) error {
	const op = "raftgroup.Inspect"
	if f.Journal != journalTan {
		return orca.E(op, orca.Unsupported, "only a journal of the kind tan can be read while its member is stopped, and this is "+f.Journal)
	}
	from := filepath.Join(dir, journalDir, f.Host, fmt.Sprintf("%020d", f.Deployment))
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		return nil // it never ran
	}
	left, _ := filepath.Glob(filepath.Join(dir, "inspect-*"))
	for _, l := range left { // of one that was killed
		if err := os.RemoveAll(l); err != nil {
			return orca.PathE(op, l, orca.Unavailable, err)
		}
	}
	var err error
	if x.copied, err = os.MkdirTemp(dir, "inspect-"); err != nil {
		return orca.PathE(op, dir, orca.Unavailable, err)
	}
	if err := linkTree(filepath.Join(from, "tandb"), filepath.Join(x.copied, "tandb")); err != nil {
		return orca.PathE(op, from, orca.Unavailable, err)
	}
	h := &Host{cfg: Config{Dir: x.copied, Journal: journalTan}, f: f}
	h.group = newGroup(h, firstGroup, &f.part)
	nc := h.nodeHostConfig()
	if err := nc.Prepare(); err != nil {
		return orca.PathE(op, dir, orca.Internal, err)
	}
	if x.journal, err = tan.Factory.Create(nc, func(config.LogDBInfo) {}, []string{x.copied}, []string{x.copied}); err != nil {
		return orca.PathE(op, from, orca.Corrupt, err)
	}
	snap, err := x.journal.GetSnapshot(x.shard(), f.replica())
	if err != nil {
		return orca.PathE(op, from, orca.Corrupt, err)
	}
	rs, err := x.journal.ReadRaftState(x.shard(), f.replica(), snap.Index)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return nil
	}
	if err != nil {
		return orca.PathE(op, from, orca.Corrupt, err)
	}
	x.Term, x.Vote = rs.State.Term, rs.State.Vote
	x.first, x.last = rs.FirstIndex, rs.FirstIndex+rs.EntryCount
	if x.last > 0 {
		x.last--
	}
	return nil
}

// linkLog links a log; of one that a crash has left it copies the records.
func linkLog(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	end, torn, err := recordsEnd(in)
	if err != nil {
		return err
	}
	if !torn {
		return os.Link(from, to)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(in, 0, end))
	return errors.Join(err, out.Close())
}

// linkTree copies a folder: logs as links, all else as copies.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o700)
		case strings.HasSuffix(p, logSuffix):
			return linkLog(p, dst)
		}
		in, err := os.Open(p)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

// Journal is as Group's.
func (x *Inspection) Journal(_ context.Context, from, to uint64, rep *metapb.UpkeepReply) error {
	if x.journal == nil || x.last < x.first || x.first == 0 {
		rep.End = true
		return nil
	}
	return journalPageOf(rep, x.first, x.last, x.db.Base(), from, to, func(low, high, maxSize uint64) ([]pb.Entry, error) {
		es, _, err := x.journal.IterateEntries(nil, 0, x.shard(), x.Replica, low, high, maxSize)
		return es, err
	})
}

// shard is dragonboat's number of the group.
func (x *Inspection) shard() uint64 { return uint64(x.Group) }

// Records starts a walk over the records of the store.
func (x *Inspection) Records() (*inodekv.Cursor, error) { return x.db.Cursor() }

// Close closes what is open, and removes the copy.
func (x *Inspection) Close() error {
	var errs []error
	if x.journal != nil {
		errs = append(errs, x.journal.Close())
	}
	if x.copied != "" {
		errs = append(errs, os.RemoveAll(x.copied))
	}
	if x.db != nil {
		errs = append(errs, x.db.Close(false))
	}
	return errors.Join(append(errs, x.lock.Close())...)
}
