// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/bench/hist"
	"orca/bench/workload"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
)

const (
	// restartReal is how many blocks of the index have a file; the others are
	// never looked at: nothing at start opens the file of a clean block.
	restartReal = 64
	restartSeed = 5000
	restartLen  = 4096

	decodeName  = "read and decode the index"
	restartRole = "restart"
	decodeRole  = "decode"
)

// The restart suite opens what a worker had before it ended. Each sample is a
// process of its own, so that its memory and its garbage are its own.
func restartCases() []Case {
	return []Case{{Suite: "restart", Name: "index-10m", Metric: "blocks opened", Unit: unitBlocks, Baseline: decodeName,
		About: "a worker's store opened over an index of 10 million blocks until it serves, against reading and decoding the index", open: openRestart}}
}

// restartResult is what one process says.
type restartResult struct {
	Open   time.Duration // until Open returned
	Served time.Duration // until restartReal blocks were read and compared
	RSS    int64         // bytes
	CPU    time.Duration
	Blocks int64
	Err    string
}

func openRestart(ctx context.Context, s *stage) (*trial, error) {
	root, err := s.dir("restart")
	if err != nil {
		return nil, err
	}
	s.progress("restart/index-10m: writing an index of %d blocks", s.opt.Blocks)
	start := time.Now()
	if err := writeIndex(ctx, root, s.opt.Blocks); err != nil {
		return nil, err
	}
	s.progress("restart/index-10m: written in %s", time.Since(start).Round(100*time.Millisecond))
	s.note("restart", root)
	blocks := int64(s.opt.Blocks)
	process := func(name, role string, then func(r restartResult)) side {
		return side{name: name, run: func(ctx context.Context) (measure, error) {
			r, err := s.restartProcess(ctx, role, root)
			if err != nil {
				return measure{}, err
			}
			if r.Blocks != blocks {
				return measure{}, fmt.Errorf("%d of %d blocks", r.Blocks, blocks)
			}
			h := hist.New()
			h.Record(r.Served)
			then(r)
			return measure{work: float64(blocks), took: r.Served, cpu: r.CPU, lat: h}, nil
		}}
	}
	sys := process("restart", restartRole, func(r restartResult) {
		s.facts.Config["restart.last"] = fmt.Sprintf("%d blocks opened in %.2f s, served after %.2f s, %d bytes of memory per block",
			r.Blocks, r.Open.Seconds(), r.Served.Seconds(), r.RSS/max(r.Blocks, 1))
	})
	return &trial{system: sys, baselines: []side{process(decodeName, decodeRole, func(restartResult) {})}}, nil
}

func (s *stage) restartProcess(ctx context.Context, role, root string) (restartResult, error) {
	var r restartResult
	p, err := baseline.Start(ctx, s.opt.Self, role, root)
	if err != nil {
		return r, err
	}
	line, err := p.Line()
	if err = errors.Join(err, p.Close()); err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return r, fmt.Errorf("process said %q: %w", line, err)
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// restartID names the nth block: files of one block, as most are, with numbers
// in the order in which files were made.
func restartID(n int) orca.BlockID { return orca.BlockID{File: orca.Ino(n + 1), Version: 1} }

// writeIndex makes the directory of a store with n blocks of one grain, of
// which restartReal, evenly spread, have a file.
func writeIndex(ctx context.Context, root string, n int) error {
	if err := os.Remove(filepath.Join(root, blockfile.IndexName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d, err := dir.Open(dir.Config{Path: root, Tier: orca.SSD, Capacity: 1 << 50}, blockfile.OS{}, slog.New(slog.DiscardHandler), func(*blockfile.Record) {})
	if err != nil {
		return err
	}
	sums, p := []uint32{1}, make([]byte, restartLen)
	for i := range n {
		id := restartID(i)
		sums[0] = 1
		if every := n / restartReal; i%every == 0 {
			workload.Fill(p, restartSeed+uint64(i), 0)
			f, err := d.Create(id, restartLen)
			if err != nil {
				return errors.Join(err, d.Close())
			}
			if err := errors.Join(d.Write(f, p, 0), f.Close()); err != nil {
				return errors.Join(err, d.Close())
			}
			sums = blockfile.AppendSums(sums[:0], p)
		}
		d.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: blockfile.FlagComplete, ID: id, Length: restartLen, Sums: sums})
		if i%65536 == 0 {
			if err := errors.Join(d.Index.Flush(), ctx.Err()); err != nil {
				return errors.Join(err, d.Close())
			}
		}
	}
	return errors.Join(d.Index.Sync(), d.Close())
}

// restart is the process "restart DIR".
func restart(args []string) error {
	return tell(args, func(root string, r *restartResult) error {
		start := time.Now()
		s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: root, Tier: orca.SSD, Capacity: 1 << 50}}}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		r.Open = time.Since(start)
		r.Blocks = s.Usage()[0].Blocks
		got, want := make([]byte, restartLen), make([]byte, restartLen)
		every := int(r.Blocks) / restartReal
		for i := 0; i < int(r.Blocks); i += every {
			e, err := s.Get(restartID(i), 0, restartLen)
			if err != nil {
				return err
			}
			_, err = e.File.ReadAt(got, e.Off)
			e.Release()
			workload.Fill(want, restartSeed+uint64(i), 0)
			if err != nil || string(got) != string(want) {
				return fmt.Errorf("block %d is not what it was: %w", i, err)
			}
		}
		r.Served = time.Since(start)
		return nil // the process ends here, as by a kill: nothing is written
	})
}

// decode is the process "decode DIR": the index is read in order, and every
// record checked and decoded; none is kept.
func decode(args []string) error {
	return tell(args, func(root string, r *restartResult) error {
		start := time.Now()
		x, l, err := blockfile.Open(blockfile.OS{}, root, func(*blockfile.Record) {})
		if err != nil {
			return err
		}
		r.Served, r.Blocks = time.Since(start), int64(l.Records)
		r.Open = r.Served
		return x.Close()
	})
}

// tell prints the result of a process as one line.
func tell(args []string, do func(root string, r *restartResult) error) error {
	if len(args) != 1 {
		return errors.New("usage: restart|decode DIR")
	}
	var r restartResult
	if err := do(args[0], &r); err != nil {
		r.Err = err.Error()
	}
	var err error
	r.CPU, err = facts.CPUTime(os.Getpid())
	if err == nil {
		r.RSS, err = residentMemory()
	}
	if err != nil && r.Err == "" {
		r.Err = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// residentMemory returns the resident set of this process in bytes.
func residentMemory() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("statm %s: %w", strconv.Quote(string(b)), err)
	}
	return resident * int64(unix.Getpagesize()), nil
}
