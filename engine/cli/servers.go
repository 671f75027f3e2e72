// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
	"orca/engine/placement"
	"orca/metaplane/metaclient"
	"orca/tiers/alloc"
	"orca/tiers/dir"
	"orca/tiers/evict"
)

// LogOptions say how a server logs.
type LogOptions struct {
	Level string // debug, info, warn or error
	JSON  bool
}

// NodeOptions are shared by everything that serves.
type NodeOptions struct {
	// Data is the folder of all state; absolute.
	Data string
	// Node is the name of this node, "" for the host name.
	Node string
	// Rack is what the node stands in, "" for none.
	Rack string
	Log  LogOptions
	// Listen addresses; port 0 picks a free one. WebAddr is the HTTP door of a
	// process with the meta role, WorkerWebAddr of one without; "" opens none.
	MetaAddr, WebAddr, WorkerAddr, WorkerWebAddr string
	// MetaCache is the memory for what was read of the metaplane's store, in
	// bytes.
	MetaCache int64
	// MemBytes and SSDBytes are the quotas of the tiers; 0: the default (MEM a
	// quarter of the memory, SSD a tenth of the free disk); negative: no such
	// tier.
	MemBytes, SSDBytes int64
	// Dirs are further tier directories.
	Dirs []dir.Config
	// MemDir and SSDDir are the folders of the tiers, "" for those below Data.
	MemDir, SSDDir string
	// ScrubPeriod is within what time every cached block is read again; 0: the
	// default; negative: only when asked. ScrubRate is the most bytes per
	// second; 0: the default.
	ScrubPeriod time.Duration
	ScrubRate   int64
	// EvictPolicy and AllocPolicy name which cached blocks leave first, and
	// into which directory of a tier a new one goes.
	EvictPolicy, AllocPolicy string
	// MoveRate bounds the copying of blocks between tiers, in bytes per second;
	// negative: none moves.
	MoveRate int64
	// HighWatermark and LowWatermark are the parts of a directory's quota at
	// which blocks start and stop to leave.
	HighWatermark, LowWatermark float64
	// WholeMax is the longest file kept as one block, in bytes; 0: the
	// default.
	WholeMax int64
	// WriteType of files whose writer says nothing.
	WriteType orca.WriteType
	// Replicas of files whose writer says nothing; 0: 1.
	Replicas uint32
	// RepairAfter is for how long copies may be missing before others are made;
	// RepairRate the most bytes per second that a worker takes for that; 0: the
	// defaults.
	RepairAfter time.Duration
	RepairRate  int64
	// Root is the store mounted at / when the namespace is new; "": a folder
	// below Data.
	Root         string
	RootOptions  map[string]string
	RootReadOnly bool
	// SyncInterval of the root; negative: load once.
	SyncInterval time.Duration
	// TrashRetention of the root, when it is mounted: how long what is deleted is
	// kept; 0: not at all.
	TrashRetention time.Duration
}

// UpOptions are the flags of `orca up`.
type UpOptions struct {
	NodeOptions
	// Mount is where to mount Orca with FUSE, "" nowhere.
	Mount string
	// AllowOther lets other users into the mount.
	AllowOther bool
}

// StartOptions are the flags of `orca start`.
type StartOptions struct {
	NodeOptions
	// Roles are meta, worker.
	Roles []string
	// Meta are the addresses of the metaplane, for a worker without one.
	Meta []string
	// Peers are the first members of a new cluster, NODE=HOST:PORT of Raft.
	Peers []string
	// RaftTLSCA, RaftTLSCert and RaftTLSKey are PEM files by which members know
	// each other; "": they speak in the clear.
	RaftTLSCA, RaftTLSCert, RaftTLSKey string
	// Join are addresses of a running cluster that this member was added to.
	Join []string
	// RaftAddr is where this member speaks with the others.
	RaftAddr string
}

// MountOptions are the flags of `orca mount`.
type MountOptions struct {
	Dir string // where; absolute
	// Path of Orca that is mounted.
	Path     string
	ReadOnly bool
	// AllowOther lets other users in.
	AllowOther bool
	Addresses  []string
	Node, Rack string
	// ReadPolicy and WritePolicy choose among workers.
	ReadPolicy, WritePolicy placement.Policy
	ReadFrom                metaclient.ReadFrom // members
	// ShortCircuit says how blocks of workers on this node are read.
	ShortCircuit client.ShortCircuit
	Log          LogOptions
}

// Roles that `orca start` knows.
var roles = []string{"meta", "worker"}

