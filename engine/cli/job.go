// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

func (e *env) jobCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "job", Short: "Watch and cancel work in the background",
		Long: `Watch and cancel work in the background: loads, persists, and what a store has
still to be brought in line with (UFS_MOVE, UFS_DELETE: these end by
themselves and cannot be canceled).`,
		Example: "  orca job ls\n  orca job stat -v 7\n  orca job cancel 7",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(e.jobLsCommand(), e.jobStatCommand(), e.jobCancelCommand())
	return c
}

// jobJSON is what --json says about one job.
type jobJSON struct {
	ID           uint64        `json:"id"`
	Kind         string        `json:"kind"`
	State        string        `json:"state"` // CREATED, RUNNING, COMPLETED, FAILED, CANCELED
	Path         string        `json:"path,omitempty"`
	Source       string        `json:"source,omitempty"`
	Target       string        `json:"target,omitempty"`
	Created      time.Time     `json:"created"`
	Started      *time.Time    `json:"started,omitempty"`
	Finished     *time.Time    `json:"finished,omitempty"`
	Planned      bool          `json:"planned"` // files and bytes grow until then
	Files        int64         `json:"files"`
	FilesDone    int64         `json:"files_done"`
	FilesFailed  int64         `json:"files_failed"`
	FilesSkipped int64         `json:"files_skipped"`
	Bytes        int64         `json:"bytes"`
	BytesDone    int64         `json:"bytes_done"`
	Error        string        `json:"error,omitempty"`
	Attempts     uint32        `json:"attempts,omitempty"`
	Workers      []uint64      `json:"workers,omitempty"`
	Failures     []failureJSON `json:"failures,omitempty"`
}

type failureJSON struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

func jobOf(j *client.Job) jobJSON {
	when := func(ns int64) *time.Time {
		if ns == 0 {
			return nil
		}
		t := time.Unix(0, ns)
		return &t
	}
	o := jobJSON{
		ID: j.Id, Kind: j.Spec.GetKind().String(), State: j.State.String(), Path: j.Spec.GetPath(), Source: j.Source, Target: j.Target,
		Created: time.Unix(0, j.Created), Started: when(j.Started), Finished: when(j.Finished), Planned: j.Planned,
		Files: j.Files, FilesDone: j.FilesDone, FilesFailed: j.FilesFailed, FilesSkipped: j.FilesSkipped,
		Bytes: j.Bytes, BytesDone: j.BytesDone, Error: j.Error, Attempts: j.Attempts, Workers: j.Workers,
	}
	for _, f := range j.Failures {
		o.Failures = append(o.Failures, failureJSON{f.Path, f.Error})
	}
	return o
}

func (e *env) jobLsCommand() *cobra.Command {
	var active bool
	c := &cobra.Command{
		Use: "ls", Short: "List jobs", Long: "List jobs: those that run, and those that ended a short while ago.",
		Example: "  orca job ls --active", Args: noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			js, err := fs.Jobs(cmd.Context(), client.JobFilter{Active: active})
			if err != nil {
				return err
			}
			t := e.table("JOB", "KIND", "STATE", "FILES", "BYTES", "CREATED", "PATH")
			for _, j := range js {
				if e.json {
					err = e.emit(jobOf(j))
				} else {
					err = t.row(j.Id, j.Spec.GetKind(), j.State, fmt.Sprintf("%d/%d", j.FilesDone, j.Files),
						size(j.BytesDone, true)+"/"+size(j.Bytes, true), stamp(time.Unix(0, j.Created)), jobPath(j))
				}
				if err != nil {
					return err
				}
			}
			return t.flush()
		}),
	}
	c.Flags().BoolVar(&active, "active", false, "leave out those that have ended")
	return c
}

func jobPath(j *client.Job) string {
	if p := j.Spec.GetPath(); p != "" {
		return p
	}
	if j.Target != "" {
		return j.Source + " -> " + j.Target
	}
	return j.Source
}

// jobIDs parses job numbers.
func jobIDs(args []string) ([]uint64, error) {
	if len(args) == 0 {
		return nil, usagef("want the number of a job (see orca job ls)")
	}
	out := make([]uint64, len(args))
	for i, a := range args {
		n, err := strconv.ParseUint(a, 10, 64)
		if err != nil {
			return nil, usagef("%q is not the number of a job", a)
		}
		out[i] = n
	}
	return out, nil
}

