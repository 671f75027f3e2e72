// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockserver

import (
	"hash/crc32"
	"sync"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
)

const (
	// sumPage is the unit of a page sum, in bytes.
	sumPage = 4096
	// maxSummed is how many grains have page sums: 8 GiB of them, in 14 MiB.
	maxSummed = 128 << 10
)

// pageSums remembers, of grains that were read for an exact read and held, the
// CRC32C of every 4 KiB: the next one reads and verifies what it asks for
// instead of the grain. The sums are of bytes that held against the block's
// own, so that a page which agrees is as good. One mutex guards it.
type pageSums struct {
	mu sync.Mutex
	m  map[grainKey]*grainSums
}

// grainKey names a grain of one file of a block.
type grainKey struct {
	id         orca.BlockID
	generation uint64
	grain      int64
}

type grainSums struct {
	n    int64 // of the grain, which may be the last of its block
	ram  bool  // of a file system in memory: a read waits for no disk
	sums [orca.GrainSize / sumPage]uint32
}

func keyOf(id orca.BlockID, ext *dataplane.Extent, start int64) grainKey {
	return grainKey{id, ext.Generation, start / orca.GrainSize}
}

// get returns the sums of a grain of n bytes; nil when it has none.
func (s *pageSums) get(k grainKey, n int64) *grainSums {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.m[k]; g != nil && g.n == n {
		return g
	}
	return nil
}

// put remembers a grain that held. Without a generation its file is nobody
// else's.
func (s *pageSums) put(k grainKey, ext *dataplane.Extent, grain []byte) {
	if k.generation == 0 {
		return
	}
	g := &grainSums{n: int64(len(grain)), ram: inMemory(ext)}
	for i := 0; i*sumPage < len(grain); i++ {
		g.sums[i] = crc32.Checksum(grain[i*sumPage:min((i+1)*sumPage, len(grain))], castagnoli)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[grainKey]*grainSums{}
	}
	if len(s.m) >= maxSummed {
		for old := range s.m { // any: what is read often comes back
			delete(s.m, old)
			break
		}
	}
	s.m[k] = g
}

// drop forgets a grain whose page did not hold.
func (s *pageSums) drop(k grainKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
}

func inMemory(ext *dataplane.Extent) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(ext.File.Fd()), &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// pages appends bytes [from, to) of the grain that ext begins with to p, as far
// as the grain has them, when its page sums are known and hold. With now it
// does not wait for a disk.
func (p *piece) pages(ext *dataplane.Extent, g *grainSums, from, to int64, now bool) (n int64, ok bool) {
	to = min(to, g.n)
	if from >= to {
		return 0, true
	}
	first := from - from%sumPage
	end := min(to+(sumPage-to%sumPage)%sumPage, g.n)
	buf := p.grain[:end-first]
	if now && !g.ram {
		p.iov[0] = buf
		got, err := unix.Preadv2(int(ext.File.Fd()), p.iov[:], ext.Off+first, unix.RWF_NOWAIT)
		p.iov[0] = nil
		if err != nil || got < len(buf) {
			return 0, false
		}
	} else if got, _ := ext.File.ReadAt(buf, ext.Off+first); got < len(buf) {
		return 0, false
	}
	for i := int64(0); i < int64(len(buf)); i += sumPage {
		if crc32.Checksum(buf[i:min(i+sumPage, int64(len(buf)))], castagnoli) != g.sums[(first+i)/sumPage] {
			return 0, false
		}
	}
	if len(p.body) == 0 && to-from == int64(len(buf)) && to-from <= sumPage {
		p.crc, p.crcN = g.sums[first/sumPage], int(to-from) // a page and nothing but
	}
	p.body = append(p.body, buf[from-first:to-first]...)
	return to - from, true
}
