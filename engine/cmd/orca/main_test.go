// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest"
)

// orcaBin is what `orca` is called here; the scripts' own command is orca.
const orcaBin = "orca-under-test"

// The test binary is `orca` when it is called by that name, so that the tests
// run real processes without building anything.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){orcaBin: main}) }

// server is an `orca up` in a process of its own.
type server struct {
	cmd  *exec.Cmd
	data string
	out  bytes.Buffer
	Meta string `json:"meta"`
	Sock string `json:"meta_socket"`
	Node string `json:"node"`
	Root string `json:"root"`
}

// start runs `orca up` below dir on free ports and waits until it is ready.
func startUp(dir string, args ...string) (*server, error) {
	s := &server{data: filepath.Join(dir, "data")}
	s.cmd = exec.Command(orcaBin, append([]string{"up", "--data", s.data, "--meta-addr", "127.0.0.1:0", "--web-addr", "",
		"--worker-addr", "127.0.0.1:0", "--mem", "256MB", "--ssd", "256MB", "--log-level", "warn"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		b, err := os.ReadFile(filepath.Join(s.data, "endpoints.json"))
		if err == nil && json.Unmarshal(b, s) == nil && s.Meta != "" {
			return s, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(errors.New("orca up is not ready: "+s.out.String()), s.cmd.Process.Kill())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// stop asks the process to end and returns what it has to say if it does so
// badly.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return errors.Join(err, errors.New(s.out.String()))
	}
	return nil
}

// discard removes what a server kept: a memory tier with data that is nowhere
// else stays mounted after a clean stop.
func discard(dir string) error {
	err := unix.Unmount(filepath.Join(dir, "data", "run", "mem"), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return os.RemoveAll(dir)
}

func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "orca") // short: socket paths are limited
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, discard(dir)) })
	s, err := startUp(dir, args...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.stop()) })
	return s
}

func (s *server) open(t *testing.T, addr, node string) *client.FS {
	t.Helper()
	fs, err := client.Open(t.Context(), client.Config{Addresses: []string{addr}, Node: node})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs
}

// TestScripts runs the command line's scripts with real processes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../cli/testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "orca")
			if err != nil {
				return err
			}
			s, err := startUp(dir)
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := errors.Join(s.stop(), discard(dir)); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("ORCA_ADDRESS", s.Sock)
			env.Values["stdin"] = new(string)
			return nil
		},
		Condition: func(string) (bool, error) { return false, nil },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"orca": orcaCmd,
			"input": func(ts *testscript.TestScript, _ bool, args []string) {
				*ts.Value("stdin").(*string) = ts.ReadFile(args[0])
			},
			"cached":   func(ts *testscript.TestScript, _ bool, args []string) { locations(ts, args[0], true) },
			"uncached": func(ts *testscript.TestScript, _ bool, args []string) { locations(ts, args[0], false) },
		},
	})
}

// orcaCmd runs one command line in a process of its own; its language is that
// of package cli's tests.
func orcaCmd(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	if neg {
		want = 1
		if len(args) > 0 && len(args[0]) == 2 && args[0][0] == '!' {
			want, args = int(args[0][1]-'0'), args[1:]
		}
	}
	code, out, errs := runOrca(ts, args)
	_, _ = ts.Stdout().Write([]byte(out))
	_, _ = ts.Stderr().Write([]byte(errs))
	if code != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", code, want, out, errs)
	}
}

func runOrca(ts *testscript.TestScript, args []string) (code int, out, errs string) {
	abs := make([]string, len(args))
	for i, a := range args {
		abs[i] = strings.ReplaceAll(a, "file://WORK", "file://"+ts.MkAbs("."))
	}
	var o, e bytes.Buffer
	c := exec.Command(orcaBin, abs...)
	c.Env = append(os.Environ(), "ORCA_ADDRESS="+ts.Getenv("ORCA_ADDRESS"), "TZ=UTC")
	c.Dir, c.Stdin, c.Stdout, c.Stderr = ts.MkAbs("."), strings.NewReader(*ts.Value("stdin").(*string)), &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	return c.ProcessState.ExitCode(), o.String(), e.String()
}

// locations waits until workers have reported as expected.
func locations(ts *testscript.TestScript, path string, want bool) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, out, _ := runOrca(ts, []string{"fs", "location", path})
		if (out != "") == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("locations of %s: %q", path, out)
		}
		<-time.After(50 * time.Millisecond)
	}
}

var apiCaps = clienttest.Caps{AtomicPublish: true, Symlinks: true, Modes: true, Times: true}

// The semantic table against a real Orca, by descriptors and by ranges, with
// every write type.
func TestTable(t *testing.T) {
	s := newServer(t)
	for name, fs := range map[string]*client.FS{"local": s.open(t, s.Sock, s.Node), "remote": s.open(t, s.Meta, "far")} {
		for _, w := range []orca.WriteType{orca.CacheThrough, orca.MustCache, orca.AsyncThrough, orca.Through} {
			t.Run(name+"-"+w.String(), func(t *testing.T) {
				root := "/" + name + w.String()
				_, err := fs.Mkdir(t.Context(), client.Path(root), 0o755)
				require.NoError(t, err)
				clienttest.All(t, clienttest.API{FS: fs, Root: root, Create: client.CreateOptions{WriteType: w}}, apiCaps)
			})
		}
	}
}

// What is in the store already is there, and io/fs sees it.
func TestStoreThroughIOFS(t *testing.T) {
	store := t.TempDir()
	for p, b := range map[string]string{"top": "top", "a/one": "1", "a/b/two": strings.Repeat("two", 100_000)} {
		require.NoError(t, os.MkdirAll(filepath.Join(store, filepath.Dir(p)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(store, p), []byte(b), 0o644))
	}
	s := newServer(t, "--root", "file://"+store)
	for _, node := range []string{s.Node, "far"} {
		x, err := s.open(t, s.Sock, node).IOFS(t.Context(), "/")
		require.NoError(t, err)
		require.NoError(t, fstest.TestFS(x, "top", "a/one", "a/b/two"))
	}
}

// A second start finds everything again, and the first operation is quick.
func TestRestart(t *testing.T) {
	dir, err := os.MkdirTemp("", "orca")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, discard(dir)) })
	put := func(fs *client.FS, path, text string) {
		w, err := fs.Create(t.Context(), client.Path(path), client.CreateOptions{})
		require.NoError(t, err)
		_, err = w.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	read := func(fs *client.FS, path string) string {
		x, err := fs.IOFS(t.Context(), "/")
		require.NoError(t, err)
		b, err := x.ReadFile(strings.TrimPrefix(path, "/"))
		require.NoError(t, err)
		return string(b)
	}
	s, err := startUp(dir)
	require.NoError(t, err)
	put(s.open(t, s.Sock, s.Node), "/kept", "through a clean stop")
	require.NoError(t, s.stop())

	s, err = startUp(dir)
	require.NoError(t, err)
	fs := s.open(t, s.Sock, s.Node)
	require.Equal(t, "through a clean stop", read(fs, "/kept"))
	put(fs, "/killed", "through kill -9")
	require.NoError(t, s.cmd.Process.Kill())
	_ = s.cmd.Wait() // it was killed

	require.NoError(t, os.Remove(filepath.Join(s.data, "endpoints.json")))
	s, err = startUp(dir)
	require.NoError(t, err)
	fs = s.open(t, s.Sock, s.Node)
	require.Equal(t, "through kill -9", read(fs, "/killed"))
	require.NoError(t, s.stop())
}
