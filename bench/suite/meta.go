// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"orca"
	"orca/bench/facts"
	"orca/bench/hist"
	"orca/bench/target"
	"orca/bench/workload"
	"orca/engine/client"
)

// The meta suite drives the namespace of a server in another process through
// the Go API: Options.Clients clients with a connection each, every one with
// Options.Pipeline requests outstanding, all starting and stopping together.
// Files are MUST_CACHE and empty, so that no store below is involved; creates
// are durable (fsync on) as always.
func metaCases() []Case {
	return []Case{
		{Suite: "meta", Name: "create", Metric: "creates", Unit: unitOps, Baseline: proposeName,
			About: "create and complete an empty file in one RPC, against raw un-merged propose of the same payload", open: openCreate},
		{Suite: "meta", Name: "create-3r", Metric: "creates", Unit: unitOps, Baseline: propose3Name,
			About: "create on a metaplane of three processes, against raw un-merged propose of the same payload to three replicas", open: openCreate3r},
		{Suite: "meta", Name: "create-128", Metric: "creates", Unit: unitOps, Baseline: proposeName, Least: true,
			About: "create by 128 clients, against the smaller of raw propose by 128 proposers and an echo of the same sizes to 128 clients", open: openCreate128},
		{Suite: "meta", Name: "create-shared", Metric: "creates", Unit: unitOps, Baseline: createName,
			About: "create in one directory that all clients work in, against create of the same run", open: openCreateShared},
		{Suite: "meta", Name: "create-hard", Metric: "files", Unit: unitOps, Baseline: createName,
			About: "write files of 3,901 bytes into a directory that all clients work in, against empty files in it", open: openCreateHard},
		{Suite: "meta", Name: "stat", Metric: "stats", Unit: unitOps, Baseline: echoName,
			About: "stat by path, against an echo of the same sizes on the same transport", open: openStat},
		{Suite: "meta", Name: "stat-depth8", Metric: "stats", Unit: unitOps, Baseline: echoName,
			About: "stat by a path of eight names, against an echo of the same sizes on the same transport", open: openStatDeep},
		{Suite: "meta", Name: "stat-stride", Metric: "stats", Unit: unitOps, Baseline: echoName,
			About: "stat of files that another client has made, against an echo of the same sizes", open: openStatStride},
		{Suite: "meta", Name: "stat-shared", Metric: "stats", Unit: unitOps, Baseline: echoName,
			About: "stat-stride in one directory that all clients work in, against an echo of the same sizes", open: openStatShared},
		{Suite: "meta", Name: "mixed", Metric: "operations", Unit: unitOps, Baseline: createName,
			About: "of a hundred: 60 stats, 10 listings of up to 100 entries, 10 creates, 10 deletes, 5 renames, 5 changes of mode; against create of the same run", open: openMixed},
		{Suite: "meta", Name: "stat-any-3r", Metric: "stats", Unit: unitOps, Baseline: leaderName,
			About: "stat by clients that read from any member of a metaplane of three processes, against the same from its leader", open: openStat3r},
		{Suite: "meta", Name: "list", Metric: "entries listed", Unit: unitEntries, Baseline: scanName,
			About: "list a directory with attributes in pages, against a bare scan of as many records in the store", open: openList},
		{Suite: "meta", Name: "list-1k", Metric: "entries listed", Unit: unitEntries, Baseline: scanName,
			About: "list 1,000 entries with attributes in one request, against a bare scan of as many records in the store", open: openList1k},
		{Suite: "meta", Name: "list-100k", Metric: "entries listed", Unit: unitEntries, Baseline: scanName, Named: true,
			About: "list a directory of 100,000 entries with attributes in pages, against a bare scan of as many records in the store", open: openList100k},
		{Suite: "meta", Name: "register-100k", Metric: "files reported", Unit: unitEntries, Baseline: echoName,
			About: "full report of a worker of 100,000 files, against an echo of as many frames of the same sizes", open: openRegister},
		{Suite: "meta", Name: "heartbeat", Metric: "heartbeats", Unit: unitOps, Baseline: echoName,
			About: "heartbeat of a worker with ten changed files, against an echo of the same sizes", open: openHeartbeat},
		{Suite: "meta", Name: "rename", Metric: "renames", Unit: unitOps, Baseline: createName,
			About: "rename a file within its directory, against create of the same run", open: openRename},
		{Suite: "meta", Name: "rename-samedir", Metric: "renames", Unit: unitOps, Baseline: createName,
			About: "rename files of one directory that all clients work in, against create of the same run", open: openRenameSame},
		{Suite: "meta", Name: "rename-crossgroup", Metric: "renames", Unit: unitOps, Baseline: createName,
			About: "rename files of a store between directories that live in two groups, against create of the same run", open: openRenameCross},
		{Suite: "meta", Name: "delete", Metric: "deletes", Unit: unitOps, Baseline: createName,
			About: "delete a file, against create of the same run", open: openDelete},
	}
}

