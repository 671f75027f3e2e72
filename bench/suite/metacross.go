// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"fmt"

	"orca"
	"orca/engine/client"
)

// thereRoot is a directory that lives in the second group.
const thereRoot = "/bench/there"

// openRenameCross renames files between the directories of the lanes, which live
// in the first group, and directories of a second one. They have to be in the store
// below: each rename is one of its renames, too.
func openRenameCross(ctx context.Context, s *stage) (*trial, error) {
	o, err := s.up("groups")
	if err != nil {
		return nil, err
	}
	c, err := s.crowdOf(ctx, o, s.opt.Clients)
	if err != nil {
		return nil, err
	}
	if _, err := c.fs[0].AddGroup(ctx, 2); err != nil && orca.KindOf(err) != orca.Exists {
		return nil, err
	}
	if _, err := c.fs[0].MkdirIn(ctx, client.Path(thereRoot), 0o755, 2); err != nil && orca.KindOf(err) != orca.Exists {
		return nil, err
	}
	here, there, err := c.crossing(ctx)
	if err != nil {
		return nil, err
	}
	sys := side{name: "rename", pids: []int{o.PID()}, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, c.lanes, s.opt.Sample, func(ctx context.Context, lane, i int) error {
			at := i % len(here[lane])
			err := c.of(lane).Rename(ctx, client.Path(here[lane][at]), client.Path(there[lane][at]), true)
			here[lane][at], there[lane][at] = there[lane][at], here[lane][at]
			return err
		})
	}}
	return &trial{system: sys, baselines: []side{c.createSide(createName)}}, nil
}

// crossing makes the files of the lanes, and returns where they are and where they
// go.
func (c *crowd) crossing(ctx context.Context) (here, there [][]string, err error) {
	run := c.s.serial.Add(1)
	here, there = make([][]string, c.lanes), make([][]string, c.lanes)
	for lane := range here {
		to := fmt.Sprintf("%s/%04d-%03d", thereRoot, run, lane)
		if _, err := c.of(lane).MkdirAll(ctx, client.Path(to), 0o755); err != nil {
			return nil, nil, err
		}
		for i := range c.perLane() {
			name := fmt.Sprintf("/x-%04d-%08d", run, i)
			here[lane], there[lane] = append(here[lane], laneDir(lane)+name), append(there[lane], to+name)
		}
	}
	_, err = counted(ctx, c.lanes, c.perLane(), func(ctx context.Context, lane, i int) error {
		_, err := c.of(lane).CreateEmpty(ctx, client.Path(here[lane][i]), client.CreateOptions{WriteType: orca.CacheThrough})
		return err
	})
	return here, there, err
}