// serverFlags collects raw flag values until the command runs.
type serverFlags struct {
	NodeOptions
	mem, ssd, wholeMax string
	metaCache          string
	scrubRate          string
	moveRate           string
	repairRate         string
	replicas           *uint32
	dirs               []string
	rootOptions        []string
	write              *string
}

func (f *serverFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.Data, "data", defaultData(), "folder of all state")
	fl.Lookup("data").DefValue = "~/.orca"
	fl.StringVar(&f.Log.Level, "log-level", "info", "debug, info, warn or error")
	fl.BoolVar(&f.Log.JSON, "log-json", false, "log JSON")
	fl.StringVar(&f.mem, "mem", "", "quota of the memory tier, such as 2GB; 0: none (default: a quarter of the memory)")
	fl.StringVar(&f.ssd, "ssd", "", "quota of the SSD tier; 0: none (default: a tenth of the free disk)")
	fl.StringVar(&f.MemDir, "mem-dir", "", "folder of the memory tier (default: below --data)")
	fl.StringVar(&f.SSDDir, "ssd-dir", "", "folder of the SSD tier (default: below --data)")
	fl.StringVar(&f.wholeMax, "whole-max", "", "longest file kept as one block, of the whole cluster (default: 4GiB, or half of the largest tier)")
	fl.DurationVar(&f.ScrubPeriod, "scrub-period", 24*time.Hour, "within what time every cached block is read again and compared with its checksums; 0: only when asked")
	fl.StringVar(&f.scrubRate, "scrub-rate", "32MiB", "the most that is read for that per second")
	fl.StringVar(&f.WorkerAddr, "worker-addr", "127.0.0.1:28999", "address of the worker's data server")
	fl.StringVar(&f.MetaAddr, "meta-addr", "127.0.0.1:18998", "address of the metaplane")
	fl.StringVar(&f.metaCache, "meta-cache", "64MiB", "memory for what was read of the metaplane's records; directories are in memory besides")
	fl.StringVar(&f.WebAddr, "web-addr", "127.0.0.1:18999", "address of /metrics, /livez and /readyz; empty: none")
	fl.StringVar(&f.WorkerWebAddr, "worker-web-addr", "127.0.0.1:28998", "the same of a process that is only a worker")
	fl.StringArrayVar(&f.dirs, "tier", nil, "another tier directory, SSD:/path=100GB or HDD:/path=1TB, with ,reserve=20GB or ,reserve=10% to leave so much of the file system free, ,encrypt=KEYFILE to encrypt what is in it; may be repeated")
	fl.StringVar(&f.EvictPolicy, "evict-policy", evict.Default, "which cached blocks leave first: "+strings.Join(evict.Names(), ", "))
	fl.StringVar(&f.AllocPolicy, "alloc-policy", alloc.Default, "which directory of a tier gets a new block: "+strings.Join(alloc.Names(), ", "))
	fl.StringVar(&f.moveRate, "move-rate", "256MiB", "bytes per second at which blocks are copied between tiers, at most; 0: none moves up, and what leaves a tier is dropped")
	fl.Float64Var(&f.HighWatermark, "high-watermark", evict.DefaultMarks.High, "part of a tier directory's quota above which blocks leave")
	fl.Float64Var(&f.LowWatermark, "low-watermark", evict.DefaultMarks.Low, "part of the quota down to which they do")
	fl.DurationVar(&f.TrashRetention, "trash-retention", 0, "how long what is deleted below the root is kept, set when the root is mounted first (orca fs mount changes it); 0: not at all")
	fl.DurationVar(&f.SyncInterval, "sync-interval", -1, "how old what is known of the root store may be: 0 looks on every access, negative loads once")
	fl.Lookup("sync-interval").DefValue = "load once"
	fl.StringVar(&f.Root, "root", "", "URI of the store behind / of a new namespace (default: a folder below --data)")
	fl.StringArrayVar(&f.rootOptions, "root-option", nil, "an option of the root store, key=value; may be repeated")
	fl.BoolVar(&f.RootReadOnly, "root-readonly", false, "refuse writes to the root store")
	f.write = writeType(c)
	f.replicas = replicas(c, 1, "on how many workers a file is whose writer says nothing, of the whole cluster")
	fl.DurationVar(&f.RepairAfter, "repair-after", 30*time.Second, "for how long copies of a file may be too few or too many before that is put right")
	fl.StringVar(&f.repairRate, "repair-rate", "128MiB", "bytes per second that a worker takes for that, at most")
}

