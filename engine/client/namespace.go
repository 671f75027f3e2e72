// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// Stat returns the attributes of t. It does not follow a symbolic link at the
// end of a path. NotFound, NotDir, Permission.
func (fs *FS) Stat(ctx context.Context, t Target, s Sync) (Info, error) {
	tp, err := t.pb()
	if err != nil {
		return Info{}, err
	}
	r, err := fs.meta.Stat(ctx, &metapb.StatRequest{H: fs.header(), Target: tp, Sync: s.pb()})
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), r.Attr, r.Parent, r.TtlMs), nil
}

// ListOptions shape a listing.
type ListOptions struct {
	After string // names after this one only
	Limit int    // entries a page; 0: the server's default (1000)
	Sync  Sync
	Force bool // load the directory from its store even if it was loaded before
}

// Page is one page of a listing, in byte order of the names.
type Page struct {
	Dir     Info
	Entries []Info
	More    bool
	TTL     time.Duration
}

// List returns one page of the entries of directory t. Listing a file is
// NotDir.
func (fs *FS) List(ctx context.Context, t Target, o ListOptions) (*Page, error) {
	tp, err := t.pb()
	if err != nil {
		return nil, err
	}
	r, err := fs.meta.List(ctx, &metapb.ListRequest{
		H: fs.header(), Target: tp, After: o.After, Limit: uint32(o.Limit), Sync: o.Sync.pb(), Force: o.Force,
	})
	if err != nil {
		return nil, err
	}
	p := &Page{Dir: infoOf(t.base(), r.Dir, 0, r.TtlMs), More: r.More, TTL: time.Duration(r.TtlMs) * time.Millisecond}
	p.Entries = make([]Info, len(r.Entries))
	for i, e := range r.Entries {
		p.Entries[i] = infoOf(e.Name, e.Attr, uint64(p.Dir.Ino), r.TtlMs)
	}
	return p, nil
}

// Entries iterates over all entries of directory t, a page at a time. It stops
// after the first error. Names that exist throughout are seen exactly once.
func (fs *FS) Entries(ctx context.Context, t Target, o ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			p, err := fs.List(ctx, t, o)
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, e := range p.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if !p.More || len(p.Entries) == 0 {
				return
			}
			o.After, o.Force, o.Sync = p.Entries[len(p.Entries)-1].Name, false, SyncNever()
			if p.Dir.Ino != 0 {
				t = ByIno(p.Dir.Ino)
			}
		}
	}
}

// Mkdir makes one directory. Exists when the name is taken.
func (fs *FS) Mkdir(ctx context.Context, t Target, mode uint32) (Info, error) {
	return fs.mkdir(ctx, t, mode, false, 0)
}

// MkdirIn makes one directory, and its missing parents, whose content lives in
// a group of its own; it must not be there. It is emptied and removed like any
// other, but stays where it is: it is not renamed, and nothing above it is.
// Permission (only root may), Invalid when there is no such group, Unsupported when the directory is in no
// mount, in a group of its own already, or below a quota.
func (fs *FS) MkdirIn(ctx context.Context, t Target, mode uint32, group uint16) (Info, error) {
	return fs.mkdir(ctx, t, mode, true, group)
}

// MkdirAll makes a directory and its missing parents; one that is there is
// fine.
func (fs *FS) MkdirAll(ctx context.Context, t Target, mode uint32) (Info, error) {
	return fs.mkdir(ctx, t, mode, true, 0)
}

func (fs *FS) mkdir(ctx context.Context, t Target, mode uint32, all bool, group uint16) (Info, error) {
	tp, err := t.pb()
	if err != nil {
		return Info{}, err
	}
	r, err := fs.meta.Mkdir(ctx, &metapb.MkdirRequest{H: fs.header(), Target: tp, Mode: mode & 0o7777, Parents: all, ExistOk: all && group <= 1, Group: uint32(group)})
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), r.Attr, 0, 0), nil
}

// Rename moves src to dst atomically, replacing a file or an empty directory
// there unless noReplace. CrossMount when they are in different mounts.
func (fs *FS) Rename(ctx context.Context, src, dst Target, noReplace bool) error {
	sp, err := src.pb()
	if err != nil {
		return err
	}
	dp, err := dst.pb()
	if err != nil {
		return err
	}
	_, err = fs.meta.Rename(ctx, &metapb.RenameRequest{H: fs.header(), Src: sp, Dst: dp, NoReplace: noReplace})
	return err
}

