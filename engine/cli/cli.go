// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of Orca: `orca up`, `orca fs …`, `orca admin
// …`, `orca job …`. It is the one place that reads flags and the environment,
// and the owner of cobra.
//
// Flow: Main ─► cobra command ─► env (streams, one client.FS opened when first
// needed) ─► engine/client; errors leave through engine/errmap. Starting
// servers is done by Hooks, which engine/cmd/orca fills in.
//
// # What users may rely on
//
// Exit codes: 0 done, 1 an operation failed (with several paths: at least one,
// each named on stderr), 2 wrong usage, 3 this metaplane member was removed from
// its cluster, 130 interrupted. Data goes to stdout,
// everything else to stderr. Lists are aligned tables on a terminal,
// tab-separated without a heading when piped, and with --json one JSON object
// a line; single things are one JSON object. Field names of the JSON are
// stable: they are never renamed, only added to.
//
// Goroutines: those of copies (--thread) and of progress bars; a signal ends
// the context of the running command, a second one the process. It refuses to
// guess: a path is absolute or a URI, an unknown flag is an error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"orca"
	"orca/engine/client"
	"orca/engine/errmap"
	"orca/engine/placement"
	"orca/metaplane/metaclient"
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// OutTTY and ErrTTY say whether a person is looking.
	OutTTY, ErrTTY bool
}

// Standard returns the streams of the process.
func Standard() Streams {
	return Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())), ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// Hooks are what the command line cannot do by itself. A command whose hook is
// nil is not offered.
type Hooks struct {
	// Up runs all roles in this process until ctx ends, then stops cleanly.
	Up func(ctx context.Context, o UpOptions, s Streams) error
	// Start runs the roles of o until ctx ends.
	Start func(ctx context.Context, o StartOptions, s Streams) error
	// Mount serves a FUSE mount until ctx ends or it is unmounted.
	Mount func(ctx context.Context, o MountOptions, s Streams) error
	// Restore makes the metaplane's state below a data folder from a backup.
	Restore func(ctx context.Context, o RestoreOptions, s Streams) (*Restored, error)
	// Inspect opens the metaplane's folder below a data folder, to be read, for
	// one of its groups; 0: the first.
	Inspect func(data string, group uint16) (Inspection, error)
	// Open opens the client. Default: client.Open.
	Open func(ctx context.Context, cfg client.Config) (*client.FS, error)
}

// firstAnswer is how long a command waits for an Orca to answer at all: long
// enough for one that is just being restarted.
const firstAnswer = 3 * time.Second

// env is what the commands share during one Main.
type env struct {
	Streams
	hooks Hooks
	ran   bool // a command's own code was reached: errors are not about usage

	// Global flags.
	address string
	node    string
	rack    string
	read    string // policies
	write   string
	from    string // members that are read from
	short   string // --short-circuit
	json    bool

	fs *client.FS
}

// errReported says that all messages are on stderr already.
var errReported = errors.New("reported")

// usageError is a command line that makes no sense: exit code 2.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, a ...any) error { return usageError{fmt.Sprintf(format, a...)} }

// Main runs one command line (without the program's name) and returns its exit
// code.
func Main(args []string, s Streams, h Hooks) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(sig)
	interrupted := make(chan struct{})
	go func() {
		select {
		case <-sig:
			signal.Stop(sig) // the next one is the kernel's business
			close(interrupted)
			stop()
		case <-ctx.Done():
		}
	}()
	code := Run(ctx, args, s, h)
	select {
	case <-interrupted:
		if code != errmap.ExitOK {
			return errmap.ExitInterrupted
		}
	default:
	}
	return code
}

// Run is Main without signals: ctx ends the command.
func Run(ctx context.Context, args []string, s Streams, h Hooks) int {
	e := &env{Streams: s, hooks: h}
	if e.hooks.Open == nil {
		e.hooks.Open = client.Open
	}
	root := e.root()
	root.SetArgs(plainVerb(args))
	cmd, err := root.ExecuteContextC(ctx)
	if e.fs != nil {
		if cerr := e.fs.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}
	return e.exit(cmd, err)
}

// exit prints err, unless that was done, and returns the exit code.
func (e *env) exit(cmd *cobra.Command, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return errmap.ExitOK
	case errors.Is(err, errReported):
		return errmap.ExitFailed
	case errors.As(err, &usage) || !e.ran:
		fmt.Fprintf(e.Err, "%s: %v\nSee '%s --help'.\n", cmd.Name(), err, cmd.CommandPath())
		return errmap.ExitUsage
	}
	e.report(cmd.Name(), "", err)
	return errmap.Exit(err)
}