const (
	proposeName = "raw propose"
	echoName    = "echo of the same sizes"
	scanName    = "bare store scan"
	createName  = "create of the same run"
)

// crowd is the clients of the meta suite.
type crowd struct {
	s     *stage
	orca  *target.Orca
	fs    []*client.FS // one per client
	lanes int          // clients times pipeline: one request outstanding each
}

// meta returns the clients, connected, with a directory per lane.
func (s *stage) meta(ctx context.Context) (*crowd, error) {
	c, err := s.metaOf(ctx, s.opt.Clients)
	if err == nil {
		s.facts.Config["clients"] = fmt.Sprint(s.opt.Clients)
	}
	return c, err
}

// metaOf is meta with so many clients.
func (s *stage) metaOf(ctx context.Context, clients int) (*crowd, error) {
	if c := s.crowds[clients]; c != nil {
		return c, c.orca.Alive()
	}
	o, err := s.up("meta")
	if err != nil {
		return nil, err
	}
	c, err := s.crowdOf(ctx, o, clients)
	if err == nil {
		s.crowds[clients] = c
	}
	return c, err
}

// crowdOf is metaOf at a server.
func (s *stage) crowdOf(ctx context.Context, o *target.Orca, clients int) (*crowd, error) {
	c := &crowd{s: s, orca: o, lanes: clients * s.opt.Pipeline}
	addr := o.Endpoints.Meta
	if s.opt.Network == "unix" {
		addr = o.Endpoints.MetaSocket
	}
	for range clients {
		fs, err := client.Open(ctx, client.Config{Addresses: []string{addr}, WriteType: orca.MustCache})
		if err != nil {
			return nil, err
		}
		s.atEnd(fs.Close)
		c.fs = append(c.fs, fs)
	}
	for lane := range c.lanes {
		if _, err := c.of(lane).MkdirAll(ctx, client.Path(laneDir(lane)), 0o755); err != nil {
			return nil, err
		}
	}
	s.facts.Config["pipeline"] = fmt.Sprint(s.opt.Pipeline)
	s.facts.Config["network"] = s.opt.Network
	s.facts.Config["sample"] = s.opt.Sample.String()
	return c, nil
}

// lanes is how many requests are outstanding: clients times pipeline.
func (s *stage) lanes() int { return s.opt.Clients * s.opt.Pipeline }

// of returns the client of a lane.
func (c *crowd) of(lane int) *client.FS { return c.fs[lane%len(c.fs)] }

const laneRoot = "/bench/meta/"

func laneDir(lane int) string { return fmt.Sprintf("%s%03d", laneRoot, lane) }

// timed runs op in every lane until the sample time is over; i counts the
// calls of a lane. All lanes start together.
func timed(ctx context.Context, lanes int, d time.Duration, op func(ctx context.Context, lane, i int) error) (measure, error) {
	return race(ctx, lanes, d, op, func(int) bool { return true })
}

// counted runs op n times in every lane.
func counted(ctx context.Context, lanes, n int, op func(ctx context.Context, lane, i int) error) (measure, error) {
	return race(ctx, lanes, time.Hour, op, func(i int) bool { return i < n })
}

// race starts the lanes at once and merges what they did.
func race(ctx context.Context, lanes int, d time.Duration, op func(ctx context.Context, lane, i int) error, more func(i int) bool) (measure, error) {
	hists, errs := make([]*hist.Hist, lanes), make([]error, lanes)
	gate := make(chan struct{})
	var start, end time.Time
	var wg sync.WaitGroup
	for lane := range lanes {
		hists[lane] = hist.New()
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-gate
			for i, last := 0, start; more(i) && last.Before(end); i++ {
				if errs[lane] = op(ctx, lane, i); errs[lane] != nil {
					return
				}
				now := time.Now()
				hists[lane].Record(now.Sub(last))
				last = now
			}
		}()
	}
	start = time.Now()
	end = start.Add(d)
	close(gate)
	wg.Wait()
	m := measure{took: time.Since(start), lat: hists[0]}
	for _, h := range hists[1:] {
		m.lat.Merge(h)
	}
	m.work = float64(m.lat.Count())
	return m, errors.Join(errs...)
}

// createSide creates files with new names, each lane in its own directory.
func (c *crowd) createSide(name string) side {
	return side{name: name, pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		run := c.s.serial.Add(1)
		return timed(ctx, c.lanes, c.s.opt.Sample, func(ctx context.Context, lane, i int) error {
			_, err := c.of(lane).CreateEmpty(ctx, client.Path(createPath(lane, run, i)), client.CreateOptions{})
			return err
		})
	}}
}