// Exchange has what is at a and what is at b change places atomically, whatever
// they are. NotFound; CrossMount; Unsupported where the store below cannot do it
// in one call.
func (fs *FS) Exchange(ctx context.Context, a, b Target) error {
	ap, err := a.pb()
	if err != nil {
		return err
	}
	bp, err := b.pb()
	if err != nil {
		return err
	}
	_, err = fs.meta.Rename(ctx, &metapb.RenameRequest{H: fs.header(), Src: ap, Dst: bp, Exchange: true})
	return err
}

// Link gives the file or symbolic link src one more name, dst. Permission for a
// directory; Exists; CrossMount when they are in different mounts. The store
// below has the content under one of the names (docs/adr/0011).
func (fs *FS) Link(ctx context.Context, src, dst Target) (Info, error) {
	sp, err := src.pb()
	if err != nil {
		return Info{}, err
	}
	dp, err := dst.pb()
	if err != nil {
		return Info{}, err
	}
	r, err := fs.meta.Link(ctx, &metapb.LinkRequest{H: fs.header(), Src: sp, Dst: dp})
	if err != nil {
		return Info{}, err
	}
	return infoOf(dst.base(), r.Attr, 0, 0), nil
}

// RemoveOptions shape a removal.
type RemoveOptions struct {
	// CacheOnly forgets the name in Orca and leaves the store below as it is.
	CacheOnly bool
	// Unchecked removes a directory without first looking for what the
	// store holds that Orca has not seen.
	Unchecked bool
	// SkipTrash removes for good what a mount would keep for a while.
	SkipTrash bool
}

// Remove removes a file, a link or an empty directory. NotEmpty.
func (fs *FS) Remove(ctx context.Context, t Target, o RemoveOptions) error {
	return fs.remove(ctx, t, o, false, 0)
}

// Unlink removes a file or link; IsDir for a directory.
func (fs *FS) Unlink(ctx context.Context, t Target) error {
	return fs.remove(ctx, t, RemoveOptions{}, false, 1)
}

// Rmdir removes an empty directory; NotDir for a file.
func (fs *FS) Rmdir(ctx context.Context, t Target) error {
	return fs.remove(ctx, t, RemoveOptions{}, false, 2)
}

// RemoveAll removes a tree; it is gone from the namespace when the call
// returns, and from the store below a little later. A missing t is no error.
func (fs *FS) RemoveAll(ctx context.Context, t Target, o RemoveOptions) error {
	err := fs.remove(ctx, t, o, true, 0)
	if errors.Is(err, orca.NotFound) {
		return nil
	}
	return err
}

func (fs *FS) remove(ctx context.Context, t Target, o RemoveOptions, recursive bool, want uint32) error {
	tp, err := t.pb()
	if err != nil {
		return err
	}
	_, err = fs.meta.Delete(ctx, &metapb.DeleteRequest{
		H: fs.header(), Target: tp, Recursive: recursive, CacheOnly: o.CacheOnly, Unchecked: o.Unchecked, Want: want, SkipTrash: o.SkipTrash,
	})
	return err
}

// AttrChange says what SetAttr changes; nil fields stay.
type AttrChange struct {
	Mode         *uint32
	UID, GID     *uint32
	Atime, Mtime *time.Time
	Pinned       *bool
	// SyncInterval of the path: negative: load once; 0: every access.
	SyncInterval *time.Duration
	// Replicas bound the copies of a file, or with Recursive of all files in a
	// tree.
	Replicas  *Replicas
	Recursive bool
}

// Replicas says on how many workers a file is to be. Fewer than Min copies are
// made up for, and none of so many is evicted; of more than Max, that are in
// the store below, some are dropped. Max -1 is no bound; 0: never cached.
type Replicas struct{ Min, Max int }

// limit is Max on the wire.
func (r Replicas) limit() (uint32, error) {
	if r.Min < 0 || r.Max < -1 || r.Min > math.MaxInt16 || r.Max > math.MaxInt16 {
		return 0, orca.E("client.SetAttr", orca.Invalid, "copies out of range: at least 0, at most -1 (no bound) or up to 1024")
	}
	return uint32(r.Max + 1), nil
}

