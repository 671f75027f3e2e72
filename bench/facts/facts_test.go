// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	f := Read(time.Unix(0, 0), "orcabench run env")
	require.Equal(t, "1970-01-01T00:00:00Z", f.Started)
	require.Positive(t, f.Cores)
	require.Greater(t, f.MemoryBytes, int64(64<<20))
	require.NotEmpty(t, f.Kernel)
	require.NotEmpty(t, f.Go)
	require.NotNil(t, f.Filesystems)
}

func TestParse(t *testing.T) {
	p := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(p, []byte("processor\t: 0\nmodel name\t: Fast 9000\nmodel name\t: other\nMemTotal:  2048 kB\n"), 0o600))
	require.Equal(t, "Fast 9000", cpuModel(p))
	require.EqualValues(t, 2048<<10, memTotal(p))
	require.Empty(t, cpuModel(filepath.Join(t.TempDir(), "missing")))
}

func TestFilesystem(t *testing.T) {
	fs, err := Filesystem("/proc/self")
	require.NoError(t, err)
	require.Contains(t, fs, "proc ")
	_, err = Filesystem(filepath.Join(t.TempDir(), "missing"))
	require.Error(t, err)
}

// TestAnonMemory touches memory and sees it in this process.
func TestAnonMemory(t *testing.T) {
	before, err := AnonMemory(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, before)
	const n = 256 << 20
	p := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		p[i] = 1
	}
	after, err := AnonMemory(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, after, int64(n))
	runtime.KeepAlive(p)
	_, err = AnonMemory(-1)
	require.Error(t, err)
}

// TestCPUTime burns time in this process and in a child, and sees both clocks
// move by about that much.
func TestCPUTime(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	require.NoError(t, err)
	start, after := time.Now(), before
	for after-before < 10*time.Millisecond && time.Since(start) < 10*time.Second {
		after, err = CPUTime(os.Getpid())
		require.NoError(t, err)
	}
	require.GreaterOrEqual(t, after-before, 10*time.Millisecond, "a busy process uses its processor")
	require.LessOrEqual(t, after-before, 64*time.Since(start), "and no more than there are")

	c := exec.Command("sleep", "60")
	require.NoError(t, c.Start())
	d, err := CPUTime(c.Process.Pid)
	require.NoError(t, err)
	require.Less(t, d, time.Second, "a sleeping child has used next to nothing")
	require.NoError(t, c.Process.Kill())
	c.Wait()
	_, err = CPUTime(c.Process.Pid)
	require.Error(t, err, "a dead process has no clock")
}
