// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"slices"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// directories are those that the calls of one intent have made, or may have.
type directories struct {
	any  bool // who led before may have made any
	keys map[string]bool
}

// note takes note of what a call that makes a directory came to. One that was
// there when it was first asked for is somebody else's.
func (d *directories) note(key string, err error) {
	if d.keys == nil {
		d.keys = map[string]bool{}
	}
	if k := orca.KindOf(err); k == orca.Exists {
		d.keys[key] = d.keys[key] || d.any
	} else if err == nil || !refused(k) {
		d.keys[key] = true
	}
}

// newKeys are the keys of the directories that an intent makes, the topmost
// first: of a new file those above it.
func newKeys(in *command.Intent) []string {
	parts := strings.Split(in.Target, "/")
	first, last := max(len(parts)-max(int(in.Mkdirs), 1)+1, 1), len(parts)
	if in.Op == metapb.IntentOp_INTENT_PUT_EMPTY { // one of the inodes is the file
		first, last = max(len(parts)-int(in.HoldInodes)+1, 1), len(parts)-1
	}
	var keys []string
	for n := first; n <= last; n++ {
		keys = append(keys, strings.Join(parts[:n], "/"))
	}
	return keys
}

// mkdir makes the directories that an intent makes. One that exists already is
// done if it is a directory.
func mkdir(ctx context.Context, store ufs.FS, in *command.Intent, made *directories) error {
	mode := uint32(0o755)
	if c := in.Command.GetMkdir(); c != nil {
		mode = c.Mode
	} else if c := in.Command.GetCreate(); c != nil && c.ParentMode != 0 {
		mode = c.ParentMode
	}
	for _, key := range newKeys(in) {
		err := store.Mkdir(ctx, key, mode)
		made.note(key, err)
		switch orca.KindOf(err) {
		case orca.OK:
			if err := own(ctx, store, key, in.Command.GetCaller()); err != nil {
				return err
			}
		case orca.Exists:
			i, serr := store.Stat(ctx, key)
			if serr != nil {
				return serr
			}
			switch {
			case i.Dir:
			case key != in.Target:
				return orca.PathE("ufsexec.mkdir", key, orca.NotDir, err)
			default:
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// own gives a new directory to the caller where the store keeps owners. A
// process that is not root cannot, and leaves it its own.
func own(ctx context.Context, store ufs.FS, key string, c *metapb.Caller) error {
	o, ok := store.(ufs.Owner)
	if !ok || !store.Caps().Owners || c == nil {
		return nil
	}
	err := o.Chown(ctx, key, c.Uid, c.Gid)
	if k := orca.KindOf(err); k == orca.Permission || k == orca.Unsupported {
		return nil
	}
	return err
}

// unmake removes again what an intent made before it was refused: the namespace
// has none of it, and who removes the directory above would be told that it is
// not empty. What somebody else uses meanwhile stays, and the next sync shows it.
func (e *Executor) unmake(ctx context.Context, in *command.Intent, made *directories) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	store, err := e.stores.FS(ctx, in.MountId)
	if err != nil {
		return err
	}
	keys := newKeys(in)
	for n, key := range slices.Backward(keys) {
		if !made.keys[key] {
			continue
		}
		if e.inUse(in, n+1) {
			return nil
		}
		i, err := store.Stat(ctx, key)
		switch k := orca.KindOf(err); {
		case k == orca.NotFound || k == orca.NotDir:
			continue
		case err != nil:
			return err
		case !i.Dir:
			return nil
		}
		if err := e.removing(ctx, store, in); err != nil {
			return err
		}
		switch err := store.Remove(ctx, key); orca.KindOf(err) {
		case orca.OK, orca.NotFound:
			e.sync.Removed(in.MountId, key)
		case orca.NotEmpty:
			return nil
		default:
			return err
		}
	}
	return nil
}

// inUse reports whether the namespace has come to know the first n names of what
// a create makes: another create below them may pass it, as a mkdir may not.
func (e *Executor) inUse(in *command.Intent, n int) bool {
	c := in.Command.GetCreate()
	if c == nil {
		return false
	}
	names := strings.Split(c.Target.GetPath(), "/")
	w, err := e.group.Machine().Walk(orca.Caller{}, orca.Ino(c.Target.GetIno()), strings.Join(names[:min(n, len(names))], "/"))
	return err != nil && orca.KindOf(err) != orca.NotFound || err == nil && w.Found
}
