// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metatest is the conformance suite of metaplane.Namespace: the same
// cases hold for the service in this process and for its stub over the wire.
//
// Flow: a Harness runs one metaplane (Raft group, service) in a folder over
// stores that outlive it, so that a test can drop it and open it again. An Env
// is the view of one case: a namespace to call, folders of its own on each
// kind of store (local folder, POSIX-like and object-like memory store, each
// behind scripted faults), and verbs that play client and worker.
//
// Run calls every case as a subtest. Goroutines: those of the service. No
// locks. It refuses nothing.
package metatest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
	"orca/ufs"
	"orca/ufs/local"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

// Harness is one metaplane over stores that outlive it.
type Harness struct {
	Dir     string        // of the Raft group
	Folder  string        // behind the root mount
	Posix   *memufs.Store // behind /p
	Objects *memufs.Store // behind /o
	Config  metaserver.Config
	// Retention is how long the mounts keep what is deleted.
	Retention time.Duration
	// Around is put around the root mount's store; nil: nothing.
	Around func(ufs.FS) ufs.FS

	Service *metaserver.Service
	host    *raftgroup.Host

	others shelf

	mu     sync.Mutex
	faults map[string]*wrap.Faults // by URI
}

// shelf has the stores in memory of one test by name. Those of memufs.Shared
// would keep what an earlier run of the same test has put into them.
type shelf struct {
	mu sync.Mutex
	by map[string]*memufs.Store // GUARDED_BY(mu)
}

// store returns the store of a name, making it at its first use: an object store
// if the name begins with obj.
func (s *shelf) store(name string) *memufs.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]*memufs.Store{}
	}
	if s.by[name] == nil {
		s.by[name] = memufs.New(memufs.Config{Objects: strings.HasPrefix(name, "obj")})
	}
	return s.by[name]
}

// Stores' URIs.
const (
	posixURI   = "mem://p"
	objectsURI = "mem://o"
)

// NewHarness makes the stores; Start opens the metaplane.
func NewHarness(t testing.TB) *Harness {
	return &Harness{
		Dir: memDir(t), Folder: t.TempDir(),
		Posix: memufs.New(memufs.Config{}), Objects: memufs.New(memufs.Config{Objects: true}),
		faults: map[string]*wrap.Faults{},
	}
}

// memDir is a folder in shared memory if there is any: the journal's fsync is
// not what is tested here.
func memDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "orca-metatest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Start opens the metaplane and mounts the stores if they are not.
func (h *Harness) Start(t testing.TB) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	host, err := raftgroup.Open(raftgroup.Config{Dir: h.Dir}, log)
	if err != nil {
		t.Fatalf("open group: %v", err)
	}
	h.host = host
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	svc, err := metaserver.New(ctx, h.Config, host.Group(), h.open, log)
	if err != nil {
		_ = host.Close()
		t.Fatalf("new service: %v", err)
	}
	h.Service = svc
	mounts, err := svc.ListMounts(ctx, &metapb.ListMountsRequest{})
	if err != nil {
		t.Fatalf("list mounts: %v", err)
	}
	if len(mounts.Mounts) > 0 {
		return
	}
	ns := metaclient.NewSession(svc, metaclient.SessionConfig{})
	for _, m := range []*metapb.Mount{
		{Path: "/", Uri: "file://" + h.Folder, SyncIntervalMs: -1},
		{Path: "/p", Uri: posixURI, SyncIntervalMs: -1},
		{Path: "/o", Uri: objectsURI, SyncIntervalMs: -1},
	} {
		m.TrashRetentionMs = h.Retention.Milliseconds()
		if _, err := ns.Mount(ctx, &metapb.MountRequest{Mount: m, Parents: true}); err != nil {
			t.Fatalf("mount %s: %v", m.Path, err)
		}
	}
}

// Stop drops the metaplane where it is; the stores stay.
func (h *Harness) Stop() {
	if h.Service != nil {
		_ = h.Service.Close()
		_ = h.host.Close()
		h.Service, h.host = nil, nil
	}
	h.mu.Lock()
	clear(h.faults) // the service has closed their handles
	h.mu.Unlock()
}

// Faults returns the scripted faults of a store, until Stop.
func (h *Harness) Faults(uri string) *wrap.Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faultsLocked(uri)
}

