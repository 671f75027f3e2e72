// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memorca

import (
	"context"
	"fmt"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

func cloneAttr(a *metapb.Attr) *metapb.Attr {
	return &metapb.Attr{
		Ino: a.Ino, Type: a.Type, Mode: a.Mode, Uid: a.Uid, Gid: a.Gid, Nlink: a.Nlink, Length: a.Length,
		BlockSize: a.BlockSize, Version: a.Version, Runs: append([]*metapb.Run(nil), a.Runs...),
		Mtime: a.Mtime, Ctime: a.Ctime, Atime: a.Atime, Persist: a.Persist, Pinned: a.Pinned, MountId: a.MountId,
		UfsPath: a.UfsPath, Fingerprint: a.Fingerprint, CachedBytes: a.CachedBytes, Target: a.Target, MountPoint: a.MountPoint,
	}
}

// Stat implements metaplane.Reader.
func (o *Orca) Stat(_ context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	leave, err := o.enter("Stat")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.Stat", r.Target)
	if err != nil {
		return nil, err
	}
	return &metapb.StatReply{Attr: o.describeLocked(n), Parent: n.parent}, nil
}

// describeLocked adds the soft state.
func (o *Orca) describeLocked(n *inode) *metapb.Attr {
	a := n.reply()
	for _, w := range o.workers {
		a.CachedBytes = max(a.CachedBytes, w.cachedOf(a.Ino, a.Version))
	}
	return a
}

// List implements metaplane.Reader.
func (o *Orca) List(_ context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	leave, err := o.enter("List")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.List", r.Target)
	if err != nil {
		return nil, err
	}
	if n.children == nil {
		return nil, orca.PathE("memorca.List", r.Target.Path, orca.NotDir, nil)
	}
	limit := int(r.Limit)
	if limit == 0 {
		limit = 1000
	}
	rep := &metapb.ListReply{Dir: n.reply()}
	for _, name := range sortedNames(n.children) {
		c := o.inodes[n.children[name]]
		if name <= r.After || !c.visible {
			continue
		}
		if len(rep.Entries) == limit {
			rep.More = true
			break
		}
		rep.Entries = append(rep.Entries, &metapb.Entry{Name: name, Attr: o.describeLocked(c)})
	}
	return rep, nil
}

// Open implements metaplane.Reader.
func (o *Orca) Open(_ context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	leave, err := o.enter("Open")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.Open", r.Target)
	if err != nil {
		return nil, err
	}
	if n.children != nil {
		return nil, orca.PathE("memorca.Open", r.Target.Path, orca.IsDir, nil)
	}
	a := n.reply()
	rep := &metapb.OpenReply{Attr: a, Workers: o.workersPB(), Grant: &metapb.Grant{File: a.Ino, Version: a.Version}}
	if o.grantTTL > 0 {
		rep.Grant.Expiry = time.Now().Add(o.grantTTL).UnixNano()
	}
	rep.Locations = o.locations(a)
	return rep, nil
}

func (o *Orca) locations(a *metapb.Attr) []*metapb.Location {
	var ls []*metapb.Location
	for _, w := range o.workers {
		if l := w.location(a.Ino, a.Version); l != nil {
			ls = append(ls, l)
		}
	}
	return ls
}

// Locations implements metaplane.Reader.
func (o *Orca) Locations(_ context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	leave, err := o.enter("Locations")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.Locations", r.Target)
	if err != nil {
		return nil, err
	}
	return &metapb.LocationsReply{Attr: n.reply(), Locations: o.locations(&n.attr), Workers: o.workersPB()}, nil
}

// Watch implements metaplane.Reader. The cursor is 1 + the number of events.
func (o *Orca) Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error) {
	timer := time.NewTimer(time.Duration(r.WaitMs) * time.Millisecond)
	defer timer.Stop()
	for {
		leave, err := o.enter("Watch")
		if err != nil {
			return nil, err
		}
		end := uint64(len(o.events)) + 1
		if r.Cursor == 0 || r.Cursor < end {
			rep := &metapb.WatchReply{Cursor: end}
			if r.Cursor > 0 {
				rep.Events = append(rep.Events, o.events[r.Cursor-1:]...)
			}
			leave()
			return rep, nil
		}
		more := o.changed
		leave()
		select {
		case <-more:
		case <-timer.C:
			return &metapb.WatchReply{Cursor: r.Cursor}, nil
		case <-ctx.Done():
			return nil, orca.PathE("memorca.Watch", "", orca.Canceled, ctx.Err())
		}
	}
}

