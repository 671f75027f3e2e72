// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"orca"
)

// Read serves what passthrough does not.
func (g *gateway) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	g.count(OpRead)
	h := g.handle(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	var n int
	var err error
	if w := h.n.live.Load(); w != nil && w.file() != nil {
		n, err = w.file().ReadAt(buf, int64(in.Offset))
	} else if kept := h.n.kept.Load(); kept != nil {
		n, err = kept.ReadAt(buf, int64(in.Offset))
	} else if h.file != nil {
		ctx, done := g.readContext(cancel, in.Pid)
		n, err = readFull(ctx, h.file, buf, int64(in.Offset))
		done()
	} else {
		return nil, fuse.EBADF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, g.fail(err)
	}
	g.m.ReadBytes.Add(int64(n))
	return fuse.ReadResultVector([][]byte{buf[:n]}), fuse.OK
}

// readFull fills p: to the kernel a short read is the end of the file.
func readFull(ctx context.Context, f File, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := f.ReadAt(ctx, p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// readContext bounds a read. A signal does not end it, since few programs
// expect EINTR from a file, unless it kills the process.
func (g *gateway) readContext(cancel <-chan struct{}, pid uint32) (context.Context, func()) {
	ctx, stop := context.WithTimeout(context.Background(), g.cfg.ReadTimeout)
	t := time.AfterFunc(200*time.Millisecond, func() { watchKilled(ctx, cancel, pid, stop) })
	return ctx, func() {
		t.Stop()
		stop()
	}
}

func watchKilled(ctx context.Context, cancel <-chan struct{}, pid uint32, stop func()) {
	select {
	case <-ctx.Done():
		return
	case <-cancel:
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !killed(pid) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	stop()
}

// killed reports whether SIGKILL is pending for a process, or it is gone.
func killed(pid uint32) bool {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		if k != "SigPnd" && k != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		if err == nil && mask&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// writable returns the private file behind a handle, made on first need.
func (g *gateway) writable(ctx context.Context, fh uint64) (*os.File, fuse.Status) {
	h := g.handle(fh)
	if h == nil || h.w == nil {
		return nil, fuse.EBADF
	}
	if h.w.file() == nil {
		if err := h.w.prepare(ctx, -1); err != nil {
			return nil, g.fail(err)
		}
	}
	return h.w.file(), fuse.OK
}

// Write serves what passthrough does not.
func (g *gateway) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	g.count(OpWrite)
	ctx, cancel := g.longCall()
	defer cancel()
	f, st := g.writable(ctx, in.Fh)
	if !st.Ok() {
		return 0, st
	}
	n, err := f.WriteAt(data, int64(in.Offset))
	g.m.WriteBytes.Add(int64(n))
	if err != nil && n == 0 {
		return 0, g.fail(err)
	}
	return uint32(n), fuse.OK
}

// Fallocate reserves or punches in the private file.
func (g *gateway) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	ctx, cancel := g.longCall()
	defer cancel()
	f, st := g.writable(ctx, in.Fh)
	if !st.Ok() {
		return st
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return g.fail(err)
	}
	var ferr error
	err = rc.Control(func(fd uintptr) {
		ferr = unix.Fallocate(int(fd), in.Mode, int64(in.Offset), int64(in.Length))
	})
	return g.fail(errors.Join(err, ferr))
}

// Flush is close(2), of this or of a duplicated descriptor: what changed since
// the last publication is published, and close returns the error.
func (g *gateway) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	g.count(OpFlush)
	h := g.handle(in.Fh)
	if h == nil || h.w == nil {
		return fuse.OK
	}
	ctx, cancel := g.longCall()
	defer cancel()
	return g.fail(h.w.publish(ctx, false))
}

// Fsync makes the private file durable; it publishes nothing.
func (g *gateway) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	g.count(OpFsync)
	h := g.handle(in.Fh)
	if h == nil || h.w == nil {
		return fuse.OK
	}
	ctx, cancel := g.call()
	defer cancel()
	return g.fail(h.w.sync(ctx))
}

// Ioctl has nothing to offer.
func (g *gateway) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}

// copyOld copies the first length bytes of a version into a private file, and
// returns how many there were.
func copyOld(ctx context.Context, dst *os.File, src File, length int64) (int64, error) {
	length = min(length, src.Attr().Length)
	if local := src.Backing(ctx); local != nil {
		if n := copyRange(dst, local, length); n == length {
			return n, nil
		}
	}
	buf := make([]byte, min(int64(maxWrite), max(length, 1)))
	for off := int64(0); off < length; {
		p := buf[:min(int64(len(buf)), length-off)]
		n, err := readFull(ctx, src, p, off)
		if n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return off, orca.PathE("fusegw.copyOld", "", orca.KindOf(err), err)
		}
		if _, err := dst.WriteAt(p, off); err != nil {
			return off, err
		}
		off += int64(n)
	}
	return length, nil
}

// copyRange lets the kernel copy; it returns how far it came.
func copyRange(dst, src *os.File, length int64) int64 {
	var roff, woff int64
	for roff < length {
		n, err := unix.CopyFileRange(int(src.Fd()), &roff, int(dst.Fd()), &woff, int(min(length-roff, 1<<30)), 0)
		if err != nil || n == 0 {
			break
		}
	}
	return roff
}
