// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package workload generates what the suites read, write and name. It is pure:
// the same seed gives the same bytes, names and orders on every machine, so
// that a run can be repeated and both sides of a comparison do the same work.
package workload

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Fill writes the content of the file named by seed at off into p. The bytes
// do not compress, and any range can be made without the ones before it.
func Fill(p []byte, seed uint64, off int64) {
	word := uint64(off) / 8
	if skip := int(off % 8); skip != 0 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], mix(seed, word))
		p = p[copy(p, w[skip:]):]
		word++
	}
	for ; len(p) >= 8; p, word = p[8:], word+1 {
		binary.LittleEndian.PutUint64(p, mix(seed, word))
	}
	if len(p) > 0 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], mix(seed, word))
		copy(p, w[:])
	}
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014) at position i of the stream of seed.
func mix(seed, i uint64) uint64 {
	z := seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// content is the file named by seed as an io.Reader.
type content struct {
	seed uint64
	off  int64
	size int64
}

// Content returns a reader of the first size bytes of the file named by seed.
func Content(seed uint64, size int64) io.Reader { return &content{seed: seed, size: size} }

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.off >= c.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.size-c.off)]
	Fill(p, c.seed, c.off)
	c.off += int64(len(p))
	return len(p), nil
}

// Names returns n names that sort in order: prefix-000000 and on.
func Names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%06d", prefix, i)
	}
	return out
}

// Order returns a permutation of 0..n-1.
func Order(seed uint64, n int) []int {
	return rand.New(rand.NewPCG(seed, 0)).Perm(n)
}

// Offsets returns at most n distinct offsets, aligned to unit, of whole units
// within size, in random order. No offset repeats, so that no read of a pass
// can hit what an earlier read of it has brought into a cache.
func Offsets(seed uint64, size, unit int64, n int) []int64 {
	order := Order(seed, int(size/unit))
	out := make([]int64, min(n, len(order)))
	for i := range out {
		out[i] = int64(order[i]) * unit
	}
	return out
}