// finish checks and converts the raw values.
func (f *serverFlags) finish(e *env) (NodeOptions, error) {
	o := f.NodeOptions
	o.Node, o.Rack = e.node, e.rack
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, o.Log.Level) {
		return o, usagef("unknown --log-level %q", o.Log.Level)
	}
	var err error
	if o.Data, err = filepath.Abs(o.Data); err != nil {
		return o, usagef("--data: %v", err)
	}
	if o.MemBytes, err = quota("--mem", f.mem, -1); err != nil {
		return o, err
	}
	if o.SSDBytes, err = quota("--ssd", f.ssd, -1); err != nil {
		return o, err
	}
	if o.MetaCache, err = quota("--meta-cache", f.metaCache, 0); err != nil {
		return o, err
	}
	if o.MoveRate, err = quota("--move-rate", f.moveRate, -1); err != nil {
		return o, err
	}
	if o.WholeMax, err = quota("--whole-max", f.wholeMax, 0); err != nil {
		return o, err
	}
	if o.RepairRate, err = quota("--repair-rate", f.repairRate, 0); err != nil {
		return o, err
	}
	if o.ScrubRate, err = quota("--scrub-rate", f.scrubRate, 0); err != nil {
		return o, err
	}
	o.Replicas = *f.replicas
	switch {
	case o.MetaCache < 1<<20:
		return o, usagef("--meta-cache %q: want 1MiB at least", f.metaCache)
	case o.Replicas < 1 || o.Replicas > 1024:
		return o, usagef("--replicas %d: want 1 to 1024", o.Replicas)
	case o.RepairAfter < 0:
		return o, usagef("--repair-after %v: negative", o.RepairAfter)
	case o.RepairRate == 0:
		return o, usagef("--repair-rate %q: want a rate above 0", f.repairRate)
	case o.ScrubPeriod < 0:
		return o, usagef("--scrub-period %v: negative", o.ScrubPeriod)
	case o.ScrubRate == 0:
		return o, usagef("--scrub-rate %q: no scrubbing is --scrub-period 0", f.scrubRate)
	case o.ScrubPeriod == 0:
		o.ScrubPeriod = -1
	}
	if _, err := evict.New(o.EvictPolicy); err != nil {
		return o, usagef("--evict-policy %q: want one of %s", o.EvictPolicy, strings.Join(evict.Names(), ", "))
	}
	if _, err := alloc.New(o.AllocPolicy); err != nil {
		return o, usagef("--alloc-policy %q: want one of %s", o.AllocPolicy, strings.Join(alloc.Names(), ", "))
	}
	if m := (evict.Marks{High: o.HighWatermark, Low: o.LowWatermark}); !m.Valid() {
		return o, usagef("want 0 < --low-watermark <= --high-watermark <= 1, not %g and %g", m.Low, m.High)
	}
	for _, d := range f.dirs {
		c, err := parseTier(d)
		if err != nil {
			return o, err
		}
		o.Dirs = append(o.Dirs, c)
	}
	if o.WriteType, err = parseWriteType(*f.write); err != nil {
		return o, err
	}
	o.RootOptions, err = pairs(f.rootOptions)
	return o, err
}

// parseTier parses TIER:PATH=SIZE[,reserve=SIZE|PERCENT%][,encrypt=KEYFILE]. A
// path holds no equals sign, that of a key no comma.
func parseTier(s string) (dir.Config, error) {
	bad := usagef("tier directory %q: want SSD:/path=100GB or HDD:/path=1TB, and behind it ,reserve=20GB or ,reserve=10%% if so much is to be left free, ,encrypt=/path/of/key if it is to be encrypted", s)
	kind, rest, _ := strings.Cut(s, ":")
	path, n, ok := strings.Cut(rest, "=")
	options := strings.Split(n, ",")
	size, err := humanize.ParseBytes(options[0])
	c := dir.Config{Path: path, Tier: orca.SSD, Capacity: int64(size)}
	if kind == "HDD" {
		c.Tier = orca.HDD
	}
	if !ok || err != nil || size > 1<<62 || path == "" || kind != "SSD" && kind != "HDD" {
		return c, bad
	}
	for _, o := range options[1:] {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case key == "encrypt" && value != "":
			c.KeyFile, err = filepath.Abs(value)
		case key == "reserve":
			err = parseReserve(&c, value)
		default:
			err = bad
		}
		if err != nil {
			return c, bad
		}
	}
	return c, nil
}

// parseReserve parses what a directory leaves of its file system.
func parseReserve(c *dir.Config, s string) error {
	if p, isPart := strings.CutSuffix(s, "%"); isPart {
		part, err := strconv.ParseFloat(p, 64)
		if err != nil || !(part >= 0 && part < 100) {
			return usagef("not a part")
		}
		c.ReservePart = part / 100
		return nil
	}
	size, err := humanize.ParseBytes(s)
	if err != nil || size > 1<<62 {
		return usagef("not a size")
	}
	c.Reserve = int64(size)
	return nil
}

