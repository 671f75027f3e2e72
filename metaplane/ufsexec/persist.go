// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"fmt"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// PersistToken is what the upload that persists one version of a file is called
// in the UFS: one token per version, so that what a dead attempt left is found
// by it.
func PersistToken(file uint64, version uint32) string { return fmt.Sprintf("p%x-%x", file, version) }

// settlePersist finds out what became of a persist whose worker does not know,
// or was not heard of again: the upload is swept, so that it cannot be committed
// any more, and what is at the key is put on record. The file stays to be
// persisted, but whoever removes or renames it does so with the object, too.
func (e *Executor) settlePersist(ctx context.Context, store ufs.FS, in *command.Intent) error {
	if !in.Unsure {
		return nil // its worker is at it
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	if err := store.Sweep(ctx, in.Target, PersistToken(in.Ino, in.Version)); err != nil {
		return err
	}
	v, err := e.group.Machine().Lookup(orca.Ino(in.Ino))
	if err == nil && v.Key == in.Target {
		_, err = e.sync.Name(ctx, ufssync.Place{Mount: in.MountId, Key: in.Target, Dir: v.Parent, Name: v.Name, Intent: in.Id, Pinned: true, Must: true})
	}
	if absent(err) != nil {
		return err
	}
	_, err = e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(), PersistCommit: &metapb.PersistCommitOp{Intent: in.Id}})
	if orca.KindOf(err) == orca.Stale {
		return nil // it is over
	}
	return err
}
