// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"slices"
	"time"

	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/tiers"
)

const (
	// beatTimeout and pageTimeout bound one heartbeat and one page of a full
	// report: a member that hangs is tried again, the others are not kept.
	beatTimeout = 5 * time.Second
	pageTimeout = 30 * time.Second
)

// voice is what the agent says to one member, and what that one has heard.
type voice struct {
	a    *agent
	ns   metaplane.Workers
	addr string // "": whoever leads

	group uint16 // it hears of what this group has

	need   bool   // it wants a full report
	cursor uint64 // of the changes that it has heard of
	epoch  uint64 // of its last answer
	down   bool   // the last turn failed
	obeyed bool   // it gave orders in the last turn, and waits to hear that they are carried out

	now   chan chan<- bool // report now, and say whether it leads
	stop  context.CancelFunc
	ended <-chan struct{} // closed by stop
}

// turn makes one report. members are those of the metaplane, as far as this one
// knows, when it has others.
func (v *voice) turn(ctx context.Context) (leads bool, members []string) {
	var err error
	v.obeyed = false
	if v.need {
		if leads, err = v.register(ctx); err == nil {
			v.need = false
		}
	} else {
		leads, members, err = v.beat(ctx)
	}
	if err != nil && ctx.Err() == nil && (!v.down || v.addr == "") {
		v.a.log.Warn("the metaplane does not hear this worker", "addr", v.addr, "err", err)
	}
	v.down = err != nil
	return leads, members
}

// register sends the full report, in pages.
func (v *voice) register(ctx context.Context) (leads bool, err error) {
	a := v.a
	files, next := a.cache.Reports()
	files = v.mine(files)
	for {
		page := files[:min(len(files), reportPage)]
		files = files[len(page):]
		q := &metapb.RegisterRequest{H: &metapb.Header{}, Worker: a.worker(), Epoch: v.epoch, Files: make([]*metapb.FileReport, len(page)), More: len(files) > 0}
		for i, f := range page {
			q.Files[i] = reportPB(f)
		}
		r, err := v.registerPage(ctx, q)
		if err != nil {
			return false, err
		}
		if v.group <= 1 {
			if err := a.adopt(r); err != nil {
				return false, err
			}
		}
		if !q.More {
			v.cursor, leads = next, r.Leads
			break
		}
	}
	if leads {
		a.knownTo(v.group)
	}
	if leads && v.group <= 1 && a.first.CompareAndSwap(false, true) {
		close(a.registered)
	}
	return leads, nil
}

// mine are the files of the voice's group.
func (v *voice) mine(files []tiers.FileReport) []tiers.FileReport {
	if !slices.ContainsFunc(files, v.foreign) {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), v.foreign)
}

func (v *voice) foreign(f tiers.FileReport) bool { return f.File.Home() != v.group }

func (v *voice) registerPage(ctx context.Context, q *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return v.ns.Register(ctx, q)
}

// beat reports changes and carries out the orders of the reply.
func (v *voice) beat(ctx context.Context) (leads bool, members []string, err error) {
	a := v.a
	files, next, full := a.cache.Changes(v.cursor)
	if full {
		v.need = true
		return false, nil, nil
	}
	files = v.mine(files)
	q := &metapb.HeartbeatRequest{H: &metapb.Header{}, Worker: a.worker(), Files: make([]*metapb.FileReport, 0, len(files))}
	for _, f := range files {
		q.Files = append(q.Files, reportPB(f))
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	r, err := v.ns.Heartbeat(ctx, q)
	if err != nil {
		return false, nil, err
	}
	v.cursor, v.epoch, v.need = next, r.Epoch, r.Register
	for _, o := range r.Orders {
		a.obey(o)
	}
	v.obeyed = len(r.Orders) > 0
	if v.group <= 1 {
		a.heard(r.Groups)
		if r.Leads {
			a.table(r.MountEpoch)
		}
	}
	return r.Leads, r.Members, nil
}

// word is what a member says of who the members are. The leader knows; what the
// others say may be outdated, but may be all that is heard of a new member that
// leads by now: a worker that did not hear of it from the last leader in time
// would never speak with it.
type word struct {
	members []string
	leads   bool
}

// run takes turns until it is stopped. heard is told of the members.
func (v *voice) run(ctx context.Context, heard chan<- word) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	var told chan<- bool
	for {
		full := v.need
		leads, members := v.turn(ctx)
		if told != nil {
			told <- leads
			told = nil
		}
		if len(members) > 0 {
			select {
			case heard <- word{members, leads}:
			case <-ctx.Done():
			}
		}
		if (v.need || full || v.obeyed) && !v.down {
			// A new leader waits for the one, and says in its first beat what groups
			// there are; who gave the orders waits for the other.
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case told = <-v.now:
		}
	}
}

// chorus speaks with every member until ctx ends.
func (a *agent) chorus(ctx context.Context, group uint16, members []string, now chan chan struct{}) {
	voices := map[string]*voice{}
	heard := make(chan word)
	done := make(chan struct{})
	running := 0
	for ctx.Err() == nil {
		for _, addr := range members {
			if voices[addr] != nil {
				continue
			}
			ns, err := a.at(addr, group)
			if err != nil {
				a.log.Warn("a member of the metaplane is not reached", "addr", addr, "err", err)
				continue
			}
			vctx, stop := context.WithCancel(ctx)
			v := &voice{a: a, ns: ns, addr: addr, group: group, need: true, now: make(chan chan<- bool), stop: stop, ended: vctx.Done()}
			voices[addr] = v
			running++
			go func() {
				v.run(vctx, heard)
				done <- struct{}{}
			}()
		}
		for addr, v := range voices {
			if !slices.Contains(members, addr) { // a member no more
				v.stop()
				delete(voices, addr)
			}
		}
		select {
		case <-ctx.Done():
		case w := <-heard:
			if w.leads {
				members = w.members
				continue
			}
			for _, addr := range w.members {
				if !slices.Contains(members, addr) {
					members = append(slices.Clip(members), addr)
				}
			}
		case <-done:
			running--
		case told := <-now:
			tellAll(ctx, voices, told)
		}
	}
	for _, v := range voices {
		v.stop()
	}
	for running > 0 {
		<-done
		running--
	}
}

// tellAll has every voice report now, and closes told when who leads has heard
// it, or all have failed.
func tellAll(ctx context.Context, voices map[string]*voice, told chan struct{}) {
	answers := make(chan bool, len(voices))
	for _, v := range voices {
		go func() {
			mine := make(chan bool, 1)
			select {
			case v.now <- mine:
			case <-v.ended:
				answers <- false
				return
			}
			select {
			case leads := <-mine:
				answers <- leads
			case <-ctx.Done():
				answers <- false
			}
		}()
	}
	n := len(voices)
	go func() {
		defer close(told)
		for range n {
			if <-answers {
				return
			}
		}
	}()
}
