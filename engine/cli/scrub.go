// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// scrubJSON is what `orca admin scrub --json` says about one worker.
type scrubJSON struct {
	Worker uint64 `json:"worker"`
	Node   string `json:"node"`
	client.ScrubStatus
	Error string `json:"error,omitempty"`
}

func (e *env) scrubCommand() *cobra.Command {
	var wait, status bool
	c := &cobra.Command{
		Use: "scrub [WORKER...]", Short: "Read every cached block again now",
		Long: `Read every cached block again now and compare it with its checksums, on the
workers given by id or node, or on all live ones. Workers do that by themselves
within --scrub-period of their start command; this asks for a round at once, at
--scrub-rate, and shows where it stands.

A block with a flipped bit is dropped and read again from its store when it is
next wanted. Of a block that is nowhere else only the bad 64 KiB are refused;
it is reported as BAD DIRTY and kept.`,
		Example: `  orca admin scrub --wait
  orca admin scrub --status
  orca admin scrub node-7 --json`,
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			if wait && status {
				return usagef("--wait and --status exclude each other")
			}
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			ws, err := e.scrubbed(cmd.Context(), fs, args)
			if err != nil {
				return err
			}
			sts := make([]scrubJSON, len(ws))
			var failed error
			for i, w := range ws {
				sts[i] = scrubJSON{Worker: w.Id, Node: w.Node}
				if sts[i].ScrubStatus, err = fs.Scrub(cmd.Context(), w, !status); err != nil {
					sts[i].Error, failed = err.Error(), err
				}
			}
			if wait {
				if err := e.awaitScrub(cmd.Context(), fs, ws, sts); err != nil {
					return err
				}
			}
			if err := e.printScrub(sts, wait); err != nil {
				return err
			}
			return failed
		}),
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the round has ended, and show what it found")
	c.Flags().BoolVar(&status, "status", false, "show where the scrubbers stand and start nothing")
	return c
}

// scrubbed picks the live workers that are meant.
func (e *env) scrubbed(ctx context.Context, fs *client.FS, args []string) ([]*client.Worker, error) {
	all, err := fs.Workers(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	var out []*client.Worker
	for _, w := range all {
		if !w.Live {
			continue
		}
		hit := len(args) == 0
		for _, a := range args {
			if a == w.Node || a == strconv.FormatUint(w.Id, 10) {
				hit, named[a] = true, true
			}
		}
		if hit {
			out = append(out, w)
		}
	}
	for _, a := range args {
		if !named[a] {
			return nil, &orca.Error{Op: "cli.scrub", Path: a, Kind: orca.NotFound, Msg: "no live worker of this id or node"}
		}
	}
	if len(out) == 0 {
		return nil, orca.E("cli.scrub", orca.Unavailable, "no live worker")
	}
	return out, nil
}

// scrubPoll is how often a round under way is looked at.
const scrubPoll = 200 * time.Millisecond

// awaitScrub waits for the rounds that were asked for, showing how far they
// are.
func (e *env) awaitScrub(ctx context.Context, fs *client.FS, ws []*client.Worker, sts []scrubJSON) error {
	bar := e.progress("scrub")
	defer bar.stop()
	for {
		left, bytes := 0, int64(0)
		for i, w := range ws {
			st := &sts[i]
			if st.Error != "" {
				continue
			}
			if st.Running && st.Round.Forced {
				var err error
				if st.ScrubStatus, err = fs.Scrub(ctx, w, false); err != nil {
					return err
				}
			}
			if st.Running && st.Round.Forced {
				left++
				bytes += st.Round.Bytes
			} else if st.Last != nil {
				bytes += st.Last.Bytes
			}
		}
		if left == 0 {
			return nil
		}
		bar.set(bytes, used(ws))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(scrubPoll):
		}
	}
}

func used(ws []*client.Worker) (n int64) {
	for _, w := range ws {
		for _, t := range w.Tiers {
			n += t.Used
		}
	}
	return n
}

// printScrub prints the round under way, or, after waiting, the last one.
func (e *env) printScrub(sts []scrubJSON, last bool) error {
	t := e.table("WORKER", "NODE", "STATE", "DONE", "BLOCKS", "READ", "BAD", "BAD DIRTY", "STARTED")
	for _, s := range sts {
		r, state := s.Round, "scheduled"
		switch {
		case s.Error != "":
			state = "failed: " + s.Error
		case (last || !s.Running) && s.Last != nil:
			r, state = *s.Last, "finished"
		case s.Running && r.Forced:
			state = "running"
		case !s.Running:
			state = "idle"
		}
		var err error
		if e.json {
			err = e.emit(s)
		} else {
			err = t.row(s.Worker, s.Node, state, fmt.Sprintf("%.0f%%", 100*r.Done), r.Blocks, size(r.Bytes, true), r.Bad, r.BadDirty, stamp(r.Started))
		}
		if err != nil {
			return err
		}
	}
	return t.flush()
}
