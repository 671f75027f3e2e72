// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// Config sizes a machine. All but Group are caps that the machine refuses
// beyond (with Busy), and cluster facts: every replica must have the same.
type Config struct {
	// Group is the number of the group, which new inodes, sessions and intents
	// carry. 0 and 1: the first one, which has the root of the namespace. Any
	// other has mounts only, at the paths of their junctions in the first.
	Group uint16
	// MaxSessions caps open write sessions. Default 65536.
	MaxSessions int
	// MaxIntents caps undrained UFS intents. Default 16384.
	MaxIntents int
	// MaxClients caps remembered clients; the one idle longest is forgotten.
	// Default 65536.
	MaxClients int
	// CacheEntries caps the file inodes kept in memory (not a cluster fact).
	// Default 262144.
	CacheEntries int
}

// Want says in which form the results of an Entry are wanted.
type Want uint8

// The forms of results: Output.Results, Output.Decoded, or none at all.
const (
	WantEncoded Want = iota
	WantDecoded
	WantNone
)

// Entry is one committed journal entry: the bytes of a command.Entry, which stay
// as they are for as long as the results of its commands are used.
type Entry struct {
	Index uint64
	Data  []byte
	Want  Want
}

// Output is what one Entry came to. Decoded, Events and Effects are the
// machine's memory, valid until the next Apply.
type Output struct {
	Index uint64
	// Results is an encoded command.Entry of one Result per command.
	Results []byte
	// Decoded has one Result per command. Who wants to keep one sets its place
	// to nil.
	Decoded []*command.Result
	Events  []Event
	Effects []Effect
}

// Event is one line of the invalidation stream.
type Event struct {
	Index  uint64 // Raft index of its cause
	Ino    orca.Ino
	Parent orca.Ino
	Name   string
	Kind   metapb.EventKind
}

// EffectKind says what an Effect asks for.
type EffectKind uint8

// The effects. They are hints for the leader's helpers: whatever must not be
// forgotten is also in the state (sessions, intents, trash, persist jobs).
const (
	// EffectFree: all cached blocks of File may be dropped.
	EffectFree EffectKind = iota + 1
	// EffectFreeOld: cached blocks of File but those of Version may go.
	EffectFreeOld
	// EffectClean: Version of File is in its UFS: its blocks are not dirty.
	EffectClean
	// EffectPin and EffectUnpin: the pinned flag of File changed.
	EffectPin
	EffectUnpin
	// EffectIntent: deferred intent ID waits to be drained.
	EffectIntent
	// EffectSession: session ID is expired, abandoned or stolen: sweep its
	// upload, look at its key, then drop_session.
	EffectSession
	// EffectTrash: there is trash to sweep.
	EffectTrash
	// EffectMounts: the mount table changed.
	EffectMounts
	// EffectHosted: machine Name applied a command or was given a file to
	// persist.
	EffectHosted
	// EffectFact: fact Name was set.
	EffectFact
	// EffectCopies: the bounds of the copies of File changed.
	EffectCopies EffectKind = 80
)

// Effect is work that an apply leaves to the leader's helpers.
type Effect struct {
	Kind    EffectKind
	File    orca.Ino
	Version uint32
	ID      uint64
	Name    string
}

// View is one inode as a reader sees it.
type View struct {
	// Attr is complete but for CachedBytes. UFSPath is the full URI.
	Attr   *metapb.Attr
	Parent orca.Ino
	Name   string
	// Change is the Raft index of the last change of the name or content.
	Change uint64
	// Key is the UFS key relative to the mount's root, overrides applied.
	Key string
	// Moved says that Key comes from the override of an undrained move.
	Moved bool
	// Pending is an intent whose keys overlap Key; 0 if none.
	Pending uint64
	// Session is the open write session of the file; 0 if none.
	Session uint64
	// InUFS says that something is at Key, of whatever version.
	InUFS bool
	// Holders are the workers that completed the only copies of a file that
	// is not persisted.
	Holders []uint64
	// Foreign says that it is a junction: the root of a mount in another group.
	Foreign bool
	// Alias says that the UFS has the content under another name of the file:
	// nothing of it is at the key that Parent and Name imply.
	Alias bool
	// Fresh says that the file is not visible yet: only its session has it.
	Fresh bool
	// Loaded and LoadedAt (unix ns) say whether and when a directory was
	// last listed completely from its UFS.
	Loaded   bool
	LoadedAt int64
	// SyncInterval is that of the nearest inode that sets one, else of the
	// mount, in ms: -1 load once, 0 on each access.
	SyncInterval int64
}

