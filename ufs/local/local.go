// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package local is the under file system of a folder of this host (or of
// anything that the kernel mounts there: NFS, Lustre, another disk).
//
// Every path is resolved by the kernel beneath the root (openat2 with
// RESOLVE_BENEATH; where a sandbox forbids that call, by os.Root component by
// component), so that neither ".." nor a symbolic link leads out. A link that
// stays inside is followed; one that leads out is Permission, and listings
// leave it out.
//
// An upload goes to a temporary file beside its key, is fsynced, renamed over
// the key, and the directory is fsynced: before Commit returns everything is
// on the disk, and a crash leaves the old or the new file. Mkdir, Remove and
// Rename fsync the directories that they change, by one fsync for all who have
// changed a directory while another one was under way (syncs.go).
//
// A fingerprint is inode, length and mtime in nanoseconds. Files committed
// here get an mtime of their own (not the kernel's clock tick), so that two
// versions never share a fingerprint even when an inode number is reused.
//
// No goroutines; the one lock, syncs.mu, is never held across a call: the kernel
// serialises. A call obeys
// its context at its start and between reads; a hung kernel call (NFS) is not
// interrupted.
package local

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs"
)

// Config names the folder.
type Config struct {
	// Root is an existing folder; an absolute path.
	Root string
	// Make creates Root when it is missing.
	Make bool
}

// Validate checks the fields without touching the disk.
func (c Config) Validate() error {
	if !strings.HasPrefix(c.Root, "/") {
		return &orca.Error{Op: "local.Open", Path: c.Root, Kind: orca.Invalid, Msg: "root is not an absolute path"}
	}
	return nil
}

// FS is an open folder.
type FS struct {
	root   string
	dir    *os.File // the root; nil never
	beside *os.Root // resolves where openat2 is forbidden; nil: openat2 works
	closed atomic.Bool
	log    *slog.Logger
	// chmodat is unix.Fchmodat; tests have it fail.
	chmodat func(dirfd int, name string, mode uint32, flags int) error
	syncs   syncs
}

var (
	_ ufs.FS        = (*FS)(nil)
	_ ufs.Renamer   = (*FS)(nil)
	_ ufs.Exchanger = (*FS)(nil)
	_ ufs.Owner     = (*FS)(nil)
	_ ufs.Spacer    = (*FS)(nil)
)

// Open opens the folder. NotFound, NotDir, Permission.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*FS, error) {
	const op = "Open"
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := alive(ctx, op, cfg.Root); err != nil {
		return nil, err
	}
	if cfg.Make {
		if err := os.MkdirAll(cfg.Root, 0o755); err != nil {
			return nil, fail(op, cfg.Root, err)
		}
	}
	d, err := os.OpenFile(cfg.Root, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, fail(op, cfg.Root, err)
	}
	f := &FS{root: cfg.Root, dir: d, log: log, chmodat: unix.Fchmodat, syncs: syncs{do: syncDir}}
	fd, err := unix.Openat2(int(d.Fd()), ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err == nil {
		_ = unix.Close(fd)
		return f, nil
	}
	if f.beside, err = os.OpenRoot(cfg.Root); err != nil {
		_ = d.Close()
		return nil, fail(op, cfg.Root, err)
	}
	log.Debug("openat2 is not available, resolving paths by component", "path", cfg.Root)
	return f, nil
}

// Caps implements ufs.FS.
func (f *FS) Caps() ufs.Caps {
	return ufs.Caps{AtomicRename: true, Exchange: true, Directories: true, Owners: true, Local: f.root}
}

// Close implements ufs.FS.
func (f *FS) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	if f.beside != nil {
		_ = f.beside.Close()
	}
	return f.dir.Close()
}

// begin refuses a call when its context or the FS is done, or the key is not
// clean.
func (f *FS) begin(ctx context.Context, op, key string) error {
	if err := alive(ctx, op, key); err != nil {
		return err
	}
	if f.closed.Load() {
		return &orca.Error{Op: "local." + op, Path: key, Kind: orca.Unavailable, Msg: "the store is closed"}
	}
	if key == "" {
		return nil
	}
	for name := range strings.SplitSeq(key, "/") {
		if err := orca.CheckName(name); err != nil {
			return &orca.Error{Op: "local." + op, Path: key, Kind: orca.KindOf(err), Err: err}
		}
	}
	return nil
}

