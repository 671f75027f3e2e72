// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// outcome is what a UFS call came to.
type outcome struct {
	fingerprint string // of the file concerned, where it is new
	mtime       int64
	vanished    bool               // what was to be kept in the trash was not there
	early       bool               // of a directory that another group has not been asked to take
	back        *metapb.TransferOp // what comes back from another group
}

// decide makes the call of an undecided intent until its outcome is known, and
// proposes it.
func (e *Executor) decide(r *run, in *command.Intent) (*command.Result, error) {
	made := directories{any: r.reign.inherited[in.Id] || e.orphan(in)}
	for attempt := 0; ; attempt++ {
		is, err := e.group.Machine().Intent(in.Id)
		if err != nil {
			return nil, ErrDecided
		}
		r.attempts.Add(1)
		if _, restored := e.group.Machine().RestoredIntent(in.Id); restored {
			// Nobody waits for it, and the names below may mean something else
			// by now: what the store has is found out when it is listed.
			return e.propose(r, in, outcome{early: is.Copying}, orca.E("ufsexec.decide", orca.Canceled, "it was not decided when the backup was taken that this namespace comes from"))
		}
		out, err := e.perform(r.reign.ctx, in, attempt > 0 || r.reign.inherited[in.Id] || e.orphan(in), &made)
		final := err == nil || refused(orca.KindOf(err)) || e.hopeless(r.reign.ctx, in, err, attempt)
		var no *Refused
		switch {
		case errors.As(err, &no):
			final, err = true, no.Err
		case in.Op == metapb.IntentOp_INTENT_TRANSFER:
			final = err == nil
		}
		if final && err != nil && (in.Op == metapb.IntentOp_INTENT_MKDIR || in.Op == metapb.IntentOp_INTENT_PUT_EMPTY) {
			if uerr := e.unmake(r.reign.ctx, in, &made); uerr != nil {
				final, err = false, uerr
			}
		}
		if !final {
			if !e.again(r, err, attempt) {
				return nil, &orca.Error{Op: "ufsexec.decide", Path: cmp.Or(in.Target, in.Source), Kind: orca.Unavailable, Msg: "shutting down before the store had answered", Err: err}
			}
			continue
		}
		res, err := e.propose(r, in, out, err)
		switch {
		case in.Op == metapb.IntentOp_INTENT_EXCHANGE, trades(in):
			e.forgetExchange(r.reign.ctx, in)
		case no != nil && no.Changed:
			e.learnMoved(r.reign.ctx, in)
		}
		return res, err
	}
}

// propose commits or aborts the intent; the result is the operation's.
func (e *Executor) propose(r *run, in *command.Intent, out outcome, cause error) (*command.Result, error) {
	d := &metapb.DecideOp{Intent: in.Id, Fingerprint: out.fingerprint, Mtime: out.mtime, Vanished: out.vanished, Early: out.early, Back: out.back}
	if cause != nil {
		d.Kind, d.Msg = uint32(orca.KindOf(cause)), cause.Error()
	}
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(r.reign.ctx, e.cfg.CallTimeout)
		res, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(), Decide: d})
		cancel()
		switch {
		case err == nil:
			e.Stats.Committed.Add(1)
			return res, nil
		case res == nil && orca.KindOf(err).Retryable() && e.again(r, err, attempt):
			continue
		case attempt > 0 && orca.KindOf(err) == orca.NotFound:
			// An earlier attempt, whose answer was lost, has decided: the
			// result is remembered with the operation's request.
			return nil, ErrDecided
		case res == nil && r.reign.ctx.Err() != nil:
			return nil, &orca.Error{Op: "ufsexec.decide", Path: cmp.Or(in.Target, in.Source), Kind: orca.Unavailable, Msg: "this member does not lead any more", Err: err}
		}
		e.Stats.Aborted.Add(1)
		if cause != nil && orca.KindOf(err) == orca.KindOf(cause) {
			err = cause // the store's own words
		}
		return res, err
	}
}

// orphan reports whether the intent may have been worked on by an earlier life
// of this node, or by another leader.
func (e *Executor) orphan(in *command.Intent) bool {
	return in.Created <= e.begun || e.cfg.Now().UnixNano()-in.Created > int64(time.Second)
}

// hopelessAfter is how many failures without a kind of their own are enough to
// look whether the call had an effect.
const hopelessAfter = 4

// hopeless reports whether a call that keeps failing in a way without a name
// has had no effect, as far as the store can say: then the caller gets the
// failure.
func (e *Executor) hopeless(ctx context.Context, in *command.Intent, err error, attempt int) bool {
	k := orca.KindOf(err)
	if attempt < hopelessAfter || (k != orca.UFSFailure && k != orca.Internal) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	store, oerr := e.stores.FS(ctx, in.MountId)
	if oerr != nil {
		return false
	}
	switch in.Op {
	case metapb.IntentOp_INTENT_EXCHANGE, metapb.IntentOp_INTENT_TRANSFER:
		return false // only a repetition can tell
	case metapb.IntentOp_INTENT_RECEIVE:
		store, in, oerr = e.receiving(ctx, in)
		if oerr != nil || trades(in) {
			return false
		}
		if !store.Caps().AtomicRename {
			return untouched(ctx, store, in)
		}
		_, serr := store.Stat(ctx, in.Source)
		return serr == nil
	case metapb.IntentOp_INTENT_MKDIR:
		_, serr := store.Stat(ctx, in.Target)
		return orca.KindOf(serr) == orca.NotFound
	case metapb.IntentOp_INTENT_REMOVE, metapb.IntentOp_INTENT_RENAME:
		_, serr := store.Stat(ctx, in.Source)
		return serr == nil
	case metapb.IntentOp_INTENT_PUT_EMPTY:
		_, serr := store.Stat(ctx, in.Target)
		return orca.KindOf(serr) == orca.NotFound
	}
	return true
}

