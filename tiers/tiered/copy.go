// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"hash/crc32"
	"time"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

const (
	// paceGrains is how many grains are copied between two looks at the pace,
	// and at whether the copy is still wanted.
	paceGrains = 16
	// paceStep is the longest wait between two looks at the latter.
	paceStep = 20 * time.Millisecond
	// standBack is how long a copy to a faster tier waits for those who read
	// or fill in either directory, before each of its steps: it may take long,
	// and never for ever.
	standBack = 200 * time.Millisecond
	backStep  = 5 * time.Millisecond
)

// copyBlock copies a pinned block into another directory, durable when it is the
// only copy, and gives up as soon as somebody waits for room.
func (m *mover) copyBlock(b *block, to *place, durable bool) bool {
	s := m.s
	src, _, err := s.prepare(b, 0, 0)
	if err != nil {
		return false
	}
	dst, err := to.Create(b.ID, b.length)
	if err != nil {
		s.fault(to, err)
		return false
	}
	defer dst.Close()
	for g := range b.sums {
		if g%paceGrains == 0 {
			off := int64(g) * orca.GrainSize
			step := min(paceGrains*orca.GrainSize, b.length-off)
			if !m.turn(b, to, step) {
				err = errUnwanted
				break
			}
			if to.Huge() && off%dir.HugeStep == 0 && b.length-off >= dir.HugeStep {
				to.Prepare(dst, off, dir.HugeStep)
			}
		}
		if err = m.copyGrain(b, to, src, dst, g); err != nil {
			break
		}
	}
	if err == nil && durable {
		if err = to.Sync(b.ID, dst); err != nil {
			s.fault(to, err)
		}
	}
	if err != nil {
		_ = to.Unlink(b.ID)
		return false
	}
	return true
}

// copyGrain copies one grain and compares it with its sum.
func (m *mover) copyGrain(b *block, to *place, src, dst *dir.File, g int) error {
	s := m.s
	p := m.buf[:blockfile.GrainLen(b.length, g)]
	off := int64(g) * orca.GrainSize
	_, bad, err := b.at.Read(src, p, off)
	if err != nil {
		s.fault(b.at, err)
		return err
	}
	if len(bad) > 0 || crc32.Checksum(p, blockfile.Castagnoli) != b.sums[g] {
		return s.quarantine(b, g)
	}
	if err := to.Write(dst, p, off); err != nil {
		s.fault(to, err)
		return err
	}
	return nil
}

// turn waits for the turn of the next n bytes of a copy: the rate over all
// moves, and, on the way up, those who read or fill. False when the copy is
// unwanted by then.
func (m *mover) turn(b *block, to *place, n int64) bool {
	s := m.s
	now := time.Now()
	if m.due.Before(now) {
		m.due = now
	}
	for left := m.due.Sub(now); left > 0; left = time.Until(m.due) {
		if m.unwanted(b, to) || !m.sleep(min(left, paceStep)) {
			return false
		}
	}
	m.due = m.due.Add(time.Duration(float64(n) / float64(s.cfg.MoveRate) * float64(time.Second)))
	if to.Tier < b.at.Tier && !m.force {
		for waited := time.Duration(0); waited < standBack && s.contended(b, to); waited += backStep {
			s.Metrics.MoveWaits.Add(1)
			if m.unwanted(b, to) || !m.sleep(backStep) {
				return false
			}
		}
	}
	return !m.unwanted(b, to)
}

// contended reports whether somebody else reads or fills where a block is
// copied from or to.
func (s *Store) contended(b *block, to *place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.at.pins > 1 || to.pins > 0 // one is the copy's own
}

// unwanted reports that a copy of a block need not be finished: somebody waits
// for room where it is or, when it moves up, where it goes to; or it has left,
// and perhaps is wanted anew.
func (m *mover) unwanted(b *block, to *place) bool {
	s := m.s
	select {
	case <-s.done:
		return true
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.force {
		return b.gone || !b.at.closing
	}
	return b.gone || b.at.want > 0 || to.Tier < b.at.Tier && to.want > 0
}
