// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package suite holds the cases of orcabench and runs them. A case compares
// one thing that Orca does with the least that the machine could do for the
// same result (bench/baseline), both sampled in turns in one run.
//
// Flow: Run opens each case (which starts what it needs, writes its data, and
// checks that it will measure what it says), warms up both sides, takes
// Options.Pairs pairs in the order A-B B-A, and fills a row of the report. The
// servers are separate processes that the cases of a run share (stage). With a
// profile folder, the system alone runs once more under a profiler after its
// pairs.
//
// Goroutines: the runner is one goroutine; cases start load goroutines and end
// them within a sample. It refuses to report a figure for a case that failed
// in any sample: the row then says the error.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"orca/bench/facts"
	"orca/bench/hist"
	"orca/bench/ratio"
	"orca/bench/report"
	"orca/perf/capture"
)

// Options say how a run is done. Zero fields mean the defaults.
type Options struct {
	// Pairs of samples per case. Default 7, at least ratio.MinPairs.
	Pairs int
	// Size of the file of bulk cases, in bytes. Default 256 MiB (io cold:
	// 1 GiB); more than 64 MiB, so that it is larger than the caches.
	Size int64
	// Files in the directory of the cases about many files; those about trees
	// have a thousand times as many. Default 1000.
	Files int
	// Blocks in the index of the restart suite. Default 10,000,000.
	Blocks int
	// Clients of the meta and worker suites, one connection each. Default 16.
	Clients int
	// Pipeline is how many requests each client has outstanding. Default 1.
	Pipeline int
	// Sample is how long one sample of the meta suite lasts. Default 1 s.
	Sample time.Duration
	// Network is how the meta suite reaches the server: "tcp" (default) or
	// "unix".
	Network string
	// HDFS is the address of a NameNode for the peers suite, host:port.
	HDFS string
	// Alluxio is the command that runs Alluxio's StressMasterBench, to which
	// arguments are added, and AlluxioURI the master ("alluxio://host:port").
	Alluxio    []string
	AlluxioURI string
	// PeerPIDs are the processes of the peer, whose CPU time is its own.
	PeerPIDs []int
	// Warm is for how long a peer is driven before it is measured. Default
	// 20 s.
	Warm time.Duration
	// Temp is the folder for data. Default: a new one, removed at the end.
	Temp string
	// Profile is the folder for profiles; "" takes none.
	Profile string
	// Self is this binary, for the baseline processes.
	Self string
	// Orca is the orca binary; "" finds or builds one.
	Orca string
	// Progress gets one line per case and step; nil discards.
	Progress io.Writer
	// Tiny lifts the lower limits of Pairs and Size, for tests of the
	// plumbing: the figures mean nothing and the report says so.
	Tiny bool
}

func (o *Options) setDefaults() error {
	if o.Pairs == 0 {
		o.Pairs = 7
	}
	if o.Files == 0 {
		o.Files = 1000
	}
	if o.Blocks == 0 {
		o.Blocks = 10_000_000
	}
	if o.Clients == 0 {
		o.Clients = 16
	}
	if o.Pipeline == 0 {
		o.Pipeline = 1
	}
	if o.Sample == 0 {
		o.Sample = time.Second
	}
	if o.Warm == 0 {
		o.Warm = 20 * time.Second
	}
	if o.AlluxioURI == "" {
		o.AlluxioURI = "alluxio://127.0.0.1:19998"
	}
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o.validate()
}

