// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"io"
	"strings"
	"time"

	"orca"
	"orca/ufs"
)

// sub is a store from one of its directories on, as a mount of a deeper URI
// has it.
func sub(fs ufs.FS, dir string) ufs.FS {
	if dir == "" {
		return fs
	}
	s := subStore{fs, dir}
	if f, ok := fs.(fileSystem); ok {
		return subFiles{s, f}
	}
	return subObjects{s, fs.(objectStore)}
}

type subStore struct {
	fs  ufs.FS
	dir string
}

type subFiles struct {
	subStore
	files fileSystem
}

type subObjects struct {
	subStore
	objects objectStore
}

var (
	_ fileSystem  = subFiles{}
	_ objectStore = subObjects{}
)

func (s subStore) key(k string) string {
	if k == "" {
		return s.dir
	}
	return s.dir + "/" + k
}

func (s subStore) rel(i ufs.Info) ufs.Info {
	i.Key = strings.TrimPrefix(strings.TrimPrefix(i.Key, s.dir), "/")
	return i
}

func (s subStore) each(fn func(ufs.Info) error) func(ufs.Info) error {
	return func(i ufs.Info) error { return fn(s.rel(i)) }
}

func (s subStore) Stat(ctx context.Context, key string) (ufs.Info, error) {
	i, err := s.fs.Stat(ctx, s.key(key))
	return s.rel(i), err
}

func (s subStore) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	return s.fs.List(ctx, s.key(dir), s.each(fn))
}

func (s subStore) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	return s.fs.Open(ctx, s.key(key), off, n, want)
}

func (s subStore) Create(ctx context.Context, key, token string) (ufs.Writer, error) {
	w, err := s.fs.Create(ctx, s.key(key), token)
	if err != nil {
		return nil, err
	}
	return subWriter{w, s}, nil
}

func (s subStore) Mkdir(ctx context.Context, key string, mode uint32) error {
	return s.fs.Mkdir(ctx, s.key(key), mode)
}

func (s subStore) Remove(ctx context.Context, key string) error { return s.fs.Remove(ctx, s.key(key)) }

func (s subStore) Sweep(ctx context.Context, key, token string) error {
	return s.fs.Sweep(ctx, s.key(key), token)
}

func (s subStore) Caps() ufs.Caps { return s.fs.Caps() }

func (s subStore) Close() error { return s.fs.Close() }

// subWriter is an upload below the directory.
type subWriter struct {
	ufs.Writer
	s subStore
}

func (w subWriter) Commit(ctx context.Context) (ufs.Info, error) {
	i, err := w.Writer.Commit(ctx)
	return w.s.rel(i), err
}

func (w subWriter) Hint(h ufs.WriteHint) { w.Writer.(ufs.Hinted).Hint(h) }

func (s subFiles) Rename(ctx context.Context, src, dst string) error {
	return s.files.Rename(ctx, s.key(src), s.key(dst))
}

func (s subFiles) Exchange(ctx context.Context, a, b, token string) error {
	return s.files.Exchange(ctx, s.key(a), s.key(b), token)
}

func (s subFiles) Chmod(ctx context.Context, key string, mode uint32) error {
	return s.files.Chmod(ctx, s.key(key), mode)
}

func (s subFiles) Chown(ctx context.Context, key string, uid, gid uint32) error {
	return s.files.Chown(ctx, s.key(key), uid, gid)
}

func (s subFiles) Utimens(ctx context.Context, key string, atime, mtime time.Time) error {
	return s.files.Utimens(ctx, s.key(key), atime, mtime)
}

func (s subFiles) Space(ctx context.Context) (total, free int64, err error) {
	return s.files.Space(ctx)
}

func (s subObjects) Copy(ctx context.Context, src, dst, want string) (ufs.Info, error) {
	i, err := s.objects.Copy(ctx, s.key(src), s.key(dst), want)
	return s.rel(i), err
}

func (s subObjects) Walk(ctx context.Context, prefix string, fn func(ufs.Info) error) error {
	return s.objects.Walk(ctx, s.key(prefix), s.each(fn))
}

func (s subObjects) RemoveMany(ctx context.Context, objects []ufs.Info) error {
	deep := make([]ufs.Info, len(objects))
	for i, o := range objects {
		o.Key = s.key(o.Key)
		deep[i] = o
	}
	return s.objects.RemoveMany(ctx, deep)
}

// List of an object store finds its root whether anything is in it or not.
func (s subObjects) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	err := s.subStore.List(ctx, dir, fn)
	if dir == "" && orca.KindOf(err) == orca.NotFound {
		return nil
	}
	return err
}