func (h *Harness) faultsLocked(uri string) *wrap.Faults {
	f := h.faults[uri]
	if f == nil {
		inner := h.Posix.FS()
		if uri == objectsURI {
			inner = h.Objects.FS()
		}
		f = wrap.NewFaults(inner)
		h.faults[uri] = f
	}
	return f
}

func (h *Harness) open(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
	if m.Scheme == "file" {
		fs, err := local.Open(ctx, local.Config{Root: strings.TrimPrefix(m.Uri, "file://")}, slog.New(slog.DiscardHandler))
		if err == nil && h.Around != nil && m.Path == "/" {
			return h.Around(fs), nil
		}
		return fs, err
	}
	if m.Uri != posixURI && m.Uri != objectsURI {
		if s, ok := strings.CutPrefix(m.Uri, "mem://"); ok {
			return h.others.store(s).FS(), nil
		}
		return nil, &orca.Error{Op: "metatest.open", Path: m.Uri, Kind: orca.Unavailable, Msg: "GET " + m.Uri + ": connection refused"}
	}
	return h.Faults(m.Uri).FS(), nil
}

// Env is what a case sees.
type Env struct {
	testing.TB
	H   *Harness
	NS  metaplane.Namespace
	UID uint32 // of the caller; 0: root
	GID uint32
}

// As returns the env for another caller.
func (e *Env) As(uid, gid uint32) *Env {
	c := *e
	c.UID, c.GID = uid, gid
	return &c
}

func (e *Env) h() *metapb.Header {
	return &metapb.Header{Caller: &metapb.Caller{Uid: e.UID, Gid: e.GID}}
}

func (e *Env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	e.Cleanup(cancel)
	return ctx
}

// ok fails the case on an error.
func (e *Env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("unexpected error: %v", err)
	}
}

// want fails the case unless the error has the kind.
func (e *Env) want(k orca.Kind, err error) {
	e.Helper()
	if orca.KindOf(err) != k {
		e.Fatalf("error is %v (%v), want kind %v", err, orca.KindOf(err), k)
	}
}

// equal fails the case unless the values print the same.
func (e *Env) equal(want, got any) {
	e.Helper()
	if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
		e.Fatalf("got %s, want %s", g, w)
	}
}

// eventually repeats a check until it holds or a deadline passes.
func (e *Env) eventually(what string, check func() bool) {
	e.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if check() {
			return
		}
		if time.Now().After(end) {
			e.Fatalf("never came true: %s", what)
		}
	}
}

func at(p string) *metapb.Target { return &metapb.Target{Path: p} }

// every is a SyncOption of N ms; below 0: load once.
func every(ms int64) *metapb.SyncOption {
	if ms < 0 {
		return &metapb.SyncOption{Mode: 1}
	}
	return &metapb.SyncOption{Mode: 2, IntervalMs: ms}
}

// fs opens the store of a mount as a worker would.
func (e *Env) fs(mount uint32) ufs.FS {
	e.Helper()
	r, err := e.NS.ListMounts(e.ctx(), &metapb.ListMountsRequest{Secrets: true})
	e.ok(err)
	for _, m := range r.Mounts {
		if m.Id == mount {
			fs, err := e.H.open(e.ctx(), m)
			e.ok(err)
			return fs
		}
	}
	e.Fatalf("no mount %d", mount)
	return nil
}

func (e *Env) mkdir(p string) {
	e.Helper()
	_, err := e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(p), Mode: 0o755, Parents: true})
	e.ok(err)
}

// create opens a write session.
func (e *Env) create(p string, wt orca.WriteType) (*metapb.CreateReply, error) {
	return e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(p), Mode: 0o644, Overwrite: true, Parents: true, WriteType: uint32(wt)})
}

// upload is the worker's half of a through write.
func (e *Env) upload(s *metapb.WriteSession, data string) (ufs.Info, error) {
	e.Helper()
	w, err := e.fs(s.MountId).Create(e.ctx(), s.UfsKey, strconv.FormatUint(s.Id, 16))
	if err != nil {
		return ufs.Info{}, err
	}
	if hw, ok := w.(ufs.Hinted); ok {
		hw.Hint(ufs.WriteHint{Expect: s.Expect})
	}
	if _, err = io.WriteString(w, data); err == nil {
		var i ufs.Info
		if i, err = w.Commit(e.ctx()); err == nil {
			return i, nil
		}
	}
	_ = w.Abort(e.ctx())
	return ufs.Info{}, err
}