// createPath is one allocation, for the objects of a create are counted.
func createPath(lane int, run int64, i int) string {
	b := append(make([]byte, 0, 64), laneRoot...)
	b = appendPadded(b, int64(lane), 3)
	b = appendPadded(append(b, "/f-"...), run, 4)
	b = appendPadded(append(b, '-'), int64(i), 8)
	return string(b)
}

// appendPadded appends n, which is not negative, with width digits at least.
func appendPadded(b []byte, n int64, width int) []byte {
	for limit := int64(10); width > 1; width, limit = width-1, limit*10 {
		if n < limit {
			b = append(b, "0000000000"[:width-1]...)
			break
		}
	}
	return strconv.AppendInt(b, n, 10)
}

// deepDir is below laneDir, so that a file in it has a path of eight names.
const deepDir = "/d4/d5/d6/d7"

// sharedDir is a directory that all lanes work in.
const sharedDir = "/bench/meta/shared"

func openCreate(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := createPayload()
	if err != nil {
		return nil, err
	}
	s.facts.Config["propose"] = fmt.Sprintf("payload %d bytes, %d proposers", len(payload), c.lanes)
	base, closeBase, err := s.proposeSide(c.lanes, payload)
	if err != nil {
		return nil, err
	}
	return &trial{system: c.createSide("create"), baselines: []side{base}, close: closeBase}, nil
}

// files makes n files in every lane and returns their paths by lane.
func (c *crowd) files(ctx context.Context, n int) ([][]string, error) {
	return c.filesIn(ctx, n, laneDir)
}

// filesIn is files in the directories that dir says for a lane, which it makes.
func (c *crowd) filesIn(ctx context.Context, n int, dir func(lane int) string) ([][]string, error) {
	run := c.s.serial.Add(1)
	paths := make([][]string, c.lanes)
	for lane := range paths {
		if _, err := c.of(lane).MkdirAll(ctx, client.Path(dir(lane)), 0o755); err != nil {
			return nil, err
		}
		for i := range n {
			paths[lane] = append(paths[lane], fmt.Sprintf("%s/f-%04d-%03d-%08d", dir(lane), run, lane, i))
		}
	}
	_, err := counted(ctx, c.lanes, n, func(ctx context.Context, lane, i int) error {
		_, err := c.of(lane).CreateEmpty(ctx, client.Path(paths[lane][i]), client.CreateOptions{})
		return err
	})
	return paths, err
}

// perLane is how many files each lane works on: Options.Files in all, but a
// few in each.
func (c *crowd) perLane() int { return max(8, c.s.opt.Files/c.lanes) }

func openStat(ctx context.Context, s *stage) (*trial, error) {
	return openStatIn(ctx, s, laneDir)
}

func openStatDeep(ctx context.Context, s *stage) (*trial, error) {
	return openStatIn(ctx, s, func(lane int) string { return laneDir(lane) + deepDir })
}

// openStatIn is stat of files in the directories that dir says for a lane.
func openStatIn(ctx context.Context, s *stage, dir func(lane int) string) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	paths, err := c.filesIn(ctx, c.perLane(), dir)
	if err != nil {
		return nil, err
	}
	request, reply, err := c.statSizes(ctx, paths[0][0])
	if err != nil {
		return nil, err
	}
	base, closeBase, err := s.echoSide(ctx, request, reply)
	if err != nil {
		return nil, err
	}
	return &trial{system: c.statSide("stat", paths, []int{c.orca.PID()}), baselines: []side{base}, close: closeBase}, nil
}

// statSide stats the files of each lane in an order of its own.
func (c *crowd) statSide(name string, paths [][]string, pids []int) side {
	order := workload.Order(1, len(paths[0]))
	return side{name: name, pids: pids, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, c.lanes, c.s.opt.Sample, func(ctx context.Context, lane, i int) error {
			p := paths[lane][order[i%len(order)]]
			info, err := c.of(lane).Stat(ctx, client.Path(p), client.Sync{})
			if err == nil && (info.Ino == 0 || info.Type != orca.TypeFile) {
				err = fmt.Errorf("stat %s: not what was created: %+v", p, info)
			}
			return err
		})
	}}
}

// listEntries is the size of the listed directory, in Options.Files.
const listEntries = 10

func openList(ctx context.Context, s *stage) (*trial, error) {
	return openListOf(ctx, s, "/bench/list", listEntries*s.opt.Files, 0)
}

func openList100k(ctx context.Context, s *stage) (*trial, error) {
	return openListOf(ctx, s, "/bench/list-100k", 100*s.opt.Files, 0)
}

// openList1k is one request per pass: as many entries as the server's default
// page has.
func openList1k(ctx context.Context, s *stage) (*trial, error) {
	const entries = 1000
	return openListOf(ctx, s, "/bench/list-1k", entries, entries)
}

