// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
	"orca/tiers/dir"
)

var rewrite = flag.Bool("rewrite", false, "rewrite goldens")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// docs/cli.md says what the commands say.
func TestDocs(t *testing.T) {
	t.Setenv("ORCA_ADDRESS", "")
	t.Setenv("ORCA_NODE", "")
	var b bytes.Buffer
	require.NoError(t, WriteDocs(&b))
	const golden = "../../docs/cli.md"
	if *rewrite {
		require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "go test ./engine/cli -run Docs -rewrite")
}

// shell runs command lines against one Orca in memory.
type shell struct {
	t     testing.TB
	orca  *memorca.Orca
	node  string
	stdin string
	tty   bool
}

func newShell(t testing.TB, dir string) *shell {
	o, err := memorca.New(dir, "here", "there")
	require.NoError(t, err)
	return &shell{t: t, orca: o, node: "here"}
}

func (s *shell) hooks() Hooks {
	return Hooks{Open: func(ctx context.Context, cfg client.Config) (*client.FS, error) {
		if cfg.Addresses[0] == "127.0.0.1:1" {
			return nil, orca.PathE("client.Open", cfg.Addresses[0], orca.Unavailable, nil)
		}
		cfg.Meta, cfg.Dial, cfg.Node = s.orca, s.orca.Dial, s.node
		return client.Open(ctx, cfg)
	}}
}

func (s *shell) run(ctx context.Context, args ...string) (code int, out, err string) {
	var o, e bytes.Buffer
	code = Run(ctx, args, Streams{In: strings.NewReader(s.stdin), Out: &o, Err: &e, OutTTY: s.tty}, s.hooks())
	return code, o.String(), e.String()
}

// TestScripts runs testdata/script; each file tells its story.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir := env.WorkDir + "/.orca"
			o, err := memorca.New(dir, "here", "there")
			if err != nil {
				return err
			}
			env.Values["shell"] = &shell{orca: o, node: "here"}
			env.Setenv("TZ", "UTC")
			return nil
		},
		Condition: func(cond string) (bool, error) { return cond == "mem", nil },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"orca":     orcaCmd,
			"input":    func(ts *testscript.TestScript, _ bool, args []string) { sh(ts).stdin = ts.ReadFile(args[0]) },
			"cached":   func(ts *testscript.TestScript, _ bool, args []string) { locations(ts, args[0], true) },
			"uncached": func(ts *testscript.TestScript, _ bool, args []string) { locations(ts, args[0], false) },
		},
	})
}

func sh(ts *testscript.TestScript) *shell { return ts.Value("shell").(*shell) }

// orcaCmd is `orca ARG...`: exit code 0; with ! before it 1, or the code given
// as !N: `! orca !2 fs` wants 2.
func orcaCmd(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	if neg {
		want = 1
		if len(args) > 0 && len(args[0]) == 2 && args[0][0] == '!' {
			want, args = int(args[0][1]-'0'), args[1:]
		}
	}
	s := sh(ts)
	abs := make([]string, len(args))
	for i, a := range args {
		abs[i] = strings.ReplaceAll(a, "file://WORK", "file://"+ts.MkAbs("."))
	}
	code, out, err := s.run(context.Background(), abs...)
	_, _ = ts.Stdout().Write([]byte(out))
	_, _ = ts.Stderr().Write([]byte(err))
	if code != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", code, want, out, err)
	}
}

// locations checks whether any worker holds a file; real workers report a
// little later, and the scripts are theirs, too.
func locations(ts *testscript.TestScript, path string, want bool) {
	_, out, _ := sh(ts).run(context.Background(), "fs", "location", path)
	if (out != "") != want {
		ts.Fatalf("locations of %s: %q", path, out)
	}
}

func TestTables(t *testing.T) {
	s := newShell(t, t.TempDir())
	s.stdin = "hello"
	code, _, _ := s.run(t.Context(), "fs", "copyFromLocal", "-", "/f")
	require.Zero(t, code)
	_, piped, _ := s.run(t.Context(), "fs", "location", "/f")
	require.Equal(t, "here\t127.0.0.1:20001\t5\tMEM\t1\t/f\n", piped)
	s.tty = true
	_, seen, _ := s.run(t.Context(), "fs", "location", "/f")
	require.Equal(t, "WORKER  ADDRESS          CACHED  TIER  BLOCKS  PATH\nhere    127.0.0.1:20001  5       MEM   1       /f\n", seen)
}

