// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ufs is the contract of an under file system: a store that Orca
// mounts and that stays the truth of what it holds. ufs/local, ufs/s3 and
// ufs/memufs satisfy it, ufs/wrap decorates it, ufs/backends opens one from a
// URI, and ufs/ufstest is the suite that each of them passes.
//
// Keys are relative to the root that the FS was opened at: clean, slash
// separated, without a leading slash; "" is the root itself. An
// implementation is safe for concurrent use by many goroutines. Every method
// obeys its context, and returns *orca.Error with one of the kinds that its
// comment names, or Unavailable, Unauthenticated, Permission, Timeout,
// Canceled or UFSFailure. Nothing here retries: wrap.Retry does.
package ufs

import (
	"context"
	"io"
	"strings"
	"time"

	"orca"
)

// TempPrefix starts the name of every temporary object that Orca writes into
// a UFS. Listings of backends leave such names out.
const TempPrefix = ".~orca."

// IsTemp reports whether the last component of key is a temporary name.
func IsTemp(key string) bool {
	return strings.HasPrefix(key[strings.LastIndexByte(key, '/')+1:], TempPrefix)
}

// Compare orders infos as every listing does: by key in byte order, a
// directory as if its key ended with a slash. That is the order in which
// object stores page, so "a-b" comes before the directory "a".
func Compare(a, b Info) int {
	n := min(len(a.Key), len(b.Key))
	if c := strings.Compare(a.Key[:n], b.Key[:n]); c != 0 {
		return c
	}
	if x, y := a.after(n), b.after(n); x != y {
		return int(x) - int(y)
	}
	return len(a.Key) - len(b.Key)
}

// after returns the byte of the sorting key at i, 0 behind its end.
func (i Info) after(n int) byte {
	switch {
	case n < len(i.Key):
		return i.Key[n]
	case i.Dir:
		return '/'
	}
	return 0
}

// Info describes one object or directory.
type Info struct {
	Key   string // relative to the FS; of a directory without trailing slash
	Dir   bool
	Size  int64 // bytes; 0 for a directory
	Mtime time.Time
	// Mode, UID and GID are meaningful when Caps.Owners.
	Mode     uint32
	UID, GID uint32
	// Fingerprint changes whenever the content does: the ETag of an object
	// store; inode, length and mtime (ns) of a local file. Never empty for a
	// file. A rename keeps it where the store's own rename does (local).
	Fingerprint string
}

// Caps says what one UFS call can do here; the metaplane chooses between
// synchronous and deferred mutation by it (ARCHITECTURE.md, "Namespace to UFS").
type Caps struct {
	// AtomicRename: Rename of a file or directory is one atomic call.
	AtomicRename bool
	// Exchange: two names can change places in one atomic call (Exchanger).
	Exchange bool
	// Directories exist on their own (else they are implied by keys and
	// marked by an empty object "dir/").
	Directories bool
	// Owners: Chmod, Chown and Utimens reach the store.
	Owners bool
	// Local is the folder on this host that holds the bytes, "" if none.
	Local string
}

// FS is one mounted store.
type FS interface {
	// Stat returns one object or directory. NotFound.
	Stat(ctx context.Context, key string) (Info, error)
	// List calls fn for each direct child of dir in the order of Compare, in
	// constant memory (local: the names of one directory), leaving temporary
	// names out, and names that no dentry can have; it stops at the first
	// error of fn and returns it. NotFound, NotDir. A directory that an object
	// store only implies and that has no children is NotFound, except the
	// root. Of an object "a" beside objects "a/…" only the first is there.
	List(ctx context.Context, dir string, fn func(Info) error) error
	// Open returns the bytes [off, off+n) of the object; n < 0 means to its
	// end. With want != "" the content must still carry this fingerprint,
	// else Stale; the check is atomic with the read (If-Match, or fstat of
	// the opened file before the first and after the last byte). NotFound,
	// IsDir. The reader may return fewer bytes only if the object is shorter.
	Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error)
	// Create starts an upload to key. Nothing is visible at key before Commit;
	// parents are made as needed. token, if not "", is unique per attempt and
	// is what Sweep finds the remains of a dead upload by.
	Create(ctx context.Context, key, token string) (Writer, error)
	// Mkdir makes one directory; its parent must exist where Directories.
	// Exists, NotFound, NotDir.
	Mkdir(ctx context.Context, key string, mode uint32) error
	// Remove deletes one object or one empty directory. NotFound, NotEmpty.
	Remove(ctx context.Context, key string) error
	// Sweep removes what a crash left of the upload of key under token: a
	// temporary file, or unfinished multipart uploads of that very key.
	Sweep(ctx context.Context, key, token string) error
	// Caps returns what this store can do; constant.
	Caps() Caps
	// Close frees connections; uploads in progress fail.
	Close() error
}

// Writer is one upload. Write may be called from one goroutine at a time and
// uses bounded memory whatever the length (multipart). The upload ends with a
// Commit that succeeds or with Abort; after a Commit that failed, Abort must be
// called (and after one that succeeded it does nothing).
type Writer interface {
	io.Writer
	// Commit makes the object visible at its key, replacing what was there,
	// durable against a crash of the store's host (local: file and directory
	// fsynced), and returns its Info.
	Commit(ctx context.Context) (Info, error)
	// Abort removes every trace of the upload.
	Abort(ctx context.Context) error
}

