// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/engine/placement"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
	"orca/tiers/readthrough"
	"orca/ufs"
	"orca/ufs/ledger"
)

// resolver asks the metaplane where the content of a file is.
type resolver struct {
	ns   metaplane.Workers
	self func() uint64 // this worker's id: it is no peer of itself
}

// Resolve implements readthrough.Resolver.
func (r resolver) Resolve(ctx context.Context, file orca.Ino) (readthrough.Source, error) {
	rep, err := r.ns.Resolve(ctx, &metapb.ResolveRequest{H: &metapb.Header{}, File: uint64(file)})
	if err != nil {
		return readthrough.Source{}, err
	}
	src := readthrough.Source{Attr: rep.Attr.Orca(), Key: rep.UfsKey}
	src.Attr.MountID = rep.MountId
	addrs := make(map[uint64]string, len(rep.Workers))
	for _, w := range rep.Workers {
		addrs[w.Id] = w.Addr
	}
	for _, l := range rep.Locations {
		if a := addrs[l.Worker]; a != "" && l.Worker != r.self() {
			src.Peers = append(src.Peers, readthrough.Peer{Worker: l.Worker, Addr: a})
		}
	}
	src.Homes, src.Before = homes(file, rep.Workers, r.self())
	return src, nil
}

// maxHomes bounds how many workers are asked to fetch what none holds. More
// than that many at their bound at once, and a worker fetches for itself.
const maxHomes = 4

// homes returns the other workers that may fetch a file for all, in the order
// in which they are asked, and how many of them come before self.
func homes(file orca.Ino, workers []*metapb.Worker, self uint64) (out []readthrough.Peer, before int) {
	ws := slices.Clone(workers)
	slices.SortFunc(ws, func(a, b *metapb.Worker) int {
		return cmp.Or(cmp.Compare(placement.Rank(uint64(file), b.Id), placement.Rank(uint64(file), a.Id)), cmp.Compare(a.Id, b.Id))
	})
	ws = ws[:min(len(ws), maxHomes)]
	for _, w := range ws {
		if w.Id == self {
			before = len(out)
			continue
		}
		out = append(out, readthrough.Peer{Worker: w.Id, Addr: w.Addr})
	}
	if len(out) == len(ws) {
		before = len(out)
	}
	return out, before
}

// mountsOf gives readthrough and writeback the stores of the mount table.
type mountsOf func(ctx context.Context, id uint32) (ufs.FS, error)

// FS implements readthrough.Mounts and writeback's.
func (f mountsOf) FS(ctx context.Context, id uint32) (ufs.FS, error) { return f(ctx, id) }

// writtenDown has the uploads to the stores written down.
func (f mountsOf) writtenDown(l *ledger.Ledger) mountsOf {
	return func(ctx context.Context, id uint32) (ufs.FS, error) {
		fs, err := f(ctx, id)
		if err != nil {
			return nil, err
		}
		return l.Over(id, fs), nil
	}
}

// tableClient is the mount table of a worker in a process of its own: it is
// read from the metaplane when the heartbeat says that it has changed, and
// when a mount is asked for that is not in it.
type tableClient struct {
	ns     metaplane.Mounts
	stores *mount.Stores
	table  atomic.Pointer[mount.Table]
	mu     sync.Mutex // serialises refresh
}

func newTableClient(ns metaplane.Mounts, open mount.Opener) *tableClient {
	t := &tableClient{ns: ns}
	t.table.Store(mount.NewTable(nil, 0))
	t.stores = mount.NewStores(open, t.table.Load)
	return t
}

// FS returns the store of a mount.
func (t *tableClient) FS(ctx context.Context, id uint32) (ufs.FS, error) {
	if t.table.Load().ByID(id) == nil {
		if err := t.refresh(ctx); err != nil {
			return nil, err
		}
	}
	return t.stores.FS(ctx, id)
}

// refresh reads the table; stores of mounts that are gone or have other
// options are closed.
func (t *tableClient) refresh(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, err := t.ns.ListMounts(ctx, &metapb.ListMountsRequest{H: &metapb.Header{}, Secrets: true})
	if err != nil {
		return err
	}
	old := t.table.Swap(mount.NewTable(r.Mounts, r.Epoch))
	for _, m := range old.All() {
		if now := t.table.Load().ByID(m.Id); now == nil || !proto.Equal(now, m) {
			t.stores.Drop(m.Id)
		}
	}
	return nil
}
