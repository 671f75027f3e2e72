// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ledger writes down the uploads that a process has under way, so that
// none of them stays in a store for ever as a temporary file or as parts that
// are paid for.
//
// The metaplane sweeps what a session uploaded once that has expired. A worker
// that was stalled may begin the upload after that. Its commit is refused, and
// it aborts; but if it dies before, or the store does not answer the abort,
// nobody else knows of the upload. So every upload is in this file from before
// it begins until it has ended, and Clean removes what is left of those that
// have not: of an earlier process, and of aborts that failed.
//
//	Create ─► begun ─► (named) ─► Commit or Abort ─► ended
//	              └──── the process dies ────► next start: Clean
//
// The file is appended to without a sync: it is for the death of a process, and
// what the crash of a host leaves behind is not known. docs/format/ledger.md
// draws it.
//
// No goroutines. A Ledger is safe for concurrent use; its lock is held while a
// line is appended, and never during a call of a store.
package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"orca"
	"orca/ufs"
	"orca/ufs/wrap"
)

const (
	// head is the first line of the file.
	head = "orca uploads 1\n"
	// rewriteFrom is the size in bytes from which the file is written anew when it
	// has doubled since the last time.
	rewriteFrom = 1 << 20
)

// entry is one upload.
type entry struct {
	mount      uint32
	key, token string
	name       string // the store's own, where it has one
}

// same reports whether two uploads leave the same remains.
func (e *entry) same(f *entry) bool {
	return e.mount == f.mount && e.key == f.key && e.token == f.token && e.name == f.name
}

// Ledger is the open file.
type Ledger struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	f    *os.File // nil: what is there is not what is so
	size int64
	base int64 // size after it was written anew
	last uint64
	live map[uint64]*entry // under way here
	left map[uint64]*entry // to be cleaned
}

// Open opens the file at path, or makes it. What it says of an earlier process
// is left to Clean. What cannot be read, as after the crash of a host, is
// dropped with a warning, and a file that cannot be written is tried again at
// the next upload: no worker should stay away for that. Permission.
func Open(path string, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{path: path, log: log, live: map[uint64]*entry{}, left: map[uint64]*entry{}}
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, orca.PathE("ledger.Open", path, orca.Permission, err)
	}
	if n := l.read(b); n > 0 {
		log.Warn("lines of the list of uploads cannot be read: what they are about may stay in a store", "path", path, "lines", n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.rewriteLocked(); err != nil {
		l.log.Warn("the list of uploads cannot be written", "path", path, "err", err)
	}
	return l, nil
}

// read takes up the lines of a file, and returns how many it does not
// understand. A last one that is not whole was not finished, and is not counted.
func (l *Ledger) read(b []byte) (bad int) {
	first, rest, _ := strings.Cut(string(b), "\n")
	if first+"\n" != head {
		return strings.Count(string(b), "\n")
	}
	for line := range strings.Lines(rest) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var id uint64
		var e entry
		switch {
		case scan(line, "begun %d %d %q %q\n", &id, &e.mount, &e.key, &e.token):
			l.left[id] = &e
		case scan(line, "named %d %q\n", &id, &e.name):
			if x := l.left[id]; x != nil {
				x.name = e.name
			}
		case scan(line, "ended %d\n", &id):
			delete(l.left, id)
		default:
			bad++
		}
		l.last = max(l.last, id)
	}
	return bad
}

func scan(line, format string, to ...any) bool {
	n, err := fmt.Sscanf(line, format, to...)
	return err == nil && n == len(to)
}