func (e *env) jobStatCommand() *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use: "stat [-v] ID...", Short: "Show the state of jobs", Long: "Show the state of jobs; with -v each file that failed, too (the first 100).",
		Example: "  orca job stat -v 7",
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			return e.eachJob(cmd, args, func(ctx context.Context, fs *client.FS, id uint64) error {
				j, err := fs.Job(ctx, id, 0)
				if err != nil {
					return err
				}
				return e.printJob(j, verbose)
			})
		}),
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "files that failed, too")
	return c
}

func (e *env) jobCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID...", Short: "Cancel jobs", Long: "Cancel jobs; what they have done stays.",
		Example: "  orca job cancel 7",
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			return e.eachJob(cmd, args, func(ctx context.Context, fs *client.FS, id uint64) error { return fs.CancelJob(ctx, id) })
		}),
	}
}

func (e *env) eachJob(cmd *cobra.Command, args []string, f func(ctx context.Context, fs *client.FS, id uint64) error) error {
	ids, err := jobIDs(args)
	if err != nil {
		return err
	}
	fs, err := e.open(cmd.Context())
	if err != nil {
		return err
	}
	failed := false
	for _, id := range ids {
		if err := f(cmd.Context(), fs, id); err != nil {
			if stops(cmd.Context(), err) {
				return err
			}
			text := message(err)
			if orca.KindOf(err) == orca.NotFound {
				text = "No such job"
			}
			fmt.Fprintf(e.Err, "%s: %d: %s\n", cmd.Name(), id, text)
			failed = true
		}
	}
	if failed {
		return errReported
	}
	return nil
}

func (e *env) printJob(j *client.Job, verbose bool) error {
	if e.json {
		return e.emit(jobOf(j))
	}
	t := e.table()
	line := func(k string, v ...any) {
		if s := fmt.Sprint(v...); s != "" {
			_ = t.row(k+":", s) // flush reports what matters
		}
	}
	line("job", j.Id)
	line("kind", j.Spec.GetKind())
	line("path", jobPath(j))
	line("state", j.State)
	line("files", j.FilesDone, " of ", j.Files, " done, ", j.FilesFailed, " failed, ", j.FilesSkipped, " had nothing to do")
	line("bytes", size(j.BytesDone, true), " of ", size(j.Bytes, true))
	line("created", stamp(time.Unix(0, j.Created)))
	if j.Finished != 0 {
		line("finished", stamp(time.Unix(0, j.Finished)))
	}
	line("error", j.Error)
	if verbose {
		for _, f := range j.Failures {
			line("failed", f.Path, ": ", f.Error)
		}
	}
	return t.flush()
}

// jobFlags are those of load and persist.
type jobFlags struct {
	submit, progress, stop bool
	bandwidth              string
	replicas               uint32
}

func (e *env) loadCommand() *cobra.Command {
	var o jobFlags
	c := e.jobVerb("load", "Bring files into the cache", `Bring files and whole trees into the workers' cache, and wait for it. With
--submit it only starts; --progress shows how the last load of the path is
doing, --stop ends it.`,
		`  orca fs load /data/epoch-1
  orca fs load --submit /data && orca fs load --progress /data`, client.JobLoad, &o)
	f := c.Flags()
	f.BoolVar(&o.progress, "progress", false, "show the progress of the last load of the path")
	f.BoolVar(&o.stop, "stop", false, "stop the last load of the path")
	f.StringVar(&o.bandwidth, "bandwidth", "", "bytes per second of each worker at most, such as 100MB")
	f.Uint32Var(&o.replicas, "replication", 1, "on how many workers each block shall be")
	return c
}

func (e *env) persistCommand() *cobra.Command {
	var o jobFlags
	return e.jobVerb("persist", "Bring unpersisted files into their store", `Bring files that are only in the cache (MUST_CACHE, or ASYNC_THROUGH not yet
done) into their store, and wait for it.`, `  orca fs persist /results`, client.JobPersist, &o)
}

