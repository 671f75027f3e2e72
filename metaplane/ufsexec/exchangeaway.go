// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"strconv"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// trades reports whether two objects of different groups change places.
func trades(in *command.Intent) bool {
	return in.Op == metapb.IntentOp_INTENT_RECEIVE && in.Command.GetTransfer().GetExchange() && in.Want != "" && in.Have != ""
}

// trade has the two objects change places. That they have is what the store knows by
// the token, and what their fingerprints tell: also where somebody has changed one of
// them since.
func trade(ctx context.Context, store ufs.FS, in *command.Intent, redo bool) error {
	if redo {
		if done, err := traded(ctx, store, in); done || err != nil {
			return err
		}
	}
	err := exchange(ctx, store, in)
	switch orca.KindOf(err) {
	case orca.Conflict, orca.NotFound, orca.NotDir:
		if done, serr := traded(ctx, store, in); done || serr != nil {
			return serr
		}
	}
	return err
}

// traded reports whether one of two objects is where it is to go.
func traded(ctx context.Context, store ufs.FS, in *command.Intent) (bool, error) {
	for _, at := range []struct{ key, want string }{{in.Target, in.Want}, {in.Source, in.Have}} {
		i, err := store.Stat(ctx, at.key)
		if err = absent(err); err != nil || i.Fingerprint == at.want {
			return err == nil, err
		}
	}
	return false, nil
}

// fetch copies what another group gives to its place: all that is done before this
// one has decided, so that it can be done again. The other one then removes what is
// left (left). An object that is another one than the namespace knows is not taken:
// its own group learns of it first.
func (e *Executor) fetch(ctx context.Context, store ufs.FS, in *command.Intent) (outcome, error) {
	info, err := copyObject(ctx, store, in.Source, in.Target, in.Want, "receive"+strconv.FormatUint(in.Id, 16))
	switch orca.KindOf(err) {
	case orca.OK:
		return outcome{fingerprint: info.Fingerprint}, nil
	case orca.Stale, orca.NotFound:
	default:
		return outcome{}, err
	}
	out, done, serr := e.fetched(ctx, store, in)
	if done || serr != nil {
		return out, serr
	}
	return outcome{}, &Refused{Changed: true, Err: &orca.Error{Op: "ufsexec.fetch", Path: in.Source, Kind: orca.Stale,
		Msg: "its object has just been changed in the store", Err: err}}
}

// fetched reports whether an earlier attempt has made the copy: an object of the
// file's length that was not there before. Its fingerprint may be another one than
// the source's.
func (e *Executor) fetched(ctx context.Context, store ufs.FS, in *command.Intent) (out outcome, done bool, err error) {
	i, err := store.Stat(ctx, in.Target)
	if err != nil || i.Dir {
		return outcome{}, false, absent(err)
	}
	length, err := e.lengthOf(in)
	done = i.Fingerprint == in.Want || i.Fingerprint != in.Have && i.Size == length
	return outcome{fingerprint: i.Fingerprint}, done && err == nil, err
}

// lengthOf is the length of the file that the store moves for a transfer: of the one
// that comes or, where only that is in the store, of the one that goes for it.
func (e *Executor) lengthOf(in *command.Intent) (int64, error) {
	const op = "ufsexec.lengthOf"
	t := in.Command.GetTransfer()
	d, err := inode.DecodeDentry(t.GetFile())
	if err != nil || d.File == nil {
		return 0, orca.PathE(op, in.Source, orca.Corrupt, err)
	}
	if !t.GetExchange() || d.File.Fingerprint != "" {
		return d.File.Length, nil
	}
	w, err := e.group.Machine().Walk(orca.Caller{}, orca.Ino(t.Dst.GetIno()), t.Dst.GetPath())
	if err != nil {
		return 0, err
	}
	if !w.Found {
		return 0, orca.PathE(op, in.Source, orca.NotFound, nil)
	}
	return w.Attr.Length, nil
}

// untouched reports whether the target of a copy is what it was before.
func untouched(ctx context.Context, store ufs.FS, in *command.Intent) bool {
	i, err := store.Stat(ctx, in.Target)
	if orca.KindOf(err) == orca.NotFound {
		return in.Have == ""
	}
	return err == nil && i.Fingerprint == in.Have && in.Have != in.Want
}

// left removes an object that was copied to another group's key, unless it is
// somebody's new one.
func (e *Executor) left(ctx context.Context, store ufs.FS, in *command.Intent) error {
	i, err := store.Stat(ctx, in.Source)
	if orca.KindOf(err) == orca.NotFound { // by an attempt whose answer was lost
		e.sync.Removed(in.MountId, in.Source)
		return nil
	}
	keep := e.spareOf(in)
	if err != nil || i.Dir || i.Fingerprint != in.Want || keep.spares(&i) {
		return absent(err)
	}
	err = ufs.RemoveIf(ctx, store, in.Source, in.Want)
	switch orca.KindOf(err) {
	case orca.OK, orca.NotFound:
		e.sync.Removed(in.MountId, in.Source)
		return nil
	case orca.Stale:
		return nil
	}
	return err
}

// learnMoved has a group look at a file that does not go to another one because its
// object has changed. If that fails, whoever asks for the file's data is told so, and
// has it looked at.
func (e *Executor) learnMoved(ctx context.Context, in *command.Intent) {
	at, key := in.Command.GetRename().GetSrc(), in.Source
	if in.Op == metapb.IntentOp_INTENT_RECEIVE && in.Want == "" { // the store would have moved this group's
		at, key = in.Command.GetTransfer().GetDst(), in.Target
	} else if in.Op != metapb.IntentOp_INTENT_TRANSFER || in.Want == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.sync.Name(ctx, ufssync.Place{Mount: in.MountId, Key: key, Dir: orca.Ino(at.GetIno()), Name: at.GetPath()})
	if err != nil {
		e.log.Debug("an object that has changed was not looked at", "key", key, "err", err)
	}
}
