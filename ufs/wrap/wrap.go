// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package wrap decorates an under file system: Retry, Limit, Metrics,
// ReadOnly and Faults each take an ufs.FS and return one. A decorated store
// has exactly the optional interfaces of the store inside (Renamer, Owner and
// Spacer of file systems; Copier, Lister, Namer, BulkRemover and
// ConditionalRemover of object stores).
//
// Each decorator is an Around function: every call of the contract becomes a
// Call and goes through it, so that a decorator is a page and none can forget
// a method. ufs/backends stacks them, in one place.
//
// No goroutines. Decorators hold no lock during a call of the store inside.
package wrap

import (
	"context"
	"io"
	"time"

	"orca"
	"orca/ufs"
)

// Op names a method of the contract.
type Op uint8

// The methods, as counters and fault rules name them.
const (
	Stat Op = iota
	List
	Open
	Read // one Read of an opened object
	Create
	Write // one Write of an upload
	Prepare
	Commit
	Abort
	Mkdir
	Remove
	Sweep
	Rename
	Copy
	Walk
	RemoveMany
	SetAttr // Chmod, Chown, Utimens
	Space
	NumOps // how many there are
)

var opNames = [NumOps]string{
	"stat", "list", "open", "read", "create", "write", "prepare", "commit", "abort", "mkdir",
	"remove", "sweep", "rename", "copy", "walk", "remove_many", "set_attr", "space",
}

// String returns the name that metrics carry.
func (o Op) String() string {
	if o < NumOps {
		return opNames[o]
	}
	return "unknown"
}

// Mutates reports whether the method changes the store.
func (o Op) Mutates() bool {
	switch o {
	case Create, Write, Prepare, Commit, Mkdir, Remove, Rename, Copy, RemoveMany, SetAttr:
		return true
	}
	return false
}

// Call is one call of the store inside.
type Call struct {
	Op  Op
	Key string
	Dst string // of Rename and Copy
	N   int    // bytes asked for by Read, given to Write
	// Token of Create and Sweep: which upload.
	Token string
}

// Around runs a call by calling do, once, several times or never. The results
// of the last do are what the caller gets; a non-nil error wins over them.
type Around func(ctx context.Context, c Call, do func(context.Context) error) error

// Unwrapper is implemented by every decorated store.
type Unwrapper interface {
	Unwrap() ufs.FS
}

// Intercept decorates inner with around.
func Intercept(inner ufs.FS, around Around) ufs.FS {
	return shape(&layer{in: inner, around: around})
}

// shape gives the layer the optional interfaces of the store inside.
func shape(l *layer) ufs.FS {
	if _, ok := l.in.(ufs.Renamer); ok {
		return &fileLayer{l}
	}
	if _, ok := l.in.(ufs.Copier); ok {
		return &objectLayer{l}
	}
	return l
}

// layer decorates the methods that every store has.
type layer struct {
	in     ufs.FS
	around Around
	// open and list, when set, replace the plain forwarding (Retry, Faults).
	open func(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error)
	list lister
	// data: Read and Write go through around too.
	data bool
	// writePiece bounds what one Write is given; 0: no bound.
	writePiece int
	// bound: Writes end with the context of their Create.
	bound bool
	// begin, if set, is told of uploads.
	begin func(key, token string) Upload
}

type lister func(ctx context.Context, c Call, fn func(ufs.Info) error, run func(context.Context, string, func(ufs.Info) error) error) error

// fileLayer decorates a file system.
type fileLayer struct{ *layer }

// objectLayer decorates an object store.
type objectLayer struct{ *layer }

var (
	_ ufs.Renamer     = (*fileLayer)(nil)
	_ ufs.Exchanger   = (*fileLayer)(nil)
	_ ufs.Owner       = (*fileLayer)(nil)
	_ ufs.Spacer      = (*fileLayer)(nil)
	_ ufs.Copier      = (*objectLayer)(nil)
	_ ufs.Lister      = (*objectLayer)(nil)
	_ ufs.BulkRemover = (*objectLayer)(nil)

	_ ufs.ConditionalRemover = (*objectLayer)(nil)
	_ ufs.Namer              = (*objectLayer)(nil)
)

// Unwrap implements Unwrapper.
func (l *layer) Unwrap() ufs.FS { return l.in }

// Caps implements ufs.FS.
func (l *layer) Caps() ufs.Caps { return l.in.Caps() }

// Close implements ufs.FS.
func (l *layer) Close() error { return l.in.Close() }

// Stat implements ufs.FS.
func (l *layer) Stat(ctx context.Context, key string) (in ufs.Info, err error) {
	err = l.around(ctx, Call{Op: Stat, Key: key}, func(ctx context.Context) error {
		in, err = l.in.Stat(ctx, key)
		return err
	})
	return in, err
}

// List implements ufs.FS.
func (l *layer) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	return l.listing(ctx, Call{Op: List, Key: dir}, fn, l.in.List)
}

