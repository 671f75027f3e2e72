// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// ReadFrom says which members are asked reads that any may answer.
type ReadFrom uint8

// The choices. AnyMember has the members take turns: each answers as
// linearizably as the leader, after a round that it shares with other reads,
// and leaves to the leader what takes a look at a store.
const (
	Leader ReadFrom = iota
	AnyMember
)

// ParseReadFrom returns the choice of a name: leader or any.
func ParseReadFrom(name string) (ReadFrom, error) {
	switch name {
	case "leader":
		return Leader, nil
	case "any":
		return AnyMember, nil
	}
	return 0, &orca.Error{Op: "metaclient.ParseReadFrom", Path: name, Kind: orca.Invalid, Msg: "reads are from: leader, any"}
}

const (
	// memberPatience is how long a member that need not be the leader may take
	// for a read, and restFor how long one that took longer, or could not be
	// reached, is passed over.
	memberPatience = suspectAfter
	restFor        = 2 * time.Second
	// referFor is for how long reads in a directory that took the leader go to
	// it at once, and referSlots how many directories are told apart.
	referFor   = time.Second
	referSlots = 512
)

// spread has members take turns with reads.
type spread struct {
	born     time.Time
	seed     maphash.Seed
	turn     atomic.Uint32
	referred [referSlots]atomic.Int64 // until when, since born
}

func newSpread() *spread { return &spread{born: time.Now(), seed: maphash.MakeSeed()} }

// slot is what is remembered of a directory.
func (s *spread) slot(ino uint64, dir string) *atomic.Int64 {
	h := maphash.Comparable(s.seed, struct {
		ino uint64
		dir string
	}{ino, dir})
	return &s.referred[h%referSlots]
}

// choose returns the member that has its turn; nil: the leader.
func (s *stub) choose(slot *atomic.Int64) *peer {
	now := int64(time.Since(s.spread.born))
	if slot.Load() > now {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := int(s.spread.turn.Add(1) % (1 << 30))
	for i := range s.peers {
		p := s.peers[(turn+i)%len(s.peers)]
		if p == s.at.Load() {
			return nil
		}
		if p.rests.Load() <= int64(time.Since(s.born)) {
			return p
		}
	}
	return nil
}

// headed is a request with a header.
type headed interface {
	metawire.Message
	GetH() *metapb.Header
}

// fillable is a reply that can be filled in anew.
type fillable interface {
	metawire.Message
	Reset()
}

// dirOf is the directory that a target's name is looked up in.
func dirOf(t *metapb.Target) (uint64, string) {
	p := strings.TrimSuffix(t.GetPath(), "/")
	return t.GetIno(), p[:max(0, strings.LastIndexByte(p, '/'))]
}

// readAny is invoke for a read that any member may answer; dir is where it
// looks. looks says that it wants a look at the store.
func readAny[P fillable](ctx context.Context, s *stub, op metawire.Op, q headed, ino uint64, dir string, looks bool, p P) (P, error) {
	h := q.GetH()
	if s.spread == nil || looks || h == nil || !s.several.Load() {
		return invoke(ctx, s, op, q, p)
	}
	slot := s.spread.slot(ino, dir)
	m := s.choose(slot)
	if m == nil {
		return invoke(ctx, s, op, q, p)
	}
	h.AnyMember = true
	err := askMember(ctx, m, op, q, p)
	h.AnyMember = false
	switch kind := orca.KindOf(err); {
	case err == nil:
		return p, nil
	case kind == orca.NotLeader:
		slot.Store(int64(time.Since(s.spread.born) + referFor))
	case ctx.Err() != nil, answers(kind):
		var zero P
		return zero, err
	default:
		m.rests.Store(int64(time.Since(s.born) + restFor))
	}
	return invoke(ctx, s, op, q, p)
}

// answers reports whether an error of this kind is the answer to a read, and
// not about the member.
func answers(k orca.Kind) bool {
	switch k {
	case orca.Canceled, orca.Internal, orca.Corrupt, orca.Unsupported:
		return false
	}
	return !k.Retryable()
}

// askMember makes one call of one member.
func askMember[P fillable](ctx context.Context, m *peer, op metawire.Op, q metawire.Message, p P) error {
	b, err := metawire.Marshal(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	r, err := m.c.Call(ctx, op, b, nil)
	if err != nil {
		return err
	}
	defer r.Release()
	if err := p.UnmarshalVT(r.Meta); err != nil {
		p.Reset()
		return orca.PathE("metaclient.askMember", m.addr, orca.Corrupt, err)
	}
	return nil
}

func (s *stub) Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	ino, dir := dirOf(r.Target)
	return readAny(ctx, s, metawire.OpStat, r, ino, dir, r.Sync.GetMode() == 2, new(metapb.StatReply))
}

func (s *stub) List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	dir := strings.TrimSuffix(r.Target.GetPath(), "/")
	return readAny(ctx, s, metawire.OpList, r, r.Target.GetIno(), dir, r.Force || r.Sync.GetMode() == 2, new(metapb.ListReply))
}

func (s *stub) GetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	ino, dir := dirOf(r.Target)
	return readAny(ctx, s, metawire.OpGetXattr, r, ino, dir, false, new(metapb.XattrReply))
}

func (s *stub) ListXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	ino, dir := dirOf(r.Target)
	return readAny(ctx, s, metawire.OpListXattr, r, ino, dir, false, new(metapb.XattrReply))
}

func (s *stub) Usage(ctx context.Context, r *metapb.UsageRequest) (*metapb.UsageReply, error) {
	ino, dir := dirOf(r.Target)
	return readAny(ctx, s, metawire.OpUsage, r, ino, dir, false, new(metapb.UsageReply))
}
