// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/backup"
	"orca/metaplane/metapb"
)

// JournalEntry is an entry of the metaplane's journal.
type JournalEntry = metapb.JournalEntry

// BackupOptions shape Backup.
type BackupOptions struct {
	// Replica is the member that makes it; 0: one that does not lead, if there
	// is one that answers.
	Replica uint64
	// Rate bounds the bytes of the backup per second; 0: as fast as it goes.
	Rate int64
	// Progress is called with the records and bytes so far, and about how many
	// records there are; may be nil.
	Progress func(records, estimate, bytes int64)
}

// Backup says what a backup has.
type Backup struct {
	backup.Header
	backup.Trailer
	// Replica is the member that made it.
	Replica uint64
	// Size is the length of the file in bytes.
	Size int64
}

// Backup writes a backup of the metaplane to w: its state at one moment, after
// all that was acknowledged before the call, and checked on its way. What was
// written before an error is no backup. Only root may ask: Permission.
func (fs *FS) Backup(ctx context.Context, w io.Writer, o BackupOptions) (*Backup, error) {
	m, _, err := fs.member(ctx, o.Replica, 0)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	checked := make(chan error, 1)
	var b *backup.Reader
	go func() {
		var err error
		b, err = backup.Verify(pr)
		_ = pr.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
		checked <- err
	}()
	out := &Backup{}
	err = fs.pull(ctx, m, io.MultiWriter(pw, w), o, out)
	_ = pw.CloseWithError(err)
	// What is wrong with the backup says more than that it was not taken.
	if cerr := <-checked; cerr != nil && (err == nil || errors.Is(err, cerr)) {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	out.Header, out.Trailer = b.Header, b.Trailer
	return out, nil
}

// pull gets the bytes of a backup one after the other.
func (fs *FS) pull(ctx context.Context, m metaplane.Admin, w io.Writer, o BackupOptions, out *Backup) (err error) {
	var stream uint64
	defer func() {
		if stream != 0 {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, eerr := m.Upkeep(ctx, &metapb.UpkeepRequest{H: fs.header(), Kind: metapb.UpkeepRequest_END_BACKUP, Stream: stream})
			if err == nil && orca.KindOf(eerr) == orca.Internal {
				err = eerr
			}
		}
	}()
	begun := time.Now()
	for {
		r, err := m.Upkeep(ctx, &metapb.UpkeepRequest{H: fs.header(), Kind: metapb.UpkeepRequest_BACKUP, Stream: stream, Offset: out.Size})
		if err != nil {
			return err
		}
		stream, out.Replica = r.Stream, r.Replica
		if _, err := w.Write(r.Data); err != nil {
			return orca.PathE("client.Backup", "", orca.Unavailable, err)
		}
		out.Size += int64(len(r.Data))
		if o.Progress != nil {
			o.Progress(r.Done, max(r.Estimate, r.Done), out.Size)
		}
		if r.End {
			return nil
		}
		if err := pace(ctx, begun, out.Size, o.Rate); err != nil {
			return err
		}
	}
}

// pace waits until so many bytes since begun are within a rate.
func pace(ctx context.Context, begun time.Time, bytes, rate int64) error {
	if rate <= 0 {
		return nil
	}
	wait := time.Duration(float64(bytes)/float64(rate)*float64(time.Second)) - time.Since(begun)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return orca.PathE("client.Backup", "", orca.Canceled, ctx.Err())
	}
}

// memberDialer is optional on a Namespace: it speaks with one member.
type memberDialer interface {
	Member(addr string, group uint16) (metaplane.Admin, error)
}

