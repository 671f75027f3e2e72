// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package fusegw shows Orca as a POSIX file system: FUSE requests in, calls of
// the client out. It is the only user of go-fuse and speaks its raw protocol,
// so that it owns what decides about speed: backing ids, kernel cache times
// and notifications.
//
// # The flow it sits in
//
//	stat, ls   kernel caches, bounded by the TTL of each answer, dropped by the watch
//	reads      OPEN ─► a fully cached file of one block: FOPEN_PASSTHROUGH, the
//	           kernel reads the block file itself; else READ ─► File.ReadAt
//	writes     CREATE/OPEN ─► a private file, written by passthrough
//	           FLUSH ─► publish what changed: close(2) returns its error
//
// # Incarnations
//
// The kernel allows one backing file per inode, and keeps one page cache per
// inode. Both are right only for one version of the content. So a node id names
// an incarnation: the inode number itself at first, an alias after a version
// was replaced (or is about to be written) while the old one is still open.
// An open that does not fit the current incarnation gets ESTALE, upon which the
// kernel looks the name up once more and finds the next one. st_ino is always
// the inode number.
//
//	idle ─► pass(version, id)    whole local file
//	     ├► cached(version)      pages filled by READ
//	     └► pass/cached + writing   private file shared by all its openers
//
// A mode is left only when no handle is open.
//
// # Who may
//
// Mounts use default_permissions: the kernel checks modes along the path, with
// attributes kept coherent by the watch stream, and the metaplane checks every
// call again with the caller's uid, gid and supplementary groups.
//
// # Goroutines and locks
//
// go-fuse runs one goroutine per request. Besides, a mount has one watcher (it
// receives events and marks what is out of date) and one notifier, the only
// one that writes notifications to the kernel: such a write can wait for a
// page that a READ has locked, so it holds no lock and no handler ever waits
// for it. Inodes with open handles get attribute notifications only.
//
// Locks, outermost first: node.mu (opens and releases of one incarnation),
// writing.mu (one private file), then gateway.mu, backings.mu, dirCache.mu and
// ownOps.mu (tables; never held over I/O).
//
// # What it refuses
//
// Device nodes, O_TMPFILE, exchange renames where the store cannot. Locks are
// the kernel's own and hold on one mount only.
package fusegw
