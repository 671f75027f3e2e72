// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufssync

import (
	"context"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Path resolves a path as fsm.Walk does, after bringing what it names up to
// date as the option says. A missing name is not an error (see fsm.Walked).
func (s *Syncer) Path(ctx context.Context, c orca.Caller, from orca.Ino, path string, o Option) (*fsm.Walked, error) {
	w, _, err := s.find(ctx, c, from, path, o)
	if err == nil && !w.Found && undetermined(w) {
		return nil, &orca.Error{Op: "ufssync.Path", Path: path, Kind: orca.Busy, Msg: "its directory is being changed in the UFS"}
	}
	if err != nil || !w.Found {
		return w, err
	}
	if asked, err := s.refresh(ctx, &w.View, o); err != nil || !asked {
		return w, err
	}
	return s.group.Machine().Walk(c, from, path)
}

// Here is Path for a member that does not lead: it has the namespace, but not
// what the leader remembers of the stores, and asks none. false: it takes a look
// at a store to tell, or what was seen of one.
func (s *Syncer) Here(c orca.Caller, from orca.Ino, path string, o Option) (w *fsm.Walked, ok bool, err error) {
	w, err = s.group.Machine().Walk(c, from, path)
	switch {
	case err != nil:
		return nil, true, err
	case w.Found:
		return w, o.IntervalOf(&w.View) < 0 || !answerable(&w.View), nil
	}
	d := &w.Dir
	ok = w.Mount == nil || d.Attr.MountId == 0 || ufs.IsTemp(w.Rest[0]) || d.Loaded && o.IntervalOf(d) < 0
	return w, ok, nil
}

// DirHere reports whether Dir would not look at the store, whatever it remembers.
func (s *Syncer) DirHere(v *fsm.View, o Option) bool {
	if v.Attr.MountId == 0 || v.Attr.Type != uint32(orca.TypeDir) {
		return true
	}
	return v.Loaded && !o.Force && o.IntervalOf(v) < 0
}

// Known is Path for a mutation of what a path names, which it brings up to
// date. When the first name that is missing is missing in the UFS, too, or the
// store does not say, absent is that name: the namespace may rely on it, until
// Orca itself makes the name.
func (s *Syncer) Known(ctx context.Context, c orca.Caller, from orca.Ino, path string) (absent *metapb.AbsentName, err error) {
	w, asked, err := s.find(ctx, c, from, path, Option{})
	switch k := orca.KindOf(err); {
	case err == nil && w.Found:
		_, err = s.refresh(ctx, &w.View, Option{})
		return nil, err
	case w == nil || w.Found || err != nil && k != orca.Permission && k != orca.NameTooLong && k != orca.Invalid:
		return nil, err
	case err == nil && !asked:
		return nil, nil
	}
	return &metapb.AbsentName{Dir: w.Dir.Attr.Ino, Name: w.Rest[0]}, err
}

// findTries bounds how often a walk that comes no further asks: somebody is
// changing what is there.
const findTries = 4

// find resolves a path, and asks the UFS for the names that are missing in
// directories that it may be missing in; absent says that the first missing
// name of the answer was asked for, and is not there. With an error of the
// store the walk says for which name. Busy: the directories on the way move so
// fast that no answer of the store was about the one that they lead to.
func (s *Syncer) find(ctx context.Context, c orca.Caller, from orca.Ino, path string, o Option) (w *fsm.Walked, absent bool, err error) {
	m := s.group.Machine()
	w, err = m.Walk(c, from, path)
	var useless bool // the store has the name, and the namespace did not take it
	for tries := 0; err == nil && !w.Found; {
		switch s.judge(w, o) {
		case settled:
			return w, false, nil
		case believed:
			return w, true, nil
		}
		if tries >= findTries {
			if useless {
				return w, false, nil
			}
			return w, false, &orca.Error{Op: "ufssync.find", Path: path, Kind: orca.Busy, Msg: "the directories above it are being moved"}
		}
		found, aerr := s.ask(ctx, &w.Dir, w.Rest[0])
		moved := aerr == errMoved //nolint:errorlint // this very error, not its kind
		if aerr != nil && !moved {
			return w, false, aerr
		}
		// The answer is about this directory: the path may lead to another one
		// by now, in which the name was not asked for.
		asked, rest := childKey{orca.Ino(w.Dir.Attr.Ino), w.Rest[0]}, len(w.Rest)
		if w, err = m.Walk(c, from, path); err != nil || w.Found {
			break
		}
		same := asked == childKey{orca.Ino(w.Dir.Attr.Ino), w.Rest[0]}
		useless = same && !moved
		switch {
		case useless && (!found || w.Held != 0):
			return w, !found, nil
		case same || len(w.Rest) >= rest:
			tries++
		}
	}
	return w, false, err
}

// Quick is Path for what memory alone can answer at once, without waiting and
// without a question to the UFS; false says nothing, not even that it is not
// there.
func (s *Syncer) Quick(c *orca.Caller, from orca.Ino, path string, o Option, a *metapb.Attr) (fsm.View, bool) {
	v, ok := s.group.Machine().Quick(c, from, path, a)
	if !ok {
		return v, false
	}
	interval := o.IntervalOf(&v)
	if interval >= 0 && answerable(&v) && s.due(s.checked.get(orca.Ino(v.Attr.Ino)), interval) {
		return v, false
	}
	return v, true
}

// undetermined reports whether a missing name may be in the UFS for all that is
// known: its directory was not listed yet, and an undecided mutation of the
// directory itself keeps the UFS from being believed.
func undetermined(w *fsm.Walked) bool {
	d := &w.Dir
	return w.Mount != nil && d.Attr.MountId != 0 && !d.Loaded && d.Pending != 0 && !d.Moved && !ufs.IsTemp(w.Rest[0])
}

// verdict is what is known of a missing name.
type verdict uint8

const (
	worthAsking verdict = iota // the UFS may have it without the namespace knowing
	settled                    // the namespace is to be believed
	believed                   // the UFS did not have it a moment ago
)

// judge judges the first missing name of a walk.
func (s *Syncer) judge(w *fsm.Walked, o Option) verdict {
	d := &w.Dir
	switch {
	case w.Mount == nil || d.Attr.MountId == 0:
		return settled
	case ufs.IsTemp(w.Rest[0]):
		return believed // such names are Orca's own, and in no namespace
	}
	interval := o.IntervalOf(d)
	if interval < 0 && d.Loaded {
		return settled
	}
	if w.Masked != 0 {
		return settled // what the UFS says is not what the namespace means
	}
	missed := s.negative.get(childKey{orca.Ino(d.Attr.Ino), w.Rest[0]})
	if missed == 0 || interval == 0 {
		return worthAsking
	}
	if interval < 0 {
		interval = s.cfg.NegativeTTL
	}
	if s.due(missed, interval) {
		return worthAsking
	}
	return believed
}

// ask looks for one name of a directory in the UFS and imports it.
func (s *Syncer) ask(ctx context.Context, d *fsm.View, name string) (found bool, err error) {
	dir := orca.Ino(d.Attr.Ino)
	var intent uint64
	if d.Moved {
		intent = d.Pending
	}
	change := s.group.Machine().Applied()
	found, _, err = s.one(ctx, question{Place: Place{Mount: d.Attr.MountId, Key: joinKey(d.Key, name), Dir: dir, Name: name, Intent: intent}})
	if err != nil || found {
		return found, err
	}
	// That nothing is there is true of a directory that was at its key all the
	// time, which one that is just being moved need not be.
	if s.group.Machine().Moved(dir, change, intent) {
		return false, errMoved
	}
	s.negative.set(childKey{dir, name}, s.cfg.Now().UnixNano())
	if !d.Loaded && s.misses.count(dir) >= int64(s.cfg.LoadAfter) {
		s.loadBehind(dir)
	}
	return false, nil
}

// refresh compares an existing inode with its key when that is due. Once the
// UFS was asked, v is old: the answer, or somebody else's that came first, may
// have changed it.
func (s *Syncer) refresh(ctx context.Context, v *fsm.View, o Option) (asked bool, err error) {
	interval := o.IntervalOf(v)
	ino := orca.Ino(v.Attr.Ino)
	if interval < 0 || !answerable(v) || !s.due(s.checked.get(ino), interval) {
		return false, nil
	}
	_, err = s.compare(ctx, v)
	return true, err
}

// answerable reports whether the UFS has a say about an inode now.
func answerable(v *fsm.View) bool {
	if v.Attr.MountId == 0 || v.Key == "" || v.Moved || v.Pending != 0 || v.Fresh {
		return false
	}
	return v.InUFS || v.Attr.Type == uint32(orca.TypeDir)
}

// compare asks the UFS about an existing inode and applies what it says.
func (s *Syncer) compare(ctx context.Context, v *fsm.View) (changed bool, err error) {
	if v.Alias { // the content is looked at where it is
		if v, err = s.group.Machine().Lookup(orca.Ino(v.Attr.Ino)); err != nil || !answerable(v) {
			return false, err
		}
	}
	_, changed, err = s.one(ctx, question{Place: Place{Mount: v.Attr.MountId, Key: v.Key, Dir: v.Parent, Name: v.Name}, have: v})
	if err == nil {
		s.checked.set(orca.Ino(v.Attr.Ino), s.cfg.Now().UnixNano())
	}
	return changed, err
}

// File compares a file or directory with its UFS now, whatever the interval: a
// worker met other content than the namespace promised.
func (s *Syncer) File(ctx context.Context, ino orca.Ino) error {
	v, err := s.group.Machine().Lookup(ino)
	if err != nil {
		return err
	}
	if !answerable(v) {
		return nil
	}
	_, err = s.compare(ctx, v)
	return err
}

// Place is one name of a directory, and the key that stands for it.
type Place struct {
	Mount uint32
	Key   string
	Dir   orca.Ino
	Name  string
	// Intent exempts the masks of one intent, Session the hold of one ended
	// session; 0: none.
	Intent, Session uint64
	// Pinned: an intent of the caller keeps the key from being anybody else's,
	// although it may not be the one that the place has otherwise.
	Pinned bool
	// Must: an object that the namespace has no use for at the moment, because
	// another writer has the name, say, is Busy.
	Must bool
}

// Name asks the UFS about one name, whatever is known of it, and applies the
// answer.
func (s *Syncer) Name(ctx context.Context, p Place) (found bool, err error) {
	found, _, err = s.one(ctx, question{Place: p})
	return found, err
}

// question is about one key of a UFS and the name that stands for it.
type question struct {
	Place
	have *fsm.View // what the namespace has; nil: nothing, or unknown
}

// one stats one key and applies the answer.
func (s *Syncer) one(ctx context.Context, q question) (found, changed bool, err error) {
	store, err := s.stores.FS(ctx, q.Mount)
	if err != nil {
		return false, false, err
	}
	for range maxDepth {
		res, ok, err := s.once(ctx, store, q)
		if err != nil {
			return false, changed, err
		}
		found, changed = ok, changed || touched(res)
		emptied, err := s.empty(ctx, q.Dir, res.NotEmpty)
		if err != nil || !emptied {
			return found, changed, err
		}
		changed = true
	}
	return found, changed, nil
}

// once asks one question and proposes what follows from the answer.
func (s *Syncer) once(ctx context.Context, store ufs.FS, q question) (res *metapb.SyncResult, found bool, err error) {
	none := &metapb.SyncResult{}
	change := s.group.Machine().Applied()
	switch d, err := s.group.Machine().Lookup(q.Dir); {
	case orca.KindOf(err) == orca.NotFound && q.Session == 0:
		return nil, false, errMoved
	case err != nil:
		return nil, false, err
	case q.Pinned || joinKey(d.Key, q.Name) == q.Key:
	case q.Session != 0:
		return none, false, nil // what the session left went with the directory
	default:
		return nil, false, errMoved
	}
	s.Stats.Stats.Add(1)
	info, err := store.Stat(ctx, q.Key)
	op := &metapb.SyncApplyOp{Dir: uint64(q.Dir), Change: change, Intent: q.Intent, Session: q.Session}
	owners := store.Caps().Owners
	switch {
	case err == nil:
		if q.have != nil && same(q.have, info, owners) {
			return none, true, nil
		}
		op.Entries = []*metapb.SyncEntry{entry(q.Name, info, owners)}
	case orca.KindOf(err) == orca.NotFound || orca.KindOf(err) == orca.NotDir:
		if q.have == nil {
			if _, err := s.childOf(q.Dir, q.Name); err != nil {
				return none, false, nil // nothing on either side
			}
		}
		op.Missing = []string{q.Name}
	default:
		s.Stats.Failures.Add(1)
		return nil, false, err
	}
	res, err = s.propose(ctx, op)
	if err == nil && q.Must && len(op.Entries) > 0 && res.Skipped > 0 {
		err = &orca.Error{Op: "ufssync.Name", Path: q.Key, Kind: orca.Busy, Msg: "what a dead writer left could not be taken up yet"}
	}
	return res, len(op.Entries) > 0, err
}

// empty lists vanished directories that still have entries, so that they can
// be removed; false when nothing could be taken out of them: what is left is
// ours alone.
func (s *Syncer) empty(ctx context.Context, dir orca.Ino, names []string) (progress bool, err error) {
	for _, name := range names {
		v, err := s.childOf(dir, name)
		if err != nil {
			continue // somebody else removed it
		}
		r, err := s.list(ctx, orca.Ino(v.Attr.Ino))
		if err != nil {
			return progress, err
		}
		progress = progress || r.Removed > 0
	}
	return progress, nil
}

func touched(r *metapb.SyncResult) bool { return r.Created+r.Changed+r.Removed > 0 }

// maxDepth bounds repetitions over vanished trees; deeper ones take another
// sync.
const maxDepth = 256

func (s *Syncer) childOf(dir orca.Ino, name string) (*fsm.View, error) {
	w, err := s.group.Machine().Walk(orca.Caller{}, dir, name)
	if err != nil {
		return nil, err
	}
	if !w.Found {
		return nil, orca.E("ufssync.childOf", orca.NotFound, "no such name")
	}
	return &w.View, nil
}

func joinKey(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
