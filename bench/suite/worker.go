// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/hist"
	"orca/bench/target"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/transport"
	"orca/engine/client"
)

// The worker suite drives the block service of one worker with many clients at
// once, without names: each client has connections of its own (blockclient, as
// shipped, over TCP) and knows the block and the grant from before. The
// baseline is a raw server of a file on the same kind of file system, with as
// many connections from this process.

const rawCrowdName = "raw sendfile, as many connections"

// shape is how the clients of a case read.
type shape struct {
	seq  bool
	size int
	own  bool // each its own block
}

func (sh shape) name() string {
	order, whose := "random", "same"
	if sh.seq {
		order = "seq"
	}
	if sh.own {
		whose = "own"
	}
	size := fmt.Sprintf("%dk", sh.size>>10)
	if sh.size >= 1<<20 {
		size = fmt.Sprintf("%dm", sh.size>>20)
	}
	return "read-" + order + "-" + size + "-" + whose
}

func shapes() []shape {
	return []shape{
		{true, 1 << 20, false}, {true, 1 << 20, true}, {true, 64 << 10, true},
		{false, 1 << 20, false}, {false, 64 << 10, false}, {false, 64 << 10, true},
		{false, 4 << 10, false}, {false, 4 << 10, true},
	}
}

func workerCases() []Case {
	var out []Case
	for _, sh := range shapes() {
		c := Case{Suite: "worker", Name: sh.name(), Metric: "read rate", Unit: unitMBs, Baseline: rawCrowdName, open: openWorkerRead(sh)}
		if sh.size < 64<<10 {
			c.Metric, c.Unit = "reads", unitOps
		}
		order, whose := "at random places", "of one block"
		if sh.seq {
			order = "in order"
		}
		if sh.own {
			whose = "each of its own block"
		}
		c.About = fmt.Sprintf("as many clients as --clients read %d KiB at a time %s, %s, from one worker, verified", sh.size>>10, order, whose)
		out = append(out, c)
	}
	return append(out,
		Case{Suite: "worker", Name: "write-1m-own", Metric: "write rate", Unit: unitMBs, Baseline: rawSinkName,
			About: "as many clients as --clients write 1 MiB at a time, each to a private file of its own on one worker, which is dropped", open: openWorkerWrite},
		Case{Suite: "worker", Name: "tail-4k", Metric: "p50 of p99", Unit: unitTail, Baseline: rawCrowdName,
			About: "4 KiB at random places of one block at 70 % of the peak rate, open loop; the bar is 0.2", open: openWorkerTail})
}

// eachFile is the length of the block of one client.
func (s *stage) eachFile() int64 {
	return max(s.opt.size(defaultBulk)/int64(s.opt.Clients)>>20, 1) << 20
}

func (s *stage) workerOrca() (*target.Orca, error) {
	mem := 3*s.opt.size(defaultBulk) + 2*s.eachFile()*int64(s.opt.Clients) + 256<<20
	return s.up("worker", "--mem", fmt.Sprint(mem))
}

// crowdMember is one client of a worker.
type crowdMember struct {
	c    *blockclient.Client
	req  dataplane.ReadRequest // block and grant
	size int64                 // of the block
}

// tap remembers the requests that passed to a worker, and where that is.
type tap struct {
	dataplane.Access
	addr   string
	read   dataplane.ReadRequest
	target dataplane.WriteTarget
}

func (t *tap) ReadAt(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	t.read = req
	return t.Access.ReadAt(ctx, req, p)
}

func (t *tap) CreateWrite(ctx context.Context, w dataplane.WriteTarget) (uint64, error) {
	t.target = w
	return t.Access.CreateWrite(ctx, w)
}

// tapped opens a client of another node whose requests are seen.
func (s *stage) tapped(ctx context.Context, o *target.Orca) (*client.FS, *tap, error) {
	t := &tap{}
	fs, err := s.connect(ctx, o, client.Config{Node: remoteNode, Dial: func(_ context.Context, w *client.Worker) (dataplane.Access, error) {
		c, err := s.member(w.Addr)
		if err != nil {
			return nil, err
		}
		t.Access, t.addr = c, w.Addr
		return t, nil
	}})
	return fs, t, err
}

// member opens the connections of one client.
func (s *stage) member(addr string) (*blockclient.Client, error) {
	c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr}}, slog.New(slog.DiscardHandler))
	if err == nil {
		s.atEnd(c.Close)
	}
	return c, err
}

// members opens the clients, of one block or each of its own.
func (s *stage) members(ctx context.Context, o *target.Orca, own bool) ([]crowdMember, error) {
	fs, t, err := s.tapped(ctx, o)
	if err != nil {
		return nil, err
	}
	near, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node})
	if err != nil {
		return nil, err
	}
	var out []crowdMember
	for i := range s.opt.Clients {
		path, seed, size := bulkPath, uint64(bulkSeed), s.opt.size(defaultBulk)
		if own {
			path, seed, size = fmt.Sprintf("/bench/own-%d", i), 1000+uint64(i), s.eachFile()
		}
		if i == 0 || own {
			if _, err := near.Stat(ctx, client.Path(path), client.Sync{}); errors.Is(err, orca.NotFound) {
				err = put(ctx, near, path, seed, size)
				if err != nil {
					return nil, err
				}
			} else if err != nil {
				return nil, err
			}
			f, err := openFile(ctx, fs, path, seed, size)
			if err != nil {
				return nil, err
			}
			if err := f.Close(); err != nil {
				return nil, err
			}
		}
		m := crowdMember{req: t.read, size: size}
		m.req.Off, m.req.Patience, m.req.Ahead, m.req.Until, m.req.Sequential = 0, 0, 0, 0, false
		if m.c, err = s.member(t.addr); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if len(out[0].req.Grant.Token) == 0 {
		return nil, errors.New("no request with a grant was seen")
	}
	return out, nil
}