// Place is a name in a directory.
type Place struct {
	Dir  orca.Ino
	Name string
}

// Walked is the outcome of resolving a path.
type Walked struct {
	// Found says whether the whole path exists; then View is of its end.
	Found bool
	View
	// Dir is the deepest existing directory of the path; when Found, the
	// parent of the end (the root for the root).
	Dir View
	// Rest are the names below Dir that do not exist; empty when Found.
	Rest []string
	// Held is a write session that holds the first of Rest; 0 if none.
	Held uint64
	// Masked is an intent that overlaps the key of the first of Rest, but for one
	// that only keeps Dir where it was; 0 if none. It is of the moment of the walk,
	// as all else here: a name that is masked later may be there by then.
	Masked uint64
	// Mount is the mount that the path lies in; nil before the root mount.
	Mount *command.Mount
	// TargetKey is the UFS key that the whole path has or would have, and
	// TargetPending an intent that overlaps it.
	TargetKey     string
	TargetPending uint64
}

// Child is one entry of a directory.
type Child struct {
	Name string
	View
}

// Counts are gauges of a machine.
type Counts struct {
	Files, Dirs           int64
	Sessions, Intents     int64
	Clients, Mounts       int64
	Trash                 int64 // detached trees still to be swept
	Kept                  int64 // deleted, and to be restored or to expire
	Quotas, OverQuota     int64 // directories that have one; refusals
	Rehomed               int64 // files that went on in another directory, which no quota was asked for
	Transfers             int64 // decided here, and not taken note of by the other group
	CacheHits, CacheMiss  int64
	Commands, Remembered  int64 // applied; answered from the dedup window
	PresenceHit, StoreGet int64
}

// Tx is the store as a hosted machine sees it while one command is applied:
// keys are its own (the machine prefixes them), and what it writes commits in
// the same batch as the command.
type Tx interface {
	// Get returns the value or nil; it is only valid until the next call.
	Get(key []byte) []byte
	Set(key, value []byte)
	Delete(key []byte)
	// Scan calls fn for keys with the prefix that sort after after (nil:
	// from the first) in order until it returns false. fn must not write.
	Scan(prefix, after []byte, fn func(key, value []byte) bool)
}

// Store is the read half of Tx, for readers of a hosted machine.
type Store interface {
	Get(key []byte) []byte
	Scan(prefix, after []byte, fn func(key, value []byte) bool)
}

// PersistFile is a file that a hosted machine is asked to persist.
type PersistFile struct {
	File    orca.Ino
	Version uint32
	Length  int64
	Mount   uint32
	Path    string
	Workers []uint64 // that hold it
}

// Hosted is a pure state machine that shares the group's journal and batch
// (the job machine). It keeps what must last in Tx only.
type Hosted interface {
	// Apply applies one of its commands; the reply is what its proposer gets.
	Apply(tx Tx, cmd []byte, now int64) []byte
	// OnPersistNeeded is called in the apply that makes a file wait for its
	// UFS.
	OnPersistNeeded(tx Tx, f PersistFile, now int64)
}

// Reopener is optional on a Hosted with memory derived from its keys: Reopen
// is called at open and after a snapshot has replaced the store.
type Reopener interface {
	Reopen(s Store) error
}
