// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// Register implements metaplane.Workers: one page of a worker's full report.
// A new worker gets its id from the state machine. Files that the namespace
// does not know (any more) are ordered to be freed.
func (s *Service) Register(ctx context.Context, r *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	const op = "metaserver.Register"
	if r.Worker == nil {
		return nil, orca.E(op, orca.Invalid, "no worker in the request")
	}
	if err := s.raw.ReadReady(ctx); err != nil {
		return nil, err
	}
	key := s.GrantKey()
	if key == nil {
		return nil, orca.E(op, orca.Unavailable, "the cluster has no leader yet")
	}
	if r.Worker.Id == 0 && s.cfg.Home != nil {
		return nil, orca.E(op, orca.Invalid, "a new worker asks the first group for its number")
	}
	if r.Files = s.mine(r.Files); r.Worker.Id == 0 {
		res, err := s.mutate(ctx, r.H, &command.Command{RegisterWorker: &metapb.RegisterWorkerOp{Node: r.Worker.Node}})
		if err != nil {
			return nil, err
		}
		// The request is the caller's, who is in this process perhaps and
		// compares its own id with that of the reply.
		w := proto.Clone(r.Worker).(*metapb.Worker)
		w.Id = res.Id
		r = &metapb.RegisterRequest{H: r.H, Worker: w, Files: r.Files, More: r.More}
	}
	id, err := s.Workers.Register(r)
	if err != nil {
		return nil, err
	}
	leads := s.Serving() == nil
	if leads {
		for _, f := range r.Files {
			s.reconcile(id, f)
		}
	}
	return &metapb.RegisterReply{Id: id, GrantKey: key, Cluster: s.cfg.Cluster, Leads: leads}, nil
}

// reconcile compares one line of a full report with the namespace and orders
// what is out of line. A dirty file of an open session is left alone: Lookup
// finds it.
func (s *Service) reconcile(worker uint64, f *metapb.FileReport) {
	ino := orca.Ino(f.File)
	v, err := s.group.Machine().Lookup(ino)
	to := []uint64{worker}
	switch {
	case orca.KindOf(err) == orca.NotFound:
		s.Workers.Order(to, metapb.WorkerOrder_FREE_FILE, ino, 0)
	case err != nil || v.Session != 0 || v.Fresh:
	case f.Version != v.Attr.Version:
		s.Workers.Order(to, metapb.WorkerOrder_FREE_OLD, ino, v.Attr.Version)
	default:
		if f.Dirty && v.Attr.Persist == uint32(orca.Persisted) {
			s.Workers.Order(to, metapb.WorkerOrder_CLEAN_FILE, ino, f.Version)
		}
		if v.Attr.Pinned {
			s.Workers.Order(to, metapb.WorkerOrder_PIN, ino, 0)
		}
	}
}

// Heartbeat implements metaplane.Workers.
func (s *Service) Heartbeat(ctx context.Context, r *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error) {
	r.Files = s.mine(r.Files)
	rep, err := s.Workers.Heartbeat(r)
	if err != nil {
		return nil, err
	}
	if g := s.groups(); len(g) > 1 {
		rep.Groups = g
	}
	if !s.group.Alone() {
		rep.Members = s.addresses()
		if s.Serving() != nil {
			// What the worker lacks is the leader's to say.
			rep.Orders = nil
			return rep, nil
		}
	}
	rep.Leads, rep.MountEpoch = true, s.mounts.Load().Epoch
	return rep, nil
}

// heardOver implements listener.
func (s *Service) heardOver(worker uint64, p *transport.Peer) { s.Workers.HeardOver(worker, p) }

// ListWorkers implements metaplane.Workers.
func (s *Service) ListWorkers(_ context.Context, _ *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error) {
	return &metapb.ListWorkersReply{Workers: s.Workers.List()}, nil
}

