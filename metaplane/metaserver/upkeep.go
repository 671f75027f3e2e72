// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"orca"
	"orca/metaplane/backup"
	"orca/metaplane/metapb"
)

const (
	// maxBackups is how many backups a member makes at one time: each holds on
	// to files of the store that else would go.
	maxBackups = 4
	// backupIdle is after what time a backup that nobody goes on with ends.
	backupIdle = time.Minute
)

// keeper is what Upkeep needs of a Raft group beside its machine.
type keeper interface {
	Checkpoint(ctx context.Context) (index uint64, err error)
	Journal(ctx context.Context, from, to uint64, rep *metapb.UpkeepReply) error
}

// backups are those that a member makes.
type backups struct {
	mu   sync.Mutex
	by   map[uint64]*running // by number of the stream
	last uint64
}

// running is one backup on its way.
type running struct {
	stream *backup.Stream
	views  views
	idle   *time.Timer

	mu     sync.Mutex // one request at a time
	offset int64      // of what was handed out last
	frame  []byte     // that
	end    bool       // it was the last
}

// Upkeep implements metaplane.Admin. Only root may ask: a backup has everybody's
// names, and the secrets of the mounts.
func (s *Service) Upkeep(ctx context.Context, r *metapb.UpkeepRequest) (*metapb.UpkeepReply, error) {
	const op = "metaserver.Upkeep"
	if callerOf(r.H).UID != 0 {
		return nil, orca.E(op, orca.Permission, "only root may back up the metaplane, and see or cut its journal")
	}
	k, ok := s.raw.(keeper)
	if !ok {
		return nil, orca.E(op, orca.Unsupported, "this metaplane has no journal")
	}
	rep := &metapb.UpkeepReply{Replica: s.raw.Replica()}
	switch r.Kind {
	case metapb.UpkeepRequest_BACKUP:
		return rep, s.backup(ctx, r, rep)
	case metapb.UpkeepRequest_END_BACKUP:
		return rep, s.endBackup(r.Stream)
	case metapb.UpkeepRequest_CHECKPOINT:
		var err error
		if rep.Applied, err = k.Checkpoint(ctx); err != nil {
			return nil, err
		}
		return rep, k.Journal(ctx, 0, 1, rep)
	case metapb.UpkeepRequest_JOURNAL:
		rep.Applied = s.raw.Machine().Applied()
		return rep, k.Journal(ctx, r.From, r.To, rep)
	}
	return nil, orca.E(op, orca.Unsupported, "unknown request")
}

// backup begins a backup or goes on with one.
func (s *Service) backup(ctx context.Context, r *metapb.UpkeepRequest, rep *metapb.UpkeepReply) error {
	const op = "metaserver.Backup"
	if r.Stream == 0 {
		if err := s.beginBackup(ctx, rep); err != nil {
			return err
		}
	} else {
		rep.Stream = r.Stream
	}
	s.backups.mu.Lock()
	b := s.backups.by[rep.Stream]
	s.backups.mu.Unlock()
	if b == nil {
		return orca.E(op, orca.Stale, "this backup is not known here any more: begin anew")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle.Reset(backupIdle)
	switch next := b.offset + int64(len(b.frame)); {
	case r.Offset == next && !b.end:
		frame, err := b.stream.Next()
		if errors.Is(err, io.EOF) {
			frame, b.end, err = nil, true, nil
		}
		if err != nil {
			_ = s.endBackup(rep.Stream)
			return err
		}
		b.offset, b.frame = next, frame
	case r.Offset == next && b.end:
	case r.Offset != b.offset: // else: the last reply was lost
		return orca.E(op, orca.Invalid, "not where this backup is")
	}
	rep.Data, rep.End = append([]byte(nil), b.frame...), b.end
	rep.Done, rep.Estimate, rep.Applied = b.stream.Done(), b.views.estimate(), b.views[0].Applied
	return nil
}

// beginBackup takes the state as it is now: all that was acknowledged before is
// in it, whichever member this is.
func (s *Service) beginBackup(ctx context.Context, rep *metapb.UpkeepReply) (err error) {
	const op = "metaserver.Backup"
	if s.cfg.Group > 1 {
		return orca.E(op, orca.Invalid, "the first group is asked for a backup: it has all of them")
	}
	vs, groups, err := s.view(ctx)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, vs.close())
		}
	}()
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	if len(s.backups.by) >= maxBackups {
		return orca.E(op, orca.Busy, "enough backups are on their way")
	}
	_, node := s.member(s.raw.Replica())
	stream, err := backup.NewStream(backup.Header{
		Cluster: s.cfg.Cluster, Version: s.cfg.Version, Node: node, Created: time.Now(), Groups: groups,
	}, vs.sources())
	if err != nil {
		return err
	}
	if s.backups.by == nil {
		s.backups.by = map[uint64]*running{}
		s.backups.last = uint64(time.Now().UnixNano()) // not a number of an earlier life
	}
	s.backups.last++
	id := s.backups.last
	keep = true
	s.backups.by[id] = &running{stream: stream, views: vs, idle: time.AfterFunc(backupIdle, func() {
		if s.endBackup(id) == nil {
			s.log.Warn("a backup was given up, for nobody went on with it", "stream", id)
		}
	})}
	s.log.Info("a backup begins", "stream", id, "groups", len(groups), "applied", groups[0].Applied)
	rep.Stream = id
	return nil
}

// endBackup lets go of a backup; one that is not known has ended.
func (s *Service) endBackup(id uint64) error {
	s.backups.mu.Lock()
	b := s.backups.by[id]
	delete(s.backups.by, id)
	s.backups.mu.Unlock()
	if b == nil {
		return nil
	}
	b.idle.Stop()
	return b.views.close()
}

// endBackups ends all of them.
func (s *Service) endBackups() error {
	s.backups.mu.Lock()
	var ids []uint64
	for id := range s.backups.by {
		ids = append(ids, id)
	}
	s.backups.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, s.endBackup(id))
	}
	return errors.Join(errs...)
}
