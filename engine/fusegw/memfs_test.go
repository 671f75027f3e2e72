// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"testing"
	"time"

	"orca"
)

// memFS is an FS with its names in memory and each version of a file's content
// in a file of its own: what a metaplane and a worker are to a mount.
type memFS struct {
	dir string
	ttl time.Duration

	mu      sync.Mutex
	changed *sync.Cond
	next    orca.Ino
	inodes  map[orca.Ino]*memInode
	events  []Event
	down    bool // Watch fails
	calls   map[string]int

	noBacking bool         // files are only partly cached
	noLocal   bool         // workers are remote
	noSpace   bool         // Close fails
	silent    bool         // no events are sent
	onRead    func()       // called by each ReadAt
	onRemove  func() error // called before a name is removed or replaced
	fragile   bool         // what was removed cannot be read any more
}

type memInode struct {
	orca.Attr
	names map[string]orca.Ino // of a directory
	xattr map[string][]byte
	busy  int // write sessions
	new   bool
}

func newMemFS(t testing.TB) *memFS {
	m := &memFS{dir: fastDir(t), ttl: time.Hour, next: 2, calls: map[string]int{}}
	m.changed = sync.NewCond(&m.mu)
	now := time.Now()
	m.inodes = map[orca.Ino]*memInode{orca.RootIno: {
		Attr:  orca.Attr{Ino: 1, Type: orca.TypeDir, Mode: 0o755, Nlink: 2, Mtime: now, Ctime: now},
		names: map[string]orca.Ino{},
	}}
	return m
}

func (m *memFS) blob(ino orca.Ino, v uint32) string {
	return filepath.Join(m.dir, fmt.Sprintf("%x-%d", uint64(ino), v))
}

func merr(k orca.Kind) error { return orca.E("memfs", k, "") }

func (m *memFS) emitLocked(e Event) {
	if !m.silent {
		m.events = append(m.events, e)
		m.changed.Broadcast()
	}
}

func (m *memFS) call(name string) { m.calls[name]++ }

func (m *memFS) callsOf(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[name]
}

func (m *memFS) entryLocked(i *memInode, name string) Entry {
	return Entry{Attr: i.Attr, Name: name, TTL: m.ttl}
}

func (m *memFS) dirLocked(dir orca.Ino) (*memInode, error) {
	d := m.inodes[dir]
	if d == nil {
		return nil, merr(orca.NotFound)
	}
	if d.Type != orca.TypeDir {
		return nil, merr(orca.NotDir)
	}
	return d, nil
}

func (m *memFS) childLocked(dir orca.Ino, name string) (*memInode, *memInode, error) {
	d, err := m.dirLocked(dir)
	if err != nil {
		return nil, nil, err
	}
	if len(name) > orca.MaxName {
		return nil, nil, merr(orca.NameTooLong)
	}
	c := m.inodes[d.names[name]]
	if c == nil {
		return d, nil, merr(orca.NotFound)
	}
	return d, c, nil
}

func (m *memFS) Lookup(_ context.Context, _ orca.Caller, dir orca.Ino, name string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("lookup")
	_, c, err := m.childLocked(dir, name)
	if err != nil {
		return Entry{}, err
	}
	return m.entryLocked(c, name), nil
}

func (m *memFS) Stat(_ context.Context, _ orca.Caller, ino orca.Ino) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("stat")
	i := m.inodes[ino]
	if i == nil || i.new {
		return Entry{}, merr(orca.NotFound)
	}
	return m.entryLocked(i, ""), nil
}

