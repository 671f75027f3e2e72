// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// program writes a shell script that stands for the binary; $3 is its data
// folder.
func program(t *testing.T, body string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "orca")
	require.NoError(t, os.WriteFile(p, []byte("#!/bin/sh\n"+body), 0o755))
	return p
}

const (
	publish = `mkdir -p "$3"; echo '{"pid":1,"meta":"127.0.0.1:7","http":"127.0.0.1:8"}' > "$3/endpoints.json"
echo "$@" > "$3/args"
`
	ready  = "echo starting; echo 'orca is ready in 0.1s'\n"
	linger = "while :; do sleep 0.01; done\n"
)

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestUp(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	o, err := Up(t.Context(), program(t, publish+ready+linger), data, "--mem", "1")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:7", o.Endpoints.Meta)
	require.NoError(t, o.Alive())
	args, err := os.ReadFile(filepath.Join(data, "args"))
	require.NoError(t, err)
	require.Equal(t, "up --data "+data+" --meta-addr 127.0.0.1:0 --worker-addr 127.0.0.1:0 --web-addr 127.0.0.1:0 --mem 1\n", string(args))
	require.NoError(t, o.Stop())
	require.False(t, alive(o.PID()))
	require.NoError(t, o.Stop(), "a second stop is nothing")
	require.Error(t, o.Alive())
}

func TestUpFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for _, c := range []struct{ name, body, want string }{
		{"ends at once", "echo 'port 18998 is taken' >&2; exit 3\n", "port 18998 is taken"},
		{"is ready but says not where", ready + linger, "endpoints.json"},
		{"is never ready", "echo 'still replaying'\n" + linger, "still replaying"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Up(ctx, program(t, c.body), filepath.Join(t.TempDir(), "data"))
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := Up(ctx, "/nonexistent/orca", t.TempDir())
	require.Error(t, err)
}

func TestStopKills(t *testing.T) {
	o, err := Up(t.Context(), program(t, "trap '' TERM\n"+publish+ready+linger), filepath.Join(t.TempDir(), "data"))
	require.NoError(t, err)
	o.grace = 100 * time.Millisecond
	require.ErrorContains(t, o.Stop(), "was killed")
	require.False(t, alive(o.PID()))
}

func TestDeathIsSeen(t *testing.T) {
	o, err := Up(t.Context(), program(t, publish+ready+"sleep 0.05; echo 'disk on fire' >&2; exit 70\n"), filepath.Join(t.TempDir(), "data"))
	require.NoError(t, err)
	<-o.exit
	require.ErrorContains(t, o.Alive(), "disk on fire")
	require.ErrorContains(t, o.Alive(), "exit status 70")
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	beside := filepath.Join(dir, "orca")
	require.NoError(t, os.WriteFile(beside, []byte("#!/bin/sh\n"), 0o755))
	got, err := Find(t.Context(), filepath.Join(dir, "orcabench"), t.TempDir(), os.Stderr)
	require.NoError(t, err)
	require.Equal(t, beside, got)

	onPath := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(onPath, "orca"), []byte("#!/bin/sh\n"), 0o755))
	t.Setenv("PATH", onPath)
	got, err = Find(t.Context(), filepath.Join(t.TempDir(), "orcabench"), t.TempDir(), os.Stderr)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(onPath, "orca"), got)

	t.Setenv("PATH", t.TempDir())
	var out strings.Builder
	_, err = Find(t.Context(), filepath.Join(t.TempDir(), "orcabench"), t.TempDir(), &out)
	require.ErrorContains(t, err, "building one failed")
	require.Contains(t, out.String(), "building orca")
}

func TestTailIsBounded(t *testing.T) {
	var l tail
	for range 100 {
		_, err := l.Write([]byte(strings.Repeat("x", 1000)))
		require.NoError(t, err)
	}
	_, err := l.Write([]byte("the end"))
	require.NoError(t, err)
	require.Len(t, l.String(), logTail)
	require.True(t, strings.HasSuffix(l.String(), "the end"))
}