// quota parses a size: "" is 0 (the default), and 0 is none.
func quota(flag, s string, none int64) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return 0, usagef("%s %q: not a size", flag, s)
	}
	if n == 0 {
		return none, nil
	}
	return int64(n), nil
}

func defaultData() string {
	if h, err := os.UserHomeDir(); err == nil {
		return filepath.Join(h, ".orca")
	}
	return "orca-data"
}

// addServers adds the commands whose hooks are there.
func (e *env) addServers(root *cobra.Command) {
	if e.hooks.Up != nil {
		root.AddCommand(e.upCommand())
	}
	if e.hooks.Start != nil {
		root.AddCommand(e.startCommand())
	}
	if e.hooks.Mount != nil {
		root.AddCommand(e.fuseCommand())
	}
}

func (e *env) upCommand() *cobra.Command {
	var f serverFlags
	var o UpOptions
	c := &cobra.Command{
		Use: "up", Short: "Run a whole Orca in this process",
		Long: `Run a whole Orca in this process: metaplane, worker and, with --mount, a FUSE
mount. State is kept below --data; a second start finds namespace and cache
again. Stop it with Ctrl-C or SIGTERM: it unmounts and flushes first.

--root is the store behind /: a bucket (s3://bucket/prefix), a folder
(file:///srv/data), or by default a folder below --data. It is looked at when
Orca starts for the first time, and wrong credentials fail there.`,
		Example: `  orca up
  orca up --data /var/lib/orca --root s3://bucket --root-option s3.region=eu-central-1
  orca up --root file:///srv/data --mount /mnt/orca --mem 8GB`,
		Args: noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.NodeOptions, err = f.finish(e); err != nil {
				return err
			}
			if o.Mount != "" {
				if o.Mount, err = filepath.Abs(o.Mount); err != nil {
					return usagef("--mount: %v", err)
				}
			}
			return e.hooks.Up(cmd.Context(), o, e.Streams)
		}),
	}
	f.register(c)
	c.Flags().StringVar(&o.Mount, "mount", "", "mount Orca at this folder")
	c.Flags().BoolVar(&o.AllowOther, "allow-other", os.Geteuid() == 0, "let other users into the mount")
	c.Flags().Lookup("allow-other").DefValue = "true for root"
	return c
}

func (e *env) startCommand() *cobra.Command {
	var f serverFlags
	var o StartOptions
	c := &cobra.Command{
		Use: "start", Short: "Run some roles of an Orca",
		Long: `Run some roles of an Orca in this process, to build one from several processes
or hosts. Workers are local to clients whose --node is the same.

A metaplane of one member needs nothing else. One of three (or five) goes on
when one (two) of them fails; each is started with the same --peers, which
names all of them, and with a --root that all reach. A member knows itself in
the list by --node or --raft-addr, waits until a majority is there, and needs
none of this again once it has run: its data folder knows. What members say to
each other is in the clear and believed; with --raft-tls-ca, --raft-tls-cert and
--raft-tls-key, at each start of each of them, it is neither.

A member whose disk is lost is replaced, not restarted: orca admin quorum
remove its number, orca admin quorum add the Raft address of a new one, and
start that one with --join and the addresses of the running members.`,
		Example: `  orca start --role meta --data /var/lib/orca
  orca start --role meta --node a --meta-addr 10.0.0.1:18998 --root s3://bucket \
      --peers a=10.0.0.1:18200,b=10.0.0.2:18200,c=10.0.0.3:18200
  orca start --role meta --node d --meta-addr 10.0.0.4:18998 --raft-addr 10.0.0.4:18200 \
      --join 10.0.0.1:18998,10.0.0.2:18998
  orca start --role worker --meta 10.0.0.1:18998,10.0.0.2:18998,10.0.0.3:18998`,
		Args: noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			if len(o.Roles) == 0 {
				return usagef("want at least one --role of %v", roles)
			}
			for _, r := range o.Roles {
				if !slices.Contains(roles, r) {
					return usagef("unknown --role %q (want one of %v)", r, roles)
				}
			}
			if !slices.Contains(o.Roles, "meta") && len(o.Meta) == 0 {
				o.Meta = strings.Split(e.address, ",")
			}
			if err := o.checkCluster(); err != nil {
				return err
			}
			var err error
			if o.NodeOptions, err = f.finish(e); err != nil {
				return err
			}
			return e.hooks.Start(cmd.Context(), o, e.Streams)
		}),
	}
	f.register(c)
	fl := c.Flags()
	fl.StringSliceVar(&o.Roles, "role", nil, "meta or worker; may be repeated")
	fl.StringSliceVar(&o.Meta, "meta", nil, "addresses of the metaplane, for a worker (default: --address)")
	fl.StringSliceVar(&o.Peers, "peers", nil, "the first members of a new cluster, NODE=HOST:PORT of Raft; all are given the same")
	fl.StringVar(&o.RaftAddr, "raft-addr", "", "address at which this member speaks with the others (default: that of --node among --peers)")
	fl.StringVar(&o.RaftTLSCA, "raft-tls-ca", "", "PEM file of the CA of the members' certificates: members speak TLS, and only with who has one")
	fl.StringVar(&o.RaftTLSCert, "raft-tls-cert", "", "PEM file of this member's certificate, for the host of its Raft address, as server and client")
	fl.StringVar(&o.RaftTLSKey, "raft-tls-key", "", "PEM file of its key")
	fl.StringSliceVar(&o.Join, "join", nil, "addresses of the metaplane of a running cluster that this member was added to")
	return c
}

