// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufssync

import (
	"context"
	"slices"
	"strings"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Dir lists a directory from its UFS when that is due: never listed before,
// forced, or its interval is over. Concurrent calls share one listing, but
// never one that began before the call when each access must look.
func (s *Syncer) Dir(ctx context.Context, v *fsm.View, o Option) (*metapb.SyncResult, error) {
	none := &metapb.SyncResult{}
	dir := orca.Ino(v.Attr.Ino)
	if v.Attr.MountId == 0 || v.Attr.Type != uint32(orca.TypeDir) {
		return none, nil
	}
	interval := o.IntervalOf(v)
	last := s.listed.get(dir)
	if last == 0 {
		last = v.LoadedAt
	}
	if !o.Force && v.Loaded && !s.due(last, interval) {
		return none, nil
	}
	if s.masked(v) {
		return none, nil // the UFS is behind: an intent is being drained into it
	}
	return s.share(ctx, dir, interval >= 0 || o.Force)
}

// masked reports whether a listing of the directory would say nothing: it is
// itself the subject of an intent, and not merely read through an override.
func (s *Syncer) masked(v *fsm.View) bool { return v.Pending != 0 && !v.Moved && v.Loaded }

// Tree lists a directory and all below it, or compares a file.
func (s *Syncer) Tree(ctx context.Context, ino orca.Ino, recursive bool) (*metapb.SyncResult, error) {
	total := &metapb.SyncResult{}
	v, err := s.group.Machine().Lookup(ino)
	if err != nil {
		return nil, err
	}
	if v.Attr.Type != uint32(orca.TypeDir) {
		if answerable(v) {
			changed, err := s.compare(ctx, v)
			if err != nil {
				return nil, err
			}
			if changed {
				total.Changed++
			}
		}
		return total, nil
	}
	err = s.tree(ctx, v, recursive, 0, total)
	return total, err
}

func (s *Syncer) tree(ctx context.Context, v *fsm.View, recursive bool, depth int, total *metapb.SyncResult) error {
	dir := orca.Ino(v.Attr.Ino)
	r, err := s.Dir(ctx, v, Option{Force: true})
	if err != nil {
		return err
	}
	add(total, r)
	if !recursive || depth >= orca.MaxPath/2 {
		return nil
	}
	for after, more := "", true; more; {
		var kids []fsm.Child
		kids, more, err = s.group.Machine().Children(orca.Caller{}, dir, after, s.cfg.BatchNames)
		if orca.KindOf(err) == orca.NotFound {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		for i := range kids {
			after = kids[i].Name
			if kids[i].Attr.Type != uint32(orca.TypeDir) || kids[i].Foreign {
				continue
			}
			if err := s.tree(ctx, &kids[i].View, true, depth+1, total); err != nil {
				return err
			}
		}
		more = more && len(kids) > 0
	}
	return nil
}

func add(to, r *metapb.SyncResult) {
	to.Created += r.Created
	to.Changed += r.Changed
	to.Removed += r.Removed
	to.Skipped += r.Skipped
}

// list is one whole comparison of a directory with its UFS.
func (s *Syncer) list(ctx context.Context, dir orca.Ino) (*metapb.SyncResult, error) {
	change := s.group.Machine().Applied() // before the key is looked up
	v, err := s.group.Machine().Lookup(dir)
	if err != nil {
		return nil, err
	}
	store, err := s.stores.FS(ctx, v.Attr.MountId)
	if err != nil {
		return nil, err
	}
	started := s.cfg.Now().UnixNano()
	l := &lister{
		s: s, ctx: ctx, store: store, owners: store.Caps().Owners, dir: v,
		kids: newKids(s.group.Machine(), orca.Ino(v.Attr.Ino), s.cfg.BatchNames),
		op:   &metapb.SyncApplyOp{Dir: v.Attr.Ino, Change: change},
	}
	if v.Moved {
		l.op.Intent = v.Pending
	}
	l.late = !store.Caps().Directories && s.inherits(v.Attr.MountId)
	s.Stats.Lists.Add(1)
	err = store.List(ctx, v.Key, l.visit)
	switch orca.KindOf(err) {
	case orca.OK, orca.NotFound, orca.NotDir:
		if l.failed != nil {
			return &l.total, l.failed
		}
	default:
		s.Stats.Failures.Add(1)
		return &l.total, err
	}
	if err := l.finish(v.Loaded); err != nil {
		return &l.total, err
	}
	s.listed.set(orca.Ino(v.Attr.Ino), started)
	return &l.total, nil
}

// lister merges one UFS listing with the children that the namespace has.
type lister struct {
	s      *Syncer
	ctx    context.Context
	store  ufs.FS
	owners bool
	late   bool // it may show what an earlier coordinator removed
	dir    *fsm.View
	kids   *kids
	op     *metapb.SyncApplyOp
	total  metapb.SyncResult
	failed error // of a proposal, so that it is not taken for the store's
}

// visit takes the next name of the UFS.
func (l *lister) visit(i ufs.Info) error {
	if err := l.step(i); err != nil {
		l.failed = err
		return err
	}
	return nil
}

func (l *lister) step(i ufs.Info) error {
	name := i.Key[strings.LastIndexByte(i.Key, '/')+1:]
	if ufs.IsTemp(i.Key) || orca.CheckName(name) != nil {
		return nil
	}
	for {
		k, err := l.kids.peek()
		if err != nil {
			return err
		}
		if k == nil {
			break
		}
		c := ufs.Compare(ufs.Info{Key: k.Name, Dir: isDir(k)}, ufs.Info{Key: name, Dir: i.Dir})
		if c > 0 {
			break
		}
		l.kids.next()
		if c == 0 {
			if same(&k.View, i, l.owners) {
				return nil
			}
			break
		}
		if err := l.vanished(k); err != nil {
			return err
		}
	}
	switch {
	case i.Dir && !l.store.Caps().Directories && l.doubtful(name):
		there, err := l.implied(&i)
		if err != nil || !there {
			return err
		}
	case l.late || l.s.removedLately(l.dir.Attr.MountId, i.Key):
		if there, err := l.there(i.Key); err != nil || !there {
			return err
		}
	}
	l.op.Entries = append(l.op.Entries, entry(name, i, l.owners))
	return l.flushIfFull()
}

// doubtful reports whether a directory that an object store only implies would
// be new in a directory that was listed before, or take the place of a file.
// MinIO lists an object that is being made or removed as if keys lay below it.
// A first listing takes directories as they come: asking about each would make
// it as slow as the store is far.
func (l *lister) doubtful(name string) bool {
	if l.dir.Loaded || l.late {
		return true
	}
	w, err := l.s.group.Machine().Walk(orca.Caller{}, orca.Ino(l.dir.Attr.Ino), name)
	return err == nil && w.Found && w.Attr.Type != uint32(orca.TypeDir)
}

// implied asks the store what a doubtful directory is, and corrects the
// listing's word: there is false when it is nothing at all.
func (l *lister) implied(i *ufs.Info) (there bool, err error) {
	l.s.Stats.Stats.Add(1)
	in, err := l.store.Stat(l.ctx, i.Key)
	switch orca.KindOf(err) {
	case orca.OK:
		*i = in
		name := in.Key[strings.LastIndexByte(in.Key, '/')+1:]
		l.op.Missing = slices.DeleteFunc(l.op.Missing, func(m string) bool { return m == name })
		return true, nil
	case orca.NotFound, orca.NotDir:
		return false, nil
	}
	l.s.Stats.Failures.Add(1)
	return false, err
}

// vanished takes a name that the UFS did not list where it should be.
func (l *lister) vanished(k *fsm.Child) error {
	if l.dir.Moved || k.Attr.MountPoint || k.Alias || k.Pending != 0 || k.Session != 0 || !removable(k) {
		return nil
	}
	if l.s.cfg.Now().UnixNano()-k.Attr.Ctime < int64(l.s.cfg.Settle) {
		if there, err := l.there(joinKey(l.dir.Key, k.Name)); err != nil || there {
			return err
		}
	}
	l.op.Missing = append(l.op.Missing, k.Name)
	return l.flushIfFull()
}

// there asks about one key, where the listing may be late.
func (l *lister) there(key string) (bool, error) {
	l.s.Stats.Stats.Add(1)
	_, err := l.store.Stat(l.ctx, key)
	switch orca.KindOf(err) {
	case orca.OK:
		return true, nil
	case orca.NotFound, orca.NotDir:
		return false, nil
	}
	l.s.Stats.Failures.Add(1)
	return false, err
}

// removable reports whether the absence of a name in the UFS means anything.
func removable(k *fsm.Child) bool {
	return isDir(k) && k.InUFS || !isDir(k) && k.Attr.Persist == uint32(orca.Persisted)
}

func isDir(k *fsm.Child) bool { return k.Attr.Type == uint32(orca.TypeDir) }

func (l *lister) flushIfFull() error {
	if len(l.op.Entries)+len(l.op.Missing) < l.s.cfg.BatchNames {
		return nil
	}
	return l.flush(false)
}

func (l *lister) finish(loaded bool) error {
	for {
		k, err := l.kids.peek()
		if err != nil {
			return err
		}
		if k == nil {
			break
		}
		l.kids.next()
		if err := l.vanished(k); err != nil {
			return err
		}
	}
	if loaded && len(l.op.Entries)+len(l.op.Missing) == 0 {
		return nil
	}
	return l.flush(true)
}

// flush proposes the batch; vanished directories with entries are emptied and
// asked about again, one by one.
func (l *lister) flush(loaded bool) error {
	op := l.op
	op.Loaded = loaded
	l.op = &metapb.SyncApplyOp{Dir: op.Dir, Change: op.Change, Intent: op.Intent}
	r, err := l.s.propose(l.ctx, op)
	if err != nil {
		return err
	}
	add(&l.total, r)
	for _, name := range r.NotEmpty {
		q := question{Place: Place{Mount: l.dir.Attr.MountId, Key: joinKey(l.dir.Key, name), Dir: orca.Ino(op.Dir), Name: name}}
		_, changed, err := l.s.one(l.ctx, q)
		if err != nil {
			return err
		}
		if changed {
			l.total.Removed++
		}
	}
	return nil
}

// kids iterates the children of a directory in the order of ufs.Compare. The
// machine lists by name; a directory sorts as if it ended with a slash, so it
// may have to wait for names that begin with its own ("a" for "a-b"). Those
// that wait are prefixes of the present name: at most orca.MaxName of them.
type kids struct {
	m     *fsm.Machine
	dir   orca.Ino
	page  []fsm.Child
	at    int
	after string
	more  bool
	limit int
	wait  []*fsm.Child // directories, innermost last
}

func newKids(m *fsm.Machine, dir orca.Ino, limit int) *kids {
	return &kids{m: m, dir: dir, more: true, limit: limit}
}

// peek returns the next child, nil at the end.
func (k *kids) peek() (*fsm.Child, error) {
	for {
		head, err := k.head()
		if err != nil {
			return nil, err
		}
		if n := len(k.wait); n > 0 && (head == nil || before(k.wait[n-1], head)) {
			return k.wait[n-1], nil
		}
		if head == nil || !isDir(head) {
			return head, nil
		}
		k.at++
		k.wait = append(k.wait, head)
	}
}

// next moves past what peek returned.
func (k *kids) next() {
	if n := len(k.wait); n > 0 && (k.at >= len(k.page) || before(k.wait[n-1], &k.page[k.at])) {
		k.wait = k.wait[:n-1]
		return
	}
	k.at++
}

// before compares a waiting directory with the machine's next child.
func before(w, head *fsm.Child) bool {
	return ufs.Compare(ufs.Info{Key: w.Name, Dir: true}, ufs.Info{Key: head.Name, Dir: isDir(head)}) < 0
}

func (k *kids) head() (*fsm.Child, error) {
	for k.at >= len(k.page) && k.more {
		page, more, err := k.m.Children(orca.Caller{}, k.dir, k.after, k.limit)
		if orca.KindOf(err) == orca.NotFound {
			page, more, err = nil, false, nil
		}
		if err != nil {
			return nil, err
		}
		k.page, k.at, k.more = page, 0, more && len(page) > 0
		if len(page) > 0 {
			k.after = page[len(page)-1].Name
		}
	}
	if k.at >= len(k.page) {
		return nil, nil
	}
	return &k.page[k.at], nil
}