// The names in --json are a promise.
func TestJSONFields(t *testing.T) {
	s := newShell(t, t.TempDir())
	s.stdin = "hello"
	code, _, _ := s.run(t.Context(), "fs", "copyFromLocal", "-", "/f")
	require.Zero(t, code)
	for cmd, want := range map[string][]string{
		"fs stat /f": {"path", "type", "inode", "length", "mode", "uid", "gid", "owner", "group", "nlink", "mtime", "ctime", "atime",
			"block_size", "blocks", "version", "persistence", "cached_bytes", "pinned", "mount_point", "raft_group", "fingerprint", "replica_min", "replica_max", "copies"},
		"fs du /f":       {"path", "length", "cached_bytes"},
		"fs count /":     {"path", "files", "directories", "bytes"},
		"fs checksum /f": {"path", "algorithm", "checksum"},
		"fs location /f": {"path", "worker", "node", "address", "cached_bytes", "tier", "complete_blocks"},
		"fs mount":       {"id", "path", "uri", "read_only", "shared", "sync_interval_ms", "group", "trash_retention_ms"},
		"admin report": {"cluster", "version", "address", "started", "uptime_seconds", "inodes", "directories", "write_sessions", "applied",
			"mounts", "pending_ufs_operations", "live_workers", "lost_workers", "capacity_bytes", "used_bytes", "tiers"},
		"admin report ufs": {"mounts", "pending"},
		"getConf":          {"key", "value", "source"},
		"version":          {"version", "commit", "go", "os", "arch"},
	} {
		code, out, err := s.run(t.Context(), append(strings.Fields(cmd), "--json")...)
		require.Zero(t, code, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &got), cmd)
		var names []string
		for k := range got {
			names = append(names, k)
		}
		require.ElementsMatch(t, want, names, cmd)
	}
	_, out, _ := s.run(t.Context(), "admin", "workers", "--json")
	require.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 2)
}

