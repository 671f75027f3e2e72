// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"

	"orca"
	"orca/engine/client"
)

// clientFS satisfies FS by the client.
type clientFS struct {
	fs     *client.FS
	holder *client.Holder
}

// OnClient returns an FS that stands on a client. The client's connection must
// be allowed to speak for others: in process, or root on a Unix socket.
func OnClient(fs *client.FS) FS {
	return clientFS{fs, fs.As(orca.Caller{}).NewHolder()}
}

var (
	_ FS     = clientFS{}
	_ Holder = clientFS{}
)

func entryOf(i client.Info) Entry { return Entry{Attr: i.Attr, Name: i.Name, TTL: i.TTL} }

func (s clientFS) Lookup(ctx context.Context, c orca.Caller, dir orca.Ino, name string) (Entry, error) {
	i, err := s.fs.As(c).Stat(ctx, client.At(dir, name), client.Sync{})
	return entryOf(i), err
}

func (s clientFS) Stat(ctx context.Context, c orca.Caller, ino orca.Ino) (Entry, error) {
	i, err := s.fs.As(c).Stat(ctx, client.ByIno(ino), client.Sync{})
	return entryOf(i), err
}

func (s clientFS) List(ctx context.Context, c orca.Caller, dir orca.Ino, after string, limit int) (Page, error) {
	p, err := s.fs.As(c).List(ctx, client.ByIno(dir), client.ListOptions{After: after, Limit: limit})
	if err != nil {
		return Page{}, err
	}
	r := Page{More: p.More, TTL: p.TTL, Entries: make([]Entry, len(p.Entries))}
	for i := range p.Entries {
		r.Entries[i] = entryOf(p.Entries[i])
	}
	return r, nil
}

func (s clientFS) Mkdir(ctx context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Entry, error) {
	i, err := s.fs.As(c).Mkdir(ctx, client.At(dir, name), mode)
	return entryOf(i), err
}

func (s clientFS) Symlink(ctx context.Context, c orca.Caller, dir orca.Ino, name, target string) (Entry, error) {
	i, err := s.fs.As(c).Symlink(ctx, client.At(dir, name), target)
	return entryOf(i), err
}

func (s clientFS) Unlink(ctx context.Context, c orca.Caller, dir orca.Ino, name string) error {
	return s.fs.As(c).Unlink(ctx, client.At(dir, name))
}

func (s clientFS) Rmdir(ctx context.Context, c orca.Caller, dir orca.Ino, name string) error {
	return s.fs.As(c).Rmdir(ctx, client.At(dir, name))
}

func (s clientFS) Rename(ctx context.Context, c orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string, noReplace bool) error {
	return s.fs.As(c).Rename(ctx, client.At(dir, name), client.At(newDir, newName), noReplace)
}

func (s clientFS) Exchange(ctx context.Context, c orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string) error {
	return s.fs.As(c).Exchange(ctx, client.At(dir, name), client.At(newDir, newName))
}

func (s clientFS) Link(ctx context.Context, c orca.Caller, ino, dir orca.Ino, name string) (Entry, error) {
	i, err := s.fs.As(c).Link(ctx, client.ByIno(ino), client.At(dir, name))
	return entryOf(i), err
}

func (s clientFS) SetAttr(ctx context.Context, c orca.Caller, ino orca.Ino, ch Change) (Entry, error) {
	i, err := s.fs.As(c).SetAttr(ctx, client.ByIno(ino), client.AttrChange{
		Mode: ch.Mode, UID: ch.UID, GID: ch.GID, Atime: ch.Atime, Mtime: ch.Mtime,
	})
	return entryOf(i), err
}

func (s clientFS) GetXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string) ([]byte, error) {
	return s.fs.As(c).GetXattr(ctx, client.ByIno(ino), name)
}

func (s clientFS) ListXattr(ctx context.Context, c orca.Caller, ino orca.Ino) ([]string, error) {
	return s.fs.As(c).ListXattr(ctx, client.ByIno(ino))
}

func (s clientFS) SetXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string, value []byte, create, replace bool) error {
	return s.fs.As(c).SetXattr(ctx, client.ByIno(ino), name, value, create, replace)
}

func (s clientFS) RemoveXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string) error {
	return s.fs.As(c).RemoveXattr(ctx, client.ByIno(ino), name)
}

// shownTotal and shownFiles are what df shows where there is no quota: the
// stores below have no limit that Orca knows, and full tiers refuse no write.
const (
	shownTotal = 1 << 50
	shownFiles = 1 << 40
)

