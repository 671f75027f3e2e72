// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Command orcabench measures Orca beside what the machine can do without it,
// in one run. docs/bench.md says how each figure is taken.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca/bench/baseline"
	"orca/bench/report"
	"orca/bench/suite"
	"orca/engine/buildinfo"
	"orca/perf/capture"
)

// errCases means that the run went through and that cases of it failed.
var errCases = errors.New("cases failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot(os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "orcabench:", err)
		os.Exit(1)
	}
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "orcabench",
		Short:         "Measure Orca beside what the machine can do without it",
		SilenceUsage:  true,
		SilenceErrors: true,
		Long: `orcabench runs a suite of cases. Each case samples Orca and a baseline in turns
(A-B B-A) in one run and reports the median of the per-pair ratios; larger is
better. It starts what it needs (Orca, MinIO) as separate processes on free
ports below a temporary folder, and stops and removes all of it at the end.

Figures of different machines or runs cannot be compared; ratios can.`,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(newList(), newRun(), newFailover(), newFootprint(), newMax(), newVersion(), newProcess())
	return root
}

func newList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the suites and their cases",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "SUITE\tCASE\tUNIT\tWHAT IS COMPARED")
			for _, c := range suite.Cases() {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", c.Suite, c.Name, c.Unit, c.About)
			}
			return tw.Flush()
		},
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			b := buildinfo.Read()
			fmt.Fprintf(cmd.OutOrStdout(), "orcabench %s %s %s %s/%s\n", b.Version, b.Commit, b.Go, b.OS, b.Arch)
		},
	}
}

// newProcess is what orcabench starts itself as, for the baselines that need
// processes of their own.
func newProcess() *cobra.Command {
	return &cobra.Command{
		Use:                baseline.Role,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return baseline.Main(args, suite.Roles()) },
	}
}

// runFlags are the flags of run as given.
type runFlags struct {
	cases   []string
	json    string
	size    string
	profile string
	opt     suite.Options
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run SUITE",
		Short: "Run a suite, or some of its cases",
		Long: `Run a suite: env, io, worker, slowpeer, meta, fuse, restart or evict, for which no flag
is needed; or peers, which compares with another system that is running.

The exit status is 0 when every case has a figure, else 1; a case that failed is
a row with an error and without figures.`,
		Example: `  orcabench run io
  orcabench run io --case shortcircuit,remote --json io.json
  orcabench run meta --clients 64 --pipeline 4
  orcabench run meta --case rename-dir-1m,rm-r-1m --files 100
  orcabench run peers --hdfs 127.0.0.1:8020
  orcabench run fuse --profile /tmp/profiles`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: suite.Suites(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.cases, "case", nil, "run only these cases, comma separated")
	fl.StringVar(&f.json, "json", "", "write the results as JSON to this file (- for stdout)")
	fl.StringVar(&f.profile, "profile", "", "profile each case after it was measured, into this folder, and sum per room")
	fl.IntVar(&f.opt.Pairs, "samples", 0, "pairs of samples per case, at least 5 (default 7)")
	fl.StringVar(&f.size, "size", "", "file size of the bulk cases, such as 512MiB (default 256MiB, io cold 1GiB)")
	fl.IntVar(&f.opt.Files, "files", 0, "files in the directories of the meta and fuse suites; the trees of rename-dir-1m and rm-r-1m have a thousand times as many (default 1000)")
	fl.IntVar(&f.opt.Blocks, "blocks", 0, "blocks in the index of the restart suite (default 10000000)")
	fl.IntVar(&f.opt.Clients, "clients", 0, "clients of the meta suite, one connection each (default 16)")
	fl.IntVar(&f.opt.Pipeline, "pipeline", 0, "requests that each client has outstanding (default 1)")
	fl.DurationVar(&f.opt.Sample, "sample-time", 0, "length of one sample of the meta suite (default 1s)")
	fl.StringVar(&f.opt.Network, "network", "", "how the meta suite reaches the server: tcp or unix (default tcp)")
	fl.StringVar(&f.opt.HDFS, "hdfs", "", "NameNode that is running, host:port, for the peers suite")
	fl.StringSliceVar(&f.opt.Alluxio, "alluxio-bench", nil, "command that runs Alluxio's StressMasterBench, its words separated by commas, for the peers suite")
	fl.StringVar(&f.opt.AlluxioURI, "alluxio", "", "master that the bench drives (default alluxio://127.0.0.1:19998)")
	fl.IntSliceVar(&f.opt.PeerPIDs, "peer-pid", nil, "processes of the peer, for its CPU time")
	fl.DurationVar(&f.opt.Warm, "warm", 0, "how long a peer is driven before it is measured (default 20s)")
	fl.StringVar(&f.opt.Temp, "temp", "", "folder for data, kept (default: a new one, removed at the end)")
	fl.StringVar(&f.opt.Orca, "orca", "", "orca binary (default: beside orcabench, on PATH, or built)")
	fl.BoolVar(&f.opt.Tiny, "tiny", false, "allow sizes too small to mean anything, to test the plumbing")
	return cmd
}