func (o *Options) validate() error {
	switch {
	case o.Pairs < 1 || !o.Tiny && o.Pairs < ratio.MinPairs:
		return fmt.Errorf("%d samples: a median needs at least %d pairs", o.Pairs, ratio.MinPairs)
	case o.Size < 0 || !o.Tiny && o.Size != 0 && o.Size <= 64<<20:
		return fmt.Errorf("size %d: must be over 64 MiB, or the processor's caches are measured", o.Size)
	case o.Size%(1<<20) != 0:
		return fmt.Errorf("size %d: must be whole MiB", o.Size)
	case o.Blocks < restartReal || !o.Tiny && o.Blocks < 100_000:
		return fmt.Errorf("%d blocks: a restart of so few is over before it can be measured", o.Blocks)
	case o.Files < 1 || o.Clients < 1 || o.Pipeline < 1 || o.Sample < time.Millisecond:
		return errors.New("files, clients and pipeline must be positive and a sample at least a millisecond")
	case o.Network != "tcp" && o.Network != "unix":
		return fmt.Errorf("network %q: want tcp or unix", o.Network)
	case o.Clients*o.Pipeline > 4096:
		return errors.New("more than 4096 requests outstanding")
	}
	return nil
}

// size returns the file size of a bulk case whose default is def.
func (o *Options) size(def int64) int64 {
	if o.Size != 0 {
		return o.Size
	}
	return def
}

// progressEvery is the shortest time between two lines about one case.
const progressEvery = 2 * time.Second

// Case is one comparison.
type Case struct {
	Suite, Name  string
	Metric, Unit string
	Baseline     string
	// About says in one line what is compared.
	About string
	// Named cases are run only when they are asked for by name.
	Named bool
	// Least says that the case is held against the lowest of its baselines, and
	// not against the highest.
	Least bool

	// needs reports whether the options name what the case is about; nil: it is
	// about nothing else.
	needs func(o *Options) bool

	open func(ctx context.Context, s *stage) (*trial, error)
}

// Given returns the cases that the options have all for.
func (o *Options) Given(cases []Case) []Case {
	return slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return c.needs != nil && !c.needs(o) })
}

// The units of a case. Their work is counted in MB (10^6 bytes), operations or
// entries; a hit rate and the shape of a tail are no work per time, and a sample of
// them lasts a second by definition.
const (
	unitMBs     = "MB/s"
	unitOps     = "ops/s"
	unitEntries = "entries/s"
	unitBlocks  = "blocks/s"
	unitRate    = "of the bytes"
	unitTail    = "p50/p99"
)

// trial is an open case. Each side does a fixed amount of work per call, or
// works for a fixed time.
type trial struct {
	system    side
	baselines []side
	close     func() error
}

// side is one of the two things compared.
type side struct {
	name string
	// before runs untimed ahead of each pass; nil: nothing to do.
	before func(ctx context.Context) error
	// once: a pass is a sample, however short; for what is long in the making.
	once bool
	run  func(ctx context.Context) (measure, error)
	// pids are the processes beside this one whose CPU time belongs to the
	// side.
	pids []int
}

// measure is one sample of one side.
type measure struct {
	work float64 // in MB or operations
	took time.Duration
	lat  *hist.Hist // nil: single operations are not timed
	cpu  time.Duration
	objs uint64 // made on the heap of this process
}

func (m *measure) add(o measure) {
	m.work, m.took, m.cpu, m.objs = m.work+o.work, m.took+o.took, m.cpu+o.cpu, m.objs+o.objs
	if m.lat != nil && o.lat != nil {
		m.lat.Merge(o.lat)
	}
}

func (m measure) value() float64 { return m.work / m.took.Seconds() }

// Suites returns the names of the suites, in the order of a full run.
func Suites() []string {
	return []string{"env", "io", "worker", "slowpeer", "meta", "fuse", "restart", "evict", "peers"}
}

// Cases returns all cases, by suite.
func Cases() []Case {
	return slices.Concat(envCases(), ioCases(), workerCases(), slowpeerCases(), metaCases(), treeCases(), fuseCases(), restartCases(), evictCases(), peersCases())
}

