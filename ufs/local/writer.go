// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs"
)

// maxToken bounds the part of a temporary name that the caller chooses.
const maxToken = 128

// lastMtime makes the mtimes of commits distinct in this process.
var lastMtime atomic.Int64

// writer is one upload to a temporary file in the directory of its key.
type writer struct {
	f        *FS
	key      string
	dirfd    int // of the directory of key
	name     string
	temp     string
	file     *os.File
	made     []string // directories that Create had to make, outermost first
	hint     ufs.WriteHint
	prepared bool
	done     bool
}

var (
	_ ufs.Writer   = (*writer)(nil)
	_ ufs.Preparer = (*writer)(nil)
	_ ufs.Hinted   = (*writer)(nil)
)

// tempName is the temporary name of an upload: it carries the token and the
// hash of the last name, which may itself be as long as a name can be.
func tempName(name, token string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return ufs.TempPrefix + token + "." + strconv.FormatUint(h.Sum64(), 36)
}

func checkToken(op, key, token string) error {
	if len(token) > maxToken {
		return &orca.Error{Op: "local." + op, Path: key, Kind: orca.Invalid, Msg: "token too long"}
	}
	for _, c := range token {
		if c == '/' || c == 0 {
			return &orca.Error{Op: "local." + op, Path: key, Kind: orca.Invalid, Msg: "slash or NUL in the token"}
		}
	}
	return nil
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key, token string) (ufs.Writer, error) {
	const op = "Create"
	if err := f.begin(ctx, op, key); err != nil {
		return nil, err
	}
	if err := checkToken(op, key, token); err != nil {
		return nil, err
	}
	if key == "" {
		return nil, &orca.Error{Op: "local.Create", Kind: orca.IsDir}
	}
	if token == "" {
		token = rand.Text()
	}
	w := &writer{f: f, key: key}
	dir, name := split(key)
	fd, err := f.makeDirs(dir, &w.made)
	if err != nil {
		w.unmake()
		return nil, fail(op, key, err)
	}
	w.dirfd, w.name, w.temp = fd, name, tempName(name, token)
	var st unix.Stat_t
	if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		_ = unix.Close(fd)
		return nil, &orca.Error{Op: "local.Create", Path: key, Kind: orca.IsDir}
	}
	tfd, err := unix.Openat(fd, w.temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		_ = w.Abort(ctx)
		return nil, fail(op, key, err)
	}
	w.file = os.NewFile(uintptr(tfd), w.temp)
	return w, nil
}

// makeDirs opens dir, making it and its missing parents durably; made gets
// those it made.
func (f *FS) makeDirs(dir string, made *[]string) (int, error) {
	fd, err := f.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if !errors.Is(err, unix.ENOENT) || dir == "" {
		return fd, err
	}
	up, name := split(dir)
	pfd, err := f.makeDirs(up, made)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pfd)
	switch err := f.mkdirAt(pfd, name, 0o755); {
	case err == nil:
		*made = append(*made, dir)
	case !errors.Is(err, unix.EEXIST):
		return -1, err
	}
	return f.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// Hint implements ufs.Hinted.
func (w *writer) Hint(h ufs.WriteHint) { w.hint = h }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.done || w.f.closed.Load() {
		return 0, &orca.Error{Op: "local.Write", Path: w.key, Kind: orca.Unavailable, Msg: "the upload or its store is closed"}
	}
	n, err := w.file.Write(p)
	return n, wrapped("Write", w.key, err)
}

// Prepare implements ufs.Preparer: owner, times and bytes reach the disk.
func (w *writer) Prepare(ctx context.Context) error {
	const op = "Prepare"
	if err := w.f.begin(ctx, op, w.key); err != nil {
		return err
	}
	if w.prepared {
		return nil
	}
	if err := w.setOwner(); err != nil {
		return fail(op, w.key, err)
	}
	ts := unix.NsecToTimespec(nextMtime())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(w.file.Fd())), []unix.Timespec{ts, ts}, 0); err != nil {
		return fail(op, w.key, err)
	}
	if err := w.file.Sync(); err != nil {
		return fail(op, w.key, err)
	}
	w.prepared = true
	return nil
}

