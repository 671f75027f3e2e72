// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"

	"orca"
	"orca/metaplane/metapb"
)

// Trashed is something deleted that its mount keeps for a while.
type Trashed = metapb.Trashed

// Trash returns what was deleted at or below a path ("": anywhere) and is kept, of
// all that the caller may restore: root everything, others what they deleted or
// was theirs. Per group of the metaplane it is in the order of deletion.
func (fs *FS) Trash(ctx context.Context, path string) ([]*Trashed, error) {
	r, err := fs.meta.Trash(ctx, &metapb.TrashRequest{H: fs.header(), Path: path})
	if err != nil {
		return nil, err
	}
	return r.Entries, nil
}

// TrashedByIno returns one of what Trash returns. NotFound.
func (fs *FS) TrashedByIno(ctx context.Context, ino orca.Ino) (*Trashed, error) {
	r, err := fs.meta.Trash(ctx, &metapb.TrashRequest{H: fs.header(), Ino: uint64(ino)})
	if err != nil {
		return nil, err
	}
	if len(r.Entries) == 0 {
		return nil, &orca.Error{Op: "client.TrashedByIno", Path: ino.String(), Kind: orca.NotFound, Msg: "it is not in the trash"}
	}
	return r.Entries[0], nil
}

// Restore brings something back from the trash to a path, which must be free and
// in the same mount. Missing directories above are made, one by one. NotFound (it
// is not in the trash), Exists, CrossMount, Permission, OverQuota.
func (fs *FS) Restore(ctx context.Context, ino orca.Ino, to string) (Info, error) {
	t := Path(to)
	tp, err := t.pb()
	if err != nil {
		return Info{}, err
	}
	ask := func() (*metapb.RestoreTrashReply, error) {
		return fs.meta.RestoreTrash(ctx, &metapb.RestoreTrashRequest{H: fs.header(), Ino: uint64(ino), Dst: tp})
	}
	r, err := ask()
	if errors.Is(err, orca.NotFound) {
		if _, terr := fs.TrashedByIno(ctx, ino); terr == nil {
			dir, _ := orca.SplitPath(tp.Path)
			if _, merr := fs.MkdirAll(ctx, Path(dir), 0o755); merr != nil {
				return Info{}, merr
			}
			r, err = ask()
		}
	}
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), r.Attr, 0, 0), nil
}

// Purge removes from the trash for good what the caller may restore.
func (fs *FS) Purge(ctx context.Context, inos ...orca.Ino) error {
	r := &metapb.PurgeTrashRequest{H: fs.header()}
	for _, ino := range inos {
		r.Inos = append(r.Inos, uint64(ino))
	}
	_, err := fs.meta.PurgeTrash(ctx, r)
	return err
}
