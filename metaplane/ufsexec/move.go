// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// move drains one deferred rename. Below the directory nothing else changes
// meanwhile: every mutation whose key overlaps the intent waits. What changes
// behind us is met by fingerprints.
//
// A file moves in three steps, each of which may be repeated: copy the object
// (if its fingerprint is the namespace's), cut the file over to the new key,
// delete the source. Objects that the namespace does not know yet are imported
// under their old key first, so that no reader misses them in between.
type move struct {
	e     *Executor
	store ufs.FS
	in    *command.Intent
	// copied are the copies whose cutover may still be on its way, by file.
	// They must not be written again under another fingerprint.
	copied *sync.Map
}

// copied is a copy of the version with the fingerprint want.
type copied struct {
	want string
	info ufs.Info
}

func (m *move) run(ctx context.Context) error {
	v, err := m.e.group.Machine().Lookup(orca.Ino(m.in.Ino))
	if orca.KindOf(err) == orca.NotFound {
		return m.e.removeTree(ctx, m.store, m.in.Source, m.e.spareOf(m.in)) // it left the namespace
	}
	if err != nil {
		return err
	}
	if !m.in.Dir {
		return m.file(ctx, orca.Ino(m.in.Ino), m.in.Source)
	}
	if err := m.mkdir(ctx, m.in.Target); err != nil {
		return err
	}
	if err := m.known(ctx, v, m.in.Source); err != nil {
		return err
	}
	if err := m.rest(ctx); err != nil {
		return err
	}
	return m.markers(ctx)
}

// markers removes what is left of the source: directories without files. A
// file that shows up now is not removed: the drain begins again.
func (m *move) markers(ctx context.Context) error {
	for range maxRounds {
		dirs, err := batch(func(fn func(ufs.Info) error) error {
			return walk(ctx, m.store, m.in.Source, func(i ufs.Info) error {
				if !i.Dir {
					return nil
				}
				return fn(i)
			})
		})
		if err = absent(err); err != nil {
			return err
		}
		removed := 0
		for _, d := range slices.Backward(dirs) {
			err := absent(m.store.Remove(ctx, d.Key))
			if err == nil {
				removed++
			} else if orca.KindOf(err) != orca.NotEmpty {
				return err
			}
		}
		if len(dirs) == 0 || removed == 0 {
			break
		}
		if gone, err := allGone(ctx, m.store, dirs); err != nil || gone && len(dirs) < removeBatch {
			if err != nil {
				return err
			}
			break
		}
	}
	if keep := m.e.spareOf(m.in); keep.any() {
		return keep.left(m.store.Remove(ctx, m.in.Source))
	}
	return m.drop(ctx, m.in.Source)
}

// target maps a key below the source to its place below the target.
func (m *move) target(src string) string {
	return m.in.Target + strings.TrimPrefix(src, m.in.Source)
}

func (m *move) mkdir(ctx context.Context, key string) error {
	err := m.store.Mkdir(ctx, key, 0o755)
	if orca.KindOf(err) == orca.Exists {
		return nil
	}
	return err
}