// Mkdir implements metaplane.Writer. There is one group.
func (o *Orca) Mkdir(_ context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	leave, err := o.enter("Mkdir")
	if err != nil {
		return nil, err
	}
	defer leave()
	if r.Group > 1 {
		return nil, &orca.Error{Op: "memorca.Mkdir", Path: r.Target.Path, Kind: orca.Invalid,
			Msg: fmt.Sprintf("there is no group %d: orca admin group add", r.Group)}
	}
	if r.Target.Path == "/" && r.ExistOk {
		return &metapb.MkdirReply{Attr: o.inodes[1].reply()}, nil
	}
	n, err := o.mkdirLocked(r.Target, r.Mode, r.Parents)
	if err != nil {
		return nil, err
	}
	return &metapb.MkdirReply{Attr: n.reply()}, nil
}

// Rename implements metaplane.Writer.
func (o *Orca) Rename(_ context.Context, r *metapb.RenameRequest) (*metapb.Empty, error) {
	leave, err := o.enter("Rename")
	if err != nil {
		return nil, err
	}
	defer leave()
	const op = "memorca.Rename"
	n, err := o.resolveLocked(op, r.Src)
	if err != nil {
		return nil, err
	}
	d, name, err := o.parentLocked(op, r.Dst, false)
	if err != nil {
		return nil, err
	}
	for up := d; ; up = o.inodes[up.parent] {
		if up == n {
			return nil, orca.PathE(op, r.Dst.Path, orca.Invalid, nil)
		}
		if up.attr.Ino == 1 {
			break
		}
	}
	old := o.inodes[d.children[name]]
	if r.Exchange {
		return o.exchangeLocked(r, n, old, d, name)
	}
	if old != nil && r.NoReplace {
		return nil, orca.PathE(op, r.Dst.Path, orca.Exists, nil)
	}
	if old != nil && old != n {
		switch {
		case old.children != nil && n.children == nil:
			return nil, orca.PathE(op, r.Dst.Path, orca.IsDir, nil)
		case old.children == nil && n.children != nil:
			return nil, orca.PathE(op, r.Dst.Path, orca.NotDir, nil)
		case len(old.children) > 0:
			return nil, orca.PathE(op, r.Dst.Path, orca.NotEmpty, nil)
		}
		if !o.unlinkLocked(old, d, name) {
			delete(o.inodes, old.attr.Ino)
		}
	}
	o.eventLocked(metapb.EventKind_EVENT_ENTRY, n)
	delete(o.inodes[n.parent].children, n.name)
	n.parent, n.name = d.attr.Ino, name
	d.children[name] = n.attr.Ino
	o.eventLocked(metapb.EventKind_EVENT_ENTRY, n)
	return &metapb.Empty{}, nil
}

// Delete implements metaplane.Writer.
func (o *Orca) Delete(_ context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	leave, err := o.enter("Delete")
	if err != nil {
		return nil, err
	}
	defer leave()
	const op = "memorca.Delete"
	n, err := o.resolveLocked(op, r.Target)
	if err != nil {
		return nil, err
	}
	switch {
	case n.attr.Ino == 1:
		return nil, orca.PathE(op, "/", orca.Busy, nil)
	case r.Want == 1 && n.children != nil:
		return nil, orca.PathE(op, r.Target.Path, orca.IsDir, nil)
	case r.Want == 2 && n.children == nil:
		return nil, orca.PathE(op, r.Target.Path, orca.NotDir, nil)
	case len(n.children) > 0 && !r.Recursive:
		return nil, orca.PathE(op, r.Target.Path, orca.NotEmpty, nil)
	}
	if d, name, err := o.parentLocked(op, r.Target, false); err == nil && o.unlinkLocked(n, d, name) {
		return &metapb.Empty{}, nil
	}
	o.dropLocked(n)
	delete(o.inodes[n.parent].children, n.name)
	o.eventLocked(metapb.EventKind_EVENT_ENTRY, n)
	return &metapb.Empty{}, nil
}

// unlinkLocked takes one of several names of a file away; false: it has one.
func (o *Orca) unlinkLocked(n, d *inode, name string) bool {
	if n.children != nil || n.attr.Nlink < 2 {
		return false
	}
	delete(d.children, name)
	n.attr.Nlink--
	for ino, dir := range o.inodes {
		for name, child := range dir.children {
			if child == n.attr.Ino {
				n.parent, n.name = ino, name
			}
		}
	}
	return true
}

// Link implements metaplane.Writer.
func (o *Orca) Link(_ context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error) {
	leave, err := o.enter("Link")
	if err != nil {
		return nil, err
	}
	defer leave()
	const op = "memorca.Link"
	n, err := o.resolveLocked(op, r.Src)
	if err != nil {
		return nil, err
	}
	d, name, err := o.parentLocked(op, r.Dst, false)
	switch {
	case err != nil:
		return nil, err
	case n.children != nil:
		return nil, orca.PathE(op, r.Src.Path, orca.Permission, nil)
	case d.children[name] != 0:
		return nil, orca.PathE(op, r.Dst.Path, orca.Exists, nil)
	}
	d.children[name] = n.attr.Ino
	n.attr.Nlink = max(n.attr.Nlink, 1) + 1
	return &metapb.LinkReply{Attr: n.reply()}, nil
}