// rewriteLocked makes the file one that says what is so now.
func (l *Ledger) rewriteLocked() error {
	var b bytes.Buffer
	b.WriteString(head)
	for _, m := range []map[uint64]*entry{l.left, l.live} {
		for id, e := range m {
			b.WriteString(begun(id, e))
			if e.name != "" {
				b.WriteString(named(id, e))
			}
		}
	}
	if err := os.WriteFile(l.path+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(l.path+".new", l.path); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if l.f != nil {
		_ = l.f.Close()
	}
	l.f, l.size, l.base = f, int64(b.Len()), int64(b.Len())
	return nil
}

func begun(id uint64, e *entry) string {
	return fmt.Sprintf("begun %d %d %q %q\n", id, e.mount, e.key, e.token)
}

func named(id uint64, e *entry) string { return fmt.Sprintf("named %d %q\n", id, e.name) }

// appendLocked appends a line about what live and left say already. An upload
// does not fail for that: what is not written down is known until the process
// ends.
func (l *Ledger) appendLocked(line string) {
	err := error(nil)
	if l.f != nil {
		var n int
		if n, err = l.f.WriteString(line); err != nil { // there may be half a line
			_ = l.f.Close()
			l.f = nil
		}
		l.size += int64(n)
	}
	if l.f == nil || l.size > max(rewriteFrom, 2*l.base) {
		err = l.rewriteLocked()
	}
	if err != nil {
		l.log.Warn("an upload is not written down", "path", l.path, "err", err)
	}
}

// Over decorates the store of a mount so that its uploads are written down.
func (l *Ledger) Over(mount uint32, fs ufs.FS) ufs.FS {
	return wrap.Uploads(fs, func(key, token string) wrap.Upload {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.last++
		e := &entry{mount: mount, key: key, token: token}
		l.live[l.last] = e
		l.appendLocked(begun(l.last, e))
		return &upload{l, l.last}
	})
}

// upload is one under way.
type upload struct {
	l  *Ledger
	id uint64
}

// Named implements wrap.Upload.
func (u *upload) Named(name string) {
	u.l.mu.Lock()
	defer u.l.mu.Unlock()
	if e := u.l.live[u.id]; e != nil {
		e.name = name
		u.l.appendLocked(named(u.id, e))
	}
}

// Ended implements wrap.Upload.
func (u *upload) Ended(clean bool) {
	u.l.mu.Lock()
	defer u.l.mu.Unlock()
	e := u.l.live[u.id]
	if e == nil {
		return // a Commit that succeeded is followed by an Abort, perhaps
	}
	delete(u.l.live, u.id)
	if !clean {
		u.l.left[u.id] = e
		return
	}
	u.l.appendLocked(fmt.Sprintf("ended %d\n", u.id))
}

// Left is how many uploads are to be cleaned.
func (l *Ledger) Left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.left)
}

// Clean removes what is left of uploads that have not ended. stores finds the
// store of a mount: NotFound when the mount is gone, and its remains with it.
// The errors of what stays for the next time are joined. An upload of the same
// name and token that begins at this very moment may be told that it was swept,
// and is tried again.
func (l *Ledger) Clean(ctx context.Context, stores func(ctx context.Context, mount uint32) (ufs.FS, error)) error {
	l.mu.Lock()
	todo := make(map[uint64]*entry, len(l.left))
	for id, e := range l.left {
		todo[id] = e
	}
	l.mu.Unlock()
	var errs []error
	for id, e := range todo {
		if err := l.clean(ctx, e, stores); err != nil {
			errs = append(errs, err)
			continue
		}
		l.mu.Lock()
		delete(l.left, id)
		l.appendLocked(fmt.Sprintf("ended %d\n", id))
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (l *Ledger) clean(ctx context.Context, e *entry, stores func(context.Context, uint32) (ufs.FS, error)) error {
	if l.again(e) {
		return nil
	}
	fs, err := stores(ctx, e.mount)
	if orca.KindOf(err) == orca.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	err = ufs.SweepUpload(ctx, fs, e.key, e.token, e.name)
	if orca.KindOf(err) == orca.NotFound {
		return nil
	}
	return err
}

// again reports whether an upload that leaves the same remains is under way: what
// becomes of it is its own matter.
func (l *Ledger) again(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.live {
		if x.same(e) {
			return true
		}
	}
	return false
}

// Close closes the file.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
