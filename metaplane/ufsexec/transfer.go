// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/ufs"
)

// Refused is the decision not to take a file of another group; Err says why.
type Refused struct {
	Err error
	// Early says that it is this group's, about a directory that the other one has
	// not been asked to take yet.
	Early bool
	// Changed: somebody has changed the file's object in its store, which its own
	// group does not know.
	Changed bool
}

// Error implements error.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns why.
func (r *Refused) Unwrap() error { return r.Err }

// transfer asks the other group for its decision. Whatever keeps it from
// answering, only its decision ends the intent: the file may be there already.
func (e *Executor) transfer(ctx context.Context, in *command.Intent) (outcome, error) {
	if e.cfg.Transfer == nil {
		return outcome{}, orca.E("ufsexec.transfer", orca.Unavailable, "this process has no way to other groups")
	}
	back, err := e.cfg.Transfer(ctx, in.Id)
	var r *Refused
	return outcome{back: back, early: errors.As(err, &r) && r.Early}, err
}

// receive moves what another group gives to its place, has it change places with
// what is there, or removes that when a link without an object replaces it.
func (e *Executor) receive(ctx context.Context, in *command.Intent, redo bool) (outcome, error) {
	if in.Ino != 0 {
		store, err := e.stores.FS(ctx, in.MountId)
		if err != nil {
			return outcome{}, err
		}
		gone := proto.Clone(in).(*command.Intent)
		gone.Source = in.Target
		if err := e.removing(ctx, store, gone); err != nil {
			return outcome{}, err
		}
		return outcome{}, e.remove(ctx, store, gone, redo)
	}
	store, in, err := e.receiving(ctx, in)
	switch {
	case err != nil:
		return outcome{}, err
	case trades(in):
		return outcome{}, trade(ctx, store, in, redo)
	case store.Caps().AtomicRename:
		return rename(ctx, store, in, redo)
	}
	return e.fetch(ctx, store, in)
}

// receiving returns the store that has both places of what is received, and the
// intent with the keys that they have there.
func (e *Executor) receiving(ctx context.Context, in *command.Intent) (ufs.FS, *command.Intent, error) {
	const op = "ufsexec.receiving"
	t := in.Command.GetTransfer()
	mt, err := e.group.Machine().Mount(in.MountId)
	if err != nil {
		return nil, nil, err
	}
	at := common(t.GetRoot(), mt.Mount.Uri)
	if at == "" || in.Ino != 0 {
		return nil, nil, &orca.Error{Op: op, Path: in.Target, Kind: orca.CrossMount, Msg: "the two directories are in different stores"}
	}
	store, err := e.stores.At(ctx, in.MountId, at)
	if err != nil {
		return nil, nil, err
	}
	moved := proto.Clone(in).(*command.Intent)
	moved.Source, moved.Target = below(at, t.GetRoot(), t.GetKey()), below(at, mt.Mount.Uri, in.Target)
	if t.GetExchange() && in.Want == "" { // with something that the store does not have
		moved.Source, moved.Target, moved.Want, moved.Have = moved.Target, moved.Source, in.Have, ""
	}
	return store, moved, nil
}

// common returns the deepest directory that two URIs are at or below; "": there is
// none.
func common(a, b string) string {
	for at := a; at != ""; {
		if b == at || strings.HasPrefix(b, strings.TrimSuffix(at, "/")+"/") {
			return at
		}
		scheme := strings.Index(at, "://") + len("://")
		cut := strings.LastIndexByte(strings.TrimSuffix(at, "/"), '/')
		if cut < scheme {
			return ""
		}
		if cut == scheme {
			cut++ // the root of a store keeps its slash
		}
		at = at[:cut]
	}
	return ""
}

// below is the key that has, in a store at a URI, what has a key in one at root,
// which is that URI or below it.
func below(at, root, key string) string {
	return strings.TrimPrefix(strings.TrimSuffix(root, "/")+"/"+key, strings.TrimSuffix(at, "/")+"/")
}
