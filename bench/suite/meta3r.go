// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"orca"
	"orca/bench/target"
	"orca/dataplane/freeport"
	"orca/engine/client"
	"orca/metaplane/metaclient"
	"orca/metaplane/raftgroup"
)

const propose3Name = "raw propose, 3 replicas"

// openCreate3r is create on a metaplane of three processes on this machine.
func openCreate3r(ctx context.Context, s *stage) (*trial, error) {
	return ending(func(t *trial, ends *[]func() error) error { return s.openCreate3r(ctx, t, ends) })
}

// ending makes a trial that at its end calls what open has appended to ends, the
// last first.
func ending(open func(t *trial, ends *[]func() error) error) (*trial, error) {
	t := &trial{}
	var ends []func() error
	t.close = func() error {
		var errs []error
		for i := len(ends) - 1; i >= 0; i-- {
			errs = append(errs, ends[i]())
		}
		return errors.Join(errs...)
	}
	if err := open(t, &ends); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (s *stage) openCreate3r(ctx context.Context, t *trial, ends *[]func() error) error {
	m, err := s.three(ctx, ends)
	if err != nil {
		return err
	}
	c, err := m.crowd(ctx, metaclient.Leader, ends)
	if err != nil {
		return err
	}
	payload, err := createPayload()
	if err != nil {
		return err
	}
	base, closeBase, err := s.propose3Side(c.lanes, payload)
	if err != nil {
		return err
	}
	*ends = append(*ends, closeBase)
	s.facts.Config["propose3"] = fmt.Sprintf("payload %d bytes, %d proposers, 3 hosts in one process over loopback", len(payload), c.lanes)
	t.system = c.createSide("create-3r")
	t.system.pids = m.pids
	t.baselines = []side{base}
	return nil
}

// trio is a metaplane of three processes on this machine.
type trio struct {
	s     *stage
	first *target.Orca
	addrs []string
	pids  []int
}

// three starts one.
func (s *stage) three(ctx context.Context, ends *[]func() error) (*trio, error) {
	bin, err := s.binary()
	if err != nil {
		return nil, err
	}
	root, err := s.dir("meta3r", "root")
	if err != nil {
		return nil, err
	}
	dir, err := s.dir("meta3r", "data")
	if err != nil {
		return nil, err
	}
	// Of another case it would know members that are gone.
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	s.progress("starting a metaplane of three")
	members, err := target.Three(ctx, bin, dir, root)
	for _, o := range members {
		*ends = append(*ends, o.Stop)
	}
	if err != nil {
		return nil, err
	}
	m := &trio{s: s, first: members[0]}
	for _, o := range members {
		m.addrs, m.pids = append(m.addrs, o.Endpoints.Meta), append(m.pids, o.PID())
	}
	return m, nil
}

// crowd returns clients of the three, with a directory per lane.
func (m *trio) crowd(ctx context.Context, from metaclient.ReadFrom, ends *[]func() error) (*crowd, error) {
	c := &crowd{s: m.s, orca: m.first, lanes: m.s.lanes()}
	for range m.s.opt.Clients {
		fs, err := client.Open(ctx, client.Config{Addresses: m.addrs, WriteType: orca.MustCache, ReadFrom: from})
		if err != nil {
			return nil, err
		}
		*ends = append(*ends, fs.Close)
		c.fs = append(c.fs, fs)
	}
	for lane := range c.lanes {
		if _, err := c.of(lane).MkdirAll(ctx, client.Path(laneDir(lane)), 0o755); err != nil {
			return nil, err
		}
	}
	return c, nil
}

const leaderName = "stat at the leader of the same three"

// openStat3r is stat by clients that read from any member of a metaplane of
// three processes, against the same by clients that read from the leader.
func openStat3r(ctx context.Context, s *stage) (*trial, error) {
	return ending(func(t *trial, ends *[]func() error) error {
		m, err := s.three(ctx, ends)
		if err != nil {
			return err
		}
		lead, err := m.crowd(ctx, metaclient.Leader, ends)
		if err != nil {
			return err
		}
		spread, err := m.crowd(ctx, metaclient.AnyMember, ends)
		if err != nil {
			return err
		}
		paths, err := lead.files(ctx, lead.perLane())
		if err != nil {
			return err
		}
		t.system, t.baselines = spread.statSide("stat-any-3r", paths, m.pids), []side{lead.statSide(leaderName, paths, m.pids)}
		return nil
	})
}

// propose3Side is proposeSide on three hosts that speak over the wire that
// Orca's members use. They are in this process, so that the baseline pays for
// no switches between processes.
func (s *stage) propose3Side(proposers int, payload []byte) (side, func() error, error) {
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return side{}, nil, err
	}
	members := map[uint64]string{}
	for i, a := range addrs {
		members[uint64(i+1)] = a
	}
	var cfgs []raftgroup.Config
	var dirs []string
	for i, a := range addrs {
		dir, err := s.dir(fmt.Sprintf("raw3-%d", i))
		if err != nil {
			return side{}, nil, err
		}
		if err := os.RemoveAll(dir); err != nil {
			return side{}, nil, err
		}
		dirs = append(dirs, dir)
		cfgs = append(cfgs, raftgroup.Config{Dir: dir, Address: a, Members: members})
	}
	raws, err := raftgroup.OpenRawCluster(cfgs, slog.New(slog.DiscardHandler))
	if err != nil {
		return side{}, nil, err
	}
	closeAll := func() error {
		var errs []error
		for _, r := range raws {
			errs = append(errs, r.Close())
		}
		for _, d := range dirs {
			errs = append(errs, os.RemoveAll(d))
		}
		return errors.Join(errs...)
	}
	return side{name: propose3Name, run: func(ctx context.Context) (measure, error) {
		ctx, cancel := context.WithTimeout(ctx, s.opt.Sample+time.Minute)
		defer cancel()
		leader := raws[0]
		for _, r := range raws {
			if r.Leads() {
				leader = r
			}
		}
		return timed(ctx, proposers, s.opt.Sample, func(ctx context.Context, _, _ int) error {
			return leader.Propose(ctx, payload)
		})
	}}, closeAll, nil
}