func TestUsageErrorsAreTwo(t *testing.T) {
	s := newShell(t, t.TempDir())
	for _, line := range []string{
		"nonsense", "fs nonsense", "admin nonsense", "fs ls", "fs ls --nonsense /", "fs ls --sort nonsense /", "fs ls relative",
		"fs mv /a", "fs head -c many /f", "fs chmod 99999 /f", "fs chmod u*x /f", "fs chown nobody-of-this-name /f", "fs test",
		"fs test /a /b", "fs mount /x", "fs mount /x s3://b --option k", "fs cp /a", "fs touch --write-type FAST /f",
		"fs cat --read-type FAST /f", "admin report nonsense", "getConf a b", "version x", "fs ls /[", "fs leader x",
	} {
		code, out, err := s.run(t.Context(), strings.Fields(line)...)
		require.Equal(t, 2, code, "%s: %s%s", line, out, err)
		require.Empty(t, out, line)
		require.Contains(t, err, "--help", line)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	s := newShell(t, t.TempDir())
	for _, line := range []string{"", "fs", "fs ls --help", "fs cat -h", "admin", "help fs cp", "completion bash", "completion zsh", "completion fish", "completion powershell"} {
		code, out, err := s.run(t.Context(), strings.Fields(line)...)
		require.Zero(t, code, "%s: %s", line, err)
		require.Greater(t, len(out), 100, line)
	}
}

func TestInterrupted(t *testing.T) {
	s := newShell(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.orca.Fail(func(op string) error {
		cancel()
		return orca.PathE(op, "", orca.Canceled, context.Canceled)
	})
	code, _, _ := s.run(ctx, "fs", "ls", "/")
	require.Equal(t, 130, code)
}

func TestUnavailable(t *testing.T) {
	s := newShell(t, t.TempDir())
	code, out, err := s.run(t.Context(), "--address", "127.0.0.1:1", "fs", "ls", "/")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, err, "ls: Service unavailable")
	t.Setenv("ORCA_ADDRESS", "127.0.0.1:1")
	code, _, _ = s.run(t.Context(), "fs", "ls", "/")
	require.Equal(t, 1, code)
	code, _, _ = s.run(t.Context(), "fs", "ls", "orca://somewhere:1/")
	require.Zero(t, code)
}

func TestCompletion(t *testing.T) {
	s := newShell(t, t.TempDir())
	code, _, _ := s.run(t.Context(), "fs", "mkdir", "/data/one", "/data/other", "/x")
	require.Zero(t, code)
	_, out, _ := s.run(t.Context(), "__complete", "fs", "ls", "/data/o")
	require.Equal(t, []string{"/data/one/", "/data/other/", ":6"}, strings.Split(strings.TrimSpace(out), "\n"))
	s.orca.Fail(func(op string) error { return orca.E(op, orca.Unavailable, "") })
	_, out, _ = s.run(t.Context(), "__complete", "fs", "ls", "/data/o")
	require.Equal(t, ":6", strings.TrimSpace(out))
}

func TestServerFlags(t *testing.T) {
	var up UpOptions
	var start StartOptions
	h := Hooks{
		Up:    func(_ context.Context, o UpOptions, _ Streams) error { up = o; return nil },
		Start: func(_ context.Context, o StartOptions, _ Streams) error { start = o; return nil },
	}
	run := func(line string) (int, string) {
		var e bytes.Buffer
		code := Run(t.Context(), strings.Fields(line), Streams{Out: &e, Err: &e}, h)
		return code, e.String()
	}
	code, msg := run("up --data /d --root s3://b/p --root-option s3.region=r --root-option k=a=b --mem 1GiB --ssd 0 --mount /m --node n --allow-other=false --write-type through")
	require.Zero(t, code, msg)
	require.Equal(t, UpOptions{
		NodeOptions: NodeOptions{Data: "/d", Node: "n", Log: LogOptions{Level: "info"}, MetaAddr: "127.0.0.1:18998", WebAddr: "127.0.0.1:18999",
			WorkerAddr: "127.0.0.1:28999", WorkerWebAddr: "127.0.0.1:28998", MetaCache: 64 << 20, MemBytes: 1 << 30, SSDBytes: -1, EvictPolicy: "adaptive", AllocPolicy: "max-free", MoveRate: 256 << 20, Replicas: 1, RepairAfter: 30 * time.Second, RepairRate: 128 << 20, HighWatermark: 0.97, LowWatermark: 0.95, SyncInterval: -1, ScrubPeriod: 24 * time.Hour, ScrubRate: 32 << 20, WriteType: orca.Through, Root: "s3://b/p",
			RootOptions: map[string]string{"s3.region": "r", "k": "a=b"}},
		Mount: "/m",
	}, up)
	code, msg = run("start --role worker --meta a:1,b:2 --data /d --tier SSD:/x=10GB --tier HDD:/a:c=1TB,reserve=2GB --tier SSD:/p=1GB,reserve=12.5% --tier SSD:/e=1GB,encrypt=/k,reserve=1GB")
	require.Zero(t, code, msg)
	require.Equal(t, []string{"worker"}, start.Roles)
	require.Zero(t, start.MemBytes)
	require.Equal(t, []dir.Config{{Path: "/x", Tier: orca.SSD, Capacity: 10e9}, {Path: "/a:c", Tier: orca.HDD, Capacity: 1e12, Reserve: 2e9},
		{Path: "/p", Tier: orca.SSD, Capacity: 1e9, ReservePart: 0.125}, {Path: "/e", Tier: orca.SSD, Capacity: 1e9, Reserve: 1e9, KeyFile: "/k"}}, start.Dirs)
	require.Equal(t, []string{"a:1", "b:2"}, start.Meta)
	for _, bad := range []string{"start", "start --role cook", "up x", "up --mem lots", "up --evict-policy mru", "up --alloc-policy x", "up --move-rate fast", "up --low-watermark 0", "up --low-watermark 0.99", "up --high-watermark 2", "up --whole-max x", "up --tier RAM:/x=1", "up --tier SSD:/x=", "up --tier SSD:=1GB", "up --tier SSD:/x=1GB,reserve=", "up --tier SSD:/x=1GB,reserve=100%", "up --tier SSD:/x=1GB,reserve=-1%", "up --tier SSD:/x=1GB,reserve=NaN%", "up --tier SSD:/x=1GB,keep=1", "up --tier SSD:/x=1GB,encrypt=", "up --tier SSD:/x=1GB,encrypt", "up --root-option k", "up --log-level loud", "mount /x"} {
		code, msg = run(bad)
		require.Equal(t, 2, code, "%s: %s", bad, msg)
	}
}

func TestParseMode(t *testing.T) {
	for _, c := range []struct {
		arg      string
		in, want uint32
		dir      bool
	}{
		{"0644", 0o777, 0o644, false}, {"4755", 0, 0o4755, false}, {"u+x", 0o644, 0o744, false}, {"go-rwx", 0o755, 0o700, false},
		{"a=r", 0o777, 0o444, false}, {"+x", 0o600, 0o711, false}, {"u=rw,g=r,o=", 0o777, 0o640, false}, {"a+X", 0o644, 0o644, false},
		{"a+X", 0o644, 0o755, true}, {"a+X", 0o744, 0o755, false}, {"u+s,+t", 0o755, 0o5755, false}, {"g+s", 0o755, 0o2755, false},
	} {
		m, err := parseMode(c.arg)
		require.NoError(t, err, c.arg)
		require.Equal(t, c.want, m.apply(c.in, c.dir), "%s on %o", c.arg, c.in)
	}
	for _, bad := range []string{"", "9", "u+q", "x", "u", "77777", "k+x"} {
		_, err := parseMode(bad)
		require.Error(t, err, bad)
	}
}