func (m *memFS) List(_ context.Context, _ orca.Caller, dir orca.Ino, after string, limit int) (Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("list")
	d, err := m.dirLocked(dir)
	if err != nil {
		return Page{}, err
	}
	var names []string
	for n := range d.names {
		if n > after {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	p := Page{TTL: m.ttl}
	for _, n := range names {
		if len(p.Entries) == limit {
			p.More = true
			break
		}
		p.Entries = append(p.Entries, m.entryLocked(m.inodes[d.names[n]], n))
	}
	return p, nil
}

func (m *memFS) newLocked(c orca.Caller, t orca.FileType, mode uint32) *memInode {
	now := time.Now()
	i := &memInode{Attr: orca.Attr{Ino: m.next, Type: t, Mode: mode, UID: c.UID, GID: c.GID, Nlink: 1,
		BlockSize: orca.MaxWholeBlock, Mtime: now, Ctime: now, Atime: now}}
	if t == orca.TypeDir {
		i.names = map[string]orca.Ino{}
		i.Nlink = 2
	}
	m.next++
	m.inodes[i.Ino] = i
	return i
}

func (m *memFS) linkLocked(d *memInode, name string, i orca.Ino) {
	if i == 0 {
		delete(d.names, name)
	} else {
		d.names[name] = i
	}
	d.Mtime = time.Now()
	d.Ctime = d.Mtime
	m.emitLocked(Event{Kind: EventEntry, Ino: i, Parent: d.Ino, Name: name})
	m.emitLocked(Event{Kind: EventAttr, Ino: d.Ino})
}

func (m *memFS) make(c orca.Caller, dir orca.Ino, name string, t orca.FileType, mode uint32) (*memInode, *memInode, error) {
	d, _, err := m.childLocked(dir, name)
	if err == nil {
		return nil, nil, merr(orca.Exists)
	}
	if orca.KindOf(err) != orca.NotFound || d == nil {
		return nil, nil, err
	}
	i := m.newLocked(c, t, mode)
	if name == inGroup2 || d.Ino.Group() != 0 {
		m.renumberLocked(i, 2)
	}
	return d, i, nil
}

// inGroup2 is a directory that lives in a group of its own, so that what is
// renamed from and to there has another number then.
const inGroup2 = "in group 2"

// renumberLocked gives an inode, and all below it, numbers of a group.
func (m *memFS) renumberLocked(i *memInode, group uint16) {
	old := i.Ino
	delete(m.inodes, old)
	i.Ino = orca.NewIno(group, uint64(m.next))
	m.next++
	m.inodes[i.Ino] = i
	for v := uint32(0); v <= i.Version; v++ {
		_ = os.Rename(m.blob(old, v), m.blob(i.Ino, v))
	}
	for name, sub := range i.names {
		s := m.inodes[sub]
		m.renumberLocked(s, group)
		i.names[name] = s.Ino
	}
}

func (m *memFS) Mkdir(_ context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, i, err := m.make(c, dir, name, orca.TypeDir, mode)
	if err != nil {
		return Entry{}, err
	}
	m.linkLocked(d, name, i.Ino)
	d.Nlink++
	return Entry{Attr: i.Attr}, nil
}

func (m *memFS) Symlink(_ context.Context, c orca.Caller, dir orca.Ino, name, target string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, i, err := m.make(c, dir, name, orca.TypeSymlink, 0o777)
	if err != nil {
		return Entry{}, err
	}
	i.Target = target
	m.linkLocked(d, name, i.Ino)
	return Entry{Attr: i.Attr}, nil
}

func (m *memFS) removeLocked(d *memInode, name string, c *memInode) {
	if c.Type != orca.TypeDir && c.Nlink > 1 {
		c.Nlink--
		c.Ctime = time.Now()
		m.linkLocked(d, name, 0)
		m.emitLocked(Event{Kind: EventAttr, Ino: c.Ino})
		return
	}
	delete(m.inodes, c.Ino)
	for v := uint32(0); v <= c.Version; v++ {
		_ = os.Remove(m.blob(c.Ino, v))
	}
	m.linkLocked(d, name, 0)
}

func (m *memFS) removing() error {
	m.mu.Lock()
	hook := m.onRemove
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

func (m *memFS) Unlink(_ context.Context, _ orca.Caller, dir orca.Ino, name string) error {
	if err := m.removing(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, c, err := m.childLocked(dir, name)
	switch {
	case err != nil:
		return err
	case c.Type == orca.TypeDir:
		return merr(orca.IsDir)
	case c.busy > 0:
		return merr(orca.Busy)
	}
	m.removeLocked(d, name, c)
	return nil
}

func (m *memFS) Rmdir(_ context.Context, _ orca.Caller, dir orca.Ino, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, c, err := m.childLocked(dir, name)
	switch {
	case err != nil:
		return err
	case c.Type != orca.TypeDir:
		return merr(orca.NotDir)
	case len(c.names) > 0:
		return merr(orca.NotEmpty)
	}
	m.removeLocked(d, name, c)
	d.Nlink--
	return nil
}

func (m *memFS) Rename(_ context.Context, _ orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string, noReplace bool) error {
	if err := m.removing(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, c, err := m.childLocked(dir, name)
	if err != nil {
		return err
	}
	nd, old, err := m.childLocked(newDir, newName)
	if err != nil && (orca.KindOf(err) != orca.NotFound || nd == nil) {
		return err
	}
	if c.busy > 0 || old != nil && old.busy > 0 {
		return merr(orca.Busy)
	}
	if old != nil {
		switch {
		case noReplace:
			return merr(orca.Exists)
		case old.Type == orca.TypeDir && c.Type != orca.TypeDir:
			return merr(orca.IsDir)
		case old.Type != orca.TypeDir && c.Type == orca.TypeDir:
			return merr(orca.NotDir)
		case len(old.names) > 0:
			return merr(orca.NotEmpty)
		}
		m.removeLocked(nd, newName, old)
	}
	m.linkLocked(d, name, 0)
	if d.Ino.Home() != nd.Ino.Home() {
		m.renumberLocked(c, nd.Ino.Group())
	}
	m.linkLocked(nd, newName, c.Ino)
	return nil
}

func (m *memFS) Exchange(_ context.Context, _ orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, c, err := m.childLocked(dir, name)
	if err != nil {
		return err
	}
	nd, old, err := m.childLocked(newDir, newName)
	switch {
	case err != nil:
		return err
	case c.busy > 0 || old.busy > 0:
		return merr(orca.Busy)
	}
	m.linkLocked(d, name, old.Ino)
	m.linkLocked(nd, newName, c.Ino)
	return nil
}

func (m *memFS) Link(_ context.Context, _ orca.Caller, ino, dir orca.Ino, name string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.inodes[ino]
	if i == nil || i.new {
		return Entry{}, merr(orca.NotFound)
	}
	d, _, err := m.childLocked(dir, name)
	if err == nil {
		return Entry{}, merr(orca.Exists)
	}
	if orca.KindOf(err) != orca.NotFound || d == nil {
		return Entry{}, err
	}
	i.Nlink++
	i.Ctime = time.Now()
	m.linkLocked(d, name, ino)
	m.emitLocked(Event{Kind: EventAttr, Ino: ino})
	return Entry{Attr: i.Attr}, nil
}

func (m *memFS) SetAttr(_ context.Context, _ orca.Caller, ino orca.Ino, ch Change) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("setattr")
	i := m.inodes[ino]
	if i == nil || i.new {
		return Entry{}, merr(orca.NotFound)
	}
	if ch.Mode != nil {
		i.Mode = *ch.Mode
	}
	if ch.UID != nil {
		i.UID = *ch.UID
	}
	if ch.GID != nil {
		i.GID = *ch.GID
	}
	if ch.Mtime != nil {
		i.Mtime = *ch.Mtime
	}
	if ch.Atime != nil {
		i.Atime = *ch.Atime
	}
	i.Ctime = time.Now()
	m.emitLocked(Event{Kind: EventAttr, Ino: ino})
	return m.entryLocked(i, ""), nil
}

func (m *memFS) inode(ino orca.Ino) (*memInode, error) {
	i := m.inodes[ino]
	if i == nil {
		return nil, merr(orca.NotFound)
	}
	if i.xattr == nil {
		i.xattr = map[string][]byte{}
	}
	return i, nil
}

func (m *memFS) GetXattr(_ context.Context, _ orca.Caller, ino orca.Ino, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("getxattr")
	i, err := m.inode(ino)
	if err != nil {
		return nil, err
	}
	v, ok := i.xattr[name]
	if !ok {
		return nil, merr(orca.NoData)
	}
	return bytes.Clone(v), nil
}

func (m *memFS) ListXattr(_ context.Context, _ orca.Caller, ino orca.Ino) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.inode(ino)
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range i.xattr {
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

func (m *memFS) SetXattr(_ context.Context, _ orca.Caller, ino orca.Ino, name string, value []byte, create, replace bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.inode(ino)
	if err != nil {
		return err
	}
	_, ok := i.xattr[name]
	if create && ok {
		return merr(orca.Exists)
	}
	if replace && !ok {
		return merr(orca.NoData)
	}
	i.xattr[name] = bytes.Clone(value)
	return nil
}

func (m *memFS) RemoveXattr(_ context.Context, _ orca.Caller, ino orca.Ino, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.inode(ino)
	if err != nil {
		return err
	}
	if _, ok := i.xattr[name]; !ok {
		return merr(orca.NoData)
	}
	delete(i.xattr, name)
	return nil
}

func (m *memFS) Statfs(context.Context, orca.Ino, orca.Ino) (Statfs, error) {
	return Statfs{Total: 1 << 40, Free: 1 << 39, TotalFiles: 10, FreeFiles: 5}, nil
}

func (m *memFS) Watch(ctx context.Context, fn func([]Event, bool)) error {
	stop := context.AfterFunc(ctx, func() { m.mu.Lock(); m.changed.Broadcast(); m.mu.Unlock() })
	defer stop()
	m.mu.Lock()
	if m.down {
		m.mu.Unlock()
		return merr(orca.Unavailable)
	}
	at := len(m.events)
	m.mu.Unlock()
	fn(nil, false)
	for {
		m.mu.Lock()
		for at == len(m.events) && ctx.Err() == nil && !m.down {
			m.changed.Wait()
		}
		batch := append([]Event(nil), m.events[at:]...)
		at = len(m.events)
		down := m.down
		m.mu.Unlock()
		if ctx.Err() != nil || down {
			return merr(orca.Unavailable)
		}
		fn(batch, false)
	}
}

func (m *memFS) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
	m.changed.Broadcast()
}

type memFile struct {
	m    *memFS
	attr orca.Attr
	f    *os.File
}

func (m *memFS) Open(_ context.Context, c orca.Caller, ino orca.Ino) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("open")
	i := m.inodes[ino]
	if i == nil || i.new {
		return nil, merr(orca.NotFound)
	}
	if i.Type == orca.TypeDir {
		return nil, merr(orca.IsDir)
	}
	if !allowed(&i.Attr, c, 4) {
		return nil, merr(orca.Permission)
	}
	f, err := os.Open(m.blob(ino, i.Version))
	if err != nil {
		return nil, merr(orca.Stale)
	}
	return &memFile{m, i.Attr, f}, nil
}

func (f *memFile) Attr() orca.Attr { return f.attr }

func (f *memFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	hook := f.m.onRead
	f.m.mu.Unlock()
	if hook != nil {
		hook()
	}
	f.m.mu.Lock()
	gone := f.m.fragile && f.m.inodes[f.attr.Ino] == nil
	f.m.mu.Unlock()
	if gone {
		return 0, merr(orca.Unavailable)
	}
	return f.f.ReadAt(p, off)
}

func (f *memFile) Backing(context.Context) *os.File {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.call("backing")
	if f.m.noBacking {
		return nil
	}
	return f.f
}

func (f *memFile) Close() error { return f.f.Close() }

type memWriter struct {
	m    *memFS
	i    *memInode
	dir  orca.Ino
	name string
	f    *os.File
}

func (m *memFS) private() *os.File {
	f, err := os.CreateTemp(m.dir, "private-*")
	if err != nil {
		panic(err)
	}
	return f
}

func (m *memFS) Create(_ context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("create")
	_, i, err := m.make(c, dir, name, orca.TypeFile, mode)
	if err != nil {
		return nil, err
	}
	i.new = true
	return &memWriter{m, i, dir, name, m.private()}, nil
}

func (m *memFS) Overwrite(_ context.Context, c orca.Caller, ino orca.Ino) (Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("overwrite")
	i := m.inodes[ino]
	switch {
	case i == nil:
		return nil, merr(orca.NotFound)
	case i.busy > 0:
		return nil, merr(orca.Busy)
	case !allowed(&i.Attr, c, 2):
		return nil, merr(orca.Permission)
	}
	i.busy++
	return &memWriter{m, i, 0, "", m.private()}, nil
}

func (w *memWriter) Attr() orca.Attr { return w.i.Attr }

func (w *memWriter) Local() *os.File {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.noLocal {
		return nil
	}
	return w.f
}

func (w *memWriter) WriteAt(_ context.Context, p []byte, off int64) error {
	_, err := w.f.WriteAt(p, off)
	return err
}

func (w *memWriter) Truncate(_ context.Context, n int64) error { return w.f.Truncate(n) }
func (w *memWriter) Sync(context.Context) error                { return w.f.Sync() }

func (w *memWriter) Close(context.Context) (orca.Attr, error) {
	m := w.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call("close")
	defer os.Remove(w.f.Name())
	defer w.f.Close()
	if w.i.new {
		w.i.new = false
	} else {
		w.i.busy--
	}
	if m.noSpace {
		if w.dir != 0 {
			delete(m.inodes, w.i.Ino)
		}
		return orca.Attr{}, merr(orca.NoSpace)
	}
	dst, err := os.Create(m.blob(w.i.Ino, w.i.Version+1))
	if err != nil {
		return orca.Attr{}, err
	}
	defer dst.Close()
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return orca.Attr{}, err
	}
	n, err := io.Copy(dst, w.f)
	if err != nil {
		return orca.Attr{}, err
	}
	w.i.Version++
	w.i.Length, w.i.Mtime = n, time.Now()
	w.i.Ctime = w.i.Mtime
	if w.dir != 0 {
		m.linkLocked(m.inodes[w.dir], w.name, w.i.Ino)
	}
	m.emitLocked(Event{Kind: EventContent, Ino: w.i.Ino})
	return w.i.Attr, nil
}

func (w *memWriter) Abort(context.Context) error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.i.new {
		delete(w.m.inodes, w.i.Ino)
	} else {
		w.i.busy--
	}
	_ = os.Remove(w.f.Name())
	return w.f.Close()
}

// put writes a file as another client would.
func (m *memFS) put(t testing.TB, dir orca.Ino, name string, data []byte) orca.Ino {
	t.Helper()
	ctx := context.Background()
	var w Writer
	e, err := m.Lookup(ctx, orca.Caller{}, dir, name)
	if err == nil {
		w, err = m.Overwrite(ctx, orca.Caller{}, e.Ino)
	} else {
		w, err = m.Create(ctx, orca.Caller{}, dir, name, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	a, err := w.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return a.Ino
}
