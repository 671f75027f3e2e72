// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// trap kills Orca at the n-th step that it takes on a store. Each mutating
// call has two steps: its arrival, before the store does it, and its return,
// when the store has done it but Orca has not heard so.
type trap struct {
	mu    sync.Mutex
	left  int    // GUARDED_BY(mu)
	crash func() // GUARDED_BY(mu); nil: disarmed
	steps int    // taken since arm; GUARDED_BY(mu)
}

// arm makes step n (from 1) call crash.
func (t *trap) arm(n int, crash func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left, t.crash, t.steps = n, crash, 0
}

// disarm returns how many steps were taken, and whether the trap closed.
func (t *trap) disarm() (steps int, fired bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fired = t.crash == nil
	t.crash = nil
	return t.steps, fired
}

// step counts one step; it reports whether Orca is to be dead by now.
func (t *trap) step() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps++
	if t.crash == nil {
		return false
	}
	if t.left--; t.left > 0 {
		return false
	}
	t.crash()
	t.crash = nil
	return true
}

// s3Proxy stands between Orca and MinIO with a trap, and counts reads of data.
type s3Proxy struct {
	*httptest.Server
	trap
	dataReads atomic.Int64
	heads     atomic.Int64
	lists     atomic.Int64
	gets      getLog
}

func newS3Proxy(t *testing.T, endpoint string) *s3Proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &s3Proxy{}
	rp := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		// The Host header is signed: it stays what the client sent.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			if q := r.URL.Query(); r.Method == http.MethodGet && !q.Has("list-type") && !q.Has("uploads") && !q.Has("location") {
				p.dataReads.Add(1)
				p.gets.serve(rp, w, r)
				return
			}
			if r.Method == http.MethodHead {
				p.heads.Add(1)
			} else {
				p.lists.Add(1)
			}
			rp.ServeHTTP(w, r)
			return
		}
		if p.step() {
			panic(http.ErrAbortHandler)
		}
		rec := httptest.NewRecorder()
		rp.ServeHTTP(rec, r)
		if p.step() {
			panic(http.ErrAbortHandler)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	}))
	t.Cleanup(p.Server.Close)
	return p
}

// trapFS is a loopback of a folder with a trap at every mutating call, mounted
// where Orca takes it for its local store.
type trapFS struct {
	trap
	Dir string // where Orca's root is
	Raw string // the folder behind it
}

func newTrapFS(t *testing.T) *trapFS {
	t.Helper()
	base := t.TempDir()
	tf := &trapFS{Dir: filepath.Join(base, "store"), Raw: filepath.Join(base, "raw")}
	for _, d := range []string{tf.Dir, tf.Raw} {
		if err := syscall.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	loop, err := fs.NewLoopbackRoot(tf.Raw)
	if err != nil {
		t.Fatal(err)
	}
	root := &trapNode{LoopbackNode: loop.(*fs.LoopbackNode), tf: tf}
	srv, err := fs.Mount(tf.Dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, Name: "trap", FsName: "trap", AllowOther: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if srv.Unmount() != nil {
			syscall.Unmount(tf.Dir, syscall.MNT_DETACH)
		}
	})
	return tf
}

// trapNode steps the trap around each call that changes names.
type trapNode struct {
	*fs.LoopbackNode
	tf *trapFS
}

// WrapChild makes the children trapNodes too.
func (n *trapNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &trapNode{LoopbackNode: ops.(*fs.LoopbackNode), tf: n.tf}
}

var (
	_ = (fs.NodeWrapChilder)((*trapNode)(nil))
	_ = (fs.NodeMkdirer)((*trapNode)(nil))
	_ = (fs.NodeRmdirer)((*trapNode)(nil))
	_ = (fs.NodeUnlinker)((*trapNode)(nil))
	_ = (fs.NodeRenamer)((*trapNode)(nil))
	_ = (fs.NodeCreater)((*trapNode)(nil))
)

func (n *trapNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.tf.step()
	ch, e := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	n.tf.step()
	return ch, e
}

func (n *trapNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	n.tf.step()
	e := n.LoopbackNode.Rmdir(ctx, name)
	n.tf.step()
	return e
}

func (n *trapNode) Unlink(ctx context.Context, name string) syscall.Errno {
	n.tf.step()
	e := n.LoopbackNode.Unlink(ctx, name)
	n.tf.step()
	return e
}

func (n *trapNode) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.tf.step()
	e := n.LoopbackNode.Rename(ctx, name, newParent, newName, flags)
	n.tf.step()
	return e
}

func (n *trapNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.tf.step()
	ch, fh, fl, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	n.tf.step()
	return ch, fh, fl, e
}
