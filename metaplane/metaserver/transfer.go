// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
)

// Renames between the groups of a mount (fsm/transfer.go). The service of the
// source's group finds out where the target lives and has its executor ask that
// group until it has decided; that of the target's group takes the file over as a
// mutation of its own.
//
// Two directories of a mount that were put into the same group by themselves are
// as far apart there as in two groups: each has a root, keys and locks of its own. A
// rename between them is one between groups, in which both are this one.

// groupAt returns the way to who leads a group.
func (s *Service) groupAt(n uint16) (metaplane.Namespace, error) {
	if s.cfg.Others == nil {
		return nil, orca.E("metaserver.groupAt", orca.Unavailable, "this process has no way to other groups")
	}
	return s.cfg.Others(n)
}

// renaming returns the command of a rename, whichever group its target is in.
// With an error, which says that the target cannot be, it is one that is refused,
// unless it was done before.
func (s *Service) renaming(ctx context.Context, r *metapb.RenameRequest) (*command.Command, error) {
	c := renameCommand(r)
	if proto.Equal(r.Src, r.Dst) {
		// Nothing moves, and whoever has the name says so. A directory of a group of
		// its own is asked for there, and its parent would seem to be elsewhere.
		return c, nil
	}
	dst, err := s.elsewhereTo(ctx, r)
	if err != nil {
		return c, err
	}
	if dst == nil || orca.Ino(dst.Ino).Home() == s.groupNumber() {
		if dst != nil {
			c.Rename.Dst = dst
		}
		if dst, err = s.besideTo(ctx, r.H, c.Rename); dst == nil {
			return c, err
		}
	}
	away := &metapb.RenameOp{Src: r.Src, NoReplace: r.NoReplace, Away: dst, Exchange: r.Exchange}
	if r.Exchange {
		if away.AwayBytes, err = s.lengthAway(ctx, r, dst); err != nil {
			return c, err
		}
	}
	c.Checks, c.Rename = checkNames, away
	return c, nil
}

// haveSiblings reports whether two of the mounts are directories of the same mount
// of the first group.
func haveSiblings(mounts []*metapb.Mount) bool {
	seen := map[uint32]bool{}
	for _, m := range mounts {
		p := m.GetPart()
		if p == nil {
			continue
		}
		if seen[p.Mount] {
			return true
		}
		seen[p.Mount] = true
	}
	return false
}

// besideTo returns the target of a rename by the inode of its directory when that
// and the source's are of two directories of one mount that were put into this
// group; nil: they are not, or the state machine says what is wrong.
func (s *Service) besideTo(ctx context.Context, h *metapb.Header, o *metapb.RenameOp) (*metapb.Target, error) {
	if !s.beside.Load() || s.cfg.Others == nil {
		return nil, nil
	}
	from, err := s.dirOf(ctx, h, o.Src)
	if from == nil {
		return nil, err
	}
	to, err := s.dirOf(ctx, h, o.Dst)
	if to == nil || to.MountId == from.MountId {
		return nil, err
	}
	table := s.mounts.Load()
	p, q := table.ByID(from.MountId).GetPart(), table.ByID(to.MountId).GetPart()
	if p == nil || p.Mount != q.GetMount() {
		return nil, nil
	}
	_, name := splitTarget(o.Dst.Path)
	return &metapb.Target{Ino: to.Ino, Path: name}, nil
}

// dirOf returns the directory that a target is in; nil: it is not here.
func (s *Service) dirOf(ctx context.Context, h *metapb.Header, t *metapb.Target) (*metapb.Attr, error) {
	dir, name := splitTarget(t.Path)
	if name == "" {
		return nil, nil
	}
	r, err := s.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{Caller: h.GetCaller()}, Target: &metapb.Target{Ino: t.Ino, Path: dir}, Sync: onceLoaded})
	if orca.KindOf(err).Retryable() {
		return nil, err
	}
	return r.GetAttr(), nil
}

// onceLoaded looks at no store for what is known.
var onceLoaded = &metapb.SyncOption{Mode: 1}

