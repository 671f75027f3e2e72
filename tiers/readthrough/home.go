// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"time"

	"orca"
	"orca/dataplane"
)

// What no worker holds is fetched by one worker for all of them: the home of
// the file, which is the first in an order that every worker computes alike
// (rendezvous hashing). Its load is bounded: with half of its streams in use a
// home begins nothing new for others, and they ask the next one, which all of
// them find in the same place. A block that a home has handed on stays there
// until who holds it is known: its next readers, those of the home included,
// ask the next home too, though the load is gone by then. Else two workers
// would fetch the same bytes.
//
// No two workers wait for one another. What a worker asks of a home is Direct,
// and a fill that began Direct asks no home. Another fill asks homes that come
// before its worker, and only a fill of a block that was handed on (away) asks
// those behind, too; nobody waits for that one, for it refuses Direct requests.
// Nor do they wait through their slots: a stream that waits for a home holds one,
// so what others wait for (direct) has slots that no such stream takes.
//
// A worker that is told to have a copy (Own) asks no home: that one would have a
// copy, too, and nobody has asked for it. While the metaplane does not know who
// holds the file, as after its restart, there would be one more than there are
// to be.

// handedCap bounds the blocks that are remembered as handed on.
const handedCap = 4096

// handedOn are the blocks that this worker refused to fetch for others, with
// the time until which it goes on to do so. The zero value is ready to use.
type handedOn map[orca.BlockID]time.Time

func (h handedOn) has(id orca.BlockID, now time.Time) bool {
	until, ok := h[id]
	return ok && now.Before(until)
}

// add remembers a block; what is over makes room, and if there is none an
// arbitrary one goes: its bytes may be fetched twice.
func (h *handedOn) add(id orca.BlockID, now, until time.Time) {
	if *h == nil {
		*h = handedOn{}
	}
	if len(*h) >= handedCap {
		for k, u := range *h {
			if !now.Before(u) {
				delete(*h, k)
			}
		}
	}
	for k := range *h {
		if len(*h) < handedCap {
			break
		}
		delete(*h, k)
	}
	(*h)[id] = until
}

// refusesLocked decides about a block that another worker asks this one to
// fetch, being its home; f is what goes on about it here.
func (s *Service) refusesLocked(id orca.BlockID, f *fill, handed bool) bool {
	switch {
	case f != nil:
		return f.away // what is under way may be joined
	case handed:
		return true
	case s.Metrics.Streams.Load() < int64(s.cfg.MaxStreams+1)/2:
		return false
	}
	now := time.Now()
	s.handed.add(id, now, now.Add(s.cfg.ResolveFor))
	return true
}

// homes returns whom to ask to fetch, best first; nobody: this worker fetches.
func (src *Source) homes(req dataplane.ReadRequest, away bool) []Peer {
	switch {
	case req.Direct || req.Own || req.Type == orca.ReadNoCache || !inUFS(&src.Attr):
		return nil
	case away:
		return src.Homes
	}
	return src.Homes[:min(src.Before, len(src.Homes))]
}
