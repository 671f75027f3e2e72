// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// faultDisk is a folder whose disk stalls, is slow, or fails: a FUSE loopback.
// What is tested on it is the program as it is shipped, with every call that it
// makes on that disk, and not a layer that was put in for the test.
type faultDisk struct {
	raw     string
	slow    atomic.Int64 // nanoseconds that each fsync takes more
	fsyncs  atomic.Int64
	waiting atomic.Int64 // calls that wait because of a stall

	mu   sync.Mutex
	gate chan struct{}                       // open: nil; GUARDED_BY(mu)
	fail func(op, path string) syscall.Errno // GUARDED_BY(mu)
}

// newFaultDisk mounts one at dir.
func newFaultDisk(t *testing.T, dir string) *faultDisk {
	t.Helper()
	d := &faultDisk{raw: t.TempDir()}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	loop, err := fs.NewLoopbackRoot(d.raw)
	if err != nil {
		t.Fatal(err)
	}
	root := &diskNode{LoopbackNode: loop.(*fs.LoopbackNode), d: d}
	srv, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, Name: "faultdisk", FsName: "faultdisk", MaxBackground: 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the processes that use it are gone
		d.resume()
		if srv.Unmount() != nil {
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return d
}

// stall makes every call that changes something wait for resume.
func (d *faultDisk) stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate == nil {
		d.gate = make(chan struct{})
	}
}

func (d *faultDisk) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate != nil {
		close(d.gate)
		d.gate = nil
	}
}

// failing makes calls fail with what f says; nil: none.
func (d *faultDisk) failing(f func(op, path string) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// enter is what each changing call passes.
func (d *faultDisk) enter(op, path string) syscall.Errno {
	if op == "fsync" {
		d.fsyncs.Add(1)
		<-time.After(time.Duration(d.slow.Load()))
	}
	d.mu.Lock()
	gate, fail := d.gate, d.fail
	d.mu.Unlock()
	if gate != nil {
		d.waiting.Add(1)
		<-gate
		d.waiting.Add(-1)
	}
	if fail != nil {
		return fail(op, path)
	}
	return 0
}

// diskNode passes each changing call through enter. Its handles hide what the
// loopback's can do, so that the kernel does not write past it.
type diskNode struct {
	*fs.LoopbackNode
	d *faultDisk
}

type diskHandle struct{ fs.FileHandle }

func (n *diskNode) path() string { return n.Path(n.Root()) }

// WrapChild makes the children diskNodes too.
func (n *diskNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &diskNode{LoopbackNode: ops.(*fs.LoopbackNode), d: n.d}
}

var (
	_ = (fs.NodeWrapChilder)((*diskNode)(nil))
	_ = (fs.NodeWriter)((*diskNode)(nil))
	_ = (fs.NodeFsyncer)((*diskNode)(nil))
	_ = (fs.NodeReader)((*diskNode)(nil))
	_ = (fs.NodeFlusher)((*diskNode)(nil))
	_ = (fs.NodeReleaser)((*diskNode)(nil))
	_ = (fs.NodeAllocater)((*diskNode)(nil))
	_ = (fs.NodeGetattrer)((*diskNode)(nil))
	_ = (fs.NodeSetattrer)((*diskNode)(nil))
	_ = (fs.NodeRenamer)((*diskNode)(nil))
	_ = (fs.NodeUnlinker)((*diskNode)(nil))
	_ = (fs.NodeCreater)((*diskNode)(nil))
)

func handle(f fs.FileHandle) fs.FileHandle {
	if h, ok := f.(*diskHandle); ok {
		return h.FileHandle
	}
	return f
}

func (n *diskNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, fl, e := n.LoopbackNode.Open(ctx, flags)
	return &diskHandle{f}, fl, e
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.enter("create", filepath.Join(n.path(), name)); e != 0 {
		return nil, nil, 0, e
	}
	ch, f, fl, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return ch, &diskHandle{f}, fl, e
}

func (n *diskNode) Read(ctx context.Context, f fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return handle(f).(fs.FileReader).Read(ctx, dest, off)
}

func (n *diskNode) Write(ctx context.Context, f fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if e := n.d.enter("write", n.path()); e != 0 {
		return 0, e
	}
	return handle(f).(fs.FileWriter).Write(ctx, data, off)
}

func (n *diskNode) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	if e := n.d.enter("fsync", n.path()); e != 0 {
		return e
	}
	if s, ok := handle(f).(fs.FileFsyncer); ok {
		return s.Fsync(ctx, flags)
	}
	return 0 // of a folder
}

func (n *diskNode) Flush(ctx context.Context, f fs.FileHandle) syscall.Errno {
	return handle(f).(fs.FileFlusher).Flush(ctx)
}

func (n *diskNode) Release(ctx context.Context, f fs.FileHandle) syscall.Errno {
	return handle(f).(fs.FileReleaser).Release(ctx)
}

func (n *diskNode) Allocate(ctx context.Context, f fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if e := n.d.enter("allocate", n.path()); e != 0 {
		return e
	}
	return handle(f).(fs.FileAllocater).Allocate(ctx, off, size, mode)
}

func (n *diskNode) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.LoopbackNode.Getattr(ctx, handle(f), out)
}

func (n *diskNode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := n.d.enter("setattr", n.path()); e != 0 {
		return e
	}
	return n.LoopbackNode.Setattr(ctx, handle(f), in, out)
}

func (n *diskNode) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if e := n.d.enter("rename", filepath.Join(n.path(), name)); e != 0 {
		return e
	}
	return n.LoopbackNode.Rename(ctx, name, newParent, newName, flags)
}

func (n *diskNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if e := n.d.enter("unlink", filepath.Join(n.path(), name)); e != 0 {
		return e
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

// failOn fails an operation on the paths that contain part.
func failOn(op, part string, errno syscall.Errno) func(string, string) syscall.Errno {
	return func(o, p string) syscall.Errno {
		if o == op && strings.Contains(p, part) {
			return errno
		}
		return 0
	}
}
