// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"

	"orca"
	"orca/metaplane/command"
)

// pending is one command on its way. It belongs to its proposer until queued;
// then whoever takes it from the queue sends exactly one outcome.
type pending struct {
	ctx  context.Context
	cmd  []byte
	done chan outcome
}

type outcome struct {
	result []byte // encoded; its reader's own
	err    error
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan outcome, 1)} }}

func newPending() *pending { return pendings.Get().(*pending) }

// free gives p back; only after its outcome was received.
func (p *pending) free() {
	p.ctx = nil
	pendings.Put(p)
}

// flight is one journal entry that was proposed.
type flight struct {
	ops []*pending
	rs  *dragonboat.RequestState
}

// batchLoop packs what waits into entries and proposes them.
func (g *Group) batchLoop() {
	defer close(g.flights)
	session := g.host.nh.GetNoOPSession(shardID)
	for {
		select {
		case g.slots <- struct{}{}:
		case <-g.quit:
			return
		}
		var first *pending
		select {
		case first = <-g.queue:
		case <-g.quit:
			return
		}
		// Proposers that were woken together arrive together: let them, for
		// three times the commands share an entry then.
		runtime.Gosched()
		var e command.Entry
		ops := g.gather(&e, first)
		if len(ops) == 0 {
			<-g.slots
			continue
		}
		g.Stats.Proposals.Add(1)
		g.Stats.Commands.Add(int64(len(ops)))
		deadline := time.Now().Add(g.host.cfg.ProposeTimeout)
		for {
			rs, err := g.host.nh.Propose(session, e.Bytes(), time.Until(deadline))
			if err == nil {
				g.flights <- flight{ops, rs}
				break
			}
			if !g.again(err, deadline) {
				fail(ops, proposeError(err))
				<-g.slots
				break
			}
		}
	}
}

// gather drains the queue into an entry.
func (g *Group) gather(e *command.Entry, first *pending) []*pending {
	ops := make([]*pending, 0, 16)
	for p := first; ; {
		if err := p.ctx.Err(); err != nil {
			p.done <- outcome{err: orca.PathE("metaplane.Propose", "", orca.Canceled, err)}
		} else {
			e.Add(p.cmd)
			ops = append(ops, p)
		}
		if e.Len() >= maxOps || e.Size() >= maxBytes {
			return ops
		}
		select {
		case p = <-g.queue:
		default:
			return ops
		}
	}
}

// again waits a little if an error of Propose passes by itself (around an
// election, or when dragonboat's queue is full).
func (g *Group) again(err error, deadline time.Time) bool {
	if !errors.Is(err, dragonboat.ErrShardNotReady) && !errors.Is(err, dragonboat.ErrSystemBusy) {
		return false
	}
	if time.Until(deadline) < 50*time.Millisecond {
		return false
	}
	select {
	case <-time.After(2 * time.Millisecond):
		return true
	case <-g.quit:
		return false
	}
}

func proposeError(err error) error {
	const op = "metaplane.Propose"
	switch {
	case errors.Is(err, dragonboat.ErrSystemBusy):
		return orca.PathE(op, "", orca.Busy, err)
	case errors.Is(err, dragonboat.ErrTimeout), errors.Is(err, dragonboat.ErrTimeoutTooSmall):
		return orca.PathE(op, "", orca.Timeout, err)
	}
	return orca.PathE(op, "", orca.Unavailable, err)
}

func fail(ops []*pending, err error) {
	for _, p := range ops {
		p.done <- outcome{err: err}
	}
}

// completeLoop waits for the entries in order and hands out their results.
func (g *Group) completeLoop() {
	for f := range g.flights {
		var r dragonboat.RequestResult
		select {
		case r = <-f.rs.ResultC():
		case <-g.quit:
			fail(f.ops, orca.E("metaplane.Propose", orca.Timeout, "the group is closing; the outcome is unknown"))
			<-g.slots
			continue
		}
		g.finish(f, &r)
		f.rs.Release()
		<-g.slots
	}
}

// finish fans out what an entry came to.
func (g *Group) finish(f flight, r *dragonboat.RequestResult) {
	const op = "metaplane.Propose"
	switch {
	case r.Completed():
	case r.Dropped():
		fail(f.ops, orca.E(op, orca.Unavailable, "no leader"))
		return
	default:
		g.Stats.Timeouts.Add(1)
		fail(f.ops, orca.E(op, orca.Timeout, "not committed in time; the outcome is unknown"))
		return
	}
	done := 0
	result := r.GetResult()
	err := command.Split(result.Data, func(i int, item []byte) error {
		if i < len(f.ops) {
			f.ops[i].done <- outcome{result: item}
			done++
		}
		return nil
	})
	if done < len(f.ops) {
		fail(f.ops[done:], orca.PathE(op, "", orca.Internal, err))
	}
}