// plainVerb lets hands trained on hadoop write `orca dfs -ls /x`.
func plainVerb(args []string) []string {
	if len(args) < 2 || args[0] != "dfs" && args[0] != "fs" {
		return args
	}
	v := args[1]
	if len(v) < 3 || v[0] != '-' || v[1] == '-' {
		return args
	}
	return append([]string{args[0], v[1:]}, args[2:]...)
}

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "orca",
		Short: "A data layer between computation and storage",
		Long: `Orca serves files from buckets and file systems at the speed of local memory
and disks. Start one with 'orca up'; then use 'orca fs' on it, from this or
any other shell.

Exit codes: 0 done, 1 the operation failed (each failed path is named on
stderr), 2 wrong usage, 3 this metaplane member was removed from its cluster (do
not start it again), 130 interrupted.

Choice of workers: --read-policy says which worker fetches what none holds (one
that holds it is always preferred: on this node, else in this rack, else any),
--write-policy which one takes a new file.

  local-first                 this node, else this rack, else any
  local-first-avoid-eviction  the same among those that need not evict for it
  most-available              the one with the most free room
  round-robin                 one after the other
  specific:NODE               NODE; a read may fall back to others, a write fails
  deterministic-hash[:N]      by file, the same for all clients; N take turns

Environment: ORCA_ADDRESS is the default of --address, ORCA_NODE of --node,
ORCA_RACK of --rack, ORCA_READ_POLICY and ORCA_WRITE_POLICY of the policies,
ORCA_READ_FROM of --read-from.`,
		Example: `  orca up --data /var/lib/orca --root s3://bucket/prefix
  orca fs ls -h /
  orca fs cp -R file:///data/train /train
  orca admin report`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	f := root.PersistentFlags()
	f.StringVar(&e.address, "address", envOr("ORCA_ADDRESS", client.DefaultAddress), "metaplane address: host:port, or the path of a Unix socket; several separated by commas")
	f.StringVar(&e.node, "node", envOr("ORCA_NODE", ""), "name of this node: workers of the same name are local (default: the host name)")
	f.StringVar(&e.rack, "rack", envOr("ORCA_RACK", ""), "rack of this node: workers of the same rack are nearer than others (default: none)")
	f.StringVar(&e.read, "read-policy", envOr("ORCA_READ_POLICY", "local-first"), "which worker fetches what none holds")
	f.StringVar(&e.write, "write-policy", envOr("ORCA_WRITE_POLICY", "local-first"), "which worker takes a new file")
	f.StringVar(&e.from, "read-from", envOr("ORCA_READ_FROM", "leader"), "which members of the metaplane are asked for names and attributes: leader, or any")
	f.StringVar(&e.short, "short-circuit", envOr("ORCA_SHORT_CIRCUIT", "fd"), "how blocks of workers on this node are read: fd (descriptors), stream (over the worker's Unix socket), off (over the network)")
	f.BoolVar(&e.json, "json", false, "print JSON: one object, or one a line for lists")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err.Error()} })
	root.AddCommand(e.fsCommand(), e.adminCommand(), e.jobCommand(), e.loadCommand(), e.versionCommand(), e.getConfCommand())
	e.addServers(root)
	root.InitDefaultCompletionCmd("completion")
	shorthands(root)
	return root
}

// envOr returns an environment variable or a default. docs/cli.md shows the
// default, so that it does not depend on who generates it.
func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// shorthands gives every command --help, with -h where it is free (ls -h is
// about sizes).
func shorthands(c *cobra.Command) {
	if c.Flags().ShorthandLookup("h") == nil {
		c.Flags().BoolP("help", "h", false, "help for "+c.Name())
	} else {
		c.Flags().Bool("help", false, "help for "+c.Name())
	}
	for _, s := range c.Commands() {
		shorthands(s)
	}
}

// run marks that the command line was understood.
func (e *env) run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		e.ran = true
		return f(cmd, args)
	}
}

// open returns the client, connecting the first time.
func (e *env) open(ctx context.Context) (*client.FS, error) {
	if e.fs != nil {
		return e.fs, nil
	}
	cfg := client.Config{Addresses: strings.Split(e.address, ","), Node: e.node, Rack: e.rack, FirstAnswer: firstAnswer}
	var err error
	if cfg.ShortCircuit, err = e.shortCircuit(); err != nil {
		return nil, err
	}
	if cfg.ReadPolicy, cfg.WritePolicy, err = e.policies(); err != nil {
		return nil, err
	}
	if cfg.ReadFrom, err = e.readFrom(); err != nil {
		return nil, err
	}
	fs, err := e.hooks.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	e.fs = fs
	return fs, nil
}

// policies reads --read-policy and --write-policy.
func (e *env) policies() (read, write placement.Policy, err error) {
	if read, err = placement.Parse(e.read); err != nil {
		return read, write, usagef("--read-policy: %v", err)
	}
	if write, err = placement.Parse(e.write); err != nil {
		return read, write, usagef("--write-policy: %v", err)
	}
	return read, write, nil
}

// readFrom reads --read-from.
func (e *env) readFrom() (metaclient.ReadFrom, error) {
	from, err := metaclient.ParseReadFrom(e.from)
	if err != nil {
		return 0, usagef("--read-from: %v", err)
	}
	return from, nil
}

// shortCircuit reads --short-circuit.
func (e *env) shortCircuit() (client.ShortCircuit, error) {
	s, err := client.ParseShortCircuit(e.short)
	if err != nil {
		return s, usagef("--short-circuit: %v", err)
	}
	return s, nil
}

// report prints one failure: verb: 'path': what a shell user expects to read,
// and the details where that alone would not help.
func (e *env) report(verb, path string, err error) {
	where, text := verb, message(err)
	if path != "" {
		where += ": '" + path + "'"
	} else if plain := errmap.Text(err); text == plain {
		text += " (" + err.Error() + ")" // which path, only the error knows
	}
	fmt.Fprintf(e.Err, "%s: %s\n", where, text)
}

func message(err error) string {
	text := errmap.Text(err)
	switch orca.KindOf(err) {
	case orca.NotFound, orca.Exists, orca.NotDir, orca.IsDir, orca.NotEmpty, orca.Permission, orca.NameTooLong, orca.ReadOnly, orca.CrossMount:
		return text
	case orca.OverQuota:
		var e *orca.Error
		if errors.As(err, &e) && e.Msg != "" {
			return text + ": " + e.Msg // which directory, and how much it has
		}
	case orca.Internal:
		var e *orca.Error
		if !errors.As(err, &e) {
			return err.Error() // a local file's error, or cobra's
		}
	}
	return text + " (" + err.Error() + ")"
}