// write makes a file with content, as client and worker do together.
func (e *Env) write(p string, wt orca.WriteType, data string) *metapb.Attr {
	e.Helper()
	r, err := e.create(p, wt)
	e.ok(err)
	q := &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: int64(len(data)), Workers: []uint64{7}}
	if (wt == orca.CacheThrough || wt == orca.Through) && r.Session.MountId != 0 {
		i, err := e.upload(r.Session, data)
		e.ok(err)
		q.Fingerprint, q.Mtime = i.Fingerprint, i.Mtime.UnixNano()
	}
	c, err := e.NS.Complete(e.ctx(), q)
	e.ok(err)
	return c.Attr
}

func (e *Env) statErr(p string, o *metapb.SyncOption) (*metapb.Attr, error) {
	r, err := e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h(), Target: at(p), Sync: o})
	if err != nil {
		return nil, err
	}
	return r.Attr, nil
}

func (e *Env) stat(p string) *metapb.Attr {
	e.Helper()
	a, err := e.statErr(p, nil)
	e.ok(err)
	return a
}

func (e *Env) absent(p string, o *metapb.SyncOption) {
	e.Helper()
	_, err := e.statErr(p, o)
	e.want(orca.NotFound, err)
}

// names lists a directory completely, in small pages.
func (e *Env) names(p string, o *metapb.SyncOption) []string {
	e.Helper()
	var out []string
	for after := ""; ; {
		r, err := e.NS.List(e.ctx(), &metapb.ListRequest{H: e.h(), Target: at(p), After: after, Limit: 7, Sync: o})
		e.ok(err)
		for _, x := range r.Entries {
			out = append(out, x.Name)
			after = x.Name
		}
		if !r.More {
			return out
		}
	}
}

func (e *Env) rename(src, dst string) error {
	_, err := e.NS.Rename(e.ctx(), &metapb.RenameRequest{H: e.h(), Src: at(src), Dst: at(dst)})
	return err
}

func (e *Env) delete(p string, recursive bool) error {
	_, err := e.NS.Delete(e.ctx(), &metapb.DeleteRequest{H: e.h(), Target: at(p), Recursive: recursive})
	return err
}

// read returns the content of a persisted file as a worker would get it.
func (e *Env) read(p string) (string, error) {
	a, err := e.statErr(p, nil)
	if err != nil {
		return "", err
	}
	for try := 0; ; try++ {
		data, err := e.fetch(a.Ino)
		// A move may have cut over between the question and the answer: a
		// worker asks again, too.
		if k := orca.KindOf(err); try < 8 && (k == orca.NotFound || k == orca.Stale) {
			continue
		}
		return data, err
	}
}

// fetch is one attempt of a worker to get a file's content from its store.
func (e *Env) fetch(ino uint64) (string, error) {
	r, err := e.NS.Resolve(e.ctx(), &metapb.ResolveRequest{H: e.h(), File: ino})
	if err != nil {
		return "", err
	}
	if r.MountId == 0 {
		return "", orca.E("metatest.fetch", orca.NotFound, "not in the store")
	}
	rd, err := e.fs(r.MountId).Open(e.ctx(), r.UfsKey, 0, -1, r.Attr.Fingerprint)
	if err != nil {
		return "", err
	}
	defer rd.Close()
	b, err := io.ReadAll(rd)
	return string(b), err
}

// content fails the case unless the file reads as data.
func (e *Env) content(p, data string) {
	e.Helper()
	got, err := e.read(p)
	e.ok(err)
	e.equal(data, got)
}

// drained waits until no intent is left.
func (e *Env) drained() {
	e.Helper()
	e.eventually("intents drained", func() bool {
		r, err := e.NS.Report(e.ctx(), &metapb.ReportRequest{H: e.h()})
		e.ok(err)
		return len(r.Intents) == 0
	})
}

// onDisk is a path below the root mount's folder.
func (e *Env) onDisk(p string) string { return filepath.Join(e.H.Folder, p) }

func (e *Env) putDisk(p, data string) {
	e.Helper()
	e.ok(os.MkdirAll(filepath.Dir(e.onDisk(p)), 0o755))
	e.ok(os.WriteFile(e.onDisk(p), []byte(data), 0o644))
}