// places yields the offsets that one client reads at, of size bytes from base.
type places struct {
	seq        bool
	base, size int64
	n, next    int64
	r          *rand.Rand
}

func newPlaces(sh shape, base, size int64, client int) *places {
	return &places{seq: sh.seq, base: base, size: size, n: int64(sh.size), r: rand.New(rand.NewPCG(uint64(client), 7))}
}

func (p *places) take() int64 {
	at := p.next
	if p.seq {
		if p.next += p.n; p.next+p.n > p.size {
			p.next = 0
		}
	} else {
		at = p.r.Int64N(p.size/p.n) * p.n
	}
	return p.base + at
}

// crowdOp makes the nth client's operation.
type crowdOp func(ctx context.Context, client int) func() error

// reading is how a member reads.
func reading(ms []crowdMember, sh shape) crowdOp {
	return func(ctx context.Context, i int) func() error {
		m, at, p := &ms[i], newPlaces(sh, 0, ms[i].size, i), make([]byte, sh.size)
		if !sh.own && sh.seq { // spread over the block
			at.next = m.size / int64(len(ms)) * int64(i) / at.n * at.n
		}
		return func() error {
			req := m.req
			req.Off = at.take()
			if sh.seq {
				req.Sequential, req.Ahead, req.Until = true, 4<<20, m.size
			}
			_, err := m.c.ReadAt(ctx, req, p)
			return err
		}
	}
}

// rawReading is how a raw connection reads a file of so many bytes.
func rawReading(c *baseline.Crowd, sh shape, size int64, clients int) crowdOp {
	return func(_ context.Context, i int) func() error {
		base, part := int64(0), size
		if sh.own {
			part = max(size/int64(clients)/int64(sh.size), 1) * int64(sh.size)
			base = min(part*int64(i), size-part)
		}
		at, p := newPlaces(sh, base, part, i), make([]byte, sh.size)
		if !sh.own && sh.seq {
			at.next = part / int64(clients) * int64(i) / at.n * at.n
		}
		return func() error { return c.Read(i, p, at.take()) }
	}
}

// crowdPass runs each operations of every client, all at once.
func crowdPass(ctx context.Context, clients, each int, op crowdOp) (measure, error) {
	errs, lats := make([]error, clients), make([]*hist.Hist, clients)
	ops := make([]func() error, clients)
	for i := range clients {
		ops[i], lats[i] = op(ctx, i), hist.New()
	}
	var wg sync.WaitGroup
	start := time.Now()
	for i := range clients {
		wg.Go(func() {
			for range each {
				begin := time.Now()
				if errs[i] = ops[i](); errs[i] != nil {
					return
				}
				lats[i].Record(time.Since(begin))
			}
		})
	}
	wg.Wait()
	m := measure{work: float64(clients * each), took: time.Since(start), lat: lats[0]}
	for _, l := range lats[1:] {
		m.lat.Merge(l)
	}
	return m, errors.Join(errs...)
}

// crowdSide runs passes of a crowd; bytes of each operation, for MB/s (0:
// operations are counted).
func crowdSide(name string, pid, clients, each, bytes int, op crowdOp) side {
	return side{name: name, pids: []int{pid}, run: func(ctx context.Context) (measure, error) {
		m, err := crowdPass(ctx, clients, each, op)
		if bytes > 0 {
			m.work *= float64(bytes) / 1e6
		}
		return m, err
	}}
}

// rawCrowd serves a copy of the bulk file to as many connections.
func (s *stage) rawCrowd(ctx context.Context) (*baseline.Crowd, error) {
	dir, err := s.native()
	if err != nil {
		return nil, err
	}
	p := dir + "/crowd"
	if err := baseline.WriteFile(p, bulkSeed, s.opt.size(defaultBulk)); err != nil {
		return nil, err
	}
	return baseline.StartCrowd(ctx, s.opt.Self, p, "", s.opt.Clients)
}

func openWorkerRead(sh shape) func(ctx context.Context, s *stage) (*trial, error) {
	return func(ctx context.Context, s *stage) (*trial, error) {
		o, ms, raw, err := s.workerSides(ctx, sh.own)
		if err != nil {
			return nil, err
		}
		each, bytes := 16<<20/sh.size, sh.size
		if sh.size < 64<<10 {
			each, bytes = 250, 0
		}
		n := s.opt.Clients
		return &trial{
			system:    crowdSide("reads of one worker", o.PID(), n, each, bytes, reading(ms, sh)),
			baselines: []side{crowdSide(rawCrowdName, raw.PID(), n, each, bytes, rawReading(raw, sh, s.opt.size(defaultBulk), n))},
			close:     raw.Close,
		}, nil
	}
}

func (s *stage) workerSides(ctx context.Context, own bool) (*target.Orca, []crowdMember, *baseline.Crowd, error) {
	o, err := s.workerOrca()
	if err != nil {
		return nil, nil, nil, err
	}
	near, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node})
	if err != nil {
		return nil, nil, nil, err
	}
	// Also tells where the tier is: the raw file is to be on the like of it.
	f, err := s.cached(ctx, near, s.opt.size(defaultBulk))
	if err != nil {
		return nil, nil, nil, err
	}
	if err := f.Close(); err != nil {
		return nil, nil, nil, err
	}
	ms, err := s.members(ctx, o, own)
	if err != nil {
		return nil, nil, nil, err
	}
	raw, err := s.rawCrowd(ctx)
	return o, ms, raw, err
}
