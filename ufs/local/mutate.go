// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs"
)

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, mode uint32) error {
	const op = "Mkdir"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if key == "" {
		return &orca.Error{Op: "local.Mkdir", Kind: orca.Exists}
	}
	fd, name, err := f.parent(key)
	if err != nil {
		return fail(op, key, err)
	}
	defer unix.Close(fd)
	return wrapped(op, key, f.mkdirAt(fd, name, mode))
}

// mkdirAt makes a directory with exactly this mode (whatever the umask),
// durably. One that fails leaves none, unless somebody uses it by then.
func (f *FS) mkdirAt(fd int, name string, mode uint32) error {
	if err := unix.Mkdirat(fd, name, mode&0o7777); err != nil {
		return err
	}
	err := f.chmodat(fd, name, mode&0o7777, 0)
	if err == nil {
		err = f.syncs.dir(fd)
	}
	if err != nil {
		_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
	return err
}

// wrapped is fail for an error that may be nil.
func wrapped(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return fail(op, key, err)
}

// Remove implements ufs.FS. A directory that holds nothing but temporary names
// counts as empty: they are remains of uploads.
func (f *FS) Remove(ctx context.Context, key string) error {
	const op = "Remove"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if key == "" {
		return &orca.Error{Op: "local.Remove", Kind: orca.Invalid, Msg: "the root cannot be removed"}
	}
	fd, name, err := f.parent(key)
	if err != nil {
		return missing(op, key, err)
	}
	defer unix.Close(fd)
	err = unix.Unlinkat(fd, name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = f.rmdir(fd, name, key)
	}
	if err != nil {
		return fail(op, key, err)
	}
	return wrapped(op, key, f.syncs.dir(fd))
}

// rmdir removes the empty directory name of fd.
func (f *FS) rmdir(fd int, name, key string) error {
	err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dfd, oerr := f.open(key, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if oerr != nil {
		return oerr
	}
	d := os.NewFile(uintptr(dfd), key)
	defer d.Close()
	names, rerr := d.Readdirnames(dirBatch)
	if rerr != nil || len(names) == dirBatch {
		return unix.ENOTEMPTY
	}
	for _, n := range names {
		if !ufs.IsTemp(n) {
			return unix.ENOTEMPTY
		}
	}
	for _, n := range names {
		if err := unix.Unlinkat(dfd, n, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return unix.ENOTEMPTY
		}
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

// Rename implements ufs.Renamer.
func (f *FS) Rename(ctx context.Context, src, dst string) error {
	const op = "Rename"
	if err := f.begin(ctx, op, src); err != nil {
		return err
	}
	if err := f.begin(ctx, op, dst); err != nil {
		return err
	}
	if src == "" || dst == "" {
		return &orca.Error{Op: "local.Rename", Path: src, Kind: orca.Invalid, Msg: "the root cannot be renamed"}
	}
	sfd, sname, err := f.parent(src)
	if err != nil {
		return fail(op, src, err)
	}
	defer unix.Close(sfd)
	dfd, dname, err := f.parent(dst)
	if err != nil {
		return fail(op, dst, err)
	}
	defer unix.Close(dfd)
	err = unix.Renameat(sfd, sname, dfd, dname)
	switch {
	case errors.Is(err, unix.EXDEV):
		return orca.PathE("local.Rename", src, orca.CrossMount, err)
	case errors.Is(err, unix.EEXIST):
		return orca.PathE("local.Rename", dst, orca.NotEmpty, err)
	case err != nil:
		return fail(op, src, err)
	}
	// The new name first: a crash between the two may show both, never none.
	if err := f.syncs.dir(dfd); err != nil {
		return fail(op, dst, err)
	}
	return wrapped(op, src, f.syncs.dir(sfd))
}

// onPath runs fn with a path that leads to the object of key itself, through
// /proc: the calls below have no variant for an O_PATH descriptor.
func (f *FS) onPath(ctx context.Context, op, key string, fn func(path string) error) error {
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	fd, err := f.open(key, unix.O_PATH, 0)
	if err != nil {
		return fail(op, key, err)
	}
	defer unix.Close(fd)
	return wrapped(op, key, fn("/proc/self/fd/"+strconv.Itoa(fd)))
}

// Chmod implements ufs.Owner.
func (f *FS) Chmod(ctx context.Context, key string, mode uint32) error {
	return f.onPath(ctx, "Chmod", key, func(p string) error { return unix.Chmod(p, mode&0o7777) })
}

// Chown implements ufs.Owner; ^uint32(0) leaves an id as it is.
func (f *FS) Chown(ctx context.Context, key string, uid, gid uint32) error {
	return f.onPath(ctx, "Chown", key, func(p string) error { return unix.Chown(p, int(int32(uid)), int(int32(gid))) })
}

// Utimens implements ufs.Owner. The zero time leaves that time as it is.
func (f *FS) Utimens(ctx context.Context, key string, atime, mtime time.Time) error {
	return f.onPath(ctx, "Utimens", key, func(p string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{timespec(atime), timespec(mtime)}, 0)
	})
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