func (f *runFlags) run(ctx context.Context, name string, stdout, stderr io.Writer) error {
	cases, err := suite.Select(name, f.cases)
	if err != nil {
		return err
	}
	if cases = f.opt.Given(cases); len(cases) == 0 {
		return errors.New("nothing to compare with: give --hdfs or --alluxio-bench")
	}
	if f.size != "" {
		n, err := humanize.ParseBytes(f.size)
		if err != nil || n > 1<<50 {
			return fmt.Errorf("--size %s: not a size", f.size)
		}
		f.opt.Size = int64(n)
	}
	if f.opt.Self, err = os.Executable(); err != nil {
		return err
	}
	f.opt.Progress, f.opt.Profile = &stamped{w: stderr, start: time.Now()}, f.profile
	rep, profiles, runErr := suite.Run(ctx, cases, f.opt, "orcabench "+strings.Join(os.Args[1:], " "))
	if rep == nil {
		return runErr
	}
	table := stdout
	if f.json == "-" {
		table = stderr
	}
	err = errors.Join(runErr, rep.WriteTable(table), f.writeJSON(rep, stdout), f.writeProfiles(table, profiles))
	if n := rep.Failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d %w", n, len(rep.Results), errCases))
	}
	return err
}

func (f *runFlags) writeJSON(rep *report.Report, stdout io.Writer) error {
	switch f.json {
	case "":
		return nil
	case "-":
		return rep.WriteJSON(stdout)
	}
	out, err := os.Create(f.json)
	if err != nil {
		return err
	}
	return errors.Join(rep.WriteJSON(out), out.Close())
}

func (f *runFlags) writeProfiles(w io.Writer, taken []capture.Taken) error {
	if len(taken) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	if err := capture.WriteTable(w, taken); err != nil {
		return err
	}
	fmt.Fprintf(w, "profiles are in %s; read one with: go tool pprof FILE\n", f.profile)
	return nil
}

// newFailover measures what clients see of a change of the leader.
func newFailover() *cobra.Command {
	var opt suite.Options
	var times int
	var file string
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Measure what clients see when the leader of the metaplane changes",
		Long: `Start a metaplane of three processes, have clients create files on it, kill its
leader (-9) and start it again, so many times, then have it hand over as often,
and as often leave it alone. It reports the longest time in which no client got
an acknowledgement, and how many creates there were around the change, as a plot.`,
		Example: "  orcabench failover --times 20 --json failover.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return measure(cmd, &opt, file, func(command string) (measured, error) {
				return suite.MeasureFailover(cmd.Context(), opt, times, command)
			})
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&times, "times", 20, "how often the leader is killed, and hands over")
	fl.IntVar(&opt.Clients, "clients", 0, "clients, one create outstanding each (default 16)")
	fl.StringVar(&file, "json", "", "write the results as JSON to this file, too")
	fl.StringVar(&opt.Orca, "orca", "", "orca binary (default: beside orcabench, on PATH, or built)")
	return cmd
}

