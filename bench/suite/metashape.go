// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"strings"

	"orca"
	"orca/bench/workload"
	"orca/engine/client"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// The shapes of mdtest and of traces: many clients, one directory that all work
// in, files with a little content, files that somebody else has made, and a mix.

// manyClients is how many create-128 has.
const manyClients = 128

// openCreate128 is create by many clients, against the smaller of what the
// journal and the transport alone do for as many.
func openCreate128(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.metaOf(ctx, manyClients)
	if err != nil {
		return nil, err
	}
	payload, err := createPayload()
	if err != nil {
		return nil, err
	}
	request, reply, err := c.createSizes(ctx)
	if err != nil {
		return nil, err
	}
	propose, closePropose, err := s.proposeSide(c.lanes, payload)
	if err != nil {
		return nil, err
	}
	echo, closeEcho, err := s.echoOf(ctx, manyClients, request, reply)
	if err != nil {
		return nil, errors.Join(err, closePropose())
	}
	s.facts.Config["create-128"] = fmt.Sprintf("%d clients, payload %d bytes, echo of %d and %d bytes", manyClients, len(payload), len(request), reply)
	return &trial{system: c.createSide("create-128"), baselines: []side{propose, echo},
		close: func() error { return errors.Join(closePropose(), closeEcho()) }}, nil
}

// createSizes returns the request of a create as Orca's client sends it, and
// the length of the answer.
func (c *crowd) createSizes(ctx context.Context) (request []byte, reply int, err error) {
	mc, err := metaclient.New(metaclient.Config{Addrs: []string{c.orca.Endpoints.Meta}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, mc.Close()) }()
	q := &metapb.CreateRequest{H: &metapb.Header{Caller: &metapb.Caller{}}, Target: &metapb.Target{Path: createPath(0, c.s.serial.Add(1), 0)},
		Mode: 0o644, WriteType: uint32(orca.MustCache), Complete: true}
	p, err := mc.Create(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	q.H = &metapb.Header{Client: math.MaxUint64, Seq: 1 << 20, AckedBelow: 1 << 20, Caller: &metapb.Caller{}}
	request, err = metawire.Marshal(q)
	return request, p.SizeVT(), err
}

// createIn creates files with new names in one directory.
func (c *crowd) createIn(name, dir string) side {
	return side{name: name, pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		run := c.s.serial.Add(1)
		return timed(ctx, c.lanes, c.s.opt.Sample, func(ctx context.Context, lane, i int) error {
			_, err := c.of(lane).CreateEmpty(ctx, client.Path(fmt.Sprintf("%s/f-%04d-%03d-%08d", dir, run, lane, i)), client.CreateOptions{})
			return err
		})
	}}
}

func openCreateShared(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.fs[0].MkdirAll(ctx, client.Path(sharedDir), 0o755); err != nil {
		return nil, err
	}
	return &trial{system: c.createIn("create-shared", sharedDir), baselines: []side{c.createSide(createName)}}, nil
}

// hardSize is the size of a file of mdtest-hard.
const hardSize = 3901

func openCreateHard(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.fs[0].MkdirAll(ctx, client.Path(sharedDir), 0o755); err != nil {
		return nil, err
	}
	content := []byte(strings.Repeat("mdtest ", hardSize/7+1)[:hardSize])
	sys := side{name: "create-hard", pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		run := c.s.serial.Add(1)
		return timed(ctx, c.lanes, c.s.opt.Sample, func(ctx context.Context, lane, i int) error {
			w, err := c.of(lane).Create(ctx, client.Path(fmt.Sprintf("%s/h-%04d-%03d-%08d", sharedDir, run, lane, i)), client.CreateOptions{Expect: hardSize})
			if err != nil {
				return err
			}
			if _, err := w.Write(content); err != nil {
				return errors.Join(err, w.Abort())
			}
			return w.CloseContext(ctx)
		})
	}}
	return &trial{system: sys, baselines: []side{c.createIn("empty files in the same directory", sharedDir)}}, nil
}

func openStatStride(ctx context.Context, s *stage) (*trial, error) {
	return openStrideIn(ctx, s, laneDir)
}

