// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"hash/maphash"
	"sync"
)

// bounded is a sharded map with a cap: a cache in front of the store. What it
// drops is arbitrary, so nothing that it answers may change a result.
type bounded[K comparable, V any] struct {
	seed   maphash.Seed
	cap    int // of one shard
	shards [32]boundedShard[K, V]
}

type boundedShard[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
	_  [24]byte
}

func newBounded[K comparable, V any](entries int) *bounded[K, V] {
	b := &bounded[K, V]{seed: maphash.MakeSeed()}
	b.cap = max(entries/len(b.shards), 16)
	for i := range b.shards {
		b.shards[i].m = map[K]V{}
	}
	return b
}

func (b *bounded[K, V]) shard(k K) *boundedShard[K, V] {
	return &b.shards[maphash.Comparable(b.seed, k)%uint64(len(b.shards))]
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	s := b.shard(k)
	s.mu.RLock()
	v, ok := s.m[k]
	s.mu.RUnlock()
	return v, ok
}

func (b *bounded[K, V]) put(k K, v V) {
	s := b.shard(k)
	s.mu.Lock()
	if len(s.m) >= b.cap {
		drop := b.cap / 16
		for old := range s.m {
			if delete(s.m, old); drop <= 0 {
				break
			}
			drop--
		}
	}
	s.m[k] = v
	s.mu.Unlock()
}

func (b *bounded[K, V]) drop(k K) {
	s := b.shard(k)
	s.mu.Lock()
	delete(s.m, k)
	s.mu.Unlock()
}

// presenceCap bounds the name hashes held for all directories, and
// presenceScan the directory that is scanned to learn its names.
const (
	presenceCap  = 8 << 20
	presenceScan = 4096
)

// present reports whether the directory may have the name; false is certain.
// Apply learns the names of a directory that is created in; readers use what
// it has learned.
func (m *Machine) present(n *node, name string) bool {
	if n.rec.Entries == 0 {
		return false
	}
	if n.names == nil && (!m.applying || n.rec.Entries > presenceScan || !m.learn(n)) {
		return true
	}
	ok := n.names.has(m.hash(name))
	if !ok {
		m.stats.presence.Add(1)
	}
	return ok
}

// hash is never 0.
func (m *Machine) hash(name string) uint32 { return uint32(maphash.String(m.files.seed, name)) | 1 }

func (m *Machine) learn(n *node) bool {
	names := newNameSet(int(n.rec.Entries) + 1)
	m.eachDirentKey(n, "", "", func(name, _ []byte) bool {
		names.add(uint32(maphash.Bytes(m.files.seed, name)) | 1)
		return true
	})
	if m.failed() != nil {
		return false
	}
	n.names = names
	m.nNames += names.len()
	return true
}

// noteName keeps the hashes in step with a new name.
func (m *Machine) noteName(n *node, name string) {
	if n.names == nil {
		if n.rec.Entries > 0 {
			return
		}
		n.names = newNameSet(1)
	}
	if m.nNames >= presenceCap {
		m.forgetNames()
		return
	}
	n.names.add(m.hash(name))
	m.nNames++
}

// dropName keeps the hashes in step with a removed name. What does not have as
// many names as the directory is no promise, and is given up.
func (m *Machine) dropName(n *node, name string) {
	if n.names == nil {
		return
	}
	before := n.names.len()
	n.names.remove(m.hash(name))
	m.nNames -= before - n.names.len()
	if int64(n.names.len()) != n.rec.Entries {
		m.nNames -= n.names.len()
		n.names = nil
	}
}

// forgetNames drops all hashes.
func (m *Machine) forgetNames() {
	for _, n := range m.dirs {
		n.names = nil
	}
	m.nNames = 0
}
