// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"orca"
	"orca/engine/client"
	"orca/engine/errmap"
	"orca/tiers/dir"
)

// tierDirs are the changes to the tier directories that were ordered while a
// worker ran: they outlive it, and go before what its command line says.
type tierDirs struct {
	path string

	mu   sync.Mutex            // one change at a time
	dirs map[string]tierChange // by directory; GUARDED_BY(mu)
}

// tierChange is one line of the file.
type tierChange struct {
	Removed     bool      `json:"removed,omitempty"`
	Tier        orca.Tier `json:"tier"`
	Capacity    int64     `json:"capacity_bytes"`
	Reserve     int64     `json:"reserve_bytes,omitempty"`
	ReservePart float64   `json:"reserve_part,omitempty"`
	KeyFile     string    `json:"key_file,omitempty"`
}

// openTierDirs reads what was ordered; a file that is not there: nothing.
func openTierDirs(path string) (*tierDirs, error) {
	t := &tierDirs{path: path, dirs: map[string]tierChange{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, orca.PathE("daemon.tierDirs", path, orca.Permission, err)
	}
	if err := json.Unmarshal(b, &t.dirs); err != nil || t.dirs == nil {
		return nil, &orca.Error{Op: "daemon.tierDirs", Path: path, Kind: orca.Corrupt, Msg: "is not what a worker wrote; without it the command line holds", Err: err}
	}
	return t, nil
}

// apply changes the directories of the command line; the memory tier is not
// among them.
func (t *tierDirs) apply(configured []dir.Config) []dir.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []dir.Config
	named := map[string]bool{}
	add := func(path string) {
		if c := t.dirs[path]; !c.Removed {
			out = append(out, dir.Config{Path: path, Tier: c.Tier, Capacity: c.Capacity, Reserve: c.Reserve, ReservePart: c.ReservePart, KeyFile: c.KeyFile})
		}
	}
	for _, c := range configured {
		named[c.Path] = true
		if _, ok := t.dirs[c.Path]; ok {
			add(c.Path)
		} else {
			out = append(out, c)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(t.dirs)) {
		if !named[path] {
			add(path)
		}
	}
	return out
}

// change has do carry out a change of a directory, and keeps it for the next
// start; when that fails undo takes it back.
func (t *tierDirs) change(path string, c tierChange, do, undo func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	next := maps.Clone(t.dirs)
	next[path] = c
	if err := writeDurably(t.path, next); err != nil {
		return errors.Join(orca.PathE("daemon.tierDirs", t.path, orca.NoSpace, err), undo())
	}
	t.dirs = next
	return nil
}

// writeDurably replaces a file by v as JSON: the old or the new is there after
// a crash.
func writeDurably(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// orderTier carries out an order.
func (w *workerRole) orderTier(ctx context.Context, o client.TierOrder) error {
	const op = "daemon.orderTier"
	now, known := w.store.Config(o.Dir)
	if o.Op == client.TierAdd {
		now = dir.Config{Path: o.Dir, Tier: o.Tier, Capacity: o.Capacity, Reserve: o.Reserve, ReservePart: o.ReservePart, KeyFile: o.KeyFile}
	} else if !known {
		return &orca.Error{Op: op, Path: o.Dir, Kind: orca.NotFound, Msg: "the worker has no such tier directory"}
	}
	if now.Tier == orca.MEM {
		return &orca.Error{Op: op, Path: o.Dir, Kind: orca.Unsupported, Msg: "the memory tier is what --mem says"}
	}
	c := tierChange{Tier: now.Tier, Capacity: now.Capacity, Reserve: now.Reserve, ReservePart: now.ReservePart, KeyFile: now.KeyFile}
	add := func() error { return w.store.AddDir(now) }
	remove := func() error { return w.store.RemoveDir(ctx, o.Dir) }
	switch o.Op {
	case client.TierAdd:
		return w.tierDirs.change(o.Dir, c, add, remove)
	case client.TierRemove:
		c.Removed = true
		return w.tierDirs.change(o.Dir, c, remove, add)
	case client.TierResize:
		c.Capacity = o.Capacity
		return w.tierDirs.change(o.Dir, c,
			func() error { return w.store.Resize(o.Dir, o.Capacity) },
			func() error { return w.store.Resize(o.Dir, now.Capacity) })
	}
	return &orca.Error{Op: op, Path: string(o.Op), Kind: orca.Unsupported, Msg: "unknown order"}
}

// serveTier answers orders about tier directories. They come from this host
// only: they name its folders.
func (w *workerRole) serveTier(out http.ResponseWriter, r *http.Request) {
	var o client.TierOrder
	err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&o)
	switch {
	case r.Header.Get(client.AdminHeader) == "":
		err = orca.E("daemon.tier", orca.Permission, "an order needs the header "+client.AdminHeader)
	case !sameHost(r):
		err = orca.E("daemon.tier", orca.Permission, "a worker takes orders about its directories from its own host only")
	case err != nil:
		err = orca.PathE("daemon.tier", "", orca.Invalid, err)
	default:
		err = w.orderTier(r.Context(), o)
	}
	w.log.Info("tier directory: ordered", "by", r.RemoteAddr, "op", string(o.Op), "dir", o.Dir, "bytes", o.Capacity, "err", err)
	out.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(out).Encode(o) // the caller has gone
		return
	}
	f := client.TierFailure{Kind: orca.KindOf(err), Text: err.Error()}
	var e *orca.Error
	if errors.As(err, &e) && e.Msg != "" && e.Err == nil {
		f.Text = e.Msg
	}
	out.WriteHeader(errmap.HTTP(err))
	_ = json.NewEncoder(out).Encode(f) // the caller has gone
}

// sameHost reports whether a request comes from the host that it goes to.
func sameHost(r *http.Request) bool {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(from)
	if err != nil || ip == nil {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ip.IsLoopback() || ok && local.IP.Equal(ip)
}
