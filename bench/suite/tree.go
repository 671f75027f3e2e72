// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"fmt"
	"time"

	"orca/bench/facts"
	"orca/engine/client"
)

// The cases about whole trees hold one call on a directory with a million files
// below it against the same call on an empty one: what the caller pays must not
// grow with the tree. They make millions of files first, so they run only when
// they are asked for by name.

// perTree is how many files a tree has, in Options.Files, and perBranch how many
// each of its directories.
const (
	perTree     = 1000
	perTreeTiny = 10
	perBranch   = 1000
)

const (
	emptyRename = "rename of an empty directory"
	emptyRemove = "removal of an empty directory"
)

func treeCases() []Case {
	return []Case{
		{Suite: "meta", Name: "rename-dir-1m", Metric: "renames", Unit: unitOps, Baseline: emptyRename, Named: true,
			About: "rename a directory with 1,000,000 files below it, against an empty one (only when named)", open: openRenameDir},
		{Suite: "meta", Name: "rm-r-1m", Metric: "removals", Unit: unitOps, Baseline: emptyRemove, Named: true,
			About: "remove a directory with 1,000,000 files below it, against an empty one (only when named)", open: openRemoveTree},
	}
}

// treeRoot is where the trees are.
const treeRoot = "/bench/tree"

// treeFiles is how many files a tree has.
func (s *stage) treeFiles() int {
	if s.opt.Tiny {
		return perTreeTiny * s.opt.Files
	}
	return perTree * s.opt.Files
}

// grow makes a directory with n files below it.
func (c *crowd) grow(ctx context.Context, path string, n int) error {
	branches := (n + perBranch - 1) / perBranch
	branch := func(i int) string { return fmt.Sprintf("%s/d-%06d", path, i) }
	if err := c.mkdir(ctx, path); err != nil {
		return err
	}
	share := (branches + c.lanes - 1) / c.lanes
	if _, err := counted(ctx, c.lanes, share, func(ctx context.Context, lane, i int) error {
		if at := lane*share + i; at < branches {
			_, err := c.of(lane).MkdirAll(ctx, client.Path(branch(at)), 0o755)
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	share = (n + c.lanes - 1) / c.lanes
	_, err := counted(ctx, c.lanes, share, func(ctx context.Context, lane, i int) error {
		at := lane*share + i
		if at >= n {
			return nil
		}
		p := fmt.Sprintf("%s/f-%08d", branch(at/perBranch), at)
		_, err := c.of(lane).CreateEmpty(ctx, client.Path(p), client.CreateOptions{})
		return err
	})
	return err
}

func (c *crowd) mkdir(ctx context.Context, path string) error {
	_, err := c.fs[0].MkdirAll(ctx, client.Path(path), 0o755)
	return err
}

// openRenameDir has one client rename a directory to and fro.
func openRenameDir(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	n := s.treeFiles()
	s.facts.Config["rename-dir-1m"] = fmt.Sprintf("%d files below the directory", n)
	run := c.s.serial.Add(1)
	big, empty := fmt.Sprintf("%s/big-%d", treeRoot, run), fmt.Sprintf("%s/empty-%d", treeRoot, run)
	if err := c.mkdir(ctx, empty); err != nil {
		return nil, err
	}
	if err := c.grow(ctx, big, n); err != nil {
		return nil, err
	}
	fro := func(name, path string) side {
		at, other := path, path+"-renamed"
		return side{name: name, pids: []int{c.orca.PID()}, run: func(ctx context.Context) (measure, error) {
			return timed(ctx, 1, s.opt.Sample, func(ctx context.Context, _, _ int) error {
				err := c.fs[0].Rename(ctx, client.Path(at), client.Path(other), true)
				at, other = other, at
				return err
			})
		}}
	}
	return &trial{system: fro("rename", big), baselines: []side{fro(emptyRename, empty)}}, nil
}

// openRemoveTree has one client remove a directory that was just made; one
// removal is a sample.
func openRemoveTree(ctx context.Context, s *stage) (*trial, error) {
	c, err := s.meta(ctx)
	if err != nil {
		return nil, err
	}
	n := s.treeFiles()
	s.facts.Config["rm-r-1m"] = fmt.Sprintf("%d files below the directory", n)
	removal := func(name string, files int) side {
		path := ""
		return side{name: name, pids: []int{c.orca.PID()}, once: true,
			before: func(ctx context.Context) error {
				path = fmt.Sprintf("%s/gone-%d", treeRoot, c.s.serial.Add(1))
				err := c.mkdir(ctx, path)
				if err == nil && files > 0 {
					err = c.grow(ctx, path, files)
				}
				if err != nil {
					return err
				}
				return c.rested(ctx)
			},
			run: func(ctx context.Context) (measure, error) {
				return counted(ctx, 1, 1, func(ctx context.Context, _, _ int) error {
					return c.fs[0].RemoveAll(ctx, client.Path(path), client.RemoveOptions{})
				})
			}}
	}
	return &trial{system: removal("remove", n), baselines: []side{removal(emptyRemove, 0)}}, nil
}

// rested waits until the server has swept what was removed before, in the store as
// well: until it is idle, or for restMax.
func (c *crowd) rested(ctx context.Context) error {
	const (
		window  = 200 * time.Millisecond
		idle    = window / 10
		restMax = 5 * time.Minute
	)
	if c.s.opt.Tiny {
		return nil
	}
	deadline := time.Now().Add(restMax)
	tick := time.NewTicker(window)
	defer tick.Stop()
	before, err := facts.CPUTime(c.orca.PID())
	for err == nil && time.Now().Before(deadline) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		var now time.Duration
		if now, err = facts.CPUTime(c.orca.PID()); now-before < idle {
			return err
		}
		before = now
	}
	return err
}
