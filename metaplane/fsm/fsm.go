// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package fsm is the namespace of one Raft group as a pure state machine:
// Apply(state, commands) → (state, results, events, effects). No clock, no
// randomness, no I/O but its own store; wall time enters as the now of a
// command. design: ARCHITECTURE.md, "Metaplane".
//
// # How an operation reaches its UFS
//
// The mount table carries what the store can do (atomic rename, directories,
// owners), so the machine itself decides, in one apply:
//
//   - nothing to do below (name not in the UFS, cache_only, owners not kept
//     there): the effect is committed, Result.Intent is nil;
//   - one synchronous UFS call does it: nothing changes yet; Result.Intent is
//     an undecided intent (Deferred false) that locks the UFS keys concerned.
//     The proposer makes the idempotent call and proposes Decide; its Result
//     is the result of the operation, and what (client, seq) is remembered
//     with. The same (client, seq) again returns the same undecided intent;
//   - many calls: the effect is committed and Result.Intent is a Deferred
//     intent for the executor, in the same apply.
//
// Keys of undecided and undrained intents are masked: a mutation whose UFS key
// overlaps one is refused with Busy (Result.busy_intent names it; such a
// refusal is not remembered: retry with the same seq), and SyncApply skips
// them. Reads go on: a moved inode carries its old key until cut over.
//
// # Goroutines and locks
//
// Apply, Sync and Reset are called from one goroutine at a time. Readers may
// come from any number of goroutines; one RWMutex orders them: Apply holds it
// for the length of one batch, readers for one call. No callback is made under
// it but Hosted's.
//
// It refuses commands without exactly one operation, and everything over a cap
// of Config with Busy.
package fsm

import (
	"log/slog"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inodekv"
)

var errTODO = orca.E("fsm", orca.Unsupported, "not written yet")

// Machine is the namespace of one group.
type Machine struct{}

// Open reads the state that db holds. hosted are the machines that share the
// group, by name.
func Open(cfg Config, db *inodekv.DB, hosted map[string]Hosted, log *slog.Logger) (*Machine, error) {
	return nil, errTODO
}

// Applied returns the index of the last applied entry: the change index that
// a SyncApply must carry, taken before its UFS listing starts.
func (m *Machine) Applied() uint64 { return 0 }

// Walk resolves path from inode from (0: the root), checking search permission
// on each directory. A missing name is not an error: see Walked. NotFound (no
// such from), NotDir, Permission, NameTooLong, Invalid.
func (m *Machine) Walk(c orca.Caller, from orca.Ino, path string) (*Walked, error) {
	return nil, errTODO
}

// Lookup returns an inode by number, whatever its path's permissions, with
// its path. A file that is not complete yet is returned with Fresh set.
// NotFound (also of what is in the trash).
func (m *Machine) Lookup(ino orca.Ino) (*View, error) { return nil, errTODO }

// Path returns the path of an inode. NotFound.
func (m *Machine) Path(ino orca.Ino) (string, error) { return "", errTODO }

// Children returns up to limit entries of a directory whose names sort after
// after, and whether there are more. It checks read and search permission on
// the directory. NotFound, NotDir, Permission.
func (m *Machine) Children(c orca.Caller, dir orca.Ino, after string, limit int) (children []Child, more bool, err error) {
	return nil, false, errTODO
}

// Access checks the permission bits (4 read, 2 write, 1 execute) of an inode
// for a caller. NotFound, Permission.
func (m *Machine) Access(c orca.Caller, ino orca.Ino, bits uint32) error { return errTODO }

// Session returns a write session. NotFound.
func (m *Machine) Session(id uint64) (*command.Session, error) { return nil, errTODO }

// Sessions returns all write sessions by id.
func (m *Machine) Sessions() []*command.Session { return nil }

// Intent returns an undecided or undrained intent. NotFound.
func (m *Machine) Intent(id uint64) (*command.Intent, error) { return nil, errTODO }

// Intents returns all undecided and undrained intents by id.
func (m *Machine) Intents() []*command.Intent { return nil }

// Overlap returns an intent (but for except) whose keys in mount overlap key;
// subtree says that key stands for all below it, too. 0 if none.
func (m *Machine) Overlap(mount uint32, key string, subtree bool, except uint64) uint64 { return 0 }

// Mounts returns the mount table by id, secrets included.
func (m *Machine) Mounts() []*command.Mount { return nil }

// Mount returns one mount. NotFound.
func (m *Machine) Mount(id uint32) (*command.Mount, error) { return nil, errTODO }

// Xattr returns one extended attribute. NoData, NotFound, Permission.
func (m *Machine) Xattr(c orca.Caller, ino orca.Ino, name string) ([]byte, error) {
	return nil, errTODO
}

// Xattrs returns the sorted names of the extended attributes of an inode.
func (m *Machine) Xattrs(c orca.Caller, ino orca.Ino) ([]string, error) { return nil, errTODO }

// Fact returns a cluster fact, nil if not set.
func (m *Machine) Fact(key string) []byte { return nil }

// Workers returns the ids and nodes ever registered.
func (m *Machine) Workers() []*command.Worker { return nil }

// Counts returns the gauges.
func (m *Machine) Counts() Counts { return Counts{} }

// ReadHosted calls fn with the keys of a hosted machine under the read lock.
func (m *Machine) ReadHosted(name string, fn func(Store)) {}
