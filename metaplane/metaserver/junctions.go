// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/members"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// Mounts in groups of their own. The service of the first group records what is
// wanted (fsm/junctions.go), brings the group behind the junction in line, and
// records that; whoever leads it next goes on where this one ended.

// maxGroups is the highest number of a group; raftgroup.MaxGroups.
const maxGroups = 16

// joints moves junctions on, one at a time.
type joints struct {
	turn  chan struct{} // has a token while one is moved
	wake  chan struct{}
	asked atomic.Int32 // requests that see to their junction themselves
}

// begin waits for the turn. Other groups are asked in it, which may take as long
// as they are without a leader: who waits may give up.
func (j *joints) begin(ctx context.Context) error {
	select {
	case j.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return orca.PathE("metaserver.joints", "", orca.Canceled, ctx.Err())
	}
}

func (j *joints) end() { <-j.turn }

func (s *Service) groupNumber() uint16 { return max(s.cfg.Group, 1) }

// groups are the numbers of the groups that there are; of the first group only.
func (s *Service) groups() []uint32 {
	if s.cfg.Groups == nil {
		return nil
	}
	return s.cfg.Groups()
}

// GroupFacts returns the first members of the further groups on record here, by
// number.
func (s *Service) GroupFacts() map[uint16]string {
	out := map[uint16]string{}
	for n := uint16(2); n <= maxGroups; n++ {
		if b := s.raw.Machine().Fact(fsm.GroupFact + strconv.Itoa(int(n))); len(b) > 0 {
			out[n] = string(b)
		}
	}
	return out
}

func (s *Service) factSet(name string) {
	if s.cfg.OnGroups != nil && strings.HasPrefix(name, fsm.GroupFact) {
		s.cfg.OnGroups()
	}
}

