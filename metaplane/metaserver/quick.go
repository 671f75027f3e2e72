// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
	"orca/metaplane/ufssync"
	"orca/metaplane/workers"
)

// quickReader is optional on the Namespace of a Server: StatQuick answers a
// Stat that needs no wait, into p, whose Attr is used if it has one; false says
// nothing, and Stat has to be asked.
type quickReader interface {
	StatQuick(r *metapb.StatRequest, p *metapb.StatReply) bool
}

// StatQuick is Stat for what memory alone can answer at once: no apply is
// waited for, no disk read, no UFS asked.
func (s *Service) StatQuick(r *metapb.StatRequest, p *metapb.StatReply) bool {
	if !s.group.ReadProven() || checkTarget("metaserver.Stat", r.Target) != nil {
		return false
	}
	c, o := callerOf(r.H), ufssync.OptionOf(r.Sync)
	v, ok := s.Syncer.Quick(&c, orca.Ino(r.Target.Ino), r.Target.Path, o, p.Attr)
	if !ok {
		return false
	}
	a := v.Attr
	if len(v.Holders) > 0 && orca.PersistState(a.Persist) != orca.Persisted &&
		s.Workers.Availability(orca.Ino(a.Ino), a.Version, v.Holders) == workers.Gone {
		return false // to be put on record as lost
	}
	s.Stats.Reads.Add(1)
	p.Attr, p.Parent, p.TtlMs = s.attr(&v), uint64(v.Parent), s.ttl(&v, o)
	return true
}

// mutationWaiter is who waits for a mutation that Start has begun. One of its
// methods is called, once.
type mutationWaiter interface {
	// answer is given the outcome; p is only valid during the call, which is
	// made where commands are applied and must not wait.
	answer(p metawire.Message, err error)
	// resume is given what is left to do, where it may wait.
	resume(rest func(ctx context.Context) (metawire.Message, error))
}

// starter is optional on the Namespace of a Server: start begins a mutation
// that needs no wait before it is proposed; false says nothing, and the method
// has to be called.
type starter interface {
	start(q metawire.Request, until time.Time, w mutationWaiter) bool
}

// started is a mutation on its way.
type started struct {
	s     *Service
	c     *command.Command
	w     mutationWaiter
	reply func(*started, *command.Result) metawire.Message
	// create is the memory of a create's reply, memory that of all of it.
	create *metapb.CreateReply
	memory *creating
}

// creating is a create on its way, with all that is made for it, in one piece
// of memory, which is used again.
type creating struct {
	started
	cmd    command.Command
	op     metapb.CreateOp
	target metapb.Target
	caller metapb.Caller
	answer metapb.CreateReply
}

var creatings = sync.Pool{New: func() any { return new(creating) }}

// newCreating fills in the command of a request, of which it keeps the strings.
func (s *Service) newCreating(r *metapb.CreateRequest) *creating {
	c := creatings.Get().(*creating)
	c.cmd.Create = &c.op
	s.fillCreate(&c.cmd, r)
	c.target.Ino, c.target.Path = r.Target.Ino, r.Target.Path
	c.op.Target = &c.target
	c.started = started{c: &c.cmd, create: &c.answer, reply: createReply, memory: c}
	return c
}

// free gives c back when it was answered.
func (c *creating) free() {
	c.started = started{}
	c.cmd.Reset()
	c.op.Reset()
	c.target.Reset()
	c.caller.Reset()
	c.answer.Reset()
	creatings.Put(c)
}