// checkCluster checks what says with whom a member decides.
func (o *StartOptions) checkCluster() error {
	tls := o.RaftTLSCA != "" || o.RaftTLSCert != "" || o.RaftTLSKey != ""
	if !slices.Contains(o.Roles, "meta") && (len(o.Peers) > 0 || len(o.Join) > 0 || o.RaftAddr != "" || tls) {
		return usagef("--peers, --join, --raft-addr and --raft-tls-... are of --role meta")
	}
	if tls && (o.RaftTLSCA == "" || o.RaftTLSCert == "" || o.RaftTLSKey == "") {
		return usagef("TLS between members needs all of --raft-tls-ca, --raft-tls-cert and --raft-tls-key")
	}
	if len(o.Peers) > 0 && len(o.Join) > 0 {
		return usagef("either --peers (a new cluster) or --join (a running one)")
	}
	if n := len(o.Peers); n > 0 && n != 3 && n != 5 {
		return usagef("--peers: %d members, want 3 or 5", n)
	}
	for _, p := range o.Peers {
		node, addr, ok := strings.Cut(p, "=")
		if _, _, err := net.SplitHostPort(addr); !ok || node == "" || err != nil {
			return usagef("--peers %q: want NODE=HOST:PORT", p)
		}
	}
	if len(o.Join) > 0 && o.RaftAddr == "" {
		return usagef("--join needs --raft-addr, the address that was given to orca admin quorum add")
	}
	if _, _, err := net.SplitHostPort(o.RaftAddr); o.RaftAddr != "" && err != nil {
		return usagef("--raft-addr %q: want HOST:PORT", o.RaftAddr)
	}
	return nil
}

func (e *env) fuseCommand() *cobra.Command {
	var o MountOptions
	c := &cobra.Command{
		Use: "mount DIR", Short: "Mount Orca at a folder with FUSE",
		Long: `Mount Orca at a folder with FUSE and serve it until it is unmounted or the
command is stopped. (orca fs mount is another thing: it attaches a store.)`,
		Example: `  orca mount /mnt/orca
  orca mount --path /datasets --readonly /mnt/data`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("want mount DIR")
			}
			return nil
		},
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Dir, err = filepath.Abs(args[0]); err != nil {
				return usagef("%v", err)
			}
			if o.Path, err = e.clean(o.Path); err != nil {
				return err
			}
			o.Addresses, o.Node, o.Rack = strings.Split(e.address, ","), e.node, e.rack
			if o.ReadPolicy, o.WritePolicy, err = e.policies(); err != nil {
				return err
			}
			if o.ReadFrom, err = e.readFrom(); err != nil {
				return err
			}
			if o.ShortCircuit, err = e.shortCircuit(); err != nil {
				return err
			}
			return e.hooks.Mount(cmd.Context(), o, e.Streams)
		}),
	}
	fl := c.Flags()
	fl.StringVar(&o.Path, "path", "/", "path of Orca to mount")
	fl.BoolVar(&o.ReadOnly, "readonly", false, "mount read-only")
	fl.BoolVar(&o.AllowOther, "allow-other", os.Geteuid() == 0, "let other users in")
	fl.Lookup("allow-other").DefValue = "true for root"
	fl.StringVar(&o.Log.Level, "log-level", "info", "debug, info, warn or error")
	fl.BoolVar(&o.Log.JSON, "log-json", false, "log JSON")
	return c
}
