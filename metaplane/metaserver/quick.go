// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"orca"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
	"orca/metaplane/ufssync"
	"orca/metaplane/workers"
)

// quickReader is optional on the Namespace of a Server: StatQuick answers a
// Stat that needs no wait; false says nothing, and Stat has to be asked.
type quickReader interface {
	StatQuick(r *metapb.StatRequest) (*metapb.StatReply, bool)
}

// StatQuick is Stat for what memory alone can answer at once: no apply is
// waited for, no disk read, no UFS asked.
func (s *Service) StatQuick(r *metapb.StatRequest) (*metapb.StatReply, bool) {
	if !s.group.ReadProven() || checkTarget("metaserver.Stat", r.Target) != nil {
		return nil, false
	}
	c, o := callerOf(r.H), ufssync.OptionOf(r.Sync)
	v, ok := s.Syncer.Quick(&c, orca.Ino(r.Target.Ino), r.Target.Path, o)
	if !ok {
		return nil, false
	}
	a := v.Attr
	if len(v.Holders) > 0 && orca.PersistState(a.Persist) != orca.Persisted &&
		s.Workers.Availability(orca.Ino(a.Ino), a.Version, v.Holders) == workers.Gone {
		return nil, false // to be put on record as lost
	}
	s.Stats.Reads.Add(1)
	return &metapb.StatReply{Attr: s.attr(&v), Parent: uint64(v.Parent), TtlMs: s.ttl(&v, o)}, true
}

// inline says which operations are tried on the connection's parser.
func (s *Server) inline(op metawire.Op) bool { return op == metawire.OpStat && s.quick != nil }