// Select returns the cases of a suite but for those that are run only when
// named; names limits them, in their order.
func Select(suite string, names []string) ([]Case, error) {
	if !slices.Contains(Suites(), suite) {
		return nil, fmt.Errorf("no suite %q: there are %s", suite, strings.Join(Suites(), ", "))
	}
	var all, out []Case
	for _, c := range Cases() {
		if c.Suite == suite {
			all = append(all, c)
		}
	}
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(c Case) bool { return c.Named }), nil
	}
	for _, n := range names {
		i := slices.IndexFunc(all, func(c Case) bool { return c.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("suite %s has no case %q", suite, n)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// Run runs the cases and returns the report; cases that fail are error rows.
// The error is about the run as a whole, such as a ctx that ended; the report
// is valid then too, with the rows so far.
func Run(ctx context.Context, cases []Case, o Options, command string) (rep *report.Report, profiles []capture.Taken, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, nil, err
	}
	s, err := newStage(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	rep = &report.Report{Schema: report.Schema, Machine: facts.Read(time.Now(), command), Results: []report.Row{}}
	s.facts = &rep.Machine
	s.describe()
	defer func() {
		err = errors.Join(err, s.close())
		rep.Machine.LoadEnd = facts.Load()
	}()
	for _, c := range cases {
		if ctx.Err() != nil {
			return rep, profiles, ctx.Err()
		}
		row := report.Row{Suite: c.Suite, Case: c.Name, Metric: c.Metric, Unit: c.Unit, BaselineName: c.Baseline, Samples: []report.Sample{}}
		taken, err := runCase(ctx, s, c, &row)
		if err != nil {
			row.Fail(err)
		}
		if err := s.healthy(); err != nil {
			row.Fail(errors.Join(err, errors.New(row.Error)))
		}
		s.progress("%s/%s: %s", c.Suite, c.Name, row.Summary())
		profiles = append(profiles, taken...)
		rep.Results = append(rep.Results, row)
	}
	return rep, profiles, ctx.Err()
}

func runCase(ctx context.Context, s *stage, c Case, row *report.Row) (taken []capture.Taken, err error) {
	s.progress("%s/%s: preparing", c.Suite, c.Name)
	t, err := c.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if t.close != nil {
			err = errors.Join(err, t.close())
		}
	}()
	s.progress("%s/%s: measuring", c.Suite, c.Name)
	// Warm both sides alike; what these samples say is thrown away.
	for _, side := range append([]side{t.system}, t.baselines...) {
		if _, err := sample(ctx, side, s.opt.Tiny); err != nil {
			return nil, fmt.Errorf("warm-up: %w", err)
		}
	}
	system, rivals, err := pairs(ctx, s, c, t)
	if err != nil {
		return nil, err
	}
	fill(row, c, t, system, rivals)
	if row.Error == "" && s.opt.Profile != "" {
		return s.profile(ctx, c, t.system)
	}
	return nil, nil
}

// pairs samples in turns: system and baselines in order, then in reverse.
func pairs(ctx context.Context, s *stage, c Case, t *trial) (system []measure, rivals [][]measure, err error) {
	system, rivals = make([]measure, s.opt.Pairs), make([][]measure, len(t.baselines))
	for i := range rivals {
		rivals[i] = make([]measure, s.opt.Pairs)
	}
	said := time.Now()
	for i := range s.opt.Pairs {
		if time.Since(said) > progressEvery {
			said = time.Now()
			s.progress("%s/%s: pair %d of %d", c.Suite, c.Name, i+1, s.opt.Pairs)
		}
		turns := []int{-1} // -1: the system, else a baseline
		for b := range t.baselines {
			turns = append(turns, b)
		}
		if !ratio.SystemFirst(i) {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := settle(ctx, t, s.opt.Tiny); err != nil {
				return nil, nil, err
			}
			if turn < 0 {
				system[i], err = sample(ctx, t.system, s.opt.Tiny)
			} else {
				rivals[turn][i], err = sample(ctx, t.baselines[turn], s.opt.Tiny)
			}
			if err != nil {
				return nil, nil, err
			}
		}
	}
	return system, rivals, nil
}

const (
	idleProbe  = 50 * time.Millisecond
	idleShare  = 0.1 // of a core
	settleTime = 2 * time.Second
)

// settle waits until the processes of both sides are idle, so that what one
// side has left to do (a flush, a compaction) is not paid by the other. It
// waits for a bounded time: a server that is never idle is what it is.
func settle(ctx context.Context, t *trial, tiny bool) error {
	var pids []int
	for _, s := range append([]side{t.system}, t.baselines...) {
		pids = append(pids, s.pids...)
	}
	for until := time.Now().Add(settleTime); len(pids) > 0 && !tiny && time.Now().Before(until); {
		before, err := cpuOf(pids)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(idleProbe):
		}
		after, err := cpuOf(pids)
		if err != nil {
			return err
		}
		if (after - before).Seconds() < idleShare*idleProbe.Seconds() {
			return nil
		}
	}
	return nil
}

// enough is how long a sample works at least: shorter passes are repeated,
// each after its own before, unless once is enough.
const enough = 200 * time.Millisecond

// sample runs one side for one sample and adds the CPU time of all its
// processes.
func sample(ctx context.Context, s side, tiny bool) (measure, error) {
	sum, err := pass(ctx, s)
	for err == nil && !tiny && !s.once && sum.took < enough {
		var m measure
		if m, err = pass(ctx, s); err == nil {
			sum.add(m)
		}
	}
	if err != nil {
		return measure{}, fmt.Errorf("%s: %w", s.name, err)
	}
	return sum, nil
}

func pass(ctx context.Context, s side) (measure, error) {
	if err := ctx.Err(); err != nil {
		return measure{}, err
	}
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return measure{}, err
		}
	}
	before, err := cpuOf(s.pids)
	if err != nil {
		return measure{}, err
	}
	objs := objects()
	m, err := s.run(ctx)
	if err != nil {
		return measure{}, err
	}
	m.objs = objects() - objs
	after, err := cpuOf(s.pids)
	if err != nil {
		return measure{}, err
	}
	if m.work <= 0 || m.took <= 0 {
		return measure{}, errors.New("did nothing")
	}
	m.cpu += after - before // beside that of processes which ended in the pass
	return m, nil
}