// start implements starter. What the walk of a path may have to ask a UFS for,
// and what a reply looks up in the machine (which is being changed where the
// waiter is told), is left to the methods.
func (s *Service) start(q metawire.Request, until time.Time, w mutationWaiter) bool {
	if !s.mayPropose() {
		return false
	}
	var st *started
	switch r := q.(type) {
	case *metapb.CreateRequest:
		if !r.Complete || checkCreate(r) != nil || !s.settledNow(r.H, r.Target) {
			return false
		}
		st = &s.newCreating(r).started
	case *metapb.RenameRequest:
		const op = "metaserver.Rename"
		if checkTarget(op, r.Src) != nil || checkTarget(op, r.Dst) != nil || checkNew(op, r.Dst) != nil ||
			!s.settledNow(r.H, r.Src) || !s.settledNoDir(r.H, r.Dst) || s.takesRecall(r.Dst) {
			return false // what a directory holds that would be replaced may have to be made known
		}
		st = &started{c: renameCommand(r), reply: emptyReply}
	case *metapb.DeleteRequest:
		// Of a directory the content may have to be made known first.
		if r.Recursive || checkTarget("metaserver.Delete", r.Target) != nil || !s.settledFile(r.H, r.Target) || s.takesRecall(r.Target) {
			return false
		}
		st = &started{c: deleteCommand(r), reply: emptyReply}
	default:
		return false
	}
	st.s, st.w = s, w
	s.sign(q.GetH(), st.c)
	if m := st.memory; m != nil && st.c.Caller != nil {
		m.caller.Uid, m.caller.Gid, m.caller.Groups = st.c.Caller.Uid, st.c.Caller.Gid, st.c.Caller.Groups
		st.c.Caller = &m.caller
	}
	if err := s.group.Start(st.c, until, st); err != nil {
		s.Stats.Errors.Add(1)
		w.answer(nil, err)
	}
	return true
}

func emptyReply(*started, *command.Result) metawire.Message { return &metapb.Empty{} }

func createReply(st *started, res *command.Result) metawire.Message {
	st.create.Attr = res.Attr
	return st.create
}

// settledNow reports whether the UFS has nothing to say about a target, without
// waiting.
func (s *Service) settledNow(h *metapb.Header, t *metapb.Target) bool {
	c := callerOf(h)
	_, _, ok := s.group.Machine().SettledNow(&c, orca.Ino(t.Ino), t.Path)
	return ok
}

// settledFile is settledNow of what is known to be a file.
func (s *Service) settledFile(h *metapb.Header, t *metapb.Target) bool {
	c := callerOf(h)
	file, _, ok := s.group.Machine().SettledNow(&c, orca.Ino(t.Ino), t.Path)
	return ok && file
}

// settledNoDir is settledNow of what is known to be no directory.
func (s *Service) settledNoDir(h *metapb.Header, t *metapb.Target) bool {
	c := callerOf(h)
	_, dir, ok := s.group.Machine().SettledNow(&c, orca.Ino(t.Ino), t.Path)
	return ok && !dir
}

// Done implements raftgroup.Waiter.
func (st *started) Done(res *command.Result, err error) {
	if !over(st.c, res, err) {
		// The result is gone when this returns.
		kept := proto.Clone(res).(*command.Result)
		st.w.resume(func(ctx context.Context) (metawire.Message, error) {
			res, err := st.s.see(ctx, st.c, kept, err)
			if err != nil {
				return nil, err
			}
			return st.reply(st, res), nil
		})
		return
	}
	if err != nil {
		st.s.Stats.Errors.Add(1)
		st.w.answer(nil, err)
		return
	}
	if res.Intent != nil {
		st.s.Exec.Wake()
	}
	st.w.answer(st.reply(st, res), nil)
	if st.memory != nil {
		st.memory.free()
	}
}

// parked is a request whose mutation is on its way.
type parked struct {
	m    *metawire.Method
	r    *transport.Request
	gate gatekeeper // nil: none
}

var parkedPool = sync.Pool{New: func() any { return new(parked) }}

// free gives p back when nobody waits with it any more.
func (p *parked) free() {
	*p = parked{}
	parkedPool.Put(p)
}

func (p *parked) answer(m metawire.Message, err error) {
	if err != nil {
		p.r.Answer(refuse(p.gate, err))
	} else {
		p.r.Answer(encode(p.m, p.r, m))
	}
	p.free()
}

func (p *parked) resume(rest func(ctx context.Context) (metawire.Message, error)) {
	p.r.Resume(func(ctx context.Context, r *transport.Request) transport.Reply {
		m, err := rest(ctx)
		if err != nil {
			return refuse(p.gate, err)
		}
		return encode(p.m, r, m)
	})
}

// inline says which operations are tried on the connection's parser.
func (s *Server) inline(op metawire.Op) bool {
	switch op {
	case metawire.OpStat:
		return s.quick != nil
	case metawire.OpCreate, metawire.OpRename, metawire.OpDelete:
		return s.starter != nil
	}
	return false
}