// nextMtime returns the time now, later than every one returned before.
func nextMtime() int64 {
	for {
		last := lastMtime.Load()
		now := max(time.Now().UnixNano(), last+1)
		if lastMtime.CompareAndSwap(last, now) {
			return now
		}
	}
}

// setOwner gives the temporary file the mode and owner of the hint, else of
// the file that it will replace.
func (w *writer) setOwner() error {
	mode, uid, gid, own := w.hint.Mode, w.hint.UID, w.hint.GID, w.hint.Owned
	if !own {
		mode = 0o644
		var st unix.Stat_t
		if err := unix.Fstatat(w.dirfd, w.name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			mode, uid, gid, own = st.Mode, st.Uid, st.Gid, true
		}
	}
	fd := int(w.file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if own && (st.Uid != uid || st.Gid != gid) {
		// Who is not root may not give files away: the file is ours then.
		if err := unix.Fchown(fd, int(uid), int(gid)); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return unix.Fchmod(fd, mode&0o7777) // after chown, which clears setuid
}

// Commit implements ufs.Writer.
func (w *writer) Commit(ctx context.Context) (ufs.Info, error) {
	const op = "Commit"
	if w.done {
		return ufs.Info{}, &orca.Error{Op: "local.Commit", Path: w.key, Kind: orca.Invalid, Msg: "the upload has ended"}
	}
	if err := w.Prepare(ctx); err != nil {
		return ufs.Info{}, err
	}
	if err := w.expected(); err != nil {
		return ufs.Info{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(w.file.Fd()), &st); err != nil {
		return ufs.Info{}, fail(op, w.key, err)
	}
	if err := unix.Renameat(w.dirfd, w.temp, w.dirfd, w.name); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return ufs.Info{}, &orca.Error{Op: "local.Commit", Path: w.key, Kind: orca.Stale, Msg: "the upload was swept"}
		}
		return ufs.Info{}, fail(op, w.key, err)
	}
	if err := w.f.syncs.dir(w.dirfd); err != nil {
		return ufs.Info{}, fail(op, w.key, err)
	}
	w.end()
	in, _ := infoOf(w.key, &st)
	return in, nil
}

// expected checks WriteHint.Expect. Another program may slip in between this
// and the rename: the kernel has no conditional rename by content.
func (w *writer) expected() error {
	if w.hint.Expect == "" {
		return nil
	}
	have := ufs.Absent
	var st unix.Stat_t
	if err := unix.Fstatat(w.dirfd, w.name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		have = fingerprint(&st)
	} else if !errors.Is(err, unix.ENOENT) {
		return fail("Commit", w.key, err)
	}
	if have != w.hint.Expect {
		return &orca.Error{Op: "local.Commit", Path: w.key, Kind: orca.Conflict, Msg: "the file changed meanwhile"}
	}
	return nil
}

// end frees the descriptors.
func (w *writer) end() {
	w.done = true
	if w.file != nil {
		_ = w.file.Close()
	}
	_ = unix.Close(w.dirfd)
}

// Abort implements ufs.Writer. It ignores the context: what is left behind
// would stay.
func (w *writer) Abort(context.Context) error {
	if w.done {
		return nil
	}
	var err error
	if w.file != nil {
		if err = unix.Unlinkat(w.dirfd, w.temp, 0); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	w.end()
	w.unmake()
	return wrapped("Abort", w.key, err)
}

// unmake removes the directories that Create made, but those that somebody else
// uses by now.
func (w *writer) unmake() {
	for _, dir := range slices.Backward(w.made) {
		fd, name, err := w.f.parent(dir)
		if err != nil {
			return
		}
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		_ = unix.Close(fd)
		if err != nil {
			return
		}
	}
}

// Sweep implements ufs.FS. Without a token there is nothing to find: such
// uploads have a random one.
func (f *FS) Sweep(ctx context.Context, key, token string) error {
	const op = "Sweep"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if err := checkToken(op, key, token); err != nil {
		return err
	}
	if key == "" || token == "" {
		return nil
	}
	fd, name, err := f.parent(key)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fail(op, key, err)
	}
	defer unix.Close(fd)
	if err := unix.Unlinkat(fd, tempName(name, token), 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fail(op, key, err)
	}
	return nil
}
