// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"orca"
	"orca/bench/baseline"
	"orca/dataplane/transport"
	"orca/engine/client"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// The messages of workers: the full report when one registers, in pages, and
// the heartbeat with what has changed. The worker has nothing behind it; it is
// registered with a server of its own, so that no other case meets it.

const (
	// reportPage is how many files one page of a full report has, beatFiles
	// those of a heartbeat.
	reportPage = 10_000
	beatFiles  = 10
)

// reporter is one worker that reports files that the namespace knows.
type reporter struct {
	s       *stage
	c       *metaclient.Client
	pid     int
	worker  *metapb.Worker
	reports []*metapb.FileReport
}

func (s *stage) reporter(ctx context.Context, files int) (*reporter, error) {
	o, err := s.up("workers")
	if err != nil {
		return nil, err
	}
	fs, err := client.Open(ctx, client.Config{Addresses: []string{o.Endpoints.Meta}, WriteType: orca.MustCache})
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	dir := fmt.Sprintf("/bench/reported-%d", s.serial.Add(1))
	if _, err := fs.MkdirAll(ctx, client.Path(dir), 0o755); err != nil {
		return nil, err
	}
	r := &reporter{s: s, pid: o.PID(), reports: make([]*metapb.FileReport, files),
		worker: &metapb.Worker{Node: "reporter", Addr: "127.0.0.1:1", Boot: 1, Tiers: []*metapb.TierUsage{{Tier: uint32(orca.MEM), Capacity: 1 << 40}}}}
	const makers = 64
	share := (files + makers - 1) / makers
	if _, err := counted(ctx, makers, share, func(ctx context.Context, lane, i int) error {
		at := lane*share + i
		if at >= files {
			return nil
		}
		info, err := fs.CreateEmpty(ctx, client.Path(fmt.Sprintf("%s/f-%08d", dir, at)), client.CreateOptions{})
		r.reports[at] = &metapb.FileReport{File: uint64(info.Ino), Version: info.Version, Cached: 1 << 20, Complete: []uint32{0}, Tier: uint32(orca.MEM)}
		return err
	}); err != nil {
		return nil, err
	}
	if r.c, err = metaclient.New(metaclient.Config{Addrs: []string{o.Endpoints.Meta}}, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	rep, err := r.c.Register(ctx, &metapb.RegisterRequest{Worker: r.worker})
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	r.worker.Id = rep.Id
	return r, nil
}

// pages are the requests of one full report.
func (r *reporter) pages() []*metapb.RegisterRequest {
	var out []*metapb.RegisterRequest
	for at := 0; at < len(r.reports); at += reportPage {
		end := min(at+reportPage, len(r.reports))
		out = append(out, &metapb.RegisterRequest{Worker: r.worker, Files: r.reports[at:end], More: end < len(r.reports)})
	}
	return out
}

// frames has an echo of frames like these: requests in turns, replies of reply
// bytes; a pass sends all of them. work is what a pass counts for.
func (s *stage) frames(ctx context.Context, requests [][]byte, reply int, work float64) (side, func() error, error) {
	p, err := baseline.Start(ctx, s.opt.Self, echoRole, "tcp", "127.0.0.1:0", fmt.Sprint(reply))
	if err != nil {
		return side{}, nil, err
	}
	addr, err := p.Line()
	if err != nil {
		return side{}, nil, errors.Join(err, p.Close())
	}
	t, err := transport.NewClient(transport.ClientConfig{Network: "tcp", Addr: addr}, slog.New(slog.DiscardHandler))
	if err != nil {
		return side{}, nil, errors.Join(err, p.Close())
	}
	return side{name: echoName, pids: []int{p.PID()}, run: func(ctx context.Context) (measure, error) {
		m, err := timed(ctx, 1, s.opt.Sample, func(ctx context.Context, _, _ int) error {
			for _, b := range requests {
				r, err := t.Call(ctx, echoOp, b, nil)
				if err != nil {
					return err
				}
				r.Release()
			}
			return nil
		})
		m.work *= work
		return m, err
	}}, func() error { return errors.Join(t.Close(), p.Close()) }, nil
}

func openRegister(ctx context.Context, s *stage) (*trial, error) {
	files := 100 * s.opt.Files
	r, err := s.reporter(ctx, files)
	if err != nil {
		return nil, err
	}
	var requests [][]byte
	bytes := 0
	for _, q := range r.pages() {
		q.H = &metapb.Header{Caller: &metapb.Caller{}}
		b, err := metawire.Marshal(q)
		if err != nil {
			return nil, errors.Join(err, r.c.Close())
		}
		requests, bytes = append(requests, b), bytes+len(b)
	}
	rep, err := r.c.Register(ctx, r.pages()[0])
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	base, closeBase, err := s.frames(ctx, requests, rep.SizeVT(), float64(files))
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	s.facts.Config["register"] = fmt.Sprintf("%d files in %d pages, %d bytes, %.1f a file", files, len(requests), bytes, float64(bytes)/float64(files))
	sys := side{name: "register", pids: []int{r.pid}, run: func(ctx context.Context) (measure, error) {
		m, err := timed(ctx, 1, s.opt.Sample, func(ctx context.Context, _, _ int) error {
			for _, q := range r.pages() {
				p, err := r.c.Register(ctx, q)
				if err == nil && p.Id != r.worker.Id {
					err = fmt.Errorf("worker %d was registered as %d", r.worker.Id, p.Id)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		m.work *= float64(files)
		return m, err
	}}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeBase(), r.c.Close()) }}, nil
}

func openHeartbeat(ctx context.Context, s *stage) (*trial, error) {
	r, err := s.reporter(ctx, beatFiles)
	if err != nil {
		return nil, err
	}
	beat := func() *metapb.HeartbeatRequest {
		return &metapb.HeartbeatRequest{Worker: r.worker, Files: r.reports}
	}
	q := beat()
	q.H = &metapb.Header{Caller: &metapb.Caller{}}
	request, err := metawire.Marshal(q)
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	rep, err := r.c.Heartbeat(ctx, beat())
	if err == nil && rep.Register {
		err = errors.New("the metaplane does not know the worker that it has registered")
	}
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	base, closeBase, err := s.frames(ctx, [][]byte{request}, rep.SizeVT(), 1)
	if err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	s.facts.Config["heartbeat"] = fmt.Sprintf("%d files, request %d bytes, reply %d bytes", beatFiles, len(request), rep.SizeVT())
	sys := side{name: "heartbeat", pids: []int{r.pid}, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, 1, s.opt.Sample, func(ctx context.Context, _, _ int) error {
			_, err := r.c.Heartbeat(ctx, beat())
			return err
		})
	}}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeBase(), r.c.Close()) }}, nil
}
