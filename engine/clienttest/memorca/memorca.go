// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package memorca is an Orca for tests of the client and the command line: a
// namespace in maps and workers whose blocks are plain files in a folder. It
// behaves as the contracts of metaplane and dataplane say where a client can
// tell the difference, and has knobs to make single calls fail.
//
// Flow: client ─► Orca (metaplane.Namespace) and client ─► Worker
// (dataplane.Blocks). There are no goroutines; Orca.mu guards the namespace
// and Worker.mu its blocks, the former taken first.
//
// It refuses to be used outside tests: nothing in it is durable, a job is done
// when it is submitted, and nobody's rights are checked.
package memorca

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/jobs/jobpb"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Orca is the namespace.
type Orca struct {
	metaplane.Namespace // what a client does not call

	mu       sync.Mutex
	inodes   map[uint64]*inode // GUARDED_BY(mu), as all below
	sessions map[uint64]*session
	mounts   []*metapb.Mount
	workers  []*Worker
	events   []*metapb.Event
	changed  chan struct{} // closed and replaced at each event
	jobs     []*jobpb.Job
	next     uint64
	fail     func(op string) error
	grantTTL time.Duration
	// store is the under file system: content by inode number.
	store map[uint64]stored
}

type inode struct {
	attr     metapb.Attr
	name     string
	parent   uint64
	children map[string]uint64
	xattrs   map[string][]byte
	visible  bool
	issued   uint32 // the last version given to a session
}

type session struct {
	id, fence, ino uint64
	version        uint32
	writeType      uint32
	expired        bool
}

type stored struct {
	version uint32
	path    string
}

// WholeMax is the longest file kept as one block here, in bytes: small, so that
// tests get files of several blocks.
const WholeMax = 8_000_000

// BlockSize is the size of the blocks of longer files.
const BlockSize = 4 << 20

// New returns an empty Orca with one worker per node name (or node@rack),
// storing below dir.
func New(dir string, nodes ...string) (*Orca, error) {
	o := &Orca{
		inodes: map[uint64]*inode{}, sessions: map[uint64]*session{}, store: map[uint64]stored{},
		changed: make(chan struct{}), next: 100,
	}
	now := time.Now().UnixNano()
	o.inodes[1] = &inode{visible: true, children: map[string]uint64{}, parent: 1, attr: metapb.Attr{
		Ino: 1, Type: uint32(orca.TypeDir), Mode: 0o755, Nlink: 2, Mtime: now, Ctime: now, Persist: uint32(orca.Persisted), MountPoint: true,
	}}
	o.mounts = []*metapb.Mount{{Id: 1, Path: "/", Uri: "file://" + dir + "/root", Scheme: "file", SyncIntervalMs: -1}}
	for i, n := range nodes {
		w, err := newWorker(o, fmt.Sprintf("%s/worker%d", dir, i+1), uint64(i+1), n)
		if err != nil {
			return nil, err
		}
		o.workers = append(o.workers, w)
	}
	return o, nil
}

// Workers returns the workers.
func (o *Orca) Workers() []*Worker { return o.workers }

// Dial is a client.Dialer.
func (o *Orca) Dial(_ context.Context, w *metapb.Worker) (dataplane.Access, error) {
	for _, x := range o.workers {
		if x.pb.Id == w.Id {
			if x.isDown() {
				return nil, orca.E("memorca.Dial", orca.Unavailable, "worker is down")
			}
			return blockclient.Local{Blocks: x}, nil
		}
	}
	return nil, orca.E("memorca.Dial", orca.NotFound, "no such worker")
}

// Fail makes every later call for which f returns an error fail with it; nil
// ends that. The op is the method's name.
func (o *Orca) Fail(f func(op string) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = f
}

// SetGrantTTL makes grants expire.
func (o *Orca) SetGrantTTL(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.grantTTL = d
}

// ExpireSessions makes all write sessions expire.
func (o *Orca) ExpireSessions() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.sessions {
		s.expired = true
	}
}

// Sessions counts open write sessions.
func (o *Orca) Sessions() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.sessions)
}

// enter takes the lock and runs the failure knob.
func (o *Orca) enter(op string) (func(), error) {
	o.mu.Lock()
	if o.fail != nil {
		if err := o.fail(op); err != nil {
			o.mu.Unlock()
			return nil, err
		}
	}
	return o.mu.Unlock, nil
}

