// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"context"
	"io/fs"
	"os"
	"syscall"
	"time"

	"orca/engine/client"
	"orca/engine/errmap"
)

// API is the door through the Go API, with its root at a folder.
type API struct {
	FS   *client.FS
	Root string // absolute, without a trailing slash; "" is the root
	// Create is used for every file written.
	Create client.CreateOptions
}

var _ Door = API{}

func (a API) at(p string) client.Target { return client.Path(a.Root + "/" + p) }

func ctx() context.Context { return context.Background() }

// Mkdir implements Door.
func (a API) Mkdir(p string, mode fs.FileMode) error {
	_, err := a.FS.Mkdir(ctx(), a.at(p), uint32(mode.Perm()))
	return err
}

// Stat implements Door.
func (a API) Stat(p string) (fs.FileInfo, error) {
	i, err := a.FS.Stat(ctx(), a.at(p), client.Sync{})
	if err != nil {
		return nil, err
	}
	return i.FileInfo(), nil
}

// ReadDir implements Door.
func (a API) ReadDir(p string) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for e, err := range a.FS.Entries(ctx(), a.at(p), client.ListOptions{Limit: 7}) {
		if err != nil {
			return out, err
		}
		out = append(out, e.FileInfo())
	}
	return out, nil
}

// Rename implements Door.
func (a API) Rename(x, y string) error { return a.FS.Rename(ctx(), a.at(x), a.at(y), false) }

// Remove implements Door.
func (a API) Remove(p string) error { return a.FS.Remove(ctx(), a.at(p), client.RemoveOptions{}) }

// RemoveAll implements Door.
func (a API) RemoveAll(p string) error { return a.FS.RemoveAll(ctx(), a.at(p), client.RemoveOptions{}) }

// Chmod implements Door.
func (a API) Chmod(p string, mode fs.FileMode) error {
	return a.FS.Chmod(ctx(), a.at(p), uint32(mode.Perm()))
}

// Chtimes implements Door.
func (a API) Chtimes(p string, at, mt time.Time) error { return a.FS.Chtimes(ctx(), a.at(p), at, mt) }

// Symlink implements Door.
func (a API) Symlink(text, p string) error {
	_, err := a.FS.Symlink(ctx(), a.at(p), text)
	return err
}

// Readlink implements Door.
func (a API) Readlink(p string) (string, error) { return a.FS.Readlink(ctx(), a.at(p)) }

// Open implements Door.
func (a API) Open(p string) (Reader, error) {
	f, err := a.FS.Open(ctx(), a.at(p), client.ReadOptions{})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// OpenFile implements Door.
func (a API) OpenFile(p string, flag int, mode fs.FileMode) (Writer, error) {
	if flag&os.O_CREATE == 0 {
		if _, err := a.FS.Stat(ctx(), a.at(p), client.Sync{}); err != nil {
			return nil, err
		}
	}
	o := a.Create
	o.Mode = uint32(mode.Perm())
	o.Exclusive = flag&os.O_EXCL != 0
	o.Overwrite = !o.Exclusive
	o.Existing = o.Overwrite && flag&os.O_TRUNC == 0
	w, err := a.FS.Create(ctx(), a.at(p), o)
	if err != nil {
		return nil, err
	}
	return &apiWriter{Writer: w, appends: flag&os.O_APPEND != 0}, nil
}

// Errno implements Door.
func (API) Errno(err error) syscall.Errno { return errmap.Errno(err) }

type apiWriter struct {
	*client.Writer
	appends bool
}

func (w *apiWriter) Write(p []byte) (int, error) {
	if w.appends {
		return w.WriteAt(p, w.Info().Length)
	}
	return w.Writer.Write(p)
}

func (w *apiWriter) Truncate(n int64) error { return w.Writer.Truncate(ctx(), n) }
func (w *apiWriter) Sync() error            { return w.Writer.Sync(ctx()) }