// perform makes the UFS call of an intent, once. redo says that it may have
// been made before.
func (e *Executor) perform(ctx context.Context, in *command.Intent, redo bool, made *directories) (outcome, error) {
	if in.Op == metapb.IntentOp_INTENT_TRANSFER {
		return e.transfer(ctx, in) // which bounds what it asks for: a directory may take long to be brought
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	if in.Op == metapb.IntentOp_INTENT_RECEIVE {
		return e.receive(ctx, in, redo)
	}
	store, err := e.stores.FS(ctx, in.MountId)
	if err != nil {
		return outcome{}, err
	}
	switch in.Op {
	case metapb.IntentOp_INTENT_MKDIR:
		return outcome{}, mkdir(ctx, store, in, made)
	case metapb.IntentOp_INTENT_REMOVE:
		if err := e.removing(ctx, store, in); err != nil {
			return outcome{}, err
		}
		return outcome{}, e.remove(ctx, store, in, redo)
	case metapb.IntentOp_INTENT_RENAME:
		if err := parentsFor(ctx, store, in); err != nil {
			return outcome{}, err
		}
		out, err := rename(ctx, store, in, redo)
		if k := orca.KindOf(err); in.Command.GetDelete() != nil && (k == orca.NotFound || k == orca.NotDir) {
			return outcome{vanished: true}, nil
		}
		return out, err
	case metapb.IntentOp_INTENT_EXCHANGE:
		return outcome{}, exchange(ctx, store, in)
	case metapb.IntentOp_INTENT_SETATTR:
		return e.setAttr(ctx, store, in)
	case metapb.IntentOp_INTENT_PUT_EMPTY:
		return putEmpty(ctx, store, in, redo, made)
	}
	return outcome{}, orca.E("ufsexec.perform", orca.Unsupported, "unknown intent "+in.Op.String())
}

// removing goes before what removes anything for an intent.
func (e *Executor) removing(ctx context.Context, store ufs.FS, in *command.Intent) error {
	if store.Caps().Directories {
		return nil // its listings are never late
	}
	return e.sync.Removing(ctx, in.MountId)
}

// remove deletes one object or empty directory. What is gone is done; what
// has another fingerprint on a redo is somebody else's new object.
func (e *Executor) remove(ctx context.Context, store ufs.FS, in *command.Intent, redo bool) error {
	if redo && in.Want != "" {
		i, err := store.Stat(ctx, in.Source)
		switch {
		case orca.KindOf(err) == orca.NotFound: // by an attempt whose answer was lost
			e.sync.Removed(in.MountId, in.Source)
			return nil
		case err == nil && i.Fingerprint != in.Want:
			return nil
		}
	}
	err := store.Remove(ctx, in.Source)
	if k := orca.KindOf(err); k == orca.NotFound || k == orca.NotDir {
		err = nil
	}
	if err == nil {
		e.sync.Removed(in.MountId, in.Source)
	}
	return err
}

// rename moves one file or directory in one call. A source that is gone, with
// its fingerprint at the target, is done.
func rename(ctx context.Context, store ufs.FS, in *command.Intent, redo bool) (outcome, error) {
	const op = "ufsexec.rename"
	r, ok := store.(ufs.Renamer)
	if !ok {
		return outcome{}, orca.E(op, orca.Unsupported, "the store cannot rename")
	}
	if redo {
		if out, done, err := renamed(ctx, store, in); done || err != nil {
			return out, err
		}
	}
	err := r.Rename(ctx, in.Source, in.Target)
	if orca.KindOf(err) == orca.NotFound {
		if out, done, serr := renamed(ctx, store, in); done || serr != nil {
			return out, serr
		}
	}
	// The fingerprint goes with the object. Another one would be that of what
	// somebody has put at the source behind us: of it the namespace knows
	// neither the length nor anything else, and learns when it is read.
	return outcome{}, err
}

// renamed looks whether a rename has happened: the source is not there (or is
// another object by now), and the target is what the source was.
func renamed(ctx context.Context, store ufs.FS, in *command.Intent) (out outcome, done bool, err error) {
	src, err := store.Stat(ctx, in.Source)
	gone := orca.KindOf(err) == orca.NotFound || orca.KindOf(err) == orca.NotDir
	if err != nil && !gone {
		return outcome{}, false, err
	}
	if !gone && (in.Dir || in.Want == "" || src.Fingerprint == in.Want) {
		return outcome{}, false, nil
	}
	dst, err := store.Stat(ctx, in.Target)
	if orca.KindOf(err) == orca.NotFound {
		return outcome{}, false, nil
	}
	if err != nil || dst.Dir != in.Dir {
		return outcome{}, false, err
	}
	if !in.Dir && in.Want != "" && dst.Fingerprint != in.Want {
		return outcome{}, false, nil
	}
	return outcome{fingerprint: dst.Fingerprint}, true, nil
}

// setAttr changes mode, owner and times where the store keeps them.
func (e *Executor) setAttr(ctx context.Context, store ufs.FS, in *command.Intent) (outcome, error) {
	const op = "ufsexec.setAttr"
	o, ok := store.(ufs.Owner)
	c := in.Command.GetSetAttr()
	if !ok || c == nil {
		return outcome{}, orca.E(op, orca.Unsupported, "the store keeps no owners")
	}
	before, err := store.Stat(ctx, in.Source)
	if err != nil {
		return outcome{}, err
	}
	has := func(b metapb.SetAttrMask) bool { return c.Mask&uint32(b) != 0 }
	if has(metapb.SetAttrMask_SET_UID) || has(metapb.SetAttrMask_SET_GID) {
		uid, gid := before.UID, before.GID
		if has(metapb.SetAttrMask_SET_UID) {
			uid = c.Uid
		}
		if has(metapb.SetAttrMask_SET_GID) {
			gid = c.Gid
		}
		if err := o.Chown(ctx, in.Source, uid, gid); err != nil {
			return outcome{}, err
		}
	}
	if has(metapb.SetAttrMask_SET_MODE) { // after chown, which drops setuid
		if err := o.Chmod(ctx, in.Source, c.Mode); err != nil {
			return outcome{}, err
		}
	}
	if has(metapb.SetAttrMask_SET_MTIME) || has(metapb.SetAttrMask_SET_ATIME) {
		mtime := before.Mtime
		if has(metapb.SetAttrMask_SET_MTIME) {
			mtime = time.Unix(0, c.Mtime)
		}
		atime := mtime
		if has(metapb.SetAttrMask_SET_ATIME) {
			atime = time.Unix(0, c.Atime)
		}
		if err := o.Utimens(ctx, in.Source, atime, mtime); err != nil {
			return outcome{}, err
		}
	}
	if in.Dir {
		return outcome{}, nil
	}
	return e.refreshed(ctx, store, in, before, c)
}

// refreshed returns the fingerprint that the object has after a change of its
// attributes, if it was the namespace's object before. Another one keeps its
// own until a sync meets it.
func (e *Executor) refreshed(ctx context.Context, store ufs.FS, in *command.Intent, before ufs.Info, c *metapb.SetAttrOp) (outcome, error) {
	after, err := store.Stat(ctx, in.Source)
	if err != nil {
		return outcome{}, err
	}
	v, err := e.group.Machine().Lookup(orca.Ino(in.Ino))
	if err != nil {
		return outcome{}, nil // decide says what is wrong
	}
	ours := before.Fingerprint == v.Attr.Fingerprint
	if c.Mask&uint32(metapb.SetAttrMask_SET_MTIME) != 0 { // an earlier attempt may have set it
		ours = ours || before.Size == v.Attr.Length && before.Mtime.UnixNano() == c.Mtime
	}
	// What somebody has put there meanwhile is not what was changed.
	ours = ours && after.Size == before.Size &&
		(c.Mask&uint32(metapb.SetAttrMask_SET_MTIME) != 0 || after.Mtime.Equal(before.Mtime))
	if !ours || after.Fingerprint == v.Attr.Fingerprint {
		return outcome{}, nil
	}
	return outcome{fingerprint: after.Fingerprint, mtime: after.Mtime.UnixNano()}, nil
}

// putEmpty makes an empty object. The directories above that are new it makes
// itself: those that the store made for an upload could not be told from others
// after a lost answer.
func putEmpty(ctx context.Context, store ufs.FS, in *command.Intent, redo bool, made *directories) (outcome, error) {
	if store.Caps().Directories {
		if err := mkdir(ctx, store, in, made); err != nil {
			return outcome{}, err
		}
	}
	token := "intent" + strconv.FormatUint(in.Id, 16)
	if redo {
		if err := store.Sweep(ctx, in.Target, token); err != nil {
			return outcome{}, err
		}
	}
	w, err := store.Create(ctx, in.Target, token)
	if err != nil {
		return outcome{}, err
	}
	if h, ok := w.(ufs.Hinted); ok {
		c := in.Command.GetCreate()
		h.Hint(ufs.WriteHint{Owned: c != nil, Mode: c.GetMode(), UID: in.Command.GetCaller().GetUid(), GID: in.Command.GetCaller().GetGid()})
	}
	i, err := w.Commit(ctx)
	if err != nil {
		_ = w.Abort(context.WithoutCancel(ctx)) // a sweep finds what is left
		return outcome{}, err
	}
	return outcome{fingerprint: i.Fingerprint, mtime: i.Mtime.UnixNano()}, nil
}
