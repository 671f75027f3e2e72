// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"orca"
)

var (
	_ fs.ReadDirFS   = (*IOFS)(nil)
	_ fs.StatFS      = (*IOFS)(nil)
	_ fs.ReadFileFS  = (*IOFS)(nil)
	_ fs.ReadLinkFS  = (*IOFS)(nil)
	_ fs.SubFS       = (*IOFS)(nil)
	_ fs.ReadDirFile = (*ioDir)(nil)
)

// IOFS is the read side as the standard library's file system: for templates,
// http.FS, fs.WalkDir and the like. Names are slash-separated and relative to
// its root. Symbolic links are not followed.
type IOFS struct {
	fs   *FS
	ctx  context.Context
	root string // clean path
}

// IOFS returns the tree at root (a path; "" is "/") as an fs.FS. All its calls
// run under ctx.
func (fs *FS) IOFS(ctx context.Context, root string) (*IOFS, error) {
	if root == "" {
		root = "/"
	}
	p, err := orca.CleanPath(root)
	if err != nil {
		return nil, err
	}
	return &IOFS{fs: fs, ctx: ctx, root: p}, nil
}

// at resolves a name of io/fs.
func (x *IOFS) at(op, name string) (Target, error) {
	if !fs.ValidPath(name) {
		return Target{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return Path(x.root), nil
	}
	return Path(orca.JoinPath(x.root, name)), nil
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// named gives the info the name of io/fs ("." for the root).
func named(i Info, name string) Info {
	_, i.Name = orca.SplitPath("/" + name)
	return i
}

// Stat implements fs.StatFS.
func (x *IOFS) Stat(name string) (fs.FileInfo, error) {
	t, err := x.at("stat", name)
	if err != nil {
		return nil, err
	}
	i, err := x.fs.Stat(x.ctx, t, Sync{})
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return named(i, name).FileInfo(), nil
}

// Lstat implements fs.ReadLinkFS.
func (x *IOFS) Lstat(name string) (fs.FileInfo, error) { return x.Stat(name) }

// ReadLink implements fs.ReadLinkFS.
func (x *IOFS) ReadLink(name string) (string, error) {
	t, err := x.at("readlink", name)
	if err != nil {
		return "", err
	}
	s, err := x.fs.Readlink(x.ctx, t)
	return s, pathError("readlink", name, err)
}

// Open implements fs.FS.
func (x *IOFS) Open(name string) (fs.File, error) {
	t, err := x.at("open", name)
	if err != nil {
		return nil, err
	}
	f, err := x.fs.Open(x.ctx, t, ReadOptions{})
	if errors.Is(err, orca.IsDir) {
		i, err := x.fs.Stat(x.ctx, t, Sync{})
		if err != nil {
			return nil, pathError("open", name, err)
		}
		return &ioDir{x: x, name: name, t: t, info: named(i, name)}, nil
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return f, nil
}

// ReadFile implements fs.ReadFileFS.
func (x *IOFS) ReadFile(name string) ([]byte, error) {
	t, err := x.at("readfile", name)
	if err != nil {
		return nil, err
	}
	f, err := x.fs.Open(x.ctx, t, ReadOptions{})
	if err != nil {
		return nil, pathError("readfile", name, err)
	}
	defer f.Close()
	b := make([]byte, f.Size())
	n, err := f.ReadAtContext(x.ctx, b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], pathError("readfile", name, err)
}

// ReadDir implements fs.ReadDirFS.
func (x *IOFS) ReadDir(name string) ([]fs.DirEntry, error) {
	t, err := x.at("readdir", name)
	if err != nil {
		return nil, err
	}
	out := []fs.DirEntry{}
	for e, err := range x.fs.Entries(x.ctx, t, ListOptions{}) {
		if err != nil {
			return out, pathError("readdir", name, err)
		}
		out = append(out, e.FileInfo())
	}
	return out, nil
}

// Sub implements fs.SubFS.
func (x *IOFS) Sub(dir string) (fs.FS, error) {
	t, err := x.at("sub", dir)
	if err != nil {
		return nil, err
	}
	return &IOFS{fs: x.fs, ctx: x.ctx, root: t.Path}, nil
}

// ioDir is an open directory; it lists a page at a time.
type ioDir struct {
	x     *IOFS
	name  string
	t     Target
	info  Info
	after string
	end   bool
}

func (d *ioDir) Stat() (fs.FileInfo, error) { return d.info.FileInfo(), nil }
func (d *ioDir) Close() error               { return nil }

func (d *ioDir) Read([]byte) (int, error) {
	return 0, pathError("read", d.name, orca.PathE("client.Read", d.t.Path, orca.IsDir, nil))
}

// ReadDir implements fs.ReadDirFile.
func (d *ioDir) ReadDir(n int) ([]fs.DirEntry, error) {
	out := []fs.DirEntry{}
	for !d.end && (n <= 0 || len(out) < n) {
		o := ListOptions{After: d.after}
		if n > 0 {
			o.Limit = min(n-len(out), 1000)
		}
		p, err := d.x.fs.List(d.x.ctx, d.t, o)
		if err != nil {
			return out, pathError("readdir", d.name, err)
		}
		for _, e := range p.Entries {
			out = append(out, e.FileInfo())
			d.after = e.Name
		}
		d.end = !p.More || len(p.Entries) == 0
	}
	if n > 0 && len(out) == 0 {
		return nil, io.EOF
	}
	return out, nil
}
