// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
)

// Mount is an entry of the mount table. Secrets in Options are masked in what
// Mounts returns.
type Mount = metapb.Mount

// Report is the state of the cluster as its metaplane sees it.
type Report = metapb.ReportReply

// Conf is the effective configuration of the metaplane.
type Conf = metapb.ConfReply

// Location says how much of a file one worker holds.
type Location struct {
	Worker   *Worker // nil when the worker is not known any more
	WorkerID uint64
	Cached   int64    // bytes
	Complete []uint32 // indexes of complete blocks
	Tier     orca.Tier
}

// Mount attaches a store at m.Path. Wrong credentials or an unreachable store
// fail here, with the failing request in the message.
func (fs *FS) Mount(ctx context.Context, m *Mount, parents bool) (*Mount, error) {
	r, err := fs.meta.Mount(ctx, &metapb.MountRequest{H: fs.header(), Mount: m, Parents: parents})
	if err != nil {
		return nil, err
	}
	return r.Mount, nil
}

// Unmount detaches the store mounted at path; its content stays in the store.
func (fs *FS) Unmount(ctx context.Context, path string) error {
	p, err := orca.CleanPath(path)
	if err != nil {
		return err
	}
	_, err = fs.meta.Unmount(ctx, &metapb.UnmountRequest{H: fs.header(), Path: p})
	return err
}

// Mounts returns the mount table.
func (fs *FS) Mounts(ctx context.Context) ([]*Mount, error) {
	r, err := fs.meta.ListMounts(ctx, &metapb.ListMountsRequest{H: fs.header()})
	if err != nil {
		return nil, err
	}
	return r.Mounts, nil
}

// FreeOptions shape Free.
type FreeOptions struct {
	Recursive bool
	Force     bool // beats pin
}

// Free drops cached blocks of persisted files; the files stay.
func (fs *FS) Free(ctx context.Context, t Target, o FreeOptions) error {
	tp, err := t.pb()
	if err != nil {
		return err
	}
	_, err = fs.meta.Free(ctx, &metapb.FreeRequest{H: fs.header(), Target: tp, Recursive: o.Recursive, Force: o.Force})
	return err
}

// SyncResult counts what Sync brought in.
type SyncResult struct{ Created, Changed, Removed int64 }

// Sync brings the namespace at t in line with the store below, now.
func (fs *FS) Sync(ctx context.Context, t Target, recursive bool) (SyncResult, error) {
	tp, err := t.pb()
	if err != nil {
		return SyncResult{}, err
	}
	r, err := fs.meta.Sync(ctx, &metapb.SyncRequest{H: fs.header(), Target: tp, Recursive: recursive})
	if err != nil {
		return SyncResult{}, err
	}
	return SyncResult{Created: r.Created, Changed: r.Changed, Removed: r.Removed}, nil
}

// Locations returns where the blocks of a file are cached (soft state).
func (fs *FS) Locations(ctx context.Context, t Target) (Info, []Location, error) {
	tp, err := t.pb()
	if err != nil {
		return Info{}, nil, err
	}
	r, err := fs.meta.Locations(ctx, &metapb.LocationsRequest{H: fs.header(), Target: tp})
	if err != nil {
		return Info{}, nil, err
	}
	by := make(map[uint64]*Worker, len(r.Workers))
	for _, w := range r.Workers {
		by[w.Id] = w
	}
	ls := make([]Location, len(r.Locations))
	for i, l := range r.Locations {
		ls[i] = Location{Worker: by[l.Worker], WorkerID: l.Worker, Cached: l.Cached, Complete: l.Complete, Tier: orca.Tier(l.Tier)}
	}
	return infoOf(t.base(), r.Attr, 0, 0), ls, nil
}

// Copies returns how many live workers have all of a file.
func (fs *FS) Copies(ctx context.Context, t Target) (int, error) {
	i, ls, err := fs.Locations(ctx, t)
	n := 0
	for _, l := range ls {
		if l.Cached >= i.Length && i.Length > 0 {
			n++
		}
	}
	return n, err
}

// Workers returns the workers the metaplane knows.
func (fs *FS) Workers(ctx context.Context) ([]*Worker, error) {
	r, err := fs.meta.ListWorkers(ctx, &metapb.ListWorkersRequest{H: fs.header()})
	if err != nil {
		return nil, err
	}
	return r.Workers, nil
}

// Report returns the state of the cluster.
func (fs *FS) Report(ctx context.Context) (*Report, error) {
	return fs.meta.Report(ctx, &metapb.ReportRequest{H: fs.header()})
}

// Conf returns the effective configuration of the metaplane.
func (fs *FS) Conf(ctx context.Context) (*Conf, error) {
	return fs.meta.Conf(ctx, &metapb.ConfRequest{H: fs.header()})
}

// Capacity is the room of all live workers, in bytes.
type Capacity struct {
	Total, Used int64
	Workers     int
	Tiers       map[orca.Tier]struct{ Total, Used int64 }
}

// Statfs sums the tiers of the live workers.
func (fs *FS) Statfs(ctx context.Context) (Capacity, error) {
	c := Capacity{Tiers: map[orca.Tier]struct{ Total, Used int64 }{}}
	ws, err := fs.Workers(ctx)
	if err != nil {
		return c, err
	}
	for _, w := range ws {
		if !w.Live {
			continue
		}
		c.Workers++
		for _, t := range w.Tiers {
			u := c.Tiers[orca.Tier(t.Tier)]
			u.Total += t.Capacity
			u.Used += t.Used
			c.Tiers[orca.Tier(t.Tier)] = u
			c.Total += t.Capacity
			c.Used += t.Used
		}
	}
	return c, nil
}

// SetXattr sets an extended attribute. create: Exists if it is there; replace:
// NoData if it is not.
func (fs *FS) SetXattr(ctx context.Context, t Target, name string, value []byte, create, replace bool) error {
	r, err := fs.xattr(t, name)
	if err != nil {
		return err
	}
	r.Value, r.Create, r.Replace = value, create, replace
	_, err = fs.meta.SetXattr(ctx, r)
	return err
}

// GetXattr returns an extended attribute. NoData when there is none.
func (fs *FS) GetXattr(ctx context.Context, t Target, name string) ([]byte, error) {
	r, err := fs.xattr(t, name)
	if err != nil {
		return nil, err
	}
	rep, err := fs.meta.GetXattr(ctx, r)
	if err != nil {
		return nil, err
	}
	return rep.Value, nil
}

// ListXattr returns the names of the extended attributes.
func (fs *FS) ListXattr(ctx context.Context, t Target) ([]string, error) {
	r, err := fs.xattr(t, "")
	if err != nil {
		return nil, err
	}
	rep, err := fs.meta.ListXattr(ctx, r)
	if err != nil {
		return nil, err
	}
	return rep.Names, nil
}

// RemoveXattr removes an extended attribute. NoData when there is none.
func (fs *FS) RemoveXattr(ctx context.Context, t Target, name string) error {
	r, err := fs.xattr(t, name)
	if err != nil {
		return err
	}
	_, err = fs.meta.RemoveXattr(ctx, r)
	return err
}

func (fs *FS) xattr(t Target, name string) (*metapb.XattrRequest, error) {
	tp, err := t.pb()
	if err != nil {
		return nil, err
	}
	return &metapb.XattrRequest{H: fs.header(), Target: tp, Name: name}, nil
}
