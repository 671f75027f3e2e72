// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"encoding/binary"
	"hash/crc32"

	"orca"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// verifier checks the grains of one frame in the order of its bytes. A grain
// may lie in several pieces of memory; a last grain that is short must be the
// end of its block.
type verifier struct {
	sums []byte // big-endian CRC32C, one per grain that is still to come
	left int    // bytes until the end of the current grain
	crc  uint32
	ok   int // grains that held
	off  int64
}

// start begins a frame whose n bytes, grain aligned, have these sums.
func (v *verifier) start(off int64, sums []byte, n int) error {
	if grains := (n + orca.GrainSize - 1) / orca.GrainSize; len(sums) != 4*grains || off%orca.GrainSize != 0 {
		return orca.E("blockclient.verify", orca.Corrupt, "reply without the checksums of its grains")
	}
	v.sums, v.left, v.crc, v.off = sums, orca.GrainSize, 0, off
	return nil
}

// feed takes the next bytes: Corrupt as soon as a grain does not hold.
func (v *verifier) feed(p []byte) error {
	for len(p) > 0 {
		k := min(len(p), v.left)
		v.crc = crc32.Update(v.crc, castagnoli, p[:k])
		p = p[k:]
		if v.left -= k; v.left == 0 {
			if err := v.grain(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish ends the frame: what is left is a short last grain.
func (v *verifier) finish() error {
	if v.left < orca.GrainSize {
		return v.grain()
	}
	return nil
}

func (v *verifier) grain() error {
	if binary.BigEndian.Uint32(v.sums) != v.crc {
		return orca.E("blockclient.verify", orca.Corrupt, "checksum of a grain does not hold")
	}
	v.sums = v.sums[4:]
	v.left, v.crc = orca.GrainSize, 0
	v.off += orca.GrainSize
	v.ok++
	return nil
}