func (o *Orca) eventLocked(k metapb.EventKind, n *inode) {
	o.events = append(o.events, &metapb.Event{Ino: n.attr.Ino, Parent: n.parent, Name: n.name, Kind: k})
	close(o.changed)
	o.changed = make(chan struct{})
}

// resolveLocked finds the inode of t.
func (o *Orca) resolveLocked(op string, t *metapb.Target) (*inode, error) {
	ino := t.GetIno()
	if ino == 0 {
		ino = 1
	}
	n := o.inodes[ino]
	if n == nil {
		return nil, orca.PathE(op, t.GetPath(), orca.NotFound, nil)
	}
	for c := range strings.SplitSeq(strings.Trim(t.GetPath(), "/"), "/") {
		if c == "" {
			break
		}
		if n.children == nil {
			return nil, orca.PathE(op, t.GetPath(), orca.NotDir, nil)
		}
		n = o.inodes[n.children[c]]
		if n == nil || !n.visible {
			return nil, orca.PathE(op, t.GetPath(), orca.NotFound, nil)
		}
	}
	return n, nil
}

// parentLocked finds the directory of t, made if wanted, and the last name.
func (o *Orca) parentLocked(op string, t *metapb.Target, parents bool) (*inode, string, error) {
	p := strings.Trim(t.GetPath(), "/")
	dir, name := "", p
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		dir, name = p[:i], p[i+1:]
	}
	if name == "" {
		return nil, "", orca.PathE(op, t.GetPath(), orca.Exists, nil)
	}
	if len(name) > orca.MaxName {
		return nil, "", orca.PathE(op, t.GetPath(), orca.NameTooLong, nil)
	}
	pt := &metapb.Target{Ino: t.GetIno(), Path: dir}
	d, err := o.resolveLocked(op, pt)
	if err != nil && parents && orca.KindOf(err) == orca.NotFound {
		d, err = o.mkdirLocked(pt, 0o755, true)
	}
	if err != nil {
		return nil, "", orca.PathE(op, t.GetPath(), orca.KindOf(err), nil)
	}
	if d.children == nil {
		return nil, "", orca.PathE(op, t.GetPath(), orca.NotDir, nil)
	}
	return d, name, nil
}

func (o *Orca) mkdirLocked(t *metapb.Target, mode uint32, parents bool) (*inode, error) {
	d, name, err := o.parentLocked("memorca.Mkdir", t, parents)
	if err != nil {
		return nil, err
	}
	if old := o.inodes[d.children[name]]; old != nil && old.visible {
		if parents && old.children != nil {
			return old, nil
		}
		return nil, orca.PathE("memorca.Mkdir", t.Path, orca.Exists, nil)
	}
	n := o.newLocked(d, name, orca.TypeDir, mode)
	n.children, n.visible = map[string]uint64{}, true
	n.attr.Nlink, n.attr.Persist = 2, uint32(orca.Persisted)
	o.eventLocked(metapb.EventKind_EVENT_ENTRY, n)
	return n, nil
}

func (o *Orca) newLocked(d *inode, name string, typ orca.FileType, mode uint32) *inode {
	o.next++
	now := time.Now().UnixNano()
	n := &inode{name: name, parent: d.attr.Ino, xattrs: map[string][]byte{}, attr: metapb.Attr{
		Ino: o.next, Type: uint32(typ), Mode: mode, Nlink: 1, Mtime: now, Ctime: now, Atime: now, MountId: 1, BlockSize: WholeMax,
	}}
	o.inodes[o.next] = n
	d.children[name] = o.next
	return n
}

func (n *inode) reply() *metapb.Attr {
	a := cloneAttr(&n.attr)
	if n.children != nil {
		a.Length = int64(len(n.children))
	}
	return a
}

// SetStore replaces what the under file system holds for a file, as somebody
// writing past Orca would.
func (o *Orca) SetStore(ino orca.Ino, version uint32, content []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.store[uint64(ino)]
	s.version = version
	o.store[uint64(ino)] = s
	return os.WriteFile(s.path, content, 0o600)
}

func (o *Orca) storeOf(ino uint64) stored {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.store[ino]
}

func (o *Orca) setStore(ino uint64, version uint32, path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.store[ino] = stored{version, path}
}

func (o *Orca) workersPB() []*metapb.Worker {
	var ws []*metapb.Worker
	for _, w := range o.workers {
		ws = append(ws, w.proto())
	}
	return ws
}

func sortedNames(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }
