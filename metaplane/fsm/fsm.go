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
// it but Hosted's. Reset has a goroutine read ahead, which ends with it.
//
// It refuses commands without an operation, and everything over a cap
// of Config with Busy.
package fsm