func (l *layer) listing(ctx context.Context, c Call, fn func(ufs.Info) error, run func(context.Context, string, func(ufs.Info) error) error) error {
	if l.list != nil {
		return l.list(ctx, c, fn, run)
	}
	return l.around(ctx, c, func(ctx context.Context) error { return run(ctx, c.Key, fn) })
}

// Open implements ufs.FS.
func (l *layer) Open(ctx context.Context, key string, off, n int64, want string) (r io.ReadCloser, err error) {
	if l.open != nil {
		return l.open(ctx, key, off, n, want)
	}
	err = l.around(ctx, Call{Op: Open, Key: key}, func(ctx context.Context) error {
		r, err = l.in.Open(ctx, key, off, n, want)
		return err
	})
	if err == nil && l.data {
		r = &dataReader{ReadCloser: r, l: l, ctx: ctx, key: key}
	}
	return r, err
}

// dataReader sends each Read through around.
type dataReader struct {
	io.ReadCloser
	l   *layer
	ctx context.Context //nolint:containedctx // a reader's life is one call of its opener
	key string
}

func (r *dataReader) Read(p []byte) (n int, err error) {
	eof := false
	err = r.l.around(r.ctx, Call{Op: Read, Key: r.key, N: len(p)}, func(context.Context) error {
		n, err = r.ReadCloser.Read(p)
		if err == io.EOF {
			eof = true
			return nil
		}
		return err
	})
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

// Create implements ufs.FS.
func (l *layer) Create(ctx context.Context, key, token string) (w ufs.Writer, err error) {
	var up Upload
	if l.begin != nil {
		up = l.begin(key, token)
	}
	err = l.around(ctx, Call{Op: Create, Key: key, Token: token}, func(ctx context.Context) error {
		w, err = l.in.Create(ctx, key, token)
		return err
	})
	if err != nil {
		if up != nil {
			up.Ended(true)
		}
		return nil, err
	}
	lw := &layerWriter{in: w, l: l, ctx: ctx, key: key, up: up}
	if up != nil {
		lw.Hint(ufs.WriteHint{})
	}
	if !l.bound {
		lw.ctx = context.WithoutCancel(ctx)
	}
	if p, ok := w.(ufs.Preparer); ok {
		return &preparedWriter{lw, p}, nil
	}
	return lw, nil
}

// layerWriter decorates an upload. Every writer may be hinted: a hint is only
// advice, but for Expect, which each store of ours obeys.
type layerWriter struct {
	in  ufs.Writer
	l   *layer
	ctx context.Context //nolint:containedctx // Write has none
	key string
	up  Upload // nil: nobody wants to know
}

// preparedWriter is a layerWriter over a Preparer.
type preparedWriter struct {
	*layerWriter
	p ufs.Preparer
}

// Hint implements ufs.Hinted.
func (w *layerWriter) Hint(h ufs.WriteHint) {
	if w.up != nil {
		h.Named = w.up.Named
	}
	if x, ok := w.in.(ufs.Hinted); ok {
		x.Hint(h)
	}
}

// Write implements io.Writer.
func (w *layerWriter) Write(p []byte) (n int, err error) {
	if !w.l.data {
		return w.in.Write(p)
	}
	for {
		part := p[n:]
		if w.l.writePiece > 0 {
			part = part[:min(len(part), w.l.writePiece)]
		}
		err = w.l.around(w.ctx, Call{Op: Write, Key: w.key, N: len(part)}, func(context.Context) error {
			k, err := w.in.Write(part)
			n += k
			return err
		})
		if err != nil || n >= len(p) {
			return n, err
		}
	}
}

// Commit implements ufs.Writer.
func (w *layerWriter) Commit(ctx context.Context) (in ufs.Info, err error) {
	err = w.l.around(ctx, Call{Op: Commit, Key: w.key}, func(ctx context.Context) error {
		in, err = w.in.Commit(ctx)
		return err
	})
	if w.up != nil && err == nil {
		w.up.Ended(true)
	}
	return in, err
}

// Abort implements ufs.Writer.
func (w *layerWriter) Abort(ctx context.Context) error {
	err := w.l.around(ctx, Call{Op: Abort, Key: w.key}, w.in.Abort)
	if w.up != nil {
		w.up.Ended(err == nil)
	}
	return err
}

// Prepare implements ufs.Preparer.
func (w *preparedWriter) Prepare(ctx context.Context) error {
	return w.l.around(ctx, Call{Op: Prepare, Key: w.key}, w.p.Prepare)
}

// Mkdir implements ufs.FS.
func (l *layer) Mkdir(ctx context.Context, key string, mode uint32) error {
	return l.around(ctx, Call{Op: Mkdir, Key: key}, func(ctx context.Context) error { return l.in.Mkdir(ctx, key, mode) })
}

// Remove implements ufs.FS.
func (l *layer) Remove(ctx context.Context, key string) error {
	return l.around(ctx, Call{Op: Remove, Key: key}, func(ctx context.Context) error { return l.in.Remove(ctx, key) })
}

// Sweep implements ufs.FS.
func (l *layer) Sweep(ctx context.Context, key, token string) error {
	return l.around(ctx, Call{Op: Sweep, Key: key, Token: token}, func(ctx context.Context) error { return l.in.Sweep(ctx, key, token) })
}

// Rename implements ufs.Renamer.
func (l *fileLayer) Rename(ctx context.Context, src, dst string) error {
	return l.around(ctx, Call{Op: Rename, Key: src, Dst: dst}, func(ctx context.Context) error {
		return l.in.(ufs.Renamer).Rename(ctx, src, dst)
	})
}

// Exchange implements ufs.Exchanger; it counts as a rename.
func (l *fileLayer) Exchange(ctx context.Context, a, b, token string) error {
	x, ok := l.in.(ufs.Exchanger)
	if !ok {
		return &orca.Error{Op: "wrap.Exchange", Path: a, Kind: orca.Unsupported}
	}
	return l.around(ctx, Call{Op: Rename, Key: a, Dst: b}, func(ctx context.Context) error { return x.Exchange(ctx, a, b, token) })
}

// owner runs an attribute call of the store inside.
func (l *fileLayer) owner(ctx context.Context, key string, do func(context.Context, ufs.Owner) error) error {
	o, ok := l.in.(ufs.Owner)
	if !ok {
		return &orca.Error{Op: "wrap.SetAttr", Path: key, Kind: orca.Unsupported}
	}
	return l.around(ctx, Call{Op: SetAttr, Key: key}, func(ctx context.Context) error { return do(ctx, o) })
}

// Chmod implements ufs.Owner.
func (l *fileLayer) Chmod(ctx context.Context, key string, mode uint32) error {
	return l.owner(ctx, key, func(ctx context.Context, o ufs.Owner) error { return o.Chmod(ctx, key, mode) })
}

// Chown implements ufs.Owner.
func (l *fileLayer) Chown(ctx context.Context, key string, uid, gid uint32) error {
	return l.owner(ctx, key, func(ctx context.Context, o ufs.Owner) error { return o.Chown(ctx, key, uid, gid) })
}

// Utimens implements ufs.Owner.
func (l *fileLayer) Utimens(ctx context.Context, key string, atime, mtime time.Time) error {
	return l.owner(ctx, key, func(ctx context.Context, o ufs.Owner) error { return o.Utimens(ctx, key, atime, mtime) })
}

// Space implements ufs.Spacer.
func (l *fileLayer) Space(ctx context.Context) (total, free int64, err error) {
	s, ok := l.in.(ufs.Spacer)
	if !ok {
		return 0, 0, &orca.Error{Op: "wrap.Space", Kind: orca.Unsupported}
	}
	err = l.around(ctx, Call{Op: Space}, func(ctx context.Context) error {
		total, free, err = s.Space(ctx)
		return err
	})
	return total, free, err
}

// Copy implements ufs.Copier.
func (l *objectLayer) Copy(ctx context.Context, src, dst, want string) (in ufs.Info, err error) {
	err = l.around(ctx, Call{Op: Copy, Key: src, Dst: dst}, func(ctx context.Context) error {
		in, err = l.in.(ufs.Copier).Copy(ctx, src, dst, want)
		return err
	})
	return in, err
}

// Walk implements ufs.Lister.
func (l *objectLayer) Walk(ctx context.Context, prefix string, fn func(ufs.Info) error) error {
	w, ok := l.in.(ufs.Lister)
	if !ok {
		return &orca.Error{Op: "wrap.Walk", Path: prefix, Kind: orca.Unsupported}
	}
	return l.listing(ctx, Call{Op: Walk, Key: prefix}, fn, w.Walk)
}

// SweepNamed implements ufs.Namer.
func (l *objectLayer) SweepNamed(ctx context.Context, key, name string) error {
	n, ok := l.in.(ufs.Namer)
	if !ok {
		return &orca.Error{Op: "wrap.SweepNamed", Path: key, Kind: orca.Unsupported}
	}
	return l.around(ctx, Call{Op: Sweep, Key: key}, func(ctx context.Context) error { return n.SweepNamed(ctx, key, name) })
}

// RemoveIf implements ufs.ConditionalRemover; it counts as a removal.
func (l *objectLayer) RemoveIf(ctx context.Context, key, want string) error {
	return l.around(ctx, Call{Op: Remove, Key: key}, func(ctx context.Context) error { return ufs.RemoveIf(ctx, l.in, key, want) })
}

// RemoveMany implements ufs.BulkRemover.
func (l *objectLayer) RemoveMany(ctx context.Context, objects []ufs.Info) error {
	b, ok := l.in.(ufs.BulkRemover)
	if !ok {
		return &orca.Error{Op: "wrap.RemoveMany", Kind: orca.Unsupported}
	}
	return l.around(ctx, Call{Op: RemoveMany, N: len(objects)}, func(ctx context.Context) error { return b.RemoveMany(ctx, objects) })
}