// member finds a member by its number (0: any, rather not the leader), as one of
// a group; what it is asked must name the group, too.
func (fs *FS) member(ctx context.Context, replica uint64, group uint16) (metaplane.Admin, *Member, error) {
	const op = "client.Upkeep"
	q, err := fs.QuorumIn(ctx, group)
	if err != nil {
		return nil, nil, err
	}
	ms := slices.Clone(q.Members)
	slices.SortStableFunc(ms, func(a, b *Member) int { return rank(a) - rank(b) })
	d, dials := fs.meta.(memberDialer)
	var last error
	for _, m := range ms {
		if replica != 0 && m.Replica != replica {
			continue
		}
		if !dials || m.Addr == "" || len(ms) == 1 {
			return fs.meta, m, nil
		}
		a, err := d.Member(m.Addr, group)
		if err == nil && !m.Leader && replica == 0 {
			actx, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err = a.Conf(actx, &metapb.ConfRequest{H: fs.headerIn(group)}) // does it answer?
			cancel()
		}
		if err == nil {
			return a, m, nil
		}
		last = err
	}
	if last == nil {
		last = &orca.Error{Op: op, Kind: orca.NotFound, Msg: "no member has this number"}
	}
	return nil, nil, last
}

// rank puts voters that follow first, and the leader before those that learn.
func rank(m *Member) int {
	switch {
	case m.Voter && !m.Leader:
		return 0
	case m.Leader:
		return 1
	}
	return 2
}

// headerIn is a header for one group; 0: the first.
func (fs *FS) headerIn(group uint16) *metapb.Header {
	h := fs.header()
	h.Group = uint32(group)
	return h
}

// Checkpoint is what a member's journal of a group has after it was cut.
type Checkpoint struct {
	Member *Member
	Group  uint16
	// Index is that of the last entry whose effect is durable in the store.
	Index uint64
	// First and Last are the entries that the journal has.
	First, Last uint64
}

// CutJournal has a member (0: each) make its state durable and cut its journal
// of every group, without a pause of its service. Only root may ask.
func (fs *FS) CutJournal(ctx context.Context, replica uint64) ([]Checkpoint, error) {
	q, err := fs.Quorum(ctx)
	if err != nil {
		return nil, err
	}
	groups, err := fs.groups(ctx)
	if err != nil {
		return nil, err
	}
	var out []Checkpoint
	var errs []error
	for _, m := range q.Members {
		if replica != 0 && m.Replica != replica {
			continue
		}
		for _, g := range groups {
			a, _, err := fs.member(ctx, m.Replica, g)
			var r *metapb.UpkeepReply
			if err == nil {
				r, err = a.Upkeep(ctx, &metapb.UpkeepRequest{H: fs.headerIn(g), Kind: metapb.UpkeepRequest_CHECKPOINT})
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			out = append(out, Checkpoint{Member: m, Group: g, Index: r.Applied, First: r.First, Last: r.Last})
		}
	}
	if len(out) == 0 && len(errs) == 0 {
		return nil, &orca.Error{Op: "client.CutJournal", Kind: orca.NotFound, Msg: "no member has this number"}
	}
	return out, errors.Join(errs...)
}

// JournalOptions shape Journal.
type JournalOptions struct {
	// Replica is the member that is asked; 0: one that does not lead, if there
	// is one.
	Replica uint64
	// Group is the group whose journal it is; 0: the first.
	Group uint16
	// From and To are the indexes of the first and the last entry; 0: of those
	// that there are.
	From, To uint64
}

// Journal calls fn with the entries of a member's journal. Only root may ask.
func (fs *FS) Journal(ctx context.Context, o JournalOptions, fn func(*JournalEntry) error) error {
	a, _, err := fs.member(ctx, o.Replica, o.Group)
	if err != nil {
		return err
	}
	for {
		r, err := a.Upkeep(ctx, &metapb.UpkeepRequest{H: fs.headerIn(o.Group), Kind: metapb.UpkeepRequest_JOURNAL, From: o.From, To: o.To})
		if err != nil {
			return err
		}
		if o.To == 0 { // what comes meanwhile is not waited for
			o.To = r.Last
		}
		for _, e := range r.Entries {
			if err := fn(e); err != nil {
				return err
			}
			o.From = e.Index + 1
		}
		if r.End {
			return nil
		}
	}
}
