// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Create implements metaplane.Files.
func (s *Service) Create(ctx context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	if err := checkCreate(r); err != nil {
		return nil, err
	}
	res, err := s.change(ctx, r.H, s.createCommand(r))
	if err != nil {
		return nil, err
	}
	return s.createReply(r, res), nil
}

// checkCreate refuses what need not be proposed.
func checkCreate(r *metapb.CreateRequest) error {
	const op = "metaserver.Create"
	if err := checkTarget(op, r.Target); err != nil {
		return err
	}
	if err := checkNew(op, r.Target); err != nil {
		return err
	}
	if r.BlockSize < 0 || r.ExpectLength < 0 || r.WriteType > uint32(orca.Through) {
		return &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Invalid, Msg: "block size, length or write type"}
	}
	if r.Replicas > fsm.MaxCopies {
		return &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Invalid, Msg: "more replicas than any cluster has workers"}
	}
	return nil
}

func (s *Service) createCommand(r *metapb.CreateRequest) *command.Command {
	c := &command.Command{Create: &metapb.CreateOp{}}
	s.fillCreate(c, r)
	return c
}

// fillCreate makes c, which has an empty CreateOp, the command of a request.
func (s *Service) fillCreate(c *command.Command, r *metapb.CreateRequest) {
	wt := orca.WriteType(r.WriteType)
	if wt == orca.WriteDefault {
		wt = s.cfg.WriteType
	}
	o := c.Create
	if o.BlockSize = r.BlockSize; o.BlockSize == 0 {
		o.BlockSize = s.cfg.BlockSize
	}
	c.Checks = checkNames
	o.Target, o.Mode, o.Parents, o.Exclusive, o.Overwrite = r.Target, r.Mode, r.Parents, r.Exclusive, r.Overwrite
	o.WriteType, o.WholeMax, o.Replicas = uint32(wt), s.cfg.WholeMax, s.replicas(r)
	o.Complete, o.Steal, o.Symlink, o.Ttl = r.Complete, r.Steal, r.Symlink, int64(s.cfg.SessionTTL)
	o.ExpectLength = r.ExpectLength
}

// replicas is on how many workers a new version is to be: what was asked for,
// else the cluster's default.
func (s *Service) replicas(r *metapb.CreateRequest) uint32 {
	if r.Replicas != 0 {
		return r.Replicas
	}
	return max(s.cfg.Replicas, 1)
}

func (s *Service) createReply(r *metapb.CreateRequest, res *command.Result) *metapb.CreateReply {
	rep := &metapb.CreateReply{Attr: res.Attr, Session: s.session(res.Session, callerOf(r.H).UID)}
	if rep.Session != nil {
		rep.Workers = s.Workers.Live()
	}
	return rep
}

// session translates a session for its client, with the grant to write.
func (s *Service) session(r *command.Session, uid uint32) *metapb.WriteSession {
	if r == nil {
		return nil
	}
	return &metapb.WriteSession{
		Id: r.Id, Fence: r.Fence, File: r.File, Version: r.Version, WriteType: r.WriteType,
		MountId: r.MountId, UfsKey: r.UfsKey, BlockSize: r.BlockSize, WholeMax: r.WholeMax, Replicas: r.Replicas,
		Grant:  s.grant(orca.Ino(r.File), r.Version, uid, true, s.cfg.WriteGrantTTL),
		TtlMs:  r.Ttl / 1e6,
		Expect: s.expect(r),
	}
}

// expect is the fingerprint that the UFS object must still have when the
// upload of a session is committed: another one is a Conflict. "" when it does
// not matter.
func (s *Service) expect(r *command.Session) string {
	if r.MountId == 0 {
		return ""
	}
	if r.Fresh {
		return ufs.Absent
	}
	v, err := s.group.Machine().Lookup(orca.Ino(r.File))
	if err != nil || v.Fresh || v.Attr.Persist != uint32(orca.Persisted) {
		return "" // what is there is not what the namespace shows anyway
	}
	return v.Attr.Fingerprint
}

// Complete implements metaplane.Files.
func (s *Service) Complete(ctx context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	const op = "metaserver.Complete"
	if r.Length < 0 || r.BlockSize < 0 {
		return nil, orca.E(op, orca.Invalid, "negative length")
	}
	// Announced before it is visible: who opens the file at once, as the job
	// that persists it does, must not find that nobody holds it.
	if ws, err := s.group.Machine().Session(r.Session); err == nil {
		s.Workers.Announce(orca.Ino(ws.File), ws.Version, r.Length, r.Workers, r.Fingerprint == "")
	}
	res, err := s.mutate(ctx, r.H, &command.Command{Complete: &metapb.CompleteOp{
		Session: r.Session, Fence: r.Fence, Length: r.Length, BlockSize: r.BlockSize, Fingerprint: r.Fingerprint,
		Mtime: r.Mtime, Durable: r.Durable, Crc32C: r.Crc32C, Keep: r.Keep, Workers: r.Workers, Ttl: int64(s.cfg.SessionTTL),
	}})
	if err != nil {
		return nil, err
	}
	if a := res.Attr; a != nil {
		s.Workers.Announce(orca.Ino(a.Ino), a.Version, a.Length, r.Workers, r.Fingerprint == "")
		if r.Fingerprint != "" && len(r.Workers) > 1 {
			// Copies that were to be the only ones, had there been enough.
			s.Workers.Order(r.Workers, metapb.WorkerOrder_CLEAN_FILE, orca.Ino(a.Ino), a.Version)
		}
	}
	return &metapb.CompleteReply{Attr: res.Attr, Session: s.session(res.Session, callerOf(r.H).UID)}, nil
}

