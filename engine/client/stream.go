// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"io/fs"
	"time"

	"orca"
)

var (
	_ io.ReadSeekCloser = (*File)(nil)
	_ io.ReaderAt       = (*File)(nil)
	_ io.WriterTo       = (*File)(nil)
	_ fs.File           = (*File)(nil)
)

// Read reads from the position and advances it.
func (f *File) Read(p []byte) (int, error) { return f.read(context.Background(), p) }

func (f *File) read(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	off := f.pos
	f.mu.Unlock()
	n, err := f.ReadAtContext(ctx, p, off)
	f.mu.Lock()
	f.pos = off + int64(n)
	f.mu.Unlock()
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Seek moves the position.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	if f.closed.Load() {
		return 0, errClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.info.Length
	default:
		return 0, orca.E("client.Seek", orca.Invalid, "unknown whence")
	}
	if offset < 0 {
		return 0, orca.E("client.Seek", orca.Invalid, "negative position")
	}
	f.pos = offset
	return offset, nil
}

// WriteTo writes the rest of the file to w, 1 MiB at a time.
func (f *File) WriteTo(w io.Writer) (int64, error) { return f.writeTo(context.Background(), w) }

func (f *File) writeTo(ctx context.Context, w io.Writer) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	var sum int64
	for {
		n, err := f.read(ctx, buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			sum += int64(m)
			if werr != nil {
				return sum, werr
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// Stat returns the attributes as of open, for io/fs.
func (f *File) Stat() (fs.FileInfo, error) {
	if f.closed.Load() {
		return nil, errClosed
	}
	return f.info.FileInfo(), nil
}

// FileInfo returns i as an fs.FileInfo and fs.DirEntry; Sys returns *Info.
func (i Info) FileInfo() interface {
	fs.FileInfo
	fs.DirEntry
} {
	return fileInfo{&i}
}

type fileInfo struct{ i *Info }

func (x fileInfo) Name() string {
	if x.i.Name == "" {
		return "."
	}
	return x.i.Name
}

func (x fileInfo) Size() int64                { return x.i.Length }
func (x fileInfo) ModTime() time.Time         { return x.i.Mtime }
func (x fileInfo) IsDir() bool                { return x.i.IsDir() }
func (x fileInfo) Sys() any                   { return x.i }
func (x fileInfo) Type() fs.FileMode          { return x.Mode().Type() }
func (x fileInfo) Info() (fs.FileInfo, error) { return x, nil }
func (x fileInfo) String() string             { return fs.FormatFileInfo(x) }

func (x fileInfo) Mode() fs.FileMode { return x.i.FileMode() }

// FileMode returns type and permission as io/fs spells them.
func (i *Info) FileMode() fs.FileMode {
	m := fs.FileMode(i.Attr.Mode & 0o777)
	for bit, v := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.Attr.Mode&bit != 0 {
			m |= v
		}
	}
	switch i.Attr.Type {
	case orca.TypeDir:
		m |= fs.ModeDir
	case orca.TypeSymlink:
		m |= fs.ModeSymlink
	}
	return m
}

// WriteToContext is WriteTo that gives up when ctx ends.
func (f *File) WriteToContext(ctx context.Context, w io.Writer) (int64, error) {
	return f.writeTo(ctx, w)
}

// WithContext returns f as an io.ReaderAt whose reads give up when ctx ends.
func (f *File) WithContext(ctx context.Context) io.ReaderAt { return boundFile{f, ctx} }

type boundFile struct {
	f   *File
	ctx context.Context
}

func (b boundFile) ReadAt(p []byte, off int64) (int, error) {
	return b.f.ReadAtContext(b.ctx, p, off)
}