// objects returns how many heap objects this process has made.
func objects() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func cpuOf(pids []int) (time.Duration, error) {
	total, err := facts.CPUTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		t, err := facts.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// fill makes the row of the samples: the strongest baseline counts.
func fill(row *report.Row, c Case, t *trial, system []measure, rivals [][]measure) {
	values := make([][]float64, len(rivals))
	for b := range rivals {
		for _, m := range rivals[b] {
			values[b] = append(values[b], m.value())
		}
	}
	best := ratio.Best(values)
	if c.Least {
		best = ratio.Least(values)
	}
	row.BaselineName = t.baselines[best].name
	samples := make([]report.Sample, len(system))
	for i, m := range system {
		b := rivals[best][i]
		samples[i] = report.Sample{
			Value: m.value(), Baseline: b.value(),
			CPU: cost(c.Unit, m), BaselineCPU: cost(c.Unit, b), CPUUnit: costUnit(c.Unit),
			Allocs: float64(m.objs) / m.work, BaselineAllocs: float64(b.objs) / b.work,
			Latency: m.lat.Summary(), BaselineLatency: b.lat.Summary(),
		}
		for other := range rivals {
			if other == best {
				continue
			}
			if samples[i].Rivals == nil {
				samples[i].Rivals = map[string]float64{}
			}
			samples[i].Rivals[t.baselines[other].name] = rivals[other][i].value()
		}
	}
	row.Fill(samples)
}

func costUnit(unit string) string {
	if unit == unitMBs {
		return "s/GB"
	}
	switch unit {
	case unitEntries:
		return "µs/entry"
	case unitBlocks:
		return "µs/block"
	}
	return "µs/op"
}

func cost(unit string, m measure) float64 {
	switch unit {
	case unitRate, unitTail:
		return 0 // of the same trace, or at the same rate, whatever it took
	case unitMBs:
		return m.cpu.Seconds() / (m.work / 1e3)
	}
	return float64(m.cpu.Nanoseconds()) / 1e3 / m.work
}
