// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"

	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// effect does one thing that an apply asked for. Orders and work are the
// leader's; the others follow what they need to take over.
func (s *Service) effect(e fsm.Effect) {
	if s.Serving() != nil {
		switch e.Kind {
		case fsm.EffectFree:
			s.Workers.Forget(e.File)
		case fsm.EffectMounts:
			s.refreshMounts()
		case fsm.EffectFact:
			s.factSet(e.Name)
		case fsm.EffectHosted:
			if s.cfg.OnHosted != nil {
				s.cfg.OnHosted(e.Name)
			}
		}
		return
	}
	switch e.Kind {
	case fsm.EffectFree:
		s.Workers.OrderHolders(metapb.WorkerOrder_FREE_FILE, e.File, 0)
		s.Workers.Forget(e.File)
	case fsm.EffectFreeOld:
		s.Workers.OrderHolders(metapb.WorkerOrder_FREE_OLD, e.File, e.Version)
	case fsm.EffectClean:
		s.Workers.OrderHolders(metapb.WorkerOrder_CLEAN_FILE, e.File, e.Version)
	case fsm.EffectPin:
		s.Workers.OrderAll(metapb.WorkerOrder_PIN, e.File, 0)
	case fsm.EffectUnpin:
		s.Workers.OrderAll(metapb.WorkerOrder_UNPIN, e.File, 0)
	case fsm.EffectIntent, fsm.EffectSession, fsm.EffectTrash:
		s.Exec.Wake()
	case fsm.EffectMounts:
		s.refreshMounts()
	case fsm.EffectFact:
		s.factSet(e.Name)
	case fsm.EffectHosted:
		if s.cfg.OnHosted != nil {
			s.cfg.OnHosted(e.Name)
		}
	case fsm.EffectCopies:
		if s.cfg.OnCopies != nil {
			s.cfg.OnCopies()
		}
	}
}

// refreshMounts rebuilds the table from the machine when it has changed.
func (s *Service) refreshMounts() {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	records := s.group.Machine().Mounts()
	list := make([]*metapb.Mount, 0, len(records))
	for _, r := range records {
		list = append(list, r.Mount)
	}
	epoch := epochOf(list)
	old := s.mounts.Load()
	if old.Epoch == epoch {
		return
	}
	s.mounts.Store(mount.NewTable(list, epoch))
	s.beside.Store(s.groupNumber() > 1 && haveSiblings(list))
	if s.Stores == nil {
		return
	}
	for _, m := range old.All() {
		n := s.mounts.Load().ByID(m.Id)
		if n == nil || n.Uri != m.Uri || !maps.Equal(n.Options, m.Options) {
			s.Stores.Drop(m.Id)
		}
	}
}

// epochOf is a number that changes with the mount table and is the same on
// every node.
func epochOf(list []*metapb.Mount) uint64 {
	h := fnv.New64a()
	w := func(parts ...string) {
		for _, p := range parts {
			_, _ = io.WriteString(h, strconv.Itoa(len(p))+":"+p)
		}
	}
	for _, m := range list {
		w(strconv.FormatUint(uint64(m.Id), 10), m.Path, m.Uri, strconv.FormatBool(m.ReadOnly),
			strconv.FormatBool(m.Shared), strconv.FormatInt(m.SyncIntervalMs, 10))
		if m.TrashRetentionMs != 0 {
			w(strconv.FormatInt(m.TrashRetentionMs, 10))
		}
		if m.Group > 1 {
			w(strconv.FormatUint(uint64(m.Group), 10), m.Junction.String(), strconv.FormatUint(m.Serial, 10))
		}
		for _, k := range slices.Sorted(maps.Keys(m.Options)) {
			w(k, m.Options[k])
		}
	}
	return h.Sum64()
}
