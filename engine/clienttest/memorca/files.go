// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memorca

import (
	"context"
	"strings"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// Create implements metaplane.Files.
func (o *Orca) Create(_ context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	leave, err := o.enter("Create")
	if err != nil {
		return nil, err
	}
	defer leave()
	const op = "memorca.Create"
	if ino := o.inodes[r.Target.Ino]; ino != nil && r.Target.Path == "" { // by inode: as by its name
		r.Target = &metapb.Target{Ino: ino.parent, Path: ino.name}
	}
	d, name, err := o.parentLocked(op, r.Target, r.Parents)
	if err != nil {
		return nil, err
	}
	n := o.inodes[d.children[name]]
	if n != nil && n.visible {
		switch {
		case n.children != nil:
			return nil, orca.PathE(op, r.Target.Path, orca.IsDir, nil)
		case r.Exclusive || !r.Overwrite:
			return nil, orca.PathE(op, r.Target.Path, orca.Exists, nil)
		}
	}
	if n != nil {
		for id, s := range o.sessions {
			if s.ino == n.attr.Ino && !s.expired {
				if !r.Steal {
					return nil, orca.PathE(op, r.Target.Path, orca.Busy, nil)
				}
				delete(o.sessions, id)
			}
		}
	} else {
		typ := orca.TypeFile
		if r.Symlink != "" {
			typ = orca.TypeSymlink
		}
		n = o.newLocked(d, name, typ, r.Mode)
		n.attr.Target = r.Symlink
		if c := r.H.GetCaller(); c != nil {
			n.attr.Uid, n.attr.Gid = c.Uid, c.Gid
		}
	}
	if r.Complete {
		n.issued = max(n.issued, n.attr.Version) + 1
		n.attr.Version = n.issued
		n.attr.Length, n.attr.Runs = 0, []*metapb.Run{{Version: n.attr.Version}}
		n.attr.Persist = uint32(orca.Persisted)
		n.visible = true
		o.eventLocked(metapb.EventKind_EVENT_ENTRY, n)
		return &metapb.CreateReply{Attr: n.reply()}, nil
	}
	s := o.sessionLocked(n, r.WriteType)
	a := n.reply()
	a.Version, a.Length = s.Version, 0
	return &metapb.CreateReply{Attr: a, Session: s, Workers: o.workersPB()}, nil
}

func (o *Orca) sessionLocked(n *inode, writeType uint32) *metapb.WriteSession {
	if writeType == 0 {
		writeType = uint32(orca.CacheThrough)
	}
	o.next++
	n.issued = max(n.issued, n.attr.Version) + 1 // each session writes a version of its own
	s := &session{id: o.next, fence: o.next, ino: n.attr.Ino, version: n.issued, writeType: writeType}
	o.sessions[s.id] = s
	return &metapb.WriteSession{
		Id: s.id, Fence: s.fence, File: s.ino, Version: s.version, WriteType: writeType, MountId: 1, UfsKey: n.name,
		BlockSize: BlockSize, WholeMax: WholeMax, Replicas: 1, Grant: &metapb.Grant{File: s.ino, Version: s.version, Write: true}, TtlMs: 600,
	}
}

// Complete implements metaplane.Files.
func (o *Orca) Complete(_ context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	leave, err := o.enter("Complete")
	if err != nil {
		return nil, err
	}
	defer leave()
	const op = "memorca.Complete"
	s := o.sessions[r.Session]
	if s == nil || s.fence != r.Fence {
		return nil, orca.E(op, orca.Stale, "old fence")
	}
	if s.expired {
		return nil, orca.E(op, orca.SessionExpired, "")
	}
	n := o.inodes[s.ino]
	if n == nil {
		return nil, orca.E(op, orca.Stale, "the file is gone")
	}
	delete(o.sessions, s.id)
	first := !n.visible
	a := &n.attr
	a.Version, a.Length, a.BlockSize, a.Fingerprint = s.version, r.Length, r.BlockSize, r.Fingerprint
	a.Runs = []*metapb.Run{{Version: s.version}}
	a.Mtime, a.Ctime = r.Mtime, time.Now().UnixNano()
	if a.Mtime == 0 {
		a.Mtime = a.Ctime
	}
	switch orca.WriteType(s.writeType) {
	case orca.CacheThrough, orca.Through:
		a.Persist = uint32(orca.Persisted)
	case orca.AsyncThrough:
		a.Persist = uint32(orca.ToBePersisted)
	default:
		a.Persist = uint32(orca.NotPersisted)
	}
	n.visible = true
	k := metapb.EventKind_EVENT_CONTENT
	if first {
		k = metapb.EventKind_EVENT_ENTRY
	}
	o.eventLocked(k, n)
	rep := &metapb.CompleteReply{Attr: n.reply()}
	if r.Keep {
		rep.Session = o.sessionLocked(n, s.writeType)
	}
	return rep, nil
}

// Abandon implements metaplane.Files.
func (o *Orca) Abandon(_ context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error) {
	leave, err := o.enter("Abandon")
	if err != nil {
		return nil, err
	}
	defer leave()
	if s := o.sessions[r.Session]; s != nil {
		delete(o.sessions, s.id)
		if n := o.inodes[s.ino]; n != nil && !n.visible {
			delete(o.inodes[n.parent].children, n.name)
			delete(o.inodes, s.ino)
		}
	}
	return &metapb.Empty{}, nil
}

// Renew implements metaplane.Files.
func (o *Orca) Renew(_ context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	leave, err := o.enter("Renew")
	if err != nil {
		return nil, err
	}
	defer leave()
	rep := &metapb.RenewReply{}
	for _, id := range r.Sessions {
		if s := o.sessions[id]; s == nil || s.expired {
			rep.Expired = append(rep.Expired, id)
		}
	}
	return rep, nil
}

func (o *Orca) xattr(op string, r *metapb.XattrRequest, do func(*inode) error) error {
	leave, err := o.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	n, err := o.resolveLocked("memorca."+op, r.Target)
	if err != nil {
		return err
	}
	return do(n)
}

// SetXattr implements metaplane.Xattrs.
func (o *Orca) SetXattr(_ context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return &metapb.Empty{}, o.xattr("SetXattr", r, func(n *inode) error {
		_, ok := n.xattrs[r.Name]
		switch {
		case ok && r.Create:
			return orca.PathE("memorca.SetXattr", r.Name, orca.Exists, nil)
		case !ok && r.Replace:
			return orca.PathE("memorca.SetXattr", r.Name, orca.NoData, nil)
		}
		n.xattrs[r.Name] = r.Value
		return nil
	})
}

// GetXattr implements metaplane.Xattrs.
func (o *Orca) GetXattr(_ context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	rep := &metapb.XattrReply{}
	return rep, o.xattr("GetXattr", r, func(n *inode) error {
		v, ok := n.xattrs[r.Name]
		if !ok {
			return orca.PathE("memorca.GetXattr", r.Name, orca.NoData, nil)
		}
		rep.Value = v
		return nil
	})
}

// ListXattr implements metaplane.Xattrs.
func (o *Orca) ListXattr(_ context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	rep := &metapb.XattrReply{}
	return rep, o.xattr("ListXattr", r, func(n *inode) error {
		for k := range n.xattrs {
			rep.Names = append(rep.Names, k)
		}
		return nil
	})
}

// RemoveXattr implements metaplane.Xattrs.
func (o *Orca) RemoveXattr(_ context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return &metapb.Empty{}, o.xattr("RemoveXattr", r, func(n *inode) error {
		if _, ok := n.xattrs[r.Name]; !ok {
			return orca.PathE("memorca.RemoveXattr", r.Name, orca.NoData, nil)
		}
		delete(n.xattrs, r.Name)
		return nil
	})
}

// Mount implements metaplane.Mounts: the path becomes an empty directory.
func (o *Orca) Mount(_ context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	leave, err := o.enter("Mount")
	if err != nil {
		return nil, err
	}
	defer leave()
	if _, err := o.resolveLocked("memorca.Mount", &metapb.Target{Path: r.Mount.Path}); err == nil {
		return nil, orca.PathE("memorca.Mount", r.Mount.Path, orca.Exists, nil)
	}
	n, err := o.mkdirLocked(&metapb.Target{Path: r.Mount.Path}, 0o755, r.Parents)
	if err != nil {
		return nil, err
	}
	o.next++
	m := r.Mount
	m.Id = uint32(o.next)
	m.Scheme, _, _ = strings.Cut(m.Uri, ":")
	n.attr.MountId, n.attr.MountPoint = m.Id, true
	o.mounts = append(o.mounts, m)
	return &metapb.MountReply{Mount: m}, nil
}

// Unmount implements metaplane.Mounts.
func (o *Orca) Unmount(_ context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	leave, err := o.enter("Unmount")
	if err != nil {
		return nil, err
	}
	defer leave()
	for i, m := range o.mounts {
		if m.Path == r.Path && i > 0 {
			o.mounts = append(o.mounts[:i], o.mounts[i+1:]...)
			n, err := o.resolveLocked("memorca.Unmount", &metapb.Target{Path: r.Path})
			if err != nil {
				return nil, err
			}
			o.dropLocked(n)
			delete(o.inodes[n.parent].children, n.name)
			return &metapb.Empty{}, nil
		}
	}
	return nil, orca.PathE("memorca.Unmount", r.Path, orca.NotFound, nil)
}

// ListMounts implements metaplane.Mounts.
func (o *Orca) ListMounts(context.Context, *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	leave, err := o.enter("ListMounts")
	if err != nil {
		return nil, err
	}
	defer leave()
	return &metapb.ListMountsReply{Mounts: append([]*metapb.Mount(nil), o.mounts...)}, nil
}

// ListWorkers implements metaplane.Workers.
func (o *Orca) ListWorkers(context.Context, *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error) {
	leave, err := o.enter("ListWorkers")
	if err != nil {
		return nil, err
	}
	defer leave()
	return &metapb.ListWorkersReply{Workers: o.workersPB()}, nil
}

// Report implements metaplane.Admin.
func (o *Orca) Report(context.Context, *metapb.ReportRequest) (*metapb.ReportReply, error) {
	leave, err := o.enter("Report")
	if err != nil {
		return nil, err
	}
	defer leave()
	return &metapb.ReportReply{
		Cluster: "test", Version: "dev", Started: 1, Inodes: int64(len(o.inodes)), Sessions: int64(len(o.sessions)),
		Mounts: o.mounts, Workers: o.workersPB(), Counters: map[string]int64{"applied": 1},
	}, nil
}

// Conf implements metaplane.Admin.
func (o *Orca) Conf(context.Context, *metapb.ConfRequest) (*metapb.ConfReply, error) {
	leave, err := o.enter("Conf")
	if err != nil {
		return nil, err
	}
	defer leave()
	return &metapb.ConfReply{Values: []*metapb.ConfReply_Value{{Key: "block.whole_max", Value: "8388608", Source: "default"}}}, nil
}
