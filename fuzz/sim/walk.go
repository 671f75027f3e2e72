// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"strings"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// place is where a mount, or a directory that is one, has its root in a store.
type place struct {
	store *store // nil: in none
	dir   string // key of the root
}

// key is the key in the store of one that is relative to the place.
func (p place) key(rel string) string { return strings.Trim(p.dir+"/"+rel, "/") }

func (p place) has(key, fingerprint string) bool {
	i, err := p.store.raw.Stat(context.Background(), p.key(key))
	return err == nil && !i.Dir && i.Fingerprint == fingerprint
}

// placeOf returns where the URI of a mount leads.
func (w *world) placeOf(uri string) place {
	for _, s := range w.stores {
		if rel, ok := orca.Under(s.name, strings.TrimPrefix(uri, "mem:/")); ok {
			return place{s, rel}
		}
	}
	return place{}
}

// mounted returns the place of a mount by its number, of one that is gone, too.
func (w *world) mounted(id uint32) place { return w.placeOf(w.mounts[id].GetUri()) }

// mountOf is the mount of a store as the run begins.
func (w *world) mountOf(s *store) *metapb.Mount {
	return &metapb.Mount{Path: s.name, Uri: "mem:/" + s.name, SyncIntervalMs: -1, TrashRetentionMs: w.plan.Keep.Milliseconds(), Group: s.group}
}

// mountAt returns the mount or part at a path, as the first group has it; nil if
// there is none.
func (w *world) mountAt(path string) *metapb.Mount {
	for _, r := range w.groups[0].machine().Mounts() {
		if r.Mount.Path == path {
			return r.Mount
		}
	}
	return nil
}

// spot is what the namespace has at a path.
type spot struct {
	path string
	*fsm.View
	at   place
	g    *group // that has it; of a junction the one that it leads away from
	away bool   // a junction
}

// walk calls fn for everything in the namespace, by path, over all groups.
func (w *world) walk(fn func(x *spot)) { w.below(w.groups[0], "/", orca.RootIno, fn) }

// below is walk from a directory on.
func (w *world) below(g *group, dir string, ino orca.Ino, fn func(x *spot)) {
	kids, more, err := g.machine().Children(orca.Caller{}, ino, "", 10_000)
	if err != nil || more {
		w.broken("list", "%s: %v", dir, err)
		return
	}
	for i := range kids {
		x := &spot{path: orca.JoinPath(dir, kids[i].Name), View: &kids[i].View, at: w.mounted(kids[i].Attr.MountId), g: g}
		to := g
		if x.away = x.Foreign; x.away {
			to = w.group(w.mounts[x.Attr.MountId].Group)
		}
		if home := orca.Ino(x.Attr.Ino).Home(); home != max(to.number, 1) && home != max(g.number, 1) {
			w.broken("number", "%s in group %d has the number %x", x.path, to.number, x.Attr.Ino)
		}
		if fn(x); x.Attr.Type != uint32(orca.TypeDir) {
			continue
		}
		if root := orca.Ino(x.Attr.Ino); to == g {
			w.below(g, x.path, root, fn)
		} else if root.Home() == to.number && to.row(x.Attr.MountId) != nil {
			w.below(to, x.path, root, fn)
		}
	}
}

// walkTrash calls fn for everything that is kept of what was deleted, each with
// the path that it has there.
func (w *world) walkTrash(fn func(x *spot)) {
	for _, g := range w.groups {
		m := g.machine()
		for _, e := range m.Trash(orca.Caller{}, "", nil, 1000) {
			v, err := m.Lookup(orca.Ino(e.Ino))
			if err != nil {
				w.broken("trash", "%s: %v", e.Path, err)
				return
			}
			p := e.Path[:2] + "/" + fsm.BinName + "/" + e.Name
			fn(&spot{path: p, View: v, at: w.mounted(v.Attr.MountId), g: g})
			if e.Dir {
				w.below(g, p, orca.Ino(e.Ino), fn)
			}
		}
	}
}

// files calls fn for all files, those in the trash, too.
func (w *world) files(fn func(x *spot)) {
	one := func(x *spot) {
		if x.Attr.Type == uint32(orca.TypeFile) {
			fn(x)
		}
	}
	w.walk(one)
	w.walkTrash(one)
}
