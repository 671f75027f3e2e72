// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/hist"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/engine/client"
)

const rawSinkName = "raw receive and pwrite, as many connections"

// writeEach is how many MiB a client writes to a private file.
const writeEach = 16

// openWorkerWrite writes private files that are dropped: no session, no
// upload, no checksum is part of it.
func openWorkerWrite(ctx context.Context, s *stage) (*trial, error) {
	o, ms, raw, err := s.workerSides(ctx, false)
	if err != nil {
		return nil, err
	}
	if err := raw.Close(); err != nil {
		return nil, err
	}
	fs, t, err := s.tapped(ctx, o)
	if err != nil {
		return nil, err
	}
	// A session that stays open lends its rights.
	w, err := fs.Create(ctx, client.Path("/bench/written"), client.CreateOptions{WriteType: orca.MustCache, Overwrite: true, Parents: true})
	if err != nil {
		return nil, err
	}
	dir, err := s.native()
	if err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	sink, err := baseline.StartCrowd(ctx, s.opt.Self, "", dir, s.opt.Clients)
	if err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	n := s.opt.Clients
	p := make([]byte, baseline.Chunk)
	sys := crowdSide("writes to one worker", o.PID(), n, 1, writeEach<<20, func(ctx context.Context, i int) func() error {
		return func() error { return writePrivate(ctx, ms[i].c, t.target, p) }
	})
	base := crowdSide(rawSinkName, sink.PID(), n, 1, writeEach<<20, func(_ context.Context, i int) func() error {
		return func() error {
			for k := range int64(writeEach) {
				if err := sink.Write(i, p, k*baseline.Chunk); err != nil {
					return err
				}
			}
			return nil
		}
	})
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(sink.Close(), w.Abort()) }}, nil
}

func writePrivate(ctx context.Context, c *blockclient.Client, t dataplane.WriteTarget, p []byte) error {
	t.Chain = nil
	id, err := c.CreateWrite(ctx, t)
	if err != nil {
		return err
	}
	for k := 0; k < writeEach && err == nil; k++ {
		err = c.WriteAt(ctx, id, p, int64(k*len(p)))
	}
	return errors.Join(err, c.Abort(ctx, id))
}

// tailLoad is the part of the peak rate at which tails are measured.
const tailLoad = 0.7

// openWorkerTail finds, in each sample, the rate at which the clients read as
// fast as they can, and then reads at tailLoad of it: requests begin when their
// time has come, and what a client could not begin in time, because the one
// before was not answered yet, counts from when it should have. A machine that
// does not keep the peak up shows in p50 as well; where that is over the one at
// the peak, the latter is what p99 is held against.
func openWorkerTail(ctx context.Context, s *stage) (*trial, error) {
	sh := shape{size: 4 << 10}
	o, ms, raw, err := s.workerSides(ctx, false)
	if err != nil {
		return nil, err
	}
	n, long := s.opt.Clients, s.opt.Sample
	return &trial{
		system:    s.tailSide("reads of one worker", o.PID(), n, long, reading(ms, sh)),
		baselines: []side{s.tailSide(rawCrowdName, raw.PID(), n, long, rawReading(raw, sh, s.opt.size(defaultBulk), n))},
		close:     raw.Close,
	}, nil
}

func (s *stage) tailSide(name string, pid, clients int, long time.Duration, op crowdOp) side {
	return side{name: name, pids: []int{pid}, run: func(ctx context.Context) (measure, error) {
		each := 1500
		if s.opt.Tiny {
			each = 50
		}
		peak, err := crowdPass(ctx, clients, each, op)
		if err != nil {
			return measure{}, err
		}
		lat, err := openLoop(ctx, clients, tailLoad*peak.value(), long, op)
		if err != nil {
			return measure{}, err
		}
		q := lat.Summary()
		p50 := min(q.P50, peak.lat.Summary().P50)
		s.facts.Config["worker.tail-4k "+name] = fmt.Sprintf("peak %.0f ops/s with p50 %.0f µs, at %.0f %%: %s (the last sample)", peak.value(), peak.lat.Summary().P50, 100*tailLoad, q)
		return measure{work: p50 / q.P99, took: time.Second, lat: lat}, nil
	}}
}

// openLoop runs operations at a rate for so long, shared evenly by the clients.
// A client that has slept until its time begins when it has woken up: how late
// the timer is says nothing of the server.
func openLoop(ctx context.Context, clients int, rate float64, long time.Duration, op crowdOp) (*hist.Hist, error) {
	every := time.Duration(float64(clients) / rate * float64(time.Second))
	errs, lats := make([]error, clients), make([]*hist.Hist, clients)
	var wg sync.WaitGroup
	start := time.Now().Add(time.Millisecond)
	for i := range clients {
		do := op(ctx, i)
		lats[i] = hist.New()
		wg.Go(func() {
			due := start.Add(every * time.Duration(i) / time.Duration(clients))
			for ; due.Sub(start) < long; due = due.Add(every) {
				begin := due
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
					begin = time.Now()
				}
				if errs[i] = do(); errs[i] != nil {
					return
				}
				lats[i].Record(time.Since(begin))
			}
		})
	}
	wg.Wait()
	for _, l := range lats[1:] {
		lats[0].Merge(l)
	}
	if lats[0].Count() == 0 && errors.Join(errs...) == nil {
		return nil, fmt.Errorf("no request in %s at %.0f per second", long, rate)
	}
	return lats[0], errors.Join(errs...)
}