func openStatShared(ctx context.Context, s *stage) (*trial, error) {
	return openStrideIn(ctx, s, func(int) string { return sharedDir })
}

// openStrideIn has each lane stat the files that the next one has made.
func openStrideIn(ctx context.Context, s *stage, dir func(lane int) string) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	made, err := c.filesIn(ctx, c.perLane(), dir)
	if err != nil {
		return nil, err
	}
	request, reply, err := c.statSizes(ctx, made[0][0])
	if err != nil {
		return nil, err
	}
	base, closeBase, err := s.echoSide(ctx, request, reply)
	if err != nil {
		return nil, err
	}
	others := append(made[1:len(made):len(made)], made[0])
	return &trial{system: c.statSide("stat", others, []int{c.orca.PID()}), baselines: []side{base}, close: closeBase}, nil
}

// step is one kind of operation of a mix.
type step func(ctx context.Context, fs *client.FS, w *lane, i int) error

// lane is what one lane of a mix works on: files that are there for good, and
// one that was made last.
type lane struct {
	dir   string
	fixed []string
	order []int
	last  string
	run   int64
}

func (w *lane) pick(i int) client.Target {
	return client.Path(w.fixed[w.order[i%len(w.order)]])
}

func (w *lane) name(i int) string { return fmt.Sprintf("%s/mix-%04d-%08d", w.dir, w.run, i) }

// mixture is the trace of a hundred operations. What it makes it takes away
// again.
func mixture() []step {
	stat := func(ctx context.Context, fs *client.FS, w *lane, i int) error {
		_, err := fs.Stat(ctx, w.pick(i), client.Sync{})
		return err
	}
	list := func(ctx context.Context, fs *client.FS, w *lane, _ int) error {
		_, err := fs.List(ctx, client.Path(w.dir), client.ListOptions{Limit: 100})
		return err
	}
	create := func(ctx context.Context, fs *client.FS, w *lane, i int) error {
		w.last = w.name(i)
		_, err := fs.CreateEmpty(ctx, client.Path(w.last), client.CreateOptions{})
		return err
	}
	rename := func(ctx context.Context, fs *client.FS, w *lane, i int) error {
		to := w.name(i) + "-renamed"
		err := fs.Rename(ctx, client.Path(w.last), client.Path(to), true)
		w.last = to
		return err
	}
	remove := func(ctx context.Context, fs *client.FS, w *lane, _ int) error {
		return fs.Unlink(ctx, client.Path(w.last))
	}
	chmod := func(ctx context.Context, fs *client.FS, w *lane, i int) error {
		return fs.Chmod(ctx, w.pick(i), 0o600+uint32(i%2)*0o44)
	}
	// Ten turns of ten operations: a file is made, perhaps renamed, and removed.
	var out []step
	for turn := range 10 {
		out = append(out, create, stat, stat, stat, list, stat, stat, stat)
		if turn%2 == 0 {
			out = append(out, remove, chmod)
		} else {
			out = append(out, rename, remove)
		}
	}
	return out
}

func openMixed(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	sys, err := c.mixedSide(ctx)
	if err != nil {
		return nil, err
	}
	return &trial{system: sys, baselines: []side{c.createSide(createName)}}, nil
}

// mixedSide has each lane go through the mixture in a directory of its own.
func (c *crowd) mixedSide(ctx context.Context) (side, error) {
	paths, err := c.filesIn(ctx, c.perLane(), func(lane int) string { return path.Join(laneDir(lane), "mixed") })
	if err != nil {
		return side{}, err
	}
	lanes := make([]*lane, c.lanes)
	for i := range lanes {
		lanes[i] = &lane{dir: path.Dir(paths[i][0]), fixed: paths[i], order: workload.Order(uint64(i+1), len(paths[i]))}
	}
	steps := mixture()
	return side{name: "mixed", pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		run := c.s.serial.Add(1)
		for _, w := range lanes {
			w.run = run
		}
		return timed(ctx, c.lanes, c.s.opt.Sample, func(ctx context.Context, lane, i int) error {
			return steps[i%len(steps)](ctx, c.of(lane), lanes[lane], i)
		})
	}}, nil
}