func alive(ctx context.Context, op, key string) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return orca.PathE("local."+op, key, orca.Timeout, err)
	}
	return orca.PathE("local."+op, key, orca.Canceled, err)
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Info, error) {
	if err := f.begin(ctx, "Stat", key); err != nil {
		return ufs.Info{}, err
	}
	return f.stat("Stat", key)
}

func (f *FS) stat(op, key string) (ufs.Info, error) {
	fd, err := f.open(key, unix.O_PATH, 0)
	if err != nil {
		return ufs.Info{}, missing(op, key, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ufs.Info{}, fail(op, key, err)
	}
	in, ok := infoOf(key, &st)
	if !ok {
		return in, &orca.Error{Op: "local." + op, Path: key, Kind: orca.Unsupported, Msg: "neither a file nor a directory"}
	}
	return in, nil
}

// infoOf describes what a stat returned; ok is false for special files.
func infoOf(key string, st *unix.Stat_t) (in ufs.Info, ok bool) {
	in = ufs.Info{
		Key: key, Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		in.Dir = true
	case unix.S_IFREG:
		in.Size = st.Size
		in.Fingerprint = fingerprint(st)
	default:
		return in, false
	}
	return in, true
}

// fingerprint is inode-length-mtime in base 36.
func fingerprint(st *unix.Stat_t) string {
	b := make([]byte, 0, 40)
	b = strconv.AppendUint(b, st.Ino, 36)
	b = append(b, '-')
	b = strconv.AppendInt(b, st.Size, 36)
	b = append(b, '-')
	return string(strconv.AppendInt(b, st.Mtim.Sec*1e9+st.Mtim.Nsec, 36))
}

// Space implements ufs.Spacer.
func (f *FS) Space(ctx context.Context) (total, free int64, err error) {
	if err := f.begin(ctx, "Space", ""); err != nil {
		return 0, 0, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.dir.Fd()), &st); err != nil {
		return 0, 0, fail("Space", "", err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// errnoKinds is the in-edge of this package: what an errno means to a caller.
var errnoKinds = map[unix.Errno]orca.Kind{
	unix.ENOENT:       orca.NotFound,
	unix.EEXIST:       orca.Exists,
	unix.ENOTDIR:      orca.NotDir,
	unix.EISDIR:       orca.IsDir,
	unix.ENOTEMPTY:    orca.NotEmpty,
	unix.EACCES:       orca.Permission,
	unix.EPERM:        orca.Permission,
	unix.EXDEV:        orca.Permission, // openat2: the path leads out of the root
	unix.ELOOP:        orca.Permission,
	unix.EROFS:        orca.ReadOnly,
	unix.ENAMETOOLONG: orca.NameTooLong,
	unix.ENOSPC:       orca.NoSpace,
	unix.EDQUOT:       orca.NoSpace,
	unix.EFBIG:        orca.TooLarge,
	unix.EINVAL:       orca.Invalid,
	unix.EBUSY:        orca.Busy,
	unix.ETXTBSY:      orca.Busy,
	unix.EAGAIN:       orca.Busy,
	unix.EMFILE:       orca.Busy,
	unix.ENFILE:       orca.Busy,
	unix.ENOMEM:       orca.Busy,
	unix.ESTALE:       orca.Unavailable, // NFS
	unix.ETIMEDOUT:    orca.Unavailable,
	unix.ENOTCONN:     orca.Unavailable,
	unix.EHOSTDOWN:    orca.Unavailable,
	unix.EOPNOTSUPP:   orca.Unsupported,
	unix.ENOSYS:       orca.Unsupported,
	unix.ENXIO:        orca.Unsupported,
	unix.EIO:          orca.UFSFailure,
}

// missing is fail for a lookup: what lies below a file does not exist.
func missing(op, key string, err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		return orca.PathE("local."+op, key, orca.NotFound, unix.ENOTDIR)
	}
	return fail(op, key, err)
}

// fail translates an error of the kernel.
func fail(op, key string, err error) error {
	k := orca.UFSFailure
	var no unix.Errno
	switch {
	case errors.As(err, &no):
		if kk, ok := errnoKinds[no]; ok {
			k = kk
		}
		err = no
	case errors.Is(err, fs.ErrClosed):
		k = orca.Unavailable
	case escapes(err):
		k = orca.Permission
	}
	return orca.PathE("local."+op, key, k, err)
}
