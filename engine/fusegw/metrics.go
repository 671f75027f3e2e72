// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import "sync/atomic"

// Op is a kind of request, an index of Metrics.Ops.
type Op uint8

// The kinds of requests.
const (
	OpLookup Op = iota
	OpGetattr
	OpSetattr
	OpReaddir
	OpOpendir
	OpMkdir
	OpRmdir
	OpUnlink
	OpRename
	OpSymlink
	OpLink
	OpReadlink
	OpXattr
	OpCreate
	OpOpen
	OpRead
	OpWrite
	OpFlush
	OpFsync
	OpRelease
	OpStatfs
	opCount
)

var opNames = [opCount]string{
	"lookup", "getattr", "setattr", "readdir", "opendir", "mkdir", "rmdir", "unlink", "rename", "symlink", "link",
	"readlink", "xattr", "create", "open", "read", "write", "flush", "fsync", "release", "statfs",
}

// String returns the name of the operation, such as "lookup".
func (o Op) String() string { return opNames[o] }

// Ops lists all kinds of requests.
func Ops() []Op {
	r := make([]Op, opCount)
	for i := range r {
		r[i] = Op(i)
	}
	return r
}

// Fallback is why an open was not served by passthrough, an index of
// Metrics.Fallbacks.
type Fallback uint8

// The reasons.
const (
	FallbackDisabled Fallback = iota // the mount has no passthrough
	FallbackPartial                  // not wholly cached in one local file
	FallbackSize                     // the local file's size is not the file's
	FallbackRegister                 // the kernel refused the descriptor
	FallbackShared                   // the inode was open through the daemon
	FallbackLazy                     // opened read-write: copied at the first write only
	fallbackCount
)

var fallbackNames = [fallbackCount]string{"disabled", "partial", "size", "register", "shared", "lazy"}

// String returns the reason's name, such as "partial".
func (f Fallback) String() string { return fallbackNames[f] }

// Fallbacks lists all reasons.
func Fallbacks() []Fallback {
	r := make([]Fallback, fallbackCount)
	for i := range r {
		r[i] = Fallback(i)
	}
	return r
}

// Metrics counts since the mount was made. All are totals but PassEnabled.
type Metrics struct {
	Ops         [opCount]atomic.Int64
	Errors      atomic.Int64 // requests answered by an errno other than ENOENT and ENODATA
	ReadBytes   atomic.Int64 // served by the daemon
	WriteBytes  atomic.Int64
	PassEnabled atomic.Bool  // the kernel accepted a backing file at mount time
	PassOpens   atomic.Int64 // opens answered with a backing id
	PassReads   atomic.Int64 // of these, for reading
	Registers   atomic.Int64 // backing ids made
	Fallbacks   [fallbackCount]atomic.Int64
	Publishes   atomic.Int64 // versions published
	// PublishFailures were reported by close(2), or logged when they came
	// after it.
	PublishFailures atomic.Int64
	Copied          atomic.Int64 // bytes of old content copied into private files
	Incarnations    atomic.Int64 // opens sent back for another node id
	Notifies        atomic.Int64 // notifications sent to the kernel
	Events          atomic.Int64 // events received
	FullInvalidates atomic.Int64
	WatchUp         atomic.Bool
}