// Statfs shows what is below the root of the mount; where quotas hold for ino,
// the one that has the least room left instead.
func (s clientFS) Statfs(ctx context.Context, root, ino orca.Ino) (Statfs, error) {
	fs := s.fs.As(orca.Caller{})
	u, err := fs.Usage(ctx, client.ByIno(ino))
	if ino != root && (err != nil || len(u.Quotas) == 0) {
		u, err = fs.Usage(ctx, client.ByIno(root))
	}
	st := Statfs{Total: shownTotal, TotalFiles: shownFiles}
	st.Free, st.FreeFiles = max(0, st.Total-u.Bytes), max(0, st.TotalFiles-u.Files-u.Dirs)
	for _, q := range u.Quotas {
		used := q.GetUsage()
		if free := max(0, q.Bytes-used.GetBytes()-q.HeldBytes); q.Bytes > 0 && free < st.Free {
			st.Total, st.Free = q.Bytes, free
		}
		if free := max(0, q.Inodes-used.GetFiles()-used.GetDirs()-q.HeldInodes); q.Inodes > 0 && free < st.FreeFiles {
			st.TotalFiles, st.FreeFiles = q.Inodes, free
		}
	}
	return st, err
}

// errCut ends a watch that has lost the metaplane: the mount starts another.
var errCut error = orca.E("fusegw.Watch", orca.Unavailable, "the stream was cut")

func (s clientFS) Watch(ctx context.Context, fn func([]Event, bool)) error {
	return s.fs.As(orca.Caller{}).WatchAs(ctx, s.holder, func() { fn(nil, false) }, func(events []client.Event, lost bool) error {
		if lost && len(events) == 0 {
			return errCut
		}
		es := make([]Event, len(events))
		for i, e := range events {
			es[i] = Event{Kind: EventKind(e.Kind), Ino: e.Ino, Parent: e.Parent, Name: e.Name}
		}
		fn(es, lost)
		return nil
	})
}

func (s clientFS) Open(ctx context.Context, c orca.Caller, ino orca.Ino) (File, error) {
	return s.open(ctx, c, ino, nil)
}

func (s clientFS) OpenHeld(ctx context.Context, c orca.Caller, ino orca.Ino) (File, error) {
	return s.open(ctx, c, ino, s.holder)
}

func (s clientFS) OnLeaving(fn func(orca.Ino)) { s.holder.OnLeaving(fn) }

func (s clientFS) open(ctx context.Context, c orca.Caller, ino orca.Ino, h *client.Holder) (File, error) {
	f, err := s.fs.As(c).Open(ctx, client.ByIno(ino), client.ReadOptions{Holder: h})
	if err != nil {
		return nil, err
	}
	return clientFile{f}, nil
}

func (s clientFS) Create(ctx context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Writer, error) {
	w, err := s.fs.As(c).Create(ctx, client.At(dir, name), client.CreateOptions{Mode: mode, ExactMode: true, Exclusive: true})
	if err != nil {
		return nil, err
	}
	return clientWriter{w}, nil
}

// Overwrite takes a session over from another writer: the last close wins.
func (s clientFS) Overwrite(ctx context.Context, c orca.Caller, ino orca.Ino) (Writer, error) {
	w, err := s.fs.As(c).Create(ctx, client.ByIno(ino), client.CreateOptions{Overwrite: true, Steal: true})
	if err != nil {
		return nil, err
	}
	return clientWriter{w}, nil
}

type clientFile struct{ f *client.File }

func (f clientFile) Attr() orca.Attr { return f.f.Info().Attr }

func (f clientFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return f.f.ReadAtContext(ctx, p, off)
}

func (f clientFile) Backing(ctx context.Context) *os.File {
	b, _ := f.f.Backing(ctx)
	return b
}

func (f clientFile) Close() error { return f.f.Close() }

type clientWriter struct{ w *client.Writer }

func (w clientWriter) Attr() orca.Attr { return w.w.Info().Attr }

func (w clientWriter) Local() *os.File { return w.w.Local() }

func (w clientWriter) WriteAt(_ context.Context, p []byte, off int64) error {
	_, err := w.w.WriteAt(p, off)
	return err
}

func (w clientWriter) Truncate(ctx context.Context, length int64) error {
	return w.w.Truncate(ctx, length)
}

func (w clientWriter) Sync(ctx context.Context) error { return w.w.Sync(ctx) }

func (w clientWriter) Close(ctx context.Context) (orca.Attr, error) {
	if err := w.w.CloseContext(ctx); err != nil {
		return orca.Attr{}, err
	}
	return w.w.Info().Attr, nil
}

func (w clientWriter) Abort(context.Context) error { return w.w.Abort() }