// Preparer is optional on a Writer: Prepare uploads everything durably but
// leaves the old content visible, so that Commit is one short call.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// Absent is WriteHint.Expect of a key that must not exist.
const Absent = "-"

// WriteHint is what a writer may be told before its first Write.
type WriteHint struct {
	// Length is how many bytes will come; 0: unknown. It sizes the parts of a
	// multipart upload, and nothing else depends on it.
	Length int64
	// Owned: a store with Caps.Owners makes the object with Mode, UID and GID.
	// Otherwise it keeps those of the object that it replaces (new: 0644).
	Owned          bool
	Mode, UID, GID uint32
	// Expect makes Commit conditional: Conflict unless the key carries this
	// fingerprint (Absent: no object) at that moment. "": unconditional.
	Expect string
	// Named, if set, is called by a Namer with the name that it gives the upload.
	Named func(name string)
}

// Hinted is optional on a Writer: Hint must come before the first Write.
type Hinted interface {
	Hint(WriteHint)
}

// Renamer is implemented by stores with Caps.AtomicRename.
type Renamer interface {
	// Rename moves a file or directory, replacing a file or an empty
	// directory at dst. Durable on return. NotFound, NotEmpty, IsDir, NotDir.
	Rename(ctx context.Context, src, dst string) error
}

// Exchanger is implemented by stores with Caps.Exchange.
type Exchanger interface {
	// Exchange has the files or directories a and b change places atomically,
	// durable on return. token, not empty, is unique per exchange: called with
	// it again, after a crash in between too, the two do not change back. Sweep
	// of a with the token forgets it. NotFound, NotDir, Invalid; Conflict when
	// somebody else has changed the two in between; Unsupported.
	Exchange(ctx context.Context, a, b, token string) error
}

// Copier is implemented by stores that copy on the server side.
type Copier interface {
	// Copy copies one object within the store; with want != "" only if the
	// source still has this fingerprint, else Stale. It works for objects of
	// any size (multipart copy over 5 GiB). NotFound.
	Copy(ctx context.Context, src, dst, want string) (Info, error)
}

// Lister is implemented by stores that can list a whole subtree in one pass,
// in the order of Compare, files only plus directory markers.
type Lister interface {
	// Walk is List for all descendants of prefix, without prefix itself.
	Walk(ctx context.Context, prefix string, fn func(Info) error) error
}

// Namer is implemented by stores that give unfinished uploads names of their own,
// and know them by those alone.
type Namer interface {
	// SweepNamed removes what is left of one upload of key.
	SweepNamed(ctx context.Context, key, name string) error
}

// SweepUpload removes what is left of one upload of key and of no other one: what
// the store named so or, where it names none, what has the token. A Namer has
// nothing of an upload that it did not name.
func SweepUpload(ctx context.Context, fs FS, key, token, name string) error {
	inner := fs
	for {
		u, ok := inner.(interface{ Unwrap() FS }) // a decorator has SweepNamed for any object store
		if !ok {
			break
		}
		inner = u.Unwrap()
	}
	switch _, ok := inner.(Namer); {
	case !ok:
		return fs.Sweep(ctx, key, token)
	case name == "":
		return nil
	}
	return fs.(Namer).SweepNamed(ctx, key, name)
}

// BulkRemover is implemented by stores that delete many objects in one call.
type BulkRemover interface {
	// RemoveMany deletes objects and directory markers (Info.Dir), without
	// looking for children; those that do not exist are passed over.
	RemoveMany(ctx context.Context, objects []Info) error
}

// ConditionalRemover is implemented by stores that can remove an object only while
// it is a certain one.
type ConditionalRemover interface {
	// RemoveIf deletes one object if it has the fingerprint, else Stale. Where the
	// service passes over the condition (MinIO), what is put there between a look
	// and the delete is lost. NotFound.
	RemoveIf(ctx context.Context, key, want string) error
}

// RemoveIf is that of a ConditionalRemover; of another store, a look and a removal.
func RemoveIf(ctx context.Context, fs FS, key, want string) error {
	if r, ok := fs.(ConditionalRemover); ok {
		return r.RemoveIf(ctx, key, want)
	}
	switch i, err := fs.Stat(ctx, key); {
	case err != nil:
		return err
	case i.Fingerprint != want:
		return &orca.Error{Op: "ufs.RemoveIf", Path: key, Kind: orca.Stale, Msg: "the object changed"}
	}
	return fs.Remove(ctx, key)
}

// Owner is implemented by stores with Caps.Owners. Where mtime is part of the
// fingerprint (local), Utimens changes it: Stat afterwards.
type Owner interface {
	Chmod(ctx context.Context, key string, mode uint32) error
	Chown(ctx context.Context, key string, uid, gid uint32) error
	Utimens(ctx context.Context, key string, atime, mtime time.Time) error
}

// Spacer is implemented by stores that know their capacity.
type Spacer interface {
	// Space returns capacity and free bytes.
	Space(ctx context.Context) (total, free int64, err error)
}