// elsewhereTo returns the target of a rename by the inode of a directory when its
// path leaves this group; nil: it does not.
func (s *Service) elsewhereTo(ctx context.Context, r *metapb.RenameRequest) (*metapb.Target, error) {
	if s.cfg.Others == nil {
		return nil, nil
	}
	at, in := r.Dst, s.groupNumber()
	if ino := orca.Ino(at.Ino); ino > orca.RootIno {
		in = ino.Home()
	}
	if in == s.groupNumber() {
		if in == 1 && len(s.groups()) < 2 {
			return nil, nil
		}
		if err := s.group.ReadReady(ctx); err != nil {
			return nil, err
		}
		_, err := s.group.Machine().Walk(callerOf(r.H), orca.Ino(at.Ino), at.Path)
		if orca.KindOf(err) == orca.Busy {
			dir, _ := splitTarget(at.Path)
			if _, err := s.group.Machine().Walk(callerOf(r.H), orca.Ino(at.Ino), dir); orca.KindOf(err) == orca.Busy {
				return nil, err // which group has it is known when its junction has settled
			}
		}
		root, rest, ok := orca.AsReferral(err)
		if !ok || rest == "" {
			return nil, nil // here (a junction itself is), or the state machine says what is wrong
		}
		if in = root.Home(); in > 1 {
			at = &metapb.Target{Ino: uint64(root), Path: rest}
		}
	}
	for range maxReferred {
		dir, name := splitTarget(at.Path)
		if at.Ino != 0 && (dir == "" || in > 1) {
			return at, nil // only the first group leads elsewhere
		}
		ns, err := s.groupAt(in)
		if err != nil {
			return nil, err
		}
		st, err := ns.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{Caller: r.H.GetCaller()}, Target: &metapb.Target{Ino: at.Ino, Path: dir}})
		if root, rest, ok := orca.AsReferral(err); ok && root.Home() > 1 {
			in, at = root.Home(), &metapb.Target{Ino: uint64(root), Path: strings.TrimPrefix(rest+"/"+name, "/")}
			continue
		}
		if err != nil {
			return nil, err
		}
		in, at = orca.Ino(st.Attr.Ino).Home(), &metapb.Target{Ino: st.Attr.Ino, Path: name}
	}
	return nil, &orca.Error{Op: "metaserver.Rename", Path: r.Dst.Path, Kind: orca.Busy, Msg: "the directory is just being moved between groups"}
}

// maxReferred bounds how often one path is sent on.
const maxReferred = 4

// splitTarget splits a path before its last name.
func splitTarget(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/", path[1:]
	}
	return path[:max(i, 0)], path[i+1:]
}

// departed waits until the files of a directory that are on their way to other
// groups have gone, or stay: a listing has none that is there already. Those that
// go meanwhile were here when it began.
func (s *Service) departed(ctx context.Context, h *metapb.Header, dir orca.Ino) error {
	m := s.group.Machine()
	ids := m.Leaving(dir)
	if len(ids) == 0 {
		return nil
	}
	if s.follows(h) {
		return s.refer()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.BusyWait)
	defer cancel()
	for _, id := range ids {
		in, err := m.Intent(id)
		if err != nil {
			continue
		}
		s.Exec.Settle(ctx, in)
		if _, err := m.Intent(id); err == nil {
			return &orca.Error{Op: "metaserver.List", Path: in.Source, Kind: orca.Busy, Msg: "it is on its way to a directory of another group, which does not answer"}
		}
	}
	return nil
}

// sendAway asks the group that a file goes to for its decision. It implements
// ufsexec.Config.Transfer.
func (s *Service) sendAway(ctx context.Context, intent uint64) (back *metapb.TransferOp, err error) {
	if err := s.bring(ctx, intent); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	op, err := s.group.Machine().Transfer(intent)
	if err != nil {
		return nil, err
	}
	to := orca.Ino(op.Dst.Ino).Home()
	ns, err := s.groupAt(to)
	if err != nil {
		return nil, err
	}
	s.owing.to(to, intent)
	rep, err := ns.Transfer(ctx, &metapb.TransferRequest{H: &metapb.Header{}, Op: op})
	if err != nil {
		return nil, err
	}
	switch rec := rep.GetRecord(); {
	case rec.GetTx() != intent:
		return nil, orca.E("metaserver.sendAway", orca.Internal, "the decision is about another transfer")
	case orca.Kind(rec.Kind) == orca.NotFound && gone(ctx, ns, op.Dst):
		// Its directory may be there again, in another group: who asked looks.
		return nil, &ufsexec.Refused{Err: &orca.Error{Op: "metaserver.Rename", Path: rec.Path, Kind: orca.Busy, Msg: "the directory has gone, or lives in another group by now"}}
	case rec.Kind != 0:
		return nil, refusedBy(rec)
	default:
		return rec.Back, nil
	}
}

// gone reports whether a group says that the directory of a target is not there.
func gone(ctx context.Context, ns metaplane.Namespace, t *metapb.Target) bool {
	_, err := ns.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{}, Target: &metapb.Target{Ino: t.Ino}})
	return orca.KindOf(err) == orca.NotFound
}

// vanished reports whether the directory that a rename names by its inode is not
// in the group that has it any more, and so is nowhere: by a path it may be
// elsewhere.
func (s *Service) vanished(ctx context.Context, r *metapb.RenameRequest) bool {
	if orca.Ino(r.Dst.Ino) <= orca.RootIno {
		return false
	}
	ns, err := s.groupAt(orca.Ino(r.Dst.Ino).Home())
	return err == nil && gone(ctx, ns, r.Dst)
}

