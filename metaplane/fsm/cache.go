// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"hash/maphash"
	"sync"
)

// bounded is a sharded map with a cap: a cache in front of the store. What it
// drops is arbitrary, so nothing that it answers may change a result.
//
// A shard is a table of buckets of bucketLen places, one of which a key can be
// in, with a byte of each one's hash beside it. It grows to twice as many buckets
// when one overflows, until it has as many places as the cap; then the new key
// takes the place of another. So a full one has few free places: a map of Go's,
// which is never full, takes three times the memory.
type bounded[K comparable, V any] struct {
	seed    maphash.Seed
	buckets int // of one shard, at most
	shards  [32]boundedShard[K, V]
}

type boundedShard[K comparable, V any] struct {
	mu    sync.RWMutex
	tags  []uint8 // of slots; 0: free
	slots []boundedSlot[K, V]
	hand  uint8 // whose turn it is to leave
	_     [48]byte
}

type boundedSlot[K comparable, V any] struct {
	key K
	val V
}

const bucketLen = 8

func newBounded[K comparable, V any](entries int) *bounded[K, V] {
	b := &bounded[K, V]{seed: maphash.MakeSeed()}
	b.buckets = max(entries/len(b.shards)/bucketLen, 2)
	for i := range b.shards {
		b.shards[i].resize(1)
	}
	return b
}

func (b *bounded[K, V]) shard(k K) (*boundedShard[K, V], uint64) {
	h := maphash.Comparable(b.seed, k)
	return &b.shards[h%uint64(len(b.shards))], h
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	s, h := b.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if at := s.find(k, h); at >= 0 {
		return s.slots[at].val, true
	}
	var none V
	return none, false
}

func (b *bounded[K, V]) put(k K, v V) {
	s, h := b.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.find(k, h); at >= 0 {
		s.slots[at].val = v // the key that is there holds no more memory than it needs
		return
	}
	for !s.enter(k, v, h) {
		if have := len(s.tags) / bucketLen; have < b.buckets {
			s.grow(b, min(2*have, b.buckets))
			continue
		}
		s.clear(s.bucket(h) + int(s.hand)%bucketLen)
		s.hand++
	}
}

func (b *bounded[K, V]) drop(k K) {
	s, h := b.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.find(k, h); at >= 0 {
		s.clear(at)
	}
}

func (s *boundedShard[K, V]) resize(buckets int) {
	s.tags, s.slots = make([]uint8, buckets*bucketLen), make([]boundedSlot[K, V], buckets*bucketLen)
}

// grow makes the table larger. Keys that find no place in it are dropped.
func (s *boundedShard[K, V]) grow(b *bounded[K, V], buckets int) {
	tags, slots := s.tags, s.slots
	s.resize(buckets)
	for i := range slots {
		if tags[i] != 0 {
			_, h := b.shard(slots[i].key)
			s.enter(slots[i].key, slots[i].val, h)
		}
	}
}

// bucket returns the first place of the bucket of a hash, of which shard uses the
// lowest bits, tagOf the ones above.
func (s *boundedShard[K, V]) bucket(h uint64) int {
	return int(h>>32*uint64(len(s.tags)/bucketLen)>>32) * bucketLen
}

func tagOf(h uint64) uint8 { return uint8(h>>5) | 1<<7 }

// find returns the place of a key, -1 if it is not there.
func (s *boundedShard[K, V]) find(k K, h uint64) int {
	first := s.bucket(h)
	for i, tag := range s.tags[first : first+bucketLen] {
		if tag == tagOf(h) && s.slots[first+i].key == k {
			return first + i
		}
	}
	return -1
}

// enter puts a key that is not there in a free place of its bucket, if there is
// one.
func (s *boundedShard[K, V]) enter(k K, v V, h uint64) bool {
	first := s.bucket(h)
	for i, tag := range s.tags[first : first+bucketLen] {
		if tag == 0 {
			s.tags[first+i], s.slots[first+i] = tagOf(h), boundedSlot[K, V]{k, v}
			return true
		}
	}
	return false
}

func (s *boundedShard[K, V]) clear(at int) {
	s.tags[at], s.slots[at] = 0, boundedSlot[K, V]{}
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