// openListOf lists a directory of n entries; with limit in one request of so
// many entries.
func openListOf(ctx context.Context, s *stage, path string, n, limit int) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	dir := client.Path(path)
	if _, err := c.fs[0].MkdirAll(ctx, dir, 0o755); err != nil {
		return nil, err
	}
	names := workload.Names("entry", n)
	share := (n + c.lanes - 1) / c.lanes
	if _, err := counted(ctx, c.lanes, share, func(ctx context.Context, lane, i int) error {
		at := lane*share + i
		if at >= n {
			return nil
		}
		_, err := c.of(lane).CreateEmpty(ctx, client.Path(dir.Path+"/"+names[at]), client.CreateOptions{Overwrite: true})
		return err
	}); err != nil {
		return nil, err
	}
	base, closeBase, err := s.scanSide(names)
	if err != nil {
		return nil, err
	}
	var served time.Duration // CPU time of the server
	entries := 0
	sys := side{name: "list", pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		before, err := facts.CPUTime(c.orca.PID())
		if err != nil {
			return measure{}, err
		}
		m, err := perEntry(n, func() (int, error) { return c.listed(ctx, dir, limit) })
		after, cerr := facts.CPUTime(c.orca.PID())
		served, entries = served+after-before, entries+int(m.work)
		return m, errors.Join(err, cerr)
	}}
	return &trial{system: sys, baselines: []side{base}, close: func() error {
		if served > 0 {
			s.facts.Config["server"+path] = fmt.Sprintf("%.0f entries per CPU-second of the server", float64(entries)/served.Seconds())
		}
		return closeBase()
	}}, nil
}

// listed counts the entries of a directory: with limit those of one request,
// which must bring them all.
func (c *crowd) listed(ctx context.Context, dir client.Target, limit int) (seen int, err error) {
	if limit > 0 {
		p, err := c.fs[0].List(ctx, dir, client.ListOptions{Limit: limit})
		if err == nil && p.More {
			err = errors.New("one request did not bring all entries")
		}
		return len(p.Entries), err
	}
	for e, err := range c.fs[0].Entries(ctx, dir, client.ListOptions{}) {
		if err != nil {
			return 0, err
		}
		if e.Ino == 0 {
			return 0, fmt.Errorf("entry %s has no inode", e.Name)
		}
		seen++
	}
	return seen, nil
}

// perEntry times one pass over a directory of n entries by one client.
func perEntry(n int, pass func() (int, error)) (measure, error) {
	start := time.Now()
	seen, err := pass()
	took := time.Since(start)
	if err == nil && seen != n {
		err = fmt.Errorf("%d entries, want %d", seen, n)
	}
	return measure{work: float64(seen), took: took}, err
}

func openRename(ctx context.Context, s *stage) (*trial, error) {
	return openRenameIn(ctx, s, laneDir)
}

func openRenameSame(ctx context.Context, s *stage) (*trial, error) {
	return openRenameIn(ctx, s, func(int) string { return sharedDir })
}

// openRenameIn renames files within the directories that dir says for a lane.
func openRenameIn(ctx context.Context, s *stage, dir func(lane int) string) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	paths, err := c.filesIn(ctx, c.perLane(), dir)
	if err != nil {
		return nil, err
	}
	other := make([][]string, c.lanes) // the name that a file has not got now
	for lane := range other {
		for _, p := range paths[lane] {
			other[lane] = append(other[lane], p+"-renamed")
		}
	}
	sys := side{name: "rename", pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, c.lanes, s.opt.Sample, func(ctx context.Context, lane, i int) error {
			at := i % len(paths[lane])
			err := c.of(lane).Rename(ctx, client.Path(paths[lane][at]), client.Path(other[lane][at]), true)
			paths[lane][at], other[lane][at] = other[lane][at], paths[lane][at]
			return err
		})
	}}
	return &trial{system: sys, baselines: []side{c.createSide(createName)}}, nil
}

func openDelete(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	creates := c.createSide(createName)
	m, err := creates.run(ctx)
	if err != nil {
		return nil, err
	}
	// As many as are created in one sample, so that both last about as long.
	n := max(1, int(m.work)/c.lanes)
	var paths [][]string
	sys := side{name: "delete", pids: []int{c.orca.PID()},
		before: func(ctx context.Context) (err error) {
			paths, err = c.files(ctx, n)
			return err
		},
		run: func(ctx context.Context) (measure, error) {
			return counted(ctx, c.lanes, n, func(ctx context.Context, lane, i int) error {
				return c.of(lane).Unlink(ctx, client.Path(paths[lane][i]))
			})
		}}
	return &trial{system: sys, baselines: []side{creates}}, nil
}
