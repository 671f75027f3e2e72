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
	"orca/engine/client"
	"orca/metaplane/raftgroup"
)

const propose3Name = "raw propose, 3 replicas"

// openCreate3r is create on a metaplane of three processes on this machine.
func openCreate3r(ctx context.Context, s *stage) (*trial, error) {
	t := &trial{}
	var ends []func() error
	t.close = func() error {
		var errs []error
		for i := len(ends) - 1; i >= 0; i-- {
			errs = append(errs, ends[i]())
		}
		return errors.Join(errs...)
	}
	if err := s.openCreate3r(ctx, t, &ends); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (s *stage) openCreate3r(ctx context.Context, t *trial, ends *[]func() error) error {
	bin, err := s.binary()
	if err != nil {
		return err
	}
	root, err := s.dir("meta3r", "root")
	if err != nil {
		return err
	}
	dir, err := s.dir("meta3r", "data")
	if err != nil {
		return err
	}
	s.progress("starting a metaplane of three")
	members, err := target.Three(ctx, bin, dir, root)
	for _, o := range members {
		*ends = append(*ends, o.Stop)
	}
	if err != nil {
		return err
	}
	c := &crowd{s: s, orca: members[0], lanes: s.lanes()}
	var addrs []string
	var pids []int
	for _, o := range members {
		addrs, pids = append(addrs, o.Endpoints.Meta), append(pids, o.PID())
	}
	for range s.opt.Clients {
		fs, err := client.Open(ctx, client.Config{Addresses: addrs, WriteType: orca.MustCache})
		if err != nil {
			return err
		}
		*ends = append(*ends, fs.Close)
		c.fs = append(c.fs, fs)
	}
	for lane := range c.lanes {
		if _, err := c.of(lane).MkdirAll(ctx, client.Path(laneDir(lane)), 0o755); err != nil {
			return err
		}
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
	t.system.pids = pids
	t.baselines = []side{base}
	return nil
}

// propose3Side is proposeSide on three hosts that speak over the wire that
// Orca's members use. They are in this process, so that the baseline pays for
// no switches between processes.
func (s *stage) propose3Side(proposers int, payload []byte) (side, func() error, error) {
	addrs, err := target.FreeAddrs(3)
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
