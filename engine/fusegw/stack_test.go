// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
	"orca/engine/daemon"
	"orca/engine/fusegw"
)

// stackData makes the test binary a whole Orca with a mount.
const stackData = "FUSEGW_TEST_STACK"

func TestStackServer(t *testing.T) {
	data := os.Getenv(stackData)
	if data == "" {
		return // only a helper of the tests below
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := daemon.Up(ctx, daemon.Config{
		Data: data, MountDir: filepath.Join(data, "mnt"), Root: filepath.Join(data, "root"),
		MetaAddr: "127.0.0.1:0", WorkerAddr: "127.0.0.1:0", Mem: 512 << 20, SSD: 1 << 30,
	}, os.Stderr, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
}

// stack starts an Orca in another process.
func stack(t *testing.T) (mnt, root string, fs *client.FS) {
	t.Helper()
	data := fusegw.FastDir(t)
	mnt, root = filepath.Join(data, "mnt"), filepath.Join(data, "root")
	for _, d := range []string{mnt, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestStackServer$")
	cmd.Env = append(os.Environ(), stackData+"="+data)
	var log bytes.Buffer
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("orca stopped with %v\n%s", err, log.String())
			}
		case <-time.After(20 * time.Second):
			_ = fusegw.UnmountLazily(mnt)
			_ = cmd.Process.Kill()
			t.Errorf("orca does not stop\n%s", <-func() chan string { c := make(chan string, 1); <-done; c <- log.String(); return c }())
		}
		if t.Failed() {
			t.Logf("orca said:\n%s", log.String())
		}
	})
	var ep struct{ Mount, Socket, MetaSocket string }
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
		if err == nil && json.Unmarshal(b, &ep) == nil && ep.Mount != "" {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("orca did not start: %v\n%s", err, log.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not ready in 15 s\n%s", log.String())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fs, err := client.Open(ctx, client.Config{Addresses: []string{filepath.Join(data, "run", "meta.sock")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return mnt, root, fs
}

// The same behaviours through all of Orca: metaplane, worker, client, mount.
func TestRealStackBehavesAsANativeFileSystem(t *testing.T) {
	mnt, _, _ := stack(t)
	for i, name := range fusegw.BehaviourNames() {
		t.Run(name, func(t *testing.T) {
			d := filepath.Join(mnt, fmt.Sprint(i))
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
			want := fusegw.InChild(t, name, 300, fusegw.FastDir(t))
			if got := fusegw.InChild(t, name, 300, d); got != want {
				t.Errorf("got\n%s\nnative\n%s", got, want)
			}
		})
	}
}

// Files of the store below, and of another client, through the mount.
func TestRealStackShowsStoreAndClient(t *testing.T) {
	mnt, root, fs := stack(t)
	ctx := context.Background()
	data := make([]byte, 5<<20+123)
	rand.New(rand.NewSource(3)).Read(data)
	if err := os.MkdirAll(root+"/in/store", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/in/store/f", data, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 3 { // cold, then cached
		if b, err := os.ReadFile(mnt + "/in/store/f"); err != nil || !bytes.Equal(b, data) {
			t.Fatal(len(b), err)
		}
	}
	if err := os.WriteFile(mnt+"/in/out", data, 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(root + "/in/out"); err != nil || !bytes.Equal(b, data) {
		t.Error("not in the store after close:", len(b), err)
	}
	w, err := fs.Create(ctx, client.Path("/in/api"), client.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not in 5 s: " + what)
			}
		}
	}
	is := func(want string) func() bool {
		return func() bool { b, err := os.ReadFile(mnt + "/in/api"); return err == nil && string(b) == want }
	}
	wait("the API's file", is("one"))
	w, err = fs.Create(ctx, client.Path("/in/api"), client.CreateOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("another"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !is("another")() {
		t.Error("an open right after the change reads the old version")
	}
	wait("the new size", func() bool { st, err := os.Stat(mnt + "/in/api"); return err == nil && st.Size() == 7 })
	if err := fs.Rename(ctx, client.Path("/in/api"), client.Path("/in/moved"), false); err != nil {
		t.Fatal(err)
	}
	wait("the rename", func() bool {
		_, err1 := os.Stat(mnt + "/in/api")
		_, err2 := os.Stat(mnt + "/in/moved")
		return os.IsNotExist(err1) && err2 == nil
	})
	if err := os.RemoveAll(mnt + "/in"); err != nil {
		t.Error(err)
	}
	if _, err := fs.Stat(ctx, client.Path("/in"), client.Sync{}); orca.KindOf(err) != orca.NotFound {
		t.Errorf("after rm -r: %v", err)
	}
}

// The kernel believes names and attributes of a path that is loaded once for
// an hour: whatever others change must reach it by the watch stream.
func TestRealStackIsToldOfEveryChange(t *testing.T) {
	mnt, root, fs := stack(t)
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(root+"/d/sub", 0o755))
	must(os.WriteFile(root+"/d/f", []byte("one"), 0o644))
	look := func() string { // and have the kernel cache all of it
		var b bytes.Buffer
		es, err := os.ReadDir(mnt + "/d")
		if err != nil {
			return err.Error()
		}
		for _, e := range es {
			st, err := os.Stat(mnt + "/d/" + e.Name())
			if err != nil {
				fmt.Fprintf(&b, "%s:gone ", e.Name())
				continue
			}
			size := st.Size()
			if st.IsDir() {
				size = 0
			}
			fmt.Fprintf(&b, "%s:%o:%d ", e.Name(), st.Mode().Perm(), size)
		}
		return b.String()
	}
	wait := func(after, want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if got = look(); got == want {
				return
			}
		}
		t.Fatalf("5 s after %s: %q, want %q", after, got, want)
	}
	wait("the start", "f:644:3 sub:755:0 ")
	must(fs.Chmod(ctx, client.Path("/d/f"), 0o600))
	wait("chmod", "f:600:3 sub:755:0 ")
	_, err := fs.Mkdir(ctx, client.Path("/d/new"), 0o700)
	must(err)
	wait("mkdir", "f:600:3 new:700:0 sub:755:0 ")
	must(fs.Rename(ctx, client.Path("/d/new"), client.Path("/d/sub/x"), false))
	wait("rename", "f:600:3 sub:755:0 ")
	w, err := fs.Create(ctx, client.Path("/d/f"), client.CreateOptions{Overwrite: true})
	must(err)
	_, err = w.Write([]byte("longer"))
	must(err)
	must(w.Close())
	wait("overwrite", "f:600:6 sub:755:0 ")
	must(os.WriteFile(root+"/d/aside", []byte("store"), 0o640))
	must(os.WriteFile(root+"/d/f", []byte("from the store"), 0o600))
	_, err = fs.Sync(ctx, client.Path("/d"), true)
	must(err)
	wait("sync", "aside:640:5 f:600:14 sub:755:0 ")
	must(os.Remove(root + "/d/aside"))
	_, err = fs.Sync(ctx, client.Path("/d"), true)
	must(err)
	wait("sync of a removal", "f:600:14 sub:755:0 ")
	must(fs.Unlink(ctx, client.Path("/d/f")))
	wait("unlink", "sub:755:0 ")
}
