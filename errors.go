// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Kind classifies an error by what its receiver can do about it. The numbers
// are on the wire: append only.
type Kind uint16

// The kinds. engine/errmap translates them for every door.
const (
	OK              Kind = 0
	Internal        Kind = 1  // a bug or an unknown failure: report it
	Invalid         Kind = 2  // the request is malformed: do not retry
	NotFound        Kind = 3  // no such name, inode, block or job
	Exists          Kind = 4  // the name is taken
	NotDir          Kind = 5  // a component is not a directory
	IsDir           Kind = 6  // a file was wanted
	NotEmpty        Kind = 7  // the directory has entries
	Permission      Kind = 8  // the caller may not
	NameTooLong     Kind = 9  // a name or path over its limit
	ReadOnly        Kind = 10 // the mount refuses writes
	CrossMount      Kind = 11 // rename across mounts (EXDEV)
	Busy            Kind = 12 // overload or a conflicting intent: retry after a pause
	Unavailable     Kind = 13 // the server or worker cannot be reached now: retry
	NoSpace         Kind = 14 // no tier or UFS has room
	Stale           Kind = 15 // the version, fence or grant is of the past: open again
	Conflict        Kind = 16 // the UFS object changed under an unpersisted version
	Corrupt         Kind = 17 // a checksum or an encoding does not hold
	LostData        Kind = 18 // every worker that held the unpersisted data has lost it
	Unsupported     Kind = 19 // this store or build cannot do it
	Unauthenticated Kind = 20 // the UFS or gateway refused the credentials
	Timeout         Kind = 21 // the deadline passed; the outcome is unknown
	SessionExpired  Kind = 22 // the client session is gone: never re-executed
	Canceled        Kind = 23 // the caller gave up
	TooLarge        Kind = 24 // over a size limit (EFBIG)
	UFSFailure      Kind = 25 // the store below failed in a way that has no kind of its own
	NoData          Kind = 26 // no such extended attribute
	NotLeader       Kind = 27 // another member of the metaplane serves; Path is its address, if known: ask there
	Referral        Kind = 28 // the subtree lives in another group of the metaplane: see AsReferral; clients follow it
	Removed         Kind = 29 // this member was removed from its cluster, for ever: do not start it again
	OverQuota       Kind = 30 // a directory above has no room for it (EDQUOT): remove something, or have its quota raised
)

var kindNames = [...]string{
	"ok", "internal", "invalid", "not found", "exists", "not a directory", "is a directory",
	"not empty", "permission denied", "name too long", "read-only", "cross-mount", "busy",
	"unavailable", "no space", "stale", "conflict", "corrupt", "lost", "unsupported",
	"unauthenticated", "timeout", "session expired", "canceled", "too large", "ufs failure", "no data",
	"not the leader", "referral", "removed", "over quota",
}

// String returns a short lower-case name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// Error makes a Kind usable as the target of errors.Is: errors.Is(err,
// orca.NotFound).
func (k Kind) Error() string { return k.String() }

// Retryable reports whether the same request may succeed later without any
// change by its caller.
func (k Kind) Retryable() bool {
	return k == Busy || k == Unavailable || k == Timeout || k == NotLeader
}

// Error is the one error type of the project. Edges make it once from a
// foreign error; inside, it is wrapped with %w and never given another Kind.
type Error struct {
	Op   string // package.Function that failed, such as "local.Rename"
	Path string // path, URI or id; may be empty
	Kind Kind
	Msg  string // what is wrong, for a person; may be empty
	Err  error  // the cause; may be nil
}

// Error formats op, path, message (or kind) and cause.
func (e *Error) Error() string {
	s := e.Op
	if e.Path != "" {
		s += " '" + e.Path + "'"
	}
	if s != "" {
		s += ": "
	}
	switch {
	case e.Msg != "" && e.Kind != Internal:
		s += e.Msg
	case e.Msg != "":
		s += "internal: " + e.Msg
	default:
		s += e.Kind.String()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Kind and the sentinels of io/fs.
func (e *Error) Is(target error) bool {
	if k, ok := target.(Kind); ok {
		return e.Kind == k
	}
	switch target {
	case fs.ErrNotExist:
		return e.Kind == NotFound
	case fs.ErrExist:
		return e.Kind == Exists
	case fs.ErrPermission:
		return e.Kind == Permission || e.Kind == ReadOnly
	case fs.ErrInvalid:
		return e.Kind == Invalid
	}
	return false
}

// E makes an Error with a message.
func E(op string, k Kind, msg string) *Error { return &Error{Op: op, Kind: k, Msg: msg} }

// PathE makes an Error about a path with a cause that may be nil.
func PathE(op, path string, k Kind, err error) *Error {
	return &Error{Op: op, Path: path, Kind: k, Err: err}
}

// KindOf returns the Kind of the first Error in the chain of err: OK for nil,
// Internal when there is none.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}

// EndKind is the kind of the error of a context that has ended: Timeout when its
// deadline has passed, which may be tried again, Canceled when the caller gave up.
func EndKind(err error) Kind {
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Canceled
}

// FileKind is the kind of an error of this host's own files, such as a backup
// that is read: NotFound, Permission, else Unavailable.
func FileKind(err error) Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrPermission):
		return Permission
	}
	return Unavailable
}