// Abandon implements metaplane.Files. It returns when the remains in the UFS
// are swept and the name is free again, or after abandonWait: then that
// happens behind.
func (s *Service) Abandon(ctx context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error) {
	_, err := s.mutate(ctx, r.H, &command.Command{Abandon: &metapb.AbandonOp{Session: r.Session, Fence: r.Fence}})
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(abandonWait)
	for pause := time.Millisecond; time.Now().Before(until); pause = min(2*pause, 50*time.Millisecond) {
		s.Exec.Wake()
		if _, err := s.group.Machine().Session(r.Session); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return &metapb.Empty{}, nil
		case <-time.After(pause):
		}
	}
	return &metapb.Empty{}, nil
}

const abandonWait = 2 * time.Second

// commitTerm is for how long a session that commits its upload is not stolen.
// A commit that takes longer is still conditional (WriteSession.expect).
const commitTerm = time.Minute

// maxRenew caps the sessions of one request.
const maxRenew = 4096

// Renew implements metaplane.Files.
func (s *Service) Renew(ctx context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	if len(r.Sessions) > maxRenew {
		return nil, orca.E("metaserver.Renew", orca.TooLarge, "too many sessions in one request")
	}
	if len(r.Sessions) == 0 {
		return &metapb.RenewReply{}, nil
	}
	if r.Length < 0 {
		return nil, orca.E("metaserver.Renew", orca.Invalid, "negative length")
	}
	if r.Fence != 0 {
		_, err := s.mutate(ctx, &metapb.Header{Caller: r.H.GetCaller()}, &command.Command{
			Renew: &metapb.RenewOp{Sessions: r.Sessions, Fence: r.Fence, Ttl: int64(commitTerm), Length: r.Length}})
		if err != nil {
			return nil, err
		}
		return &metapb.RenewReply{}, nil
	}
	res, err := s.mutate(ctx, &metapb.Header{Caller: r.H.GetCaller()}, &command.Command{
		Renew: &metapb.RenewOp{Sessions: r.Sessions, Ttl: int64(s.cfg.SessionTTL)}})
	if err != nil {
		return nil, err
	}
	return &metapb.RenewReply{Expired: res.Ids}, nil
}

// SetXattr implements metaplane.Xattrs.
func (s *Service) SetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return s.xattr(ctx, r, &metapb.XattrOp{Name: r.Name, Value: r.Value, Create: r.Create, Replace: r.Replace})
}

// RemoveXattr implements metaplane.Xattrs.
func (s *Service) RemoveXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return s.xattr(ctx, r, &metapb.XattrOp{Name: r.Name, Remove: true})
}

const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

func (s *Service) xattr(ctx context.Context, r *metapb.XattrRequest, x *metapb.XattrOp) (*metapb.Empty, error) {
	const op = "metaserver.Xattr"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	switch {
	case x.Name == "":
		return nil, orca.E(op, orca.Invalid, "attribute without a name")
	case len(x.Name) > maxXattrName:
		return nil, orca.E(op, orca.NameTooLong, "attribute name too long")
	case len(x.Value) > maxXattrValue:
		return nil, orca.E(op, orca.TooLarge, "attribute value too long")
	}
	x.Target = r.Target
	if _, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, Xattr: x}); err != nil {
		return nil, err
	}
	return &metapb.Empty{}, nil
}

// GetXattr implements metaplane.Xattrs.
func (s *Service) GetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	w, err := s.resolve(ctx, "metaserver.GetXattr", r.H, r.Target, defaultSync)
	if err != nil {
		return nil, err
	}
	v, err := s.group.Machine().Xattr(callerOf(r.H), orca.Ino(w.Attr.Ino), r.Name)
	if err != nil {
		return nil, err
	}
	return &metapb.XattrReply{Value: v}, nil
}

// ListXattr implements metaplane.Xattrs.
func (s *Service) ListXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	w, err := s.resolve(ctx, "metaserver.ListXattr", r.H, r.Target, defaultSync)
	if err != nil {
		return nil, err
	}
	names, err := s.group.Machine().Xattrs(callerOf(r.H), orca.Ino(w.Attr.Ino))
	if err != nil {
		return nil, err
	}
	return &metapb.XattrReply{Names: names}, nil
}