// SetAttr changes attributes. A file's length changes by writing only (see
// Create with CreateOptions.Existing, and Writer.Truncate).
func (fs *FS) SetAttr(ctx context.Context, t Target, c AttrChange) (Info, error) {
	tp, err := t.pb()
	if err != nil {
		return Info{}, err
	}
	r := &metapb.SetAttrRequest{H: fs.header(), Target: tp, Recursive: c.Recursive}
	set := func(m metapb.SetAttrMask) { r.Mask |= uint32(m) }
	if c.Mode != nil {
		r.Mode = *c.Mode & 0o7777
		set(metapb.SetAttrMask_SET_MODE)
	}
	if c.UID != nil {
		r.Uid = *c.UID
		set(metapb.SetAttrMask_SET_UID)
	}
	if c.GID != nil {
		r.Gid = *c.GID
		set(metapb.SetAttrMask_SET_GID)
	}
	if c.Atime != nil {
		r.Atime = c.Atime.UnixNano()
		set(metapb.SetAttrMask_SET_ATIME)
	}
	if c.Mtime != nil {
		r.Mtime = c.Mtime.UnixNano()
		set(metapb.SetAttrMask_SET_MTIME)
	}
	if c.Pinned != nil {
		r.Pinned = *c.Pinned
		set(metapb.SetAttrMask_SET_PINNED)
	}
	if c.SyncInterval != nil {
		r.SyncIntervalMs = -1
		if *c.SyncInterval >= 0 {
			r.SyncIntervalMs = c.SyncInterval.Milliseconds()
		}
		set(metapb.SetAttrMask_SET_SYNC)
	}
	if c.Replicas != nil {
		if r.ReplicaLimit, err = c.Replicas.limit(); err != nil {
			return Info{}, err
		}
		r.ReplicaMin = uint32(c.Replicas.Min)
		set(metapb.SetAttrMask_SET_REPLICAS)
	}
	rep, err := fs.meta.SetAttr(ctx, r)
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), rep.Attr, 0, 0), nil
}

// Chmod sets the permission bits.
func (fs *FS) Chmod(ctx context.Context, t Target, mode uint32) error {
	_, err := fs.SetAttr(ctx, t, AttrChange{Mode: &mode})
	return err
}

// Chown sets owner and group.
func (fs *FS) Chown(ctx context.Context, t Target, uid, gid uint32) error {
	_, err := fs.SetAttr(ctx, t, AttrChange{UID: &uid, GID: &gid})
	return err
}

// Chtimes sets the access and modification times.
func (fs *FS) Chtimes(ctx context.Context, t Target, atime, mtime time.Time) error {
	_, err := fs.SetAttr(ctx, t, AttrChange{Atime: &atime, Mtime: &mtime})
	return err
}

// Pin keeps the cached blocks of a file or tree from eviction, or no longer.
func (fs *FS) Pin(ctx context.Context, t Target, pinned bool) error {
	_, err := fs.SetAttr(ctx, t, AttrChange{Pinned: &pinned, Recursive: true})
	return err
}

// SetReplication bounds the copies of a file, or with recursive of all files in
// a tree. IsDir for a directory without.
func (fs *FS) SetReplication(ctx context.Context, t Target, r Replicas, recursive bool) error {
	_, err := fs.SetAttr(ctx, t, AttrChange{Replicas: &r, Recursive: recursive})
	return err
}

// Symlink makes a symbolic link with this text.
func (fs *FS) Symlink(ctx context.Context, t Target, text string) (Info, error) {
	tp, err := t.pb()
	if err != nil {
		return Info{}, err
	}
	if text == "" || len(text) > orca.MaxPath {
		return Info{}, orca.PathE("client.Symlink", t.String(), orca.Invalid, nil)
	}
	r, err := fs.meta.Create(ctx, &metapb.CreateRequest{
		H: fs.header(), Target: tp, Mode: 0o777, Exclusive: true, Complete: true, Symlink: text,
	})
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), r.Attr, 0, 0), nil
}

// Readlink returns the text of a symbolic link. Invalid for anything else.
func (fs *FS) Readlink(ctx context.Context, t Target) (string, error) {
	i, err := fs.Stat(ctx, t, Sync{})
	if err != nil {
		return "", err
	}
	if i.Type != orca.TypeSymlink {
		return "", &orca.Error{Op: "client.Readlink", Path: t.String(), Kind: orca.Invalid, Msg: "not a symbolic link"}
	}
	return i.Target, nil
}