// known moves the files that the namespace has below a directory; src is the
// directory's old key.
func (m *move) known(ctx context.Context, dir *fsm.View, src string) error {
	mach := m.e.group.Machine()
	for after, more := "", true; more; {
		kids, next, err := mach.Children(orca.Caller{}, orca.Ino(dir.Attr.Ino), after, removeBatch)
		if orca.KindOf(err) == orca.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		more = next && len(kids) > 0
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(m.e.cfg.Copies)
		var dirs []*fsm.Child
		for i := range kids {
			k := &kids[i]
			after = k.Name
			switch {
			case k.Attr.MountPoint, k.Alias: // the content of an alias is elsewhere
			case k.Attr.Type == uint32(orca.TypeDir):
				dirs = append(dirs, k)
			case k.Attr.Type == uint32(orca.TypeFile) && k.InUFS:
				g.Go(func() error { return m.file(gctx, orca.Ino(k.Attr.Ino), src+"/"+k.Name) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, d := range dirs {
			sub := src + "/" + d.Name
			if d.InUFS {
				if err := m.mkdir(ctx, m.target(sub)); err != nil {
					return err
				}
			}
			if err := m.known(ctx, &d.View, sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest moves what the UFS has below the source and the namespace did not.
func (m *move) rest(ctx context.Context) error {
	for range maxRounds {
		objects, err := m.files(ctx)
		if err != nil || len(objects) == 0 {
			return err
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(m.e.cfg.Copies)
		for _, o := range objects {
			g.Go(func() error { return m.object(gctx, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return orca.PathE("ufsexec.rest", m.in.Source, orca.Busy, nil)
}

// files lists the first files below the source, and makes the directories that
// it meets at the target.
func (m *move) files(ctx context.Context) ([]ufs.Info, error) {
	keep := m.e.spareOf(m.in)
	objects, err := batch(func(fn func(ufs.Info) error) error {
		return walk(ctx, m.store, m.in.Source, func(i ufs.Info) error {
			switch _, err := m.store.Stat(ctx, i.Key); orca.KindOf(err) {
			case orca.OK:
			case orca.NotFound:
				return nil // the listing is late
			default:
				return err
			}
			if i.Dir {
				return m.mkdir(ctx, m.target(i.Key))
			}
			return keep.but(fn)(i)
		})
	})
	return objects, absent(err)
}

// walk visits all below a key, by one pass where the store can.
func walk(ctx context.Context, store ufs.FS, key string, fn func(ufs.Info) error) error {
	if l, ok := store.(ufs.Lister); ok {
		return l.Walk(ctx, key, fn)
	}
	return store.List(ctx, key, func(i ufs.Info) error {
		if err := fn(i); err != nil || !i.Dir {
			return err
		}
		return walk(ctx, store, i.Key, fn)
	})
}

// object moves one object, importing it first when the namespace lacks it.
func (m *move) object(ctx context.Context, o ufs.Info) error {
	rel := strings.TrimPrefix(strings.TrimPrefix(o.Key, m.in.Source), "/")
	mach := m.e.group.Machine()
	w, err := mach.Walk(orca.Caller{}, orca.Ino(m.in.Ino), rel)
	for err == nil && !w.Found {
		depth := len(w.Rest)
		key := o.Key
		for range depth - 1 {
			key = key[:strings.LastIndexByte(key, '/')]
		}
		if _, err = m.learn(ctx, key, orca.Ino(w.Dir.Attr.Ino), w.Rest[0]); err != nil {
			return err
		}
		w, err = mach.Walk(orca.Caller{}, orca.Ino(m.in.Ino), rel)
		if err == nil && !w.Found && len(w.Rest) >= depth {
			break // the namespace does not want it
		}
	}
	if err != nil && orca.KindOf(err) != orca.NotDir {
		return err
	}
	if err == nil && w.Found && w.Attr.Type == uint32(orca.TypeFile) && !w.Alias {
		return m.file(ctx, orca.Ino(w.Attr.Ino), o.Key)
	}
	if _, err := m.copy(ctx, o.Key, m.target(o.Key), o.Fingerprint); err != nil {
		return err
	}
	return m.drop(ctx, o.Key)
}

// maxRaces bounds how often a file that changes behind us is tried in one
// attempt.
const maxRaces = 8

// file moves one file that the namespace knows from its old key.
func (m *move) file(ctx context.Context, ino orca.Ino, src string) error {
	for range maxRaces {
		v, err := m.e.group.Machine().Lookup(ino)
		if orca.KindOf(err) == orca.NotFound {
			return m.drop(ctx, src)
		}
		if err != nil {
			return err
		}
		if v.Key != src || v.Attr.Persist != uint32(orca.Persisted) {
			return m.drop(ctx, src) // cut over before, or what is there is outdated
		}
		done, err := m.step(ctx, v, src)
		if err != nil || done {
			return err
		}
	}
	return &orca.Error{Op: "ufsexec.move", Path: src, Kind: orca.Busy, Msg: "the object keeps changing"}
}

// step copies, cuts over and deletes; false without an error: look again.
func (m *move) step(ctx context.Context, v *fsm.View, src string) (done bool, err error) {
	want := v.Attr.Fingerprint
	if c, ok := m.copied.Load(v.Attr.Ino); ok && c.(copied).want == want {
		return m.cutover(ctx, v, src, c.(copied).info)
	}
	info, err := m.copy(ctx, src, m.target(src), want)
	switch orca.KindOf(err) {
	case orca.OK:
	case orca.Stale:
		_, err := m.learn(ctx, src, v.Parent, v.Name)
		return false, err
	case orca.NotFound:
		return m.lost(ctx, v, src, err)
	default:
		return false, err
	}
	return m.cutover(ctx, v, src, info)
}

func (m *move) cutover(ctx context.Context, v *fsm.View, src string, info ufs.Info) (bool, error) {
	_, err := m.e.group.Propose(ctx, &command.Command{Now: m.e.cfg.Now().UnixNano(), Cutover: &metapb.CutoverOp{
		Intent: m.in.Id, File: v.Attr.Ino, Want: v.Attr.Fingerprint, Fingerprint: info.Fingerprint}})
	if k := orca.KindOf(err); k == orca.Stale || k == orca.NotFound {
		m.copied.Delete(v.Attr.Ino)
		return false, nil
	}
	if err != nil {
		m.copied.Store(v.Attr.Ino, copied{v.Attr.Fingerprint, info})
		return false, err
	}
	m.copied.Delete(v.Attr.Ino)
	m.e.Stats.FilesMoved.Add(1)
	m.e.Stats.BytesMoved.Add(info.Size)
	return true, m.drop(ctx, src)
}

// lost handles a source that is not there. An earlier attempt may have copied
// it; a young object may be visible late; else it vanished behind us.
func (m *move) lost(ctx context.Context, v *fsm.View, src string, cause error) (bool, error) {
	info, err := m.store.Stat(ctx, m.target(src))
	if err == nil && !info.Dir && info.Size == v.Attr.Length {
		return m.cutover(ctx, v, src, info)
	}
	if err = absent(err); err != nil {
		return false, err
	}
	if m.e.cfg.Now().UnixNano()-v.Attr.Ctime < int64(m.e.cfg.Settle) {
		return false, cause
	}
	_, err = m.learn(ctx, src, v.Parent, v.Name)
	return false, err
}

// drop removes an object that has moved.
func (m *move) drop(ctx context.Context, key string) error {
	if keep := m.e.spareOf(m.in); keep.any() {
		info, err := m.store.Stat(ctx, key)
		if err != nil || keep.spares(&info) {
			return absent(err)
		}
	}
	err := absent(m.store.Remove(ctx, key))
	if err == nil {
		m.e.sync.Removed(m.in.MountId, key)
	}
	return err
}

// copy copies one object if it has the fingerprint: within the store where it
// can, else through this process.
func (m *move) copy(ctx context.Context, src, dst, want string) (ufs.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, m.e.cfg.CopyTimeout)
	defer cancel()
	return copyObject(ctx, m.store, src, dst, want, "move"+strconv.FormatUint(m.in.Id, 16))
}

func copyObject(ctx context.Context, store ufs.FS, src, dst, want, token string) (ufs.Info, error) {
	if c, ok := store.(ufs.Copier); ok {
		return c.Copy(ctx, src, dst, want)
	}
	r, err := store.Open(ctx, src, 0, -1, want)
	if err != nil {
		return ufs.Info{}, err
	}
	defer r.Close()
	w, err := store.Create(ctx, dst, token)
	if err != nil {
		return ufs.Info{}, err
	}
	_, err = io.Copy(w, r)
	var info ufs.Info
	if err == nil {
		info, err = w.Commit(ctx)
	}
	if err != nil {
		_ = w.Abort(context.WithoutCancel(ctx)) // the next attempt overwrites it
	}
	return info, err
}

// learn brings one name below the source in line with what is at its old key.
func (m *move) learn(ctx context.Context, key string, dir orca.Ino, name string) (bool, error) {
	return m.e.sync.Name(ctx, ufssync.Place{Mount: m.in.MountId, Key: key, Dir: dir, Name: name, Intent: m.in.Id, Pinned: true})
}
