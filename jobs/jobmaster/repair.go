// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"orca"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/jobs/plan"
	"orca/metaplane/fsm"
	"orca/metaplane/metaserver"
)

const (
	// checkPage is how many files are looked at under one lock.
	checkPage = 256
	// checkEvery is the shortest and checkShare the part of the time that
	// rounds take: a round that lasts 1 s is followed by a pause of 19 s.
	checkEvery = 5 * time.Second
	checkShare = 19
	// maxBad caps the files that are remembered as bad; what does not fit is
	// found again when others are well.
	maxBad = 100_000
	// firstRetry and lastRetry bound the back-off of a file whose copies could
	// not be made or dropped.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// retry remembers a file whose copies could not be put right.
type retry struct {
	after time.Time
	pause time.Duration
	avoid []uint64 // workers that failed
}

// checker is what one term knows of the copies.
type checker struct {
	m    *Master
	term uint64
	met  time.Time            // from when on silent workers are gone
	bad  map[uint64]time.Time // since when the copies of a file are not what they are to be
	kept map[uint64][]keeper  // who was told to keep a copy
}

// keeper is a worker in one of its lives.
type keeper struct{ id, boot uint64 }

// checkLoop compares the copies of files with their bounds, while this node
// leads.
func (m *Master) checkLoop() {
	every := min(checkEvery, max(m.cfg.RepairAfter/4, m.cfg.Tick))
	c := &checker{m: m}
	pause := every
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(pause):
		case <-m.copies:
			// What is asked for by hand is looked at soon, but not with each file
			// of a tree.
			if !wait(m.ctx, nil, every) {
				return
			}
		}
		begin := time.Now()
		m.mu.Lock()
		term := m.term
		m.mu.Unlock()
		if term != c.term {
			*c = checker{m: m, term: term, met: begin.Add(m.cfg.Settle), bad: map[uint64]time.Time{}, kept: map[uint64][]keeper{}}
		}
		if term == 0 {
			continue
		}
		if err := c.round(m.ctx); err != nil && m.ctx.Err() == nil {
			m.log.Warn("the copies of files could not be checked", "err", err)
		}
		m.Stats.Rounds.Add(1)
		pause = max(every, checkShare*time.Since(begin))
	}
}

// OnCopies says that the bounds of a file have changed.
func (m *Master) OnCopies() {
	select {
	case m.copies <- struct{}{}:
	default:
	}
}

// need is a file that is to be repaired.
type need struct {
	rank    int // 0: nowhere else, 1: pinned, 2: others
	missing int
	v       plan.Verdict
	file    uint64
}

// round looks at all files with bounds, and makes jobs of what is to be done.
func (c *checker) round(ctx context.Context) error {
	m := c.m
	workers, boots := c.workers()
	busy, err := c.busy(ctx, boots)
	if err != nil {
		return err
	}
	now := time.Now()
	var copies, drops []need
	var under, over int64
	seen := map[uint64]bool{} // bad or kept
	for after := orca.Ino(0); ; {
		files, next, err := m.ns.Replicated(after, checkPage)
		if err != nil {
			return err
		}
		for i := range files {
			f := &files[i]
			r, avoid := replicaOf(f), c.retry(f.Attr.Ino, now)
			r.Avoid = avoid.avoid
			v := plan.Judge(r, workers)
			c.keep(f.Attr.Ino, v.Keep, boots, seen)
			if v.Missing > 0 {
				under++
			}
			if v.Surplus > 0 {
				over++
			}
			if v.Missing+v.Surplus == 0 || busy[f.Attr.Ino] || !c.ripe(f.Attr.Ino, now, seen) || avoid.after.After(now) {
				continue
			}
			n := need{rank: 2, missing: v.Missing, v: v, file: f.Attr.Ino}
			switch {
			case r.Unpersisted:
				n.rank = 0
			case f.Attr.Pinned:
				n.rank = 1
			}
			if len(v.Copies) > 0 {
				copies = append(copies, n)
			} else if len(v.Drops) > 0 {
				drops = append(drops, n)
			}
			if len(copies) > 4*m.cfg.RepairWindow {
				copies = c.most(copies)
			}
		}
		if after = next; next == 0 || ctx.Err() != nil {
			break
		}
	}
	maps.DeleteFunc(c.bad, func(f uint64, _ time.Time) bool { return !seen[f] })
	maps.DeleteFunc(c.kept, func(f uint64, _ []keeper) bool { return !seen[f] })
	m.Stats.UnderReplicated.Store(under)
	m.Stats.OverReplicated.Store(over)
	room := m.cfg.RepairWindow - len(busy)
	copies = c.most(copies)
	copies = copies[:max(0, min(room, len(copies)))]
	drops = drops[:max(0, min(room-len(copies), len(drops)))]
	if err := c.submit(ctx, jobpb.Kind_REPLICATE, copies); err != nil {
		return err
	}
	return c.submit(ctx, jobpb.Kind_EVICT, drops)
}