func (e *env) jobVerb(name, short, long, example string, kind client.JobKind, o *jobFlags) *cobra.Command {
	c := e.verb(name+" PATH...", short, long, example, 1, func(cmd *cobra.Command, args []string) error {
		spec := client.JobSpec{Kind: kind, Recursive: true, Replicas: o.replicas}
		if o.bandwidth != "" {
			n, err := humanize.ParseBytes(o.bandwidth)
			if err != nil || n > 1<<62 {
				return usagef("--bandwidth %q: not a size", o.bandwidth)
			}
			spec.Bandwidth = int64(n)
		}
		if (o.submit && o.progress) || (o.submit && o.stop) || (o.progress && o.stop) {
			return usagef("want one of --submit, --progress and --stop")
		}
		return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
			spec.Path = path
			if o.progress || o.stop {
				js, err := lastJobs(ctx, fs, kind, path)
				if err != nil {
					return err
				}
				if len(js) == 0 {
					fmt.Fprintf(e.Err, "%s: '%s': No such job\n", name, path)
					return errReported
				}
				for i, j := range js {
					if o.stop {
						err = fs.CancelJob(ctx, j.Id)
					} else {
						if i > 0 && !e.json {
							fmt.Fprintln(e.Out)
						}
						err = e.printJob(j, true)
					}
					if err != nil {
						return err
					}
				}
				return nil
			}
			return e.startJob(ctx, fs, name, spec, o.submit)
		})
	})
	c.Flags().BoolVar(&o.submit, "submit", false, "print the number of the job and do not wait")
	return c
}

// lastJobs finds the latest job of a kind on a path, with those for the parts of
// that tree in other groups; none if there is none.
func lastJobs(ctx context.Context, fs *client.FS, kind client.JobKind, path string) ([]*client.Job, error) {
	js, err := fs.Jobs(ctx, client.JobFilter{Kind: kind})
	if err != nil {
		return nil, err
	}
	var last *client.Job
	for _, j := range js {
		if j.Spec.GetPath() == path {
			last = j
		}
	}
	if last == nil {
		return nil, nil
	}
	out := []*client.Job{last}
	if len(last.Spec.Apart) == 0 { // one job, or itself a part of a tree that was asked for
		return out, nil
	}
	for _, j := range js {
		if j != last && j.Spec.GetTree() == last.Spec.Tree {
			out = append(out, j)
		}
	}
	return out, nil
}

func (e *env) startJob(ctx context.Context, fs *client.FS, name string, spec client.JobSpec, submit bool) error {
	ids, err := fs.SubmitTree(ctx, spec)
	if err != nil {
		return err
	}
	if submit {
		for _, id := range ids {
			if e.json {
				err = e.emit(map[string]uint64{"id": id})
			} else {
				_, err = fmt.Fprintln(e.Out, id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	bar := e.progress(name)
	defer bar.stop()
	js, err := fs.WaitJobs(ctx, ids, bar.set)
	if err != nil {
		return err
	}
	bar.stop()
	var ended error
	failed := false
	for _, j := range js {
		if e.json {
			if err := e.emit(jobOf(j)); err != nil {
				return err
			}
		}
		for _, f := range j.Failures {
			fmt.Fprintf(e.Err, "%s: '%s': %s\n", name, f.Path, f.Error)
		}
		failed = failed || j.FilesFailed > 0
		ended = cmp.Or(ended, client.JobError(j))
	}
	if failed {
		return errReported
	}
	return ended
}

// reportJobs is `orca admin report jobservice`: how many jobs there are in
// each state, and those at work.
func (e *env) reportJobs(ctx context.Context, fs *client.FS) error {
	js, err := fs.Jobs(ctx, client.JobFilter{})
	if err != nil {
		return err
	}
	states := map[string]int{}
	var active []jobJSON
	for _, j := range js {
		states[j.State.String()]++
		if !client.JobEnded(j) {
			active = append(active, jobOf(j))
		}
	}
	if e.json {
		return e.emit(map[string]any{"states": states, "active": active})
	}
	t := e.table("STATE", "JOBS")
	for _, s := range slices.Sorted(maps.Keys(states)) {
		if err := t.row(s, states[s]); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil || len(active) == 0 {
		return err
	}
	fmt.Fprintln(e.Out)
	t = e.table("JOB", "KIND", "FILES", "BYTES", "ATTEMPTS", "PATH", "ERROR")
	for _, j := range active {
		path := j.Path
		if path == "" {
			path = j.Source
		}
		if err := t.row(j.ID, j.Kind, fmt.Sprintf("%d/%d", j.FilesDone, j.Files), size(j.BytesDone, true)+"/"+size(j.Bytes, true), j.Attempts, path, j.Error); err != nil {
			return err
		}
	}
	return t.flush()
}