// Resolve implements metaplane.Workers: where the content of a file is.
func (s *Service) Resolve(ctx context.Context, r *metapb.ResolveRequest) (*metapb.ResolveReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	v, err := s.settled(ctx, orca.Ino(r.File))
	if err != nil {
		return nil, err
	}
	a := s.attr(v)
	rep := &metapb.ResolveReply{Attr: a, Locations: s.Workers.Locations(orca.Ino(a.Ino), a.Version), Workers: s.Workers.Live()}
	if a.Persist == uint32(orca.Persisted) {
		rep.MountId, rep.UfsKey = a.MountId, v.Key
	}
	return rep, nil
}

// settleWait is how long a worker waits for a rename or delete that is just
// being made in the store.
const settleWait = 2 * time.Second

// settled looks a file up when no undecided intent is at its key: while one
// is, the store may have the content at the old key or at the new one.
func (s *Service) settled(ctx context.Context, ino orca.Ino) (*fsm.View, error) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	m := s.group.Machine()
	for {
		v, err := m.Lookup(ino)
		if err != nil || v.Pending == 0 || ctx.Err() != nil {
			return v, err
		}
		in, err := m.Intent(v.Pending)
		if err == nil && (in.Deferred || in.Op == metapb.IntentOp_INTENT_PERSIST || in.Op == metapb.IntentOp_INTENT_REGROUP || in.Copying) {
			return v, nil
		}
		if err == nil {
			s.Exec.Settle(ctx, in)
		}
	}
}

// StaleUFS implements metaplane.Workers: a worker met other content than the
// version promised; that file is compared with its UFS now.
func (s *Service) StaleUFS(ctx context.Context, r *metapb.StaleUFSRequest) (*metapb.Empty, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	v, err := s.group.Machine().Lookup(orca.Ino(r.File))
	if err != nil {
		return nil, err
	}
	if v.Attr.Version != r.Version {
		return &metapb.Empty{}, nil // known already
	}
	return &metapb.Empty{}, s.Syncer.File(ctx, orca.Ino(r.File))
}

// PersistPrepare implements metaplane.Workers: it holds the name of a file, so
// that the worker's commit cannot hit another one's.
func (s *Service) PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	res, err := s.mutate(ctx, r.H, &command.Command{PersistPrepare: &metapb.PersistPrepareOp{File: r.File, Version: r.Version}})
	if err != nil {
		return nil, err
	}
	if res.Intent == nil {
		return nil, orca.E("metaserver.PersistPrepare", orca.Internal, "no intent in the result")
	}
	in := res.Intent
	s.audit(ctx, in)
	return &metapb.PersistPrepareReply{Intent: in.Id, MountId: in.MountId, UfsKey: in.Target, Attr: res.Attr}, nil
}

// audit notes that a persist will overwrite an object that changed behind us:
// the last writer wins.
func (s *Service) audit(ctx context.Context, in *command.Intent) {
	v, err := s.group.Machine().Lookup(orca.Ino(in.Ino))
	if err != nil || v.Attr.Fingerprint == "" && !v.InUFS {
		v = &fsm.View{}
	}
	fs, err := s.Stores.FS(ctx, in.MountId)
	if err != nil {
		return // the worker meets it, too
	}
	i, err := fs.Stat(ctx, in.Target)
	if err == nil && (v.Attr == nil || i.Fingerprint != v.Attr.Fingerprint) {
		s.log.Warn("persist overwrites an object that changed behind us", "ino", in.Ino, "mount", in.MountId,
			"path", in.Target, "fingerprint", i.Fingerprint)
	}
}

// PersistCommit implements metaplane.Workers.
func (s *Service) PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	_, err := s.mutate(ctx, r.H, &command.Command{PersistCommit: &metapb.PersistCommitOp{
		Intent: r.Intent, Fingerprint: r.Fingerprint, Mtime: r.Mtime, Owned: r.Owned, Mode: r.Mode, Uid: r.Uid, Gid: r.Gid, Unsure: r.Unsure}})
	if err != nil {
		return nil, err
	}
	return &metapb.Empty{}, nil
}