func (o *Orca) exchangeLocked(r *metapb.RenameRequest, n, old, d *inode, name string) (*metapb.Empty, error) {
	const op = "memorca.Rename"
	sd, sname, err := o.parentLocked(op, r.Src, false)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, orca.PathE(op, r.Dst.Path, orca.NotFound, nil)
	}
	d.children[name], sd.children[sname] = n.attr.Ino, old.attr.Ino
	n.parent, n.name, old.parent, old.name = d.attr.Ino, name, sd.attr.Ino, sname
	return &metapb.Empty{}, nil
}

func (o *Orca) dropLocked(n *inode) {
	for _, c := range n.children {
		o.dropLocked(o.inodes[c])
	}
	delete(o.inodes, n.attr.Ino)
}

// SetAttr implements metaplane.Writer.
func (o *Orca) SetAttr(_ context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	leave, err := o.enter("SetAttr")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.SetAttr", r.Target)
	if err != nil {
		return nil, err
	}
	o.setAttrLocked(n, r)
	return &metapb.SetAttrReply{Attr: n.reply()}, nil
}

func (o *Orca) setAttrLocked(n *inode, r *metapb.SetAttrRequest) {
	has := func(m metapb.SetAttrMask) bool { return r.Mask&uint32(m) != 0 }
	a := &n.attr
	if has(metapb.SetAttrMask_SET_MODE) {
		a.Mode = r.Mode
	}
	if has(metapb.SetAttrMask_SET_UID) {
		a.Uid = r.Uid
	}
	if has(metapb.SetAttrMask_SET_GID) {
		a.Gid = r.Gid
	}
	if has(metapb.SetAttrMask_SET_ATIME) {
		a.Atime = r.Atime
	}
	if has(metapb.SetAttrMask_SET_MTIME) {
		a.Mtime = r.Mtime
	}
	if has(metapb.SetAttrMask_SET_PINNED) {
		a.Pinned = r.Pinned
	}
	if has(metapb.SetAttrMask_SET_REPLICAS) && n.children == nil {
		a.ReplicaMin, a.ReplicaLimit = r.ReplicaMin, r.ReplicaLimit
	}
	a.Ctime = time.Now().UnixNano()
	o.eventLocked(metapb.EventKind_EVENT_ATTR, n)
	if r.Recursive {
		for _, c := range n.children {
			o.setAttrLocked(o.inodes[c], r)
		}
	}
}

// Free implements metaplane.Writer.
func (o *Orca) Free(_ context.Context, r *metapb.FreeRequest) (*metapb.Empty, error) {
	leave, err := o.enter("Free")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.Free", r.Target)
	if err != nil {
		return nil, err
	}
	if n.attr.Pinned && !r.Force {
		return nil, orca.PathE("memorca.Free", r.Target.Path, orca.Busy, nil)
	}
	o.freeLocked(n)
	return &metapb.Empty{}, nil
}

func (o *Orca) freeLocked(n *inode) {
	for _, c := range n.children {
		o.freeLocked(o.inodes[c])
	}
	for _, w := range o.workers {
		w.drop(n.attr.Ino)
	}
}

// Sync implements metaplane.Writer; there is nothing to find.
func (o *Orca) Sync(_ context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error) {
	leave, err := o.enter("Sync")
	if err != nil {
		return nil, err
	}
	defer leave()
	if _, err := o.resolveLocked("memorca.Sync", r.Target); err != nil {
		return nil, err
	}
	return &metapb.SyncReply{}, nil
}

// Usage implements metaplane.Quotas. There are no quotas here.
func (o *Orca) Usage(_ context.Context, r *metapb.UsageRequest) (*metapb.UsageReply, error) {
	leave, err := o.enter("Usage")
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := o.resolveLocked("memorca.Usage", r.Target)
	if err != nil {
		return nil, err
	}
	rep := &metapb.UsageReply{Usage: &metapb.Usage{}, Dir: n.attr.Ino, Whole: true}
	todo := []*inode{n}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, ino := range at.children {
			k := o.inodes[ino]
			switch {
			case k.attr.Type == uint32(orca.TypeDir):
				rep.Usage.Dirs++
				todo = append(todo, k)
			case k.visible:
				rep.Usage.Files++
				rep.Usage.Bytes += k.attr.Length
			}
		}
	}
	return rep, nil
}
