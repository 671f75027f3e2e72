// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs"
)

// dirBatch is how many names are read from a directory at once.
const dirBatch = 1024

// List implements ufs.FS. It holds the names of the directory, since the
// kernel lists in no order.
func (f *FS) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	const op = "List"
	if err := f.begin(ctx, op, dir); err != nil {
		return err
	}
	fd, err := f.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail(op, dir, err)
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	children, err := f.children(d, dir)
	if err != nil {
		return fail(op, dir, err)
	}
	for _, c := range children {
		if err := alive(ctx, op, dir); err != nil {
			return err
		}
		in, err := f.child(fd, c)
		switch {
		case errors.Is(err, orca.NotFound), errors.Is(err, orca.Permission), errors.Is(err, orca.Unsupported):
			continue // vanished meanwhile, a link that leads out, a special file
		case err != nil:
			return err
		case in.Dir != c.Dir:
			continue // replaced meanwhile by another kind: out of order now
		}
		if err := fn(in); err != nil {
			return err
		}
	}
	return nil
}

// children returns key and kind of the entries of d in the order of
// ufs.Compare. Only Key and Dir are set; Mode marks a symbolic link.
func (f *FS) children(d *os.File, dir string) ([]ufs.Info, error) {
	var out []ufs.Info
	prefix := dir
	if prefix != "" {
		prefix += "/"
	}
	for {
		entries, err := d.ReadDir(dirBatch)
		for _, e := range entries {
			c := ufs.Info{Key: prefix + e.Name(), Dir: e.IsDir()}
			if ufs.IsTemp(e.Name()) {
				continue
			}
			if !e.Type().IsRegular() && !e.IsDir() {
				in, err := f.stat("List", c.Key)
				if err != nil {
					continue
				}
				c.Dir, c.Mode = in.Dir, 1
			}
			out = append(out, c)
		}
		if errors.Is(err, io.EOF) {
			slices.SortFunc(out, ufs.Compare)
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// child describes one entry of the open directory.
func (f *FS) child(dirfd int, c ufs.Info) (ufs.Info, error) {
	if c.Mode == 0 {
		var st unix.Stat_t
		_, name := split(c.Key)
		if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ufs.Info{}, fail("List", c.Key, err)
		}
		if in, ok := infoOf(c.Key, &st); ok {
			return in, nil
		}
	}
	return f.stat("List", c.Key)
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	const op = "Open"
	if err := f.begin(ctx, op, key); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, &orca.Error{Op: "local.Open", Path: key, Kind: orca.Invalid, Msg: "negative offset"}
	}
	fd, err := f.open(key, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, missing(op, key, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fail(op, key, err)
	}
	k := orca.OK
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if want != "" && fingerprint(&st) != want {
			k = orca.Stale
		}
	case unix.S_IFDIR:
		k = orca.IsDir
	default:
		k = orca.Unsupported
	}
	if k != orca.OK {
		_ = unix.Close(fd)
		return nil, &orca.Error{Op: "local.Open", Path: key, Kind: k}
	}
	end := st.Size
	if n >= 0 && n < end-off {
		end = off + n
	}
	return &reader{ctx: ctx, fd: fd, key: key, off: off, end: end, want: want}, nil
}

// reader reads [off, end) of one open file.
type reader struct {
	ctx      context.Context //nolint:containedctx // a reader's life is one call of its opener
	fd       int
	key      string
	off, end int64
	want     string
}

// Read implements io.Reader. The fingerprint is checked before the last bytes
// are handed out, so that who reads exactly n bytes has the answer too; a torn
// read returns no byte of its last piece.
func (r *reader) Read(p []byte) (int, error) {
	if err := alive(r.ctx, "Read", r.key); err != nil {
		return 0, err
	}
	if r.off >= r.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.pread(p[:min(int64(len(p)), r.end-r.off)])
	if err != nil {
		return 0, fail("Read", r.key, err)
	}
	short := n == 0 // the file was cut under us
	r.off += int64(n)
	if r.want != "" && (short || r.off >= r.end) {
		var st unix.Stat_t
		if err := unix.Fstat(r.fd, &st); err != nil {
			return 0, fail("Read", r.key, err)
		}
		if fingerprint(&st) != r.want {
			return 0, &orca.Error{Op: "local.Read", Path: r.key, Kind: orca.Stale, Msg: "the file changed while it was read"}
		}
	}
	if short {
		return 0, io.EOF
	}
	return n, nil
}

func (r *reader) pread(p []byte) (int, error) {
	for {
		n, err := unix.Pread(r.fd, p, r.off)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.fd < 0 {
		return nil
	}
	fd := r.fd
	r.fd = -1
	return unix.Close(fd)
}
