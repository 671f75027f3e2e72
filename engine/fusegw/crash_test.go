// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"orca"
)

// crashDir makes the test binary a mount server that waits to be killed.
const crashDir = "FUSEGW_TEST_CRASH_DIR"

func TestCrashServer(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return // only a helper of the tests below
	}
	fs := newMemFS(t)
	fs.put(t, 1, "f", []byte("served"))
	if _, err := Mount(context.Background(), Config{Dir: dir, FS: fs, AllowOther: true}); err != nil {
		t.Fatal(err)
	}
	// While it mounts, a server has a file of its own mount open: killed then,
	// its end waits for itself until the connection is aborted.
	fs.put(t, 1, "ready", []byte("mounted"))
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGUSR1)
	<-ch
}

// serveElsewhere starts a process that serves dir.
func serveElsewhere(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCrashServer$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "the other process serves", func() bool { b, _ := os.ReadFile(dir + "/ready"); return string(b) == "mounted" })
	return cmd
}

func TestKilledServerIsReplaced(t *testing.T) {
	needFUSE(t)
	dir := fastDir(t)
	t.Cleanup(func() { _ = unmountLazily(dir) })
	cmd := serveElsewhere(t, dir)
	fs := newMemFS(t)
	fs.put(t, 1, "g", []byte("again"))
	ctx := context.Background()
	cfg := Config{Dir: dir, FS: fs, AllowOther: true}
	if _, err := Mount(ctx, cfg); orca.KindOf(err) != orca.Busy {
		t.Fatalf("mounted over a live mount: %v", err)
	}
	held, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the mount is dead", func() bool { _, err := os.Stat(dir + "/unseen"); return errors.Is(err, syscall.ENOTCONN) })
	m, err := Mount(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, dir+"/g") != "again" {
		t.Error("the new mount does not serve")
	}
	if err := m.Unmount(ctx); err != nil {
		t.Error(err)
	}
	if typ, err := mountedType(dir); err != nil || typ == fsType {
		t.Errorf("still mounted: %q %v", typ, err)
	}
}

func TestForeignMountsAreLeftAlone(t *testing.T) {
	dir := fastDir(t)
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	write(t, dir+"/theirs", "x")
	m, err := Mount(context.Background(), Config{Dir: dir, FS: newMemFS(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(context.Background()); err != nil {
		t.Error(err)
	}
	if read(t, dir+"/theirs") != "x" {
		t.Error("the mount below is gone")
	}
}

func TestMountPointsAreChecked(t *testing.T) {
	fs, ctx := newMemFS(t), context.Background()
	file := fastDir(t) + "/file"
	write(t, file, "")
	for dir, want := range map[string]orca.Kind{
		"": orca.Invalid, "/no/such/dir": orca.NotFound, file: orca.NotDir,
	} {
		if _, err := Mount(ctx, Config{Dir: dir, FS: fs}); orca.KindOf(err) != want {
			t.Errorf("%q: %v, want %v", dir, err, want)
		}
	}
	if _, err := Mount(ctx, Config{Dir: fastDir(t)}); orca.KindOf(err) != orca.Invalid {
		t.Errorf("without a file system: %v", err)
	}
}