// most returns the needs that come first, at most a window of them.
func (c *checker) most(ns []need) []need {
	slices.SortStableFunc(ns, func(a, b need) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.missing, a.missing))
	})
	return ns[:min(len(ns), c.m.cfg.RepairWindow)]
}

// workers returns the live workers, and the life that each is in.
func (c *checker) workers() (ws []plan.Worker, boots map[uint64]uint64) {
	boots = map[uint64]uint64{}
	for _, w := range c.m.ns.LiveWorkers() {
		p := plan.Worker{ID: w.Id, Node: w.Node}
		for _, t := range w.Tiers {
			if t.Healthy {
				p.Free += max(t.Capacity-t.Used, 0)
				p.Capacity = max(p.Capacity, t.Capacity)
			}
		}
		ws = append(ws, p)
		boots[w.Id] = w.Boot
	}
	return ws, boots
}

// replicaOf is what the planner is to know of a file.
func replicaOf(f *metaserver.Replicated) plan.Replica {
	a := f.Attr
	r := plan.Replica{
		File: plan.File{Ino: orca.Ino(a.Ino), Version: a.Version, Path: f.Path, Length: a.Length, BlockSize: a.BlockSize},
		Min:  int(a.ReplicaMin), Max: int(a.ReplicaLimit) - 1,
		Unpersisted: a.Persist != uint32(orca.Persisted),
	}
	if a.Persist == uint32(orca.Lost) || a.Type != uint32(orca.TypeFile) {
		r.Min, r.Max = 0, -1
	}
	for _, h := range f.Holdings {
		if h.Cached == 0 || r.Unpersisted && !h.Dirty {
			continue
		}
		r.Holders = append(r.Holders, plan.Holder{Worker: h.Worker, All: h.Cached >= a.Length, Complete: h.Complete})
	}
	return r
}

// busy returns the files that are being repaired; work of workers that have
// left is ended: others get it in the next round.
func (c *checker) busy(ctx context.Context, boots map[uint64]uint64) (map[uint64]bool, error) {
	m := c.m
	out := map[uint64]bool{}
	var dead []*work
	m.mu.Lock()
	for _, w := range m.q.works {
		if w.files == nil {
			continue
		}
		if _, live := boots[w.holders[0]]; !live && w.worker == 0 {
			dead = append(dead, w)
			continue
		}
		for _, f := range w.files {
			out[f] = true
		}
	}
	m.mu.Unlock()
	if time.Now().Before(c.met) {
		for _, w := range dead {
			for _, f := range w.files {
				out[f] = true
			}
		}
		return out, nil
	}
	if len(dead) == 0 {
		return out, nil
	}
	cmd := &jobpb.Command{}
	m.read(func(s fsm.Store) {
		for _, w := range dead {
			d := &jobpb.Done{Job: w.key.Job, Task: w.key.Task}
			if t := machine.Task(s, w.key.Job, w.key.Task); t != nil {
				for _, i := range t.Items {
					d.Failures = append(d.Failures, &jobpb.Failure{Path: i.Path, Error: "the worker that was to take the copy has left"})
				}
			}
			cmd.Done = append(cmd.Done, d)
		}
	})
	if _, err := m.apply(ctx, nil, cmd); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range dead {
		m.q.remove(w)
	}
	return out, nil
}

