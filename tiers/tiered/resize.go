// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"strconv"

	"orca"
	"orca/tiers/dir"
)

// Resize sets the quota of a directory while the store runs. Of one that was
// made smaller, clean blocks leave in the background as they do over the high
// mark: to a slower tier where there is one. NotFound; NoSpace when it holds
// more than the new quota of what may not leave: then nothing changes.
func (s *Store) Resize(path string, capacity int64) error {
	const op = "tiered.Resize"
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		if p.Path != path {
			continue
		}
		c := p.Config
		c.Capacity = capacity
		if err := c.Validate(); err != nil {
			return err
		}
		if stays := p.Used() - p.listed - p.leaving; stays > capacity {
			return &orca.Error{Op: op, Path: path, Kind: orca.NoSpace, Msg: strconv.FormatInt(stays, 10) +
				" bytes in it may not leave: data that is nowhere else, pinned files, and files that are being written"}
		}
		p.Resize(capacity)
		s.freedLocked() // who waits looks again
		s.wake()
		return nil
	}
	return &orca.Error{Op: op, Path: path, Kind: orca.NotFound, Msg: "no such tier directory"}
}

// Config returns what a directory that is open is configured as now.
func (s *Store) Config(path string) (c dir.Config, ok bool) {
	for _, p := range s.dirs() {
		if p.Path == path {
			c = p.Config
			c.Capacity = p.Quota()
			return c, true
		}
	}
	return c, false
}
