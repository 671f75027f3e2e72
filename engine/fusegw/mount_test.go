// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// netpoll's pollers are the process's, for its whole life.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

// needFUSE fails where no mount can be made: a skipped test would prove
// nothing.
func needFUSE(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatal("no /dev/fuse: load the module (modprobe fuse), or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)")
	}
}

// mounted mounts fs on a fresh folder until the test ends.
func mounted(t testing.TB, fs FS, change func(*Config)) (*Mounted, string) {
	t.Helper()
	needFUSE(t)
	cfg := Config{Dir: fastDir(t), FS: fs, AllowOther: true, BusyRetry: 200 * time.Millisecond}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := Mount(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Unmount(ctx); err != nil {
			t.Error(err)
		}
	})
	return m, cfg.Dir
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in 5 s: " + what)
		}
	}
}

func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMountServesAndUnmounts(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	write(t, filepath.Join(dir, "a"), "hello")
	if got := read(t, filepath.Join(dir, "a")); got != "hello" {
		t.Fatalf("read %q", got)
	}
	if !m.Metrics().PassEnabled.Load() {
		t.Error("passthrough is off although we are root")
	}
	ctx := context.Background()
	if err := m.Unmount(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Done():
	default:
		t.Error("served after Unmount")
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !os.IsNotExist(err) {
		t.Errorf("stat below the unmounted point: %v", err)
	}
}

// fastDir is a folder in memory where there is one: the tests make many files.
func fastDir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("/dev/shm", "fusegw-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	if err := os.Chmod(d, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}