// ripe reports whether a file has been bad for long enough.
func (c *checker) ripe(file uint64, now time.Time, seen map[uint64]bool) bool {
	seen[file] = true
	since, ok := c.bad[file]
	if !ok {
		if len(c.bad) >= maxBad {
			return false
		}
		c.bad[file], since = now, now
	}
	return now.Sub(since) >= c.m.cfg.RepairAfter && now.After(c.met)
}

// keep has the workers that are to keep their copies of a file do so, and
// others not, as far as they have not been told.
func (c *checker) keep(file uint64, ids []uint64, boots map[uint64]uint64, seen map[uint64]bool) {
	old := c.kept[file]
	if len(ids) == 0 && len(old) == 0 {
		return
	}
	seen[file] = true
	now := make([]keeper, 0, len(ids))
	for _, id := range ids {
		k := keeper{id, boots[id]}
		if now = append(now, k); !slices.Contains(old, k) {
			c.m.ns.KeepCopy(id, orca.Ino(file), true)
		}
	}
	for _, k := range old {
		if !slices.Contains(ids, k.id) {
			c.m.ns.KeepCopy(k.id, orca.Ino(file), false)
		}
	}
	c.kept[file] = now
}

func (c *checker) retry(file uint64, now time.Time) retry {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	r := c.m.retries[file]
	if r == nil {
		return retry{}
	}
	if now.Sub(r.after) > 2*lastRetry {
		delete(c.m.retries, file)
		return retry{}
	}
	return *r
}

// submit makes one job of what is to be done.
func (c *checker) submit(ctx context.Context, kind jobpb.Kind, ns []need) error {
	if len(ns) == 0 {
		return nil
	}
	var all []plan.Copy
	for _, n := range ns {
		if kind == jobpb.Kind_EVICT {
			all = append(all, n.v.Drops...)
		} else {
			all = append(all, n.v.Copies...)
		}
	}
	spec := &jobpb.Spec{Kind: kind, Path: "/", Recursive: true, Bandwidth: c.m.cfg.RepairRate}
	if len(ns) == 1 {
		spec.Path, spec.Recursive = all[0].Item.Path, false
	}
	tasks := plan.ByWorker(all, c.m.cfg.Task)
	_, err := c.m.apply(ctx, nil, &jobpb.Command{Repair: &jobpb.Repair{Spec: spec, Tasks: tasks}})
	return err
}

// repaired takes note of what a worker has done of a repair, before the task
// ends.
func (m *Master) repaired(ctx context.Context, d *jobpb.Done, worker uint64, now time.Time) error {
	var t *jobpb.Task
	var kind jobpb.Kind
	m.read(func(s fsm.Store) {
		if t = machine.Task(s, d.Job, d.Task); t != nil && t.Worker != 0 {
			kind = machine.Job(s, d.Job).GetSpec().GetKind()
		}
	})
	if kind == jobpb.Kind_NONE {
		return nil
	}
	failed := map[string]bool{}
	for _, f := range d.Failures {
		failed[f.Path] = true
	}
	for _, i := range t.Items {
		m.outcome(i, worker, failed[i.Path], now)
		if failed[i.Path] {
			continue
		}
		if kind == jobpb.Kind_EVICT {
			m.Stats.CopiesDropped.Add(1)
			continue
		}
		m.Stats.CopiesMade.Add(1)
		if i.Unpersisted {
			if err := m.ns.Held(ctx, orca.Ino(i.File), i.Version, worker); err != nil {
				return err
			}
		}
	}
	return nil
}

// outcome remembers what failed, so that it is tried elsewhere and not at once.
func (m *Master) outcome(i *jobpb.Item, worker uint64, failed bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.retries[i.File]
	switch {
	case !failed:
		delete(m.retries, i.File)
		return
	case r == nil && len(m.retries) >= maxBad:
		return
	case r == nil:
		r = &retry{}
		m.retries[i.File] = r
	}
	r.pause = min(max(2*r.pause, firstRetry), lastRetry)
	r.after = now.Add(r.pause)
	if !slices.Contains(r.avoid, worker) {
		r.avoid = append(r.avoid, worker)
	}
	if len(r.avoid) > 8 {
		r.avoid = r.avoid[1:]
	}
}
