// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"
	"time"

	"orca"
)

// Entry is an inode as the kernel may see it for TTL.
type Entry struct {
	orca.Attr
	Name string // in listings
	TTL  time.Duration
}

// Page is a part of a listing, in byte order of the names.
type Page struct {
	Entries []Entry
	More    bool
	TTL     time.Duration
}

// Change says what SetAttr changes; nil fields stay.
type Change struct {
	Mode         *uint32
	UID, GID     *uint32
	Atime, Mtime *time.Time
}

// Statfs is the capacity shown by df: bytes and inodes.
type Statfs struct {
	Total, Free           int64
	TotalFiles, FreeFiles int64
}

// EventKind says what an Event tells.
type EventKind uint8

// The kinds of events.
const (
	EventEntry   EventKind = iota + 1 // Parent/Name appeared, vanished or changed its inode
	EventAttr                         // attributes of Ino
	EventContent                      // a new version of Ino
	EventMount                        // the mount table
)

// Event is one thing that changed.
type Event struct {
	Kind        EventKind
	Ino, Parent orca.Ino
	Name        string
}

// Names is the tree. Every call is on behalf of a caller, and by inode.
type Names interface {
	Lookup(ctx context.Context, c orca.Caller, dir orca.Ino, name string) (Entry, error)
	List(ctx context.Context, c orca.Caller, dir orca.Ino, after string, limit int) (Page, error)
	Mkdir(ctx context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Entry, error)
	Symlink(ctx context.Context, c orca.Caller, dir orca.Ino, name, target string) (Entry, error)
	Unlink(ctx context.Context, c orca.Caller, dir orca.Ino, name string) error
	Rmdir(ctx context.Context, c orca.Caller, dir orca.Ino, name string) error
	Rename(ctx context.Context, c orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string, noReplace bool) error
	// Exchange has two names change places. Unsupported.
	Exchange(ctx context.Context, c orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string) error
	// Link gives a file one more name. Its Nlink is what Stat and Lookup say.
	Link(ctx context.Context, c orca.Caller, ino, dir orca.Ino, name string) (Entry, error)
}

// Attrs is what inodes carry.
type Attrs interface {
	Stat(ctx context.Context, c orca.Caller, ino orca.Ino) (Entry, error)
	SetAttr(ctx context.Context, c orca.Caller, ino orca.Ino, ch Change) (Entry, error)
	GetXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string) ([]byte, error)
	ListXattr(ctx context.Context, c orca.Caller, ino orca.Ino) ([]string, error)
	SetXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string, value []byte, create, replace bool) error
	RemoveXattr(ctx context.Context, c orca.Caller, ino orca.Ino, name string) error
}

// Files opens content.
type Files interface {
	// Open opens the current version for reading.
	Open(ctx context.Context, c orca.Caller, ino orca.Ino) (File, error)
	// Create makes a new file, invisible to others until Writer.Close. Exists.
	Create(ctx context.Context, c orca.Caller, dir orca.Ino, name string, mode uint32) (Writer, error)
	// Overwrite starts a new version of a file, empty at first.
	Overwrite(ctx context.Context, c orca.Caller, ino orca.Ino) (Writer, error)
}

// FS is what a mount stands on.
type FS interface {
	Names
	Attrs
	Files
	// Statfs is about what is at or above ino in root, the directory mounted.
	Statfs(ctx context.Context, root, ino orca.Ino) (Statfs, error)
	// Watch calls fn with events as they come, and with lost set when some
	// may have been dropped, until ctx ends or the stream breaks. The first
	// call of fn says that the stream is up. fn must not block.
	Watch(ctx context.Context, fn func(events []Event, lost bool)) error
}

// Holder is optional on an FS whose files others remove, too.
type Holder interface {
	// OpenHeld is Files.Open of what others do not remove before the mount has
	// copied it, up to a bound on time, until it is closed.
	OpenHeld(ctx context.Context, c orca.Caller, ino orca.Ino) (File, error)
	// OnLeaving has fn called before others remove what is open; when it
	// returns the content may go.
	OnLeaving(fn func(ino orca.Ino))
}

// File is one version of one file, open for reading.
type File interface {
	Attr() orca.Attr
	// ReadAt is io.ReaderAt with a context.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// Backing returns a descriptor of a local file that holds exactly this
	// version, whole and immutable; nil when there is none. It stays the
	// File's and is good until Close.
	Backing(ctx context.Context) *os.File
	Close() error
}

// Writer is one new version being written. Exactly one of Close and Abort
// ends it.
type Writer interface {
	// Attr is of the inode being written.
	Attr() orca.Attr
	// Local is the private file, open for reading and writing; nil when it is
	// on another host. It stays the Writer's.
	Local() *os.File
	WriteAt(ctx context.Context, p []byte, off int64) error
	Truncate(ctx context.Context, length int64) error
	// Sync makes what was written durable without publishing it.
	Sync(ctx context.Context) error
	// Close publishes the version and ends the Writer, also when it fails.
	Close(ctx context.Context) (orca.Attr, error)
	Abort(ctx context.Context) error
}