// newFootprint measures what a large namespace costs.
func newFootprint() *cobra.Command {
	var opt suite.Options
	var inodes, reads int
	var file string
	cmd := &cobra.Command{
		Use:   "footprint",
		Short: "Measure what a large namespace costs: disk, memory, and the time of a start",
		Long: `Bring a tree of a tenth of the inodes, and then of all of them, into a new
namespace, one in twenty a directory, through its journal and its state machine.
With each size, start the metaplane, write to it, kill it (-9), and measure how
long it takes from the start of the process until a stat is served, and how much
memory it has then, and after it was read at random and written to; at last with
a cache that all records fit in, when all were read. Ten million inodes take some
minutes and 3 GB below the temporary folder.`,
		Example: "  orcabench footprint --inodes 10000000 --json footprint.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return measure(cmd, &opt, file, func(command string) (measured, error) {
				return suite.MeasureFootprint(cmd.Context(), opt, inodes, reads, command)
			})
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&inodes, "inodes", 1_000_000, "inodes of the larger tree")
	fl.IntVar(&reads, "reads", 500_000, "files that are stated at random")
	fl.StringVar(&file, "json", "", "write the results as JSON to this file, too")
	fl.StringVar(&opt.Temp, "temp", "", "folder for the data, on the kind of disk that is to be measured")
	fl.StringVar(&opt.Orca, "orca", "", "orca binary (default: beside orcabench, on PATH, or built)")
	return cmd
}

// newMax looks for the highest sustained rate.
func newMax() *cobra.Command {
	var opt suite.Options
	var op, file string
	var bound time.Duration
	cmd := &cobra.Command{
		Use:   "max",
		Short: "Find the highest rate that the metaplane sustains within a latency bound",
		Long: `Start Orca and double the clients, one request outstanding each, until the rate
grows by less than 5 % twice in a row, or one request in a hundred takes longer
than the bound. Rates are of this machine in this minute, with clients and server
on it: compare nothing across runs.`,
		Example: "  orcabench max --op create --bound 20ms --json max.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return measure(cmd, &opt, file, func(command string) (measured, error) {
				return suite.MeasureMax(cmd.Context(), opt, op, bound, command)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&op, "op", "create", "what is done: create, stat or mixed")
	fl.DurationVar(&bound, "bound", 50*time.Millisecond, "what 99 of a hundred requests must stay within")
	fl.DurationVar(&opt.Sample, "sample-time", 0, "length of a step (default 1s)")
	fl.StringVar(&opt.Network, "network", "", "how the server is reached: tcp or unix (default tcp)")
	fl.StringVar(&file, "json", "", "write the results as JSON to this file, too")
	fl.StringVar(&opt.Temp, "temp", "", "folder for data, kept (default: a new one, removed at the end)")
	fl.StringVar(&opt.Orca, "orca", "", "orca binary (default: beside orcabench, on PATH, or built)")
	return cmd
}

// stamped prefixes each line of progress with the time since the start.
type stamped struct {
	w     io.Writer
	start time.Time
}

// Write implements io.Writer; each call is one line.
func (s *stamped) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(s.w, "%6.1fs %s", time.Since(s.start).Seconds(), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// measured is what a command other than run has to show.
type measured interface {
	WriteTable(w io.Writer) error
	WriteJSON(w io.Writer) error
}

// measure has a figure taken with progress to be seen, and shows it.
func measure(cmd *cobra.Command, opt *suite.Options, file string, take func(command string) (measured, error)) error {
	var err error
	if opt.Self, err = os.Executable(); err != nil {
		return err
	}
	opt.Progress = &stamped{w: cmd.ErrOrStderr(), start: time.Now()}
	r, err := take("orcabench " + strings.Join(os.Args[1:], " "))
	if err != nil {
		return err
	}
	return show(cmd, r, file)
}

// show writes the table of r, and its JSON to a file when one is named.
func show(cmd *cobra.Command, r measured, file string) error {
	if file == "" {
		return r.WriteTable(cmd.OutOrStdout())
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteTable(cmd.OutOrStdout()), r.WriteJSON(out), out.Close())
}