// askPatience bounds one question for a decision.
const askPatience = time.Minute

// Transfer implements metaplane.Groups.
func (s *Service) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	const op = "metaserver.Transfer"
	switch {
	case callerOf(r.H).UID != 0:
		return nil, orca.E(op, orca.Permission, "only groups hand files to each other")
	case r.Op == nil || r.Op.Tx != 0 && r.Op.Dst == nil:
		return nil, orca.E(op, orca.Invalid, "no file, or no place for it")
	}
	defer s.arriving(ctx, r.Op)()
	c := &command.Command{Checks: checkNames, Transfer: r.Op}
	if r.Op.Dir {
		c.Checks |= checkContent
	}
	res, err := s.change(ctx, &metapb.Header{}, c)
	if err == ufsexec.ErrDecided { //nolint:errorlint // this very error, not its kind
		res, err = s.group.Propose(ctx, c)
	}
	if rec := res.GetTransfer(); rec != nil {
		return &metapb.TransferReply{Record: rec}, nil
	}
	if r.Op.Tx == 0 || err == nil {
		return &metapb.TransferReply{}, err
	}
	if orca.KindOf(err) != orca.Busy || res == nil || !waits(res) {
		return nil, err
	}
	// What is in the way has not passed: the other name is not to be kept from
	// its readers for longer.
	c.Transfer.Abort, c.Transfer.AbortMsg = uint32(orca.Busy), messageOf(err)
	c.Now = now()
	if res, err = s.group.Propose(ctx, c); err != nil {
		return nil, err
	}
	if rec := res.GetTransfer(); rec != nil {
		return &metapb.TransferReply{Record: rec}, nil
	}
	return nil, orca.E(op, orca.Unavailable, "it is not decided yet")
}

// owing are the groups that may keep decisions which this one has taken note of.
type owing struct {
	mu     sync.Mutex
	groups map[uint16]uint64 // by number; the latest transfer to each
}

func (o *owing) to(group uint16, tx uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.groups == nil {
		o.groups = map[uint16]uint64{}
	}
	o.groups[group] = max(o.groups[group], tx)
}

func (o *owing) list() []uint16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.groups))
}

// told notes that a group keeps no decision about what is below a number.
func (o *owing) told(group uint16, below uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.groups[group] < below {
		delete(o.groups, group)
	}
}

const (
	// acknowledgeEvery is how often groups are told which decisions they need not
	// keep, when no transfer tells them.
	acknowledgeEvery = time.Second
	// acknowledgePatience bounds one try.
	acknowledgePatience = 5 * time.Second
)

// acknowledge tells other groups which decisions they need not keep. Who begins to
// lead tells all of them.
func (s *Service) acknowledge() {
	defer s.wg.Done()
	tick := time.NewTicker(acknowledgeEvery)
	defer tick.Stop()
	var term uint64
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		leads, now := s.group.Leader()
		if !leads {
			continue
		}
		if all := s.allGroups(); now != term && len(all) > 1 {
			term = now
			for _, n := range all {
				if uint16(n) != s.groupNumber() || s.group.Machine().Decided(uint16(n)) {
					s.owing.to(uint16(n), s.lastLeaving())
				}
			}
		}
		for _, n := range s.owing.list() {
			if err := s.acknowledgeTo(n); err != nil {
				s.log.Debug("a group was not told what it need not keep", "group", n, "err", err) // the next round tries again
			}
		}
	}
}

// lastLeaving is the last of the transfers that are under way; 0: none is. Groups
// may keep decisions of an earlier leader about what began after it has, of which
// they are told when it has ended.
func (s *Service) lastLeaving() (last uint64) {
	for _, it := range s.group.Machine().Intents() {
		if it.Op == metapb.IntentOp_INTENT_TRANSFER {
			last = max(last, it.Id)
		}
	}
	return last
}

// allGroups are the numbers of the groups that there are.
func (s *Service) allGroups() []uint32 {
	if s.cfg.Home != nil {
		return s.cfg.Home.groups()
	}
	return s.groups()
}

func (s *Service) acknowledgeTo(group uint16) error {
	ctx, cancel := context.WithTimeout(s.ctx, acknowledgePatience)
	defer cancel()
	if err := s.group.ReadReady(ctx); err != nil {
		return err
	}
	below := s.group.Machine().TransfersDone()
	ns, err := s.groupAt(group)
	if err != nil {
		return err
	}
	if _, err := ns.Transfer(ctx, &metapb.TransferRequest{H: &metapb.Header{}, Op: &metapb.TransferOp{DoneBelow: below}}); err != nil {
		return err
	}
	s.owing.told(group, below)
	return nil
}

func messageOf(err error) string {
	var e *orca.Error
	if errors.As(err, &e) {
		return e.Msg
	}
	return err.Error()
}