// addGroup records one more group. All members must vote: a group begins with
// them, on each of them alike.
func (s *Service) addGroup(ctx context.Context, r *metapb.QuorumRequest, m *members.Members, rep *metapb.QuorumReply) error {
	const op = "metaserver.AddGroup"
	if s.cfg.Groups == nil || s.cfg.Others == nil {
		return orca.E(op, orca.Invalid, "groups are added by the first one")
	}
	if m.Voters() != len(m.List) {
		return orca.E(op, orca.Busy, "a member has no vote yet: wait until it has caught up")
	}
	have := s.GroupFacts()
	n := r.Group
	for ; r.Group == 0 && (n < 2 || have[uint16(n)] != ""); n++ {
	}
	if n < 2 || n > maxGroups {
		return orca.E(op, orca.Invalid, fmt.Sprintf("groups are numbered from 2 to %d", maxGroups))
	}
	var parts []string
	for i := range m.List {
		parts = append(parts, strconv.FormatUint(m.List[i].Replica, 10)+"="+m.List[i].Address)
	}
	if _, err := s.group.Propose(ctx, &command.Command{Now: now(), SetFact: &metapb.SetFactOp{
		Key: fsm.GroupFact + strconv.Itoa(int(n)), Value: []byte(strings.Join(parts, ",")), Absent: true}}); err != nil {
		return err
	}
	rep.Group = n
	for wait := time.Now().Add(groupWait); !slices.Contains(s.groups(), n); {
		if time.Now().After(wait) {
			return orca.E(op, orca.Unavailable, fmt.Sprintf("group %d is on record, but has not started here yet", n))
		}
		select {
		case <-ctx.Done():
			return orca.PathE(op, "", orca.Canceled, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	ns, err := s.cfg.Others(uint16(n))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	if _, err = ns.Quorum(ctx, &metapb.QuorumRequest{H: &metapb.Header{}}); err != nil { // answered by who leads it
		return err
	}
	s.awaitWorkers(ctx, ns)
	return nil
}

// awaitWorkers waits a while until a new group knows the live workers, which
// hear of it by their heartbeats: before that nothing in it can be read.
func (s *Service) awaitWorkers(ctx context.Context, ns metaplane.Namespace) {
	for until := time.Now().Add(workersWait); time.Now().Before(until) && ctx.Err() == nil; {
		rep, err := ns.ListWorkers(ctx, &metapb.ListWorkersRequest{H: &metapb.Header{}})
		if err == nil && len(rep.Workers) >= len(s.Workers.Live()) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// workersWait bounds that; a worker that hangs keeps nobody.
const workersWait = 3 * time.Second

// groupWait is how long a new group may take to start on the leader.
const groupWait = 20 * time.Second

// checkGroup refuses a mount in a group that there is not.
func (s *Service) checkGroup(m *metapb.Mount) error {
	if m.Group <= 1 {
		m.Group = 0
		return nil
	}
	for _, n := range s.groups() {
		if n == m.Group {
			return nil
		}
	}
	return &orca.Error{Op: "metaserver.Mount", Path: m.Path, Kind: orca.Invalid,
		Msg: fmt.Sprintf("there is no group %d: orca admin group add", m.Group)}
}

// elsewhere reports whether an entry of a directory lives in another group.
func (s *Service) elsewhere(a *metapb.Attr) bool {
	g := orca.Ino(a.Ino).Group()
	return g > 1 && g != s.groupNumber()
}

// mine leaves out of a worker's report what belongs to other groups.
func (s *Service) mine(files []*metapb.FileReport) []*metapb.FileReport {
	n := 0
	for _, f := range files {
		if orca.Ino(f.File).Home() == s.groupNumber() {
			n++
		}
	}
	if n == len(files) {
		return files
	}
	out := make([]*metapb.FileReport, 0, n)
	for _, f := range files {
		if orca.Ino(f.File).Home() == s.groupNumber() {
			out = append(out, f)
		}
	}
	return out
}

// mountHere is Mount in the group behind a junction. The store was tried where
// the mount was asked for; here it only says what it can.
func (s *Service) mountHere(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	m := mount.Copy(r.Mount)
	if m.Id == 0 || m.Serial == 0 {
		return nil, &orca.Error{Op: "metaserver.Mount", Path: m.Path, Kind: orca.Unsupported,
			Msg: "a mount in a group of its own holds no other mounts"}
	}
	fs, err := s.Stores.Try(ctx, m)
	if err != nil {
		return nil, err
	}
	caps := fs.Caps()
	if err := fs.Close(); err != nil {
		return nil, err
	}
	if m.Part != nil && !caps.Directories && s.row(m.Id) == nil {
		if err := s.Syncer.Inherit(ctx, m.Id); err != nil {
			return nil, err
		}
	}
	res, err := s.mutate(ctx, r.H, &command.Command{Mount: &metapb.MountOp{Mount: m, Parents: true,
		AtomicRename: caps.AtomicRename, Directories: caps.Directories, Owners: caps.Owners, Exchange: caps.Exchange}})
	if err != nil {
		return nil, err
	}
	s.refreshMounts()
	return &metapb.MountReply{Mount: mount.Mask(res.Mount.GetMount())}, nil
}

// unmountHere is Unmount in the group behind a junction.
func (s *Service) unmountHere(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	c := &command.Command{Unmount: &metapb.UnmountOp{Path: r.Path, Id: r.Id, Empty: r.Empty, Serial: r.Serial}}
	if r.Empty {
		c.Checks = checkContent
		if m := s.row(r.Id); m != nil {
			if err := s.contentKnown(ctx, callerOf(r.H), &metapb.Target{Ino: m.Root}, false); err != nil {
				return nil, err
			}
		}
	}
	if _, err := s.mutate(ctx, r.H, c); err != nil {
		return nil, err
	}
	s.refreshMounts()
	s.Exec.Wake()
	return &metapb.Empty{}, nil
}

// row returns the present row of a mount, nil if it is gone.
func (s *Service) row(id uint32) *metapb.Mount {
	for _, r := range s.group.Machine().Mounts() {
		if r.Mount.GetId() == id {
			return r.Mount
		}
	}
	return nil
}

// step records what a junction has come to.
func (s *Service) step(ctx context.Context, m *metapb.Mount, to metapb.JunctionState, root uint64) (*metapb.Mount, error) {
	return s.record(ctx, &metapb.JunctionOp{Mount: m.Id, From: m.Junction, To: to, Root: root, Serial: m.Serial})
}

func (s *Service) record(ctx context.Context, o *metapb.JunctionOp) (*metapb.Mount, error) {
	res, err := s.group.Propose(ctx, &command.Command{Now: now(), Junction: o})
	s.refreshMounts()
	if err != nil {
		return nil, err
	}
	return res.Mount.GetMount(), nil
}

// join brings the group behind a junction in line with its row. A new mount
// that the group refuses for good is taken back.
func (s *Service) join(ctx context.Context, id uint32, fresh bool) (*metapb.Mount, error) {
	if err := s.joints.begin(ctx); err != nil {
		return nil, err
	}
	defer s.joints.end()
	for {
		m := s.row(id)
		if m == nil {
			return nil, orca.E("metaserver.Mount", orca.Stale, "it was unmounted meanwhile")
		}
		if m.Junction != metapb.JunctionState_JUNCTION_JOINING {
			return m, nil // somebody was faster
		}
		ns, err := s.other(ctx, m)
		if err != nil {
			return nil, err
		}
		rep, err := s.give(ctx, ns, m)
		if err != nil {
			s.giveUp(ctx, m, fresh, err)
			return nil, err
		}
		_, err = s.step(ctx, m, metapb.JunctionState_JUNCTION_ACTIVE, rep.Mount.Root)
		if k := orca.KindOf(err); err != nil && k != orca.Stale && k != orca.NotFound { // those: the row is another one by now, or gone
			return nil, err
		}
	}
}

// giveUp takes a new mount back that its group refuses for good.
func (s *Service) giveUp(ctx context.Context, m *metapb.Mount, fresh bool, err error) {
	if !fresh || m.Root != 0 || orca.KindOf(err).Retryable() || orca.KindOf(err) == orca.Canceled {
		return
	}
	next, serr := s.step(ctx, m, metapb.JunctionState_JUNCTION_LEAVING, 0)
	if serr != nil {
		return
	}
	if perr := s.partLocked(ctx, next.Id); perr != nil {
		s.log.Warn("taking a failed mount back; it is tried again", "path", m.Path, "err", perr)
	}
}

// give has the group behind a junction take a mount, also while it elects a
// leader.
func (s *Service) give(ctx context.Context, ns metaplaneMounts, m *metapb.Mount) (*metapb.MountReply, error) {
	for until := time.Now().Add(electionWait); ; {
		rep, err := ns.Mount(ctx, &metapb.MountRequest{H: &metapb.Header{}, Mount: mount.Copy(m), Parents: true})
		if k := orca.KindOf(err); k != orca.NotLeader && k != orca.Unavailable || time.Now().After(until) {
			return rep, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// electionWait is how long a group may be without a leader before that is an
// error.
const electionWait = 5 * time.Second

// other is the way to the group behind a junction.
func (s *Service) other(_ context.Context, m *metapb.Mount) (metaplaneMounts, error) {
	return s.groupAt(uint16(m.Group))
}

type metaplaneMounts interface {
	Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error)
	Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error)
	List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error)
	Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error)
}

// part empties the group behind a junction that is being unmounted, and frees
// its name. What the group refuses stays mounted: a refusal for good is the answer
// of the request h, however often that is repeated. After another one the same
// request begins again. With removing, a directory is given back only if it is
// empty. Without h nobody asks.
func (s *Service) part(ctx context.Context, id uint32, h *metapb.Header, removing bool) error {
	if err := s.joints.begin(ctx); err != nil {
		return err
	}
	defer s.joints.end()
	if m := s.row(id); h != nil && m != nil && m.Junction != metapb.JunctionState_JUNCTION_LEAVING {
		if _, err := s.record(ctx, &metapb.JunctionOp{Mount: id, From: m.Junction, To: metapb.JunctionState_JUNCTION_LEAVING,
			Serial: m.Serial, Removing: removing, Client: h.Client, Seq: h.Seq}); err != nil {
			return err
		}
	}
	return s.partLocked(ctx, id)
}

func (s *Service) partLocked(ctx context.Context, id uint32) error {
	for range partTries {
		m := s.row(id)
		if m == nil || m.Junction != metapb.JunctionState_JUNCTION_LEAVING {
			return nil // somebody was faster
		}
		err := s.partOnce(ctx, m)
		m = s.row(id)
		if k := orca.KindOf(err); k != orca.Stale && (k != orca.NotFound || m != nil) {
			return err
		}
		if m != nil && m.Junction != metapb.JunctionState_JUNCTION_LEAVING {
			break // an earlier attempt has ended now: the request has its answer, or begins again
		}
	}
	return orca.E("metaserver.Unmount", orca.Busy, "an earlier attempt to unmount it has just ended")
}

// partTries is how many attempts of others one may meet: one that was refused, and
// one that was not after all.
const partTries = 4

// partOnce makes one attempt to empty the group behind a junction. Stale: another
// one came between.
func (s *Service) partOnce(ctx context.Context, m *metapb.Mount) error {
	ns, err := s.other(ctx, m)
	if err != nil {
		return err
	}
	_, err = ns.Unmount(ctx, &metapb.UnmountRequest{H: &metapb.Header{}, Path: m.Path, Id: m.Id, Empty: m.Part.GetRemoving(), Serial: m.Serial})
	switch k := orca.KindOf(err); {
	case err == nil:
		if of, oerr := s.group.Machine().Mount(m.Part.GetMount()); oerr == nil && !of.Directories {
			if err := s.Syncer.Inherit(ctx, of.Mount.Id); err != nil {
				return err
			}
		}
		if _, err = s.step(ctx, m, metapb.JunctionState_JUNCTION_NONE, 0); err != nil && s.row(m.Id) == nil {
			return nil // somebody was faster
		}
		return err
	case k == orca.Stale: // this attempt was refused, and not everybody knows: another one
		if _, serr := s.step(ctx, m, metapb.JunctionState_JUNCTION_LEAVING, 0); serr != nil {
			return serr
		}
	case k == orca.Busy || !k.Retryable() && k != orca.Canceled:
		if m.Root == 0 {
			return err // there is nothing to go back to
		}
		// It may not have been told of its options when it was to go. And with
		// them it forgets nothing any more that it is told to late; Stale if it
		// has forgotten it meanwhile.
		if _, gerr := s.give(ctx, ns, m); gerr != nil {
			return gerr
		}
		back := &metapb.JunctionOp{Mount: m.Id, From: m.Junction, To: metapb.JunctionState_JUNCTION_ACTIVE, Serial: m.Serial}
		if !k.Retryable() {
			back.Refused, back.RefusedPath, back.RefusedMsg = uint32(k), m.Path, messageOf(err)
		}
		if _, serr := s.record(ctx, back); serr != nil {
			return serr
		}
	}
	return err
}

func (s *Service) wakeJoints() {
	select {
	case s.joints.wake <- struct{}{}:
	default:
	}
}

// joinAgain is how often what could not be finished is tried again, and
// joinPatience how long one try may take.
const (
	joinAgain    = 200 * time.Millisecond
	joinPatience = 30 * time.Second
)

// joinLoop goes on with junctions that are under way: those of a request that
// is not waited for any more, or of an earlier leader.
func (s *Service) joinLoop() {
	defer s.wg.Done()
	tick := time.NewTicker(joinAgain)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.joints.wake:
		case <-tick.C:
		}
		if s.Serving() != nil || s.joints.asked.Load() != 0 {
			continue
		}
		for _, m := range s.mounts.Load().All() {
			if s.ctx.Err() == nil && m.Group > 1 {
				s.moveOn(m)
			}
		}
	}
}

func (s *Service) moveOn(m *metapb.Mount) {
	ctx, cancel := context.WithTimeout(s.ctx, joinPatience)
	defer cancel()
	var err error
	switch m.Junction {
	case metapb.JunctionState_JUNCTION_JOINING:
		_, err = s.join(ctx, m.Id, true)
	case metapb.JunctionState_JUNCTION_LEAVING:
		err = s.part(ctx, m.Id, nil, false)
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("a mount in another group is not finished yet", "path", m.Path, "group", m.Group, "err", err)
	}
}
