// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/workers"
)

// Replicated is a file with bounds of its copies, and where they are.
type Replicated struct {
	Attr     *metapb.Attr
	Path     string
	Holdings []workers.Holding // of the present version, on live workers
}

// Replicated returns files with bounds of their copies, in order, those behind
// after; at most limit are looked at. next is where to go on, 0 at the end.
func (s *Service) Replicated(after orca.Ino, limit int) (files []Replicated, next orca.Ino, err error) {
	m := s.group.Machine()
	inos, more, err := m.Replicated(after, limit)
	if err != nil {
		return nil, 0, err
	}
	for _, ino := range inos {
		next = ino
		v, path, err := m.Located(ino)
		if err != nil || v.Fresh {
			continue // in the trash, or not there yet
		}
		files = append(files, Replicated{v.Attr, path, s.Workers.Holdings(ino, v.Attr.Version)})
	}
	if !more {
		next = 0
	}
	return files, next, nil
}

// LiveWorkers returns the workers that may be given copies.
func (s *Service) LiveWorkers() []*metapb.Worker { return s.Workers.Live() }

// KeepCopy has a worker keep its copy of a file as long as no write needs the
// room, or no longer. Whether the file is pinned is not touched by that.
func (s *Service) KeepCopy(worker uint64, ino orca.Ino, on bool) {
	kind := metapb.WorkerOrder_PIN
	if !on {
		kind = metapb.WorkerOrder_UNPIN
	}
	s.Workers.Order([]uint64{worker}, kind, ino, 1)
}

// Held takes note that a worker has made a copy of what was in no store, and
// tells it what became of that meanwhile.
func (s *Service) Held(ctx context.Context, ino orca.Ino, version uint32, worker uint64) error {
	_, err := s.mutate(ctx, nil, &command.Command{Hold: &metapb.HoldOp{File: uint64(ino), Version: version, Workers: []uint64{worker}}})
	if err != nil {
		return err
	}
	s.reconcile(worker, &metapb.FileReport{File: uint64(ino), Version: version, Dirty: true})
	return nil
}
