// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"orca"
)

// fsType is how our mounts show in /proc/self/mountinfo.
const fsType = "fuse.orca"

// mountDirect mounts by mount(2) and returns the device.
func mountDirect(dir string, allowOther, readOnly bool) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,default_permissions",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxWrite)
	if allowOther {
		data += ",allow_other"
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("orca", dir, fsType, flags, data); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func mountError(dir string, err error) error {
	e := &orca.Error{Op: "fusegw.Mount", Path: dir, Kind: orca.Unavailable, Err: err}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		e.Msg = "no /dev/fuse: load the fuse module (modprobe fuse) or pass the device to the container"
	}
	return e
}

func checkMountPoint(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return orca.PathE("fusegw.Mount", dir, orca.NotFound, nil)
	case err != nil:
		return orca.PathE("fusegw.Mount", dir, orca.Unavailable, err)
	case !st.IsDir():
		return orca.PathE("fusegw.Mount", dir, orca.NotDir, nil)
	}
	return nil
}

// detachStale takes a mount of ours whose server has died off dir.
func detachStale(dir string, log *slog.Logger) error {
	for range 8 { // mounts stack
		typ, err := mountedType(dir)
		if err != nil || typ != fsType {
			return err
		}
		if !dead(dir) {
			return &orca.Error{Op: "fusegw.Mount", Path: dir, Kind: orca.Busy, Msg: "another Orca serves this mount point"}
		}
		if err := unmountLazily(dir); err != nil {
			return orca.PathE("fusegw.Mount", dir, orca.Unavailable, err)
		}
		log.Warn("detached a stale mount", "dir", dir)
	}
	return nil
}

// dead reports whether the server of a FUSE mount is gone. A server that does
// not answer for two seconds counts as alive: it is not ours to take away.
func dead(dir string) bool {
	res := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		res <- unix.Statfs(dir, &st) // never from a cache
	}()
	select {
	case err := <-res:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
	case <-time.After(2 * time.Second):
		return false
	}
}

// mountedType returns the type of the topmost mount on exactly dir, "" if
// there is none.
func mountedType(dir string) (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", orca.PathE("fusegw.Mount", "/proc/self/mountinfo", orca.Unavailable, err)
	}
	defer f.Close()
	typ, sc := "", bufio.NewScanner(f)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields, tail := strings.Fields(left), strings.Fields(right)
		if ok && len(fields) > 4 && len(tail) > 0 && unescapeMount(fields[4]) == dir {
			typ = tail[0]
		}
	}
	return typ, sc.Err()
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	if !strings.Contains(s, "\\") {
		return s
	}
	return strings.NewReplacer("\\040", " ", "\\011", "\t", "\\012", "\n", "\\134", "\\").Replace(s)
}

func unmountLazily(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		return fusermount("-u", "-z", dir)
	}
	return err
}

func fusermount(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "fusermount3", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %s: %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}

// detach unmounts dir; Busy when it stays in use for half a second.
func detach(ctx context.Context, dir string, direct bool) error {
	typ, err := mountedType(dir)
	if err != nil || typ != fsType {
		return err // somebody else did it
	}
	for i := 0; i < 10 && ctx.Err() == nil; i++ {
		if direct {
			err = unix.Unmount(dir, 0)
		} else {
			err = fusermount("-u", dir)
		}
		if err == nil || errors.Is(err, unix.EINVAL) {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return orca.PathE("fusegw.Unmount", dir, orca.Busy, err)
}

// unmountForced detaches dir although files are open, and cuts them off.
func unmountForced(dir string) error {
	err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		err = fusermount("-u", "-z", dir)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return orca.PathE("fusegw.Unmount", dir, orca.Busy, err)
	}
	return nil
}

// firstRequest goes through the mount once. The name is one that go-fuse
// answers itself; polling it makes the kernel stop asking FUSE about polling,
// so that Go programs (this one too) can use files of the mount.
func firstRequest(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return nil
}

// setReadAhead raises how much the kernel asks for at once, and learns the
// number of the connection: the minor of the device.
func (g *gateway) setReadAhead(dir string, kb int) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	g.conn = unix.Minor(st.Dev)
	p := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	return os.WriteFile(p, []byte(fmt.Sprint(kb)), 0)
}

// notifyEpoch makes the kernel look every name up again (Linux 6.16).
//
// The device is go-fuse's, which closes it when the mount ends: it is
// duplicated and checked each time. A duplicate kept open would be worse. It
// would hold the connection while a dying process closes its other files, and
// closing one on its own mount then waits for ever.
func (g *gateway) notifyEpoch() error {
	fd, err := unix.FcntlInt(uintptr(g.dev.Load()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Rdev != unix.Mkdev(10, 229) {
		return unix.EBADF
	}
	const notifyIncEpoch = 8
	var b [16]byte // fuse_out_header: length, code, unique
	binary.NativeEndian.PutUint32(b[:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], notifyIncEpoch)
	_, err = unix.Write(fd, b[:])
	return err
}

// abortConnection cuts the kernel's connection, so that nothing waits for a
// server that is going away.
func (g *gateway) abortConnection() {
	if g.conn == 0 {
		return
	}
	p := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", g.conn)
	if err := os.WriteFile(p, []byte("1"), 0); err != nil {
		g.cfg.Logger.Warn("files are still open on the detached mount", "err", err)
	}
}
