// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"orca"
)

func ready(t *testing.T, m *Mounted) *Metrics {
	t.Helper()
	eventually(t, "the watch stream is up", m.Metrics().WatchUp.Load)
	return m.Metrics()
}

func TestCachedFilesPassThrough(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ms := ready(t, m)
	data := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(1)).Read(data)
	fs.put(t, 1, "f", data)
	for range 5 {
		if got := read(t, dir+"/f"); got != string(data) {
			t.Fatal("other bytes")
		}
	}
	if n := ms.PassReads.Load(); n != 5 {
		t.Errorf("%d of 5 opens passed through", n)
	}
	if n := ms.Ops[OpRead].Load(); n != 0 {
		t.Errorf("%d reads reached the daemon", n)
	}
	// The news of its making may come after the first open, and drops the id.
	if n := ms.Registers.Load(); n > 2 {
		t.Errorf("%d backing ids for one file: hot opens must register nothing", n)
	}
	// Written through the mount, too.
	if err := os.WriteFile(dir+"/g", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := ms.Ops[OpWrite].Load(); n != 0 {
		t.Errorf("%d writes reached the daemon", n)
	}
	e, err := fs.Lookup(context.Background(), orca.Caller{}, 1, "g")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(fs.blob(e.Ino, e.Version)); !bytes.Equal(got, data) {
		t.Error("the published version has other bytes")
	}
}

func TestPartlyCachedFilesPassThroughOnceComplete(t *testing.T) {
	fs := newMemFS(t)
	fs.noBacking = true
	m, dir := mounted(t, fs, nil)
	ms := ready(t, m)
	fs.put(t, 1, "f", []byte(strings.Repeat("x", 1<<20)))
	f, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 4096)
	if _, err := f.ReadAt(one, 0); err != nil {
		t.Fatal(err)
	}
	if ms.PassReads.Load() != 0 || ms.Fallbacks[FallbackPartial].Load() != 1 {
		t.Fatal("a partly cached file passed through")
	}
	fs.mu.Lock()
	fs.noBacking = false // complete now
	fs.mu.Unlock()
	if read(t, dir+"/f") != strings.Repeat("x", 1<<20) { // while open by the daemon
		t.Error("other bytes")
	}
	if ms.PassReads.Load() != 0 {
		t.Error("the mode changed while a handle was open")
	}
	f.Close()
	eventually(t, "the handle is released", func() bool { return ms.Ops[OpRelease].Load() >= 2 })
	_ = read(t, dir+"/f")
	if ms.PassReads.Load() != 1 {
		t.Error("a complete file did not pass through from idle")
	}
}

func TestFallbackWithoutPassthrough(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, func(c *Config) { c.NoPassthrough = true })
	ms := ready(t, m)
	fs.put(t, 1, "f", []byte("content"))
	if read(t, dir+"/f") != "content" {
		t.Error("other bytes")
	}
	if ms.PassEnabled.Load() || ms.PassOpens.Load() != 0 || ms.Fallbacks[FallbackDisabled].Load() == 0 {
		t.Error("the fallback was not counted")
	}
}

func TestReadAheadAsksForWholeMegabytes(t *testing.T) {
	fs := newMemFS(t)
	fs.noBacking = true
	m, dir := mounted(t, fs, nil)
	ms := ready(t, m)
	fs.put(t, 1, "f", make([]byte, 16<<20))
	_ = read(t, dir+"/f")
	if n := ms.Ops[OpRead].Load(); n > 32 {
		t.Errorf("%d READs for 16 MiB: read_ahead_kb was not raised", n)
	}
}

// What another client changes is seen within a bounded time although the
// kernel may cache for an hour, and at once by an open.
func TestSeesChangesByOthers(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	ctx := context.Background()
	ino := fs.put(t, 1, "f", []byte("one"))
	sub, err := fs.Mkdir(ctx, orca.Caller{}, 1, "d", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	stat := func() int64 {
		st, err := os.Stat(dir + "/f")
		if err != nil {
			return -1
		}
		return st.Size()
	}
	names := func() string {
		es, err := os.ReadDir(dir + "/d")
		if err != nil {
			return err.Error()
		}
		var s []string
		for _, e := range es {
			s = append(s, e.Name())
		}
		return strings.Join(s, " ")
	}
	eventually(t, "the file", func() bool { return stat() == 3 })
	if read(t, dir+"/f") != "one" || names() != "" {
		t.Fatal("not as made")
	}
	if _, err := os.Stat(dir + "/d/x"); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	calls := fs.callsOf("stat") + fs.callsOf("lookup")
	for range 100 {
		stat()
	}
	if n := fs.callsOf("stat") + fs.callsOf("lookup") - calls; n > 10 {
		t.Errorf("100 stats made %d calls: the kernel does not cache", n)
	}

	fs.put(t, 1, "f", []byte("three"))
	if got := read(t, dir+"/f"); got != "three" { // close-to-open: no waiting
		t.Errorf("read %q right after the change", got)
	}
	eventually(t, "the new size", func() bool { return stat() == 5 })
	fs.put(t, sub.Ino, "x", nil)
	eventually(t, "the new name", func() bool { _, err := os.Stat(dir + "/d/x"); return err == nil })
	eventually(t, "the new listing", func() bool { return names() == "x" })
	if err := fs.Rename(ctx, orca.Caller{}, sub.Ino, "x", sub.Ino, "y", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the renamed file", func() bool { return names() == "y" })
	eventually(t, "the old name's end", func() bool { _, err := os.Stat(dir + "/d/x"); return os.IsNotExist(err) })
	mode := uint32(0o600)
	if _, err := fs.SetAttr(ctx, orca.Caller{}, ino, Change{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new mode", func() bool { st, err := os.Stat(dir + "/f"); return err == nil && st.Mode().Perm() == 0o600 })
	if err := fs.Unlink(ctx, orca.Caller{}, 1, "f"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removal", func() bool { return stat() == -1 })
}

// A handle keeps the version that it opened; a new open gets the new one, in
// either mode and even while the old one is open.
func TestHandlesKeepTheirVersion(t *testing.T) {
	for _, backing := range []bool{true, false} {
		t.Run(fmt.Sprint("passthrough=", backing), func(t *testing.T) {
			fs := newMemFS(t)
			fs.noBacking = !backing
			m, dir := mounted(t, fs, nil)
			ms := ready(t, m)
			old, new := strings.Repeat("old", 100_000), strings.Repeat("new", 120_000)
			fs.put(t, 1, "f", []byte(old))
			f, err := os.Open(dir + "/f")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 10)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			fs.put(t, 1, "f", []byte(new))
			if got := read(t, dir+"/f"); got != new {
				t.Errorf("a new open reads %d bytes %.10q", len(got), got)
			}
			if backing {
				// The daemon cannot read a version that is gone; the kernel can.
				all, err := io.ReadAll(f)
				if err != nil || string(all) != old {
					t.Errorf("the old handle reads %d bytes, %v", len(all), err)
				}
			}
			if ms.Incarnations.Load() == 0 {
				t.Error("both versions were served by one incarnation")
			}
		})
	}
}

// Writing while another process has the file open and passed through must not
// touch the block file under that reader.
func TestWritersNeverTouchBlockFiles(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ms := ready(t, m)
	old := strings.Repeat("o", 100_000)
	ino := fs.put(t, 1, "f", []byte(old))
	r, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mapped, err := unix.Mmap(int(r.Fd()), 0, len(old), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mapped) }()
	if ms.PassReads.Load() != 1 {
		t.Fatal("not passed through")
	}
	blob := fs.blob(ino, 1)
	for i, flag := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND} {
		f, err := os.OpenFile(dir+"/f", flag, 0)
		if err != nil {
			t.Fatal(i, err)
		}
		if _, err := f.Write([]byte("NEW")); err != nil {
			t.Fatal(i, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(i, err)
		}
		if got, _ := os.ReadFile(blob); string(got) != old || string(mapped) != old {
			t.Fatal(i, "a sealed block file was written")
		}
		if got := read(t, dir+"/f"); !strings.Contains(got, "NEW") {
			t.Error(i, "the write is not seen")
		}
	}
}

func TestCloseReturnsTheError(t *testing.T) {
	for _, v := range variants[:4] {
		t.Run(v.name, func(t *testing.T) {
			fs := newMemFS(t)
			var cfg Config
			v.config(fs, &cfg)
			m, dir := mounted(t, fs, func(c *Config) { c.NoPassthrough = cfg.NoPassthrough })
			ms := ready(t, m)
			write(t, dir+"/old", "old")
			fs.mu.Lock()
			fs.noSpace = true
			fs.mu.Unlock()
			for _, name := range []string{"/new", "/old"} {
				f, err := os.Create(dir + name)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteString("lost"); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("close of %s: %v, want ENOSPC", name, err)
				}
			}
			eventually(t, "the releases", func() bool { return ms.Ops[OpRelease].Load() >= 3 })
			eventually(t, "the new name's end", func() bool { _, err := os.Stat(dir + "/new"); return os.IsNotExist(err) })
			eventually(t, "the old content", func() bool { b, _ := os.ReadFile(dir + "/old"); return string(b) == "old" })
			fs.mu.Lock()
			fs.noSpace = false
			fs.mu.Unlock()
			write(t, dir+"/new", "now")
			if read(t, dir+"/new") != "now" {
				t.Error("not written after all")
			}
		})
	}
}

// One version for a shell redirection, none for a fork's exit or for a handle
// that wrote nothing.
func TestPublishesOnlyChanges(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ms := ready(t, m)
	sh := func(script string, want int64) {
		t.Helper()
		before := ms.Publishes.Load()
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", script, err, out)
		}
		eventually(t, "released", func() bool {
			m.g.mu.Lock()
			defer m.g.mu.Unlock()
			for _, n := range m.g.nodes { // a handle is forgotten before its release has published
				if n.opens.Load() > 0 {
					return false
				}
			}
			return len(m.g.handles) == 0
		})
		if n := ms.Publishes.Load() - before; n != want {
			t.Errorf("%s: %d versions published, want %d", script, n, want)
		}
	}
	sh("echo hello > f", 1)
	sh("cat f >> g; test -s g", 1)
	sh("exec 3<>f; true; /bin/true; exec 3>&-", 0)
	sh("exec 3>>f; /bin/true; (exit 0); exec 3>&-", 0)
	sh(": > empty; test -e empty", 1)
	sh("touch t", 1)
	sh("(echo a; /bin/true; /bin/true) > h", 1)
	if read(t, dir+"/h") != "a\n" || read(t, dir+"/f") != "hello\n" {
		t.Error("wrong content")
	}
	e, err := fs.Lookup(context.Background(), orca.Caller{}, 1, "empty")
	if err != nil || e.Length != 0 {
		t.Error("the empty file was not published", err)
	}
}

// A new file is this mount's alone before its publication.
func TestNewFilesAreInvisibleUntilClosed(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	ctx := context.Background()
	f, err := os.Create(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Lookup(ctx, orca.Caller{}, 1, "f"); orca.KindOf(err) != orca.NotFound {
		t.Error("others see it before close")
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 || es[0].Name() != "f" {
		t.Error("its own mount does not list it", es, err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if _, err := fs.Lookup(ctx, orca.Caller{}, 1, "f"); orca.KindOf(err) != orca.NotFound {
		t.Error("fsync published it")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err := fs.Lookup(ctx, orca.Caller{}, 1, "f"); err != nil || e.Length != 1 {
		t.Error("close did not publish it", err)
	}
}

func TestLostStreamInvalidatesEverything(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, func(c *Config) { c.StaleTTL = 50 * time.Millisecond })
	ms := ready(t, m)
	fs.put(t, 1, "f", []byte("one"))
	size := func() int64 {
		st, err := os.Stat(dir + "/f")
		if err != nil {
			return -1
		}
		return st.Size()
	}
	missing := func() bool { _, err := os.Stat(dir + "/new"); return os.IsNotExist(err) }
	eventually(t, "the file", func() bool { return size() == 3 && missing() })
	fs.mu.Lock()
	fs.silent = true
	fs.mu.Unlock()
	fs.put(t, 1, "f", []byte("three"))
	fs.put(t, 1, "new", nil)
	fs.setDown(true)
	eventually(t, "short times", func() bool { return size() == 5 && !missing() })
	if ms.WatchUp.Load() {
		t.Error("the stream counts as up")
	}
	fs.setDown(false)
	eventually(t, "the stream is back", ms.WatchUp.Load)
	if ms.FullInvalidates.Load() == 0 {
		t.Error("nothing was invalidated")
	}
}

// A read that the daemon is serving holds pages that a notification waits for:
// everything else must go on.
func TestNotificationsDoNotDeadlock(t *testing.T) {
	fs := newMemFS(t)
	fs.noBacking = true
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	fs.put(t, 1, "f", make([]byte, 1<<20))
	release := make(chan struct{})
	var once sync.Once
	entered := make(chan struct{})
	fs.mu.Lock()
	fs.onRead = func() { once.Do(func() { close(entered) }); <-release }
	fs.mu.Unlock()
	done := make(chan error, 1)
	go func() { _, err := os.ReadFile(dir + "/f"); done <- err }()
	<-entered
	for i := range 50 {
		fs.put(t, 1, "f", make([]byte, 1<<20))
		fs.put(t, 1, fmt.Sprint("g", i), nil)
	}
	eventually(t, "others are served", func() bool { _, err := os.Stat(dir + "/g49"); return err == nil })
	close(release)
	select {
	case <-done: // the version may be gone: any answer will do
	case <-time.After(10 * time.Second):
		t.Fatal("the reader hangs")
	}
}

func TestTreesCopyAndCompare(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	src := fastDir(t)
	rnd := rand.New(rand.NewSource(7))
	for i := range 60 {
		d := filepath.Join(src, fmt.Sprint("d", i%7), fmt.Sprint("e", i%3))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, rnd.Intn(300_000))
		rnd.Read(b)
		if err := os.WriteFile(filepath.Join(d, fmt.Sprint("f", i)), b, os.FileMode(0o600+i%2*0o44)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../x", filepath.Join(d, fmt.Sprint("l", i))); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("cp", "-a", src, dir+"/tree")
	run("diff", "-r", "--no-dereference", src, dir+"/tree")
	sums := func(d string) string {
		out := run("sh", "-c", "cd '"+d+"' && find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -printf '%p %m %y %l\n' | sort; find . -type f -printf '%p %T@\n' | sort")
		return fmt.Sprintf("%x\n%s", sha256.Sum256([]byte(out)), out)
	}
	if a, b := sums(src), sums(dir+"/tree"); a != b {
		t.Error("trees differ:", firstDifference(a, b))
	}
	run("mv", dir+"/tree", dir+"/moved")
	run("cp", "-r", dir+"/moved", dir+"/copy")
	run("diff", "-r", "--no-dereference", dir+"/moved", dir+"/copy")
	run("tar", "-C", dir, "-cf", dir+"/t.tar", "copy")
	run("rm", "-rf", dir+"/moved", dir+"/copy")
	run("tar", "-C", dir, "-xf", dir+"/t.tar")
	if a, b := sums(src), sums(dir+"/copy"); a[:64] != b[:64] && !strings.Contains(b, "d0") {
		t.Error("the tree from the archive differs")
	}
	run("diff", "-r", "--no-dereference", src, dir+"/copy")
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n")[1:], strings.Split(b, "\n")[1:]
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("%q against %q", x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines against %d", len(x), len(y))
}

func TestReadOnlyMount(t *testing.T) {
	fs := newMemFS(t)
	fs.put(t, 1, "f", []byte("x"))
	_, dir := mounted(t, fs, func(c *Config) { c.ReadOnly = true })
	if read(t, dir+"/f") != "x" {
		t.Error("not readable")
	}
	for what, err := range map[string]error{
		"write":  os.WriteFile(dir+"/f", nil, 0),
		"create": os.WriteFile(dir+"/g", nil, 0o644),
		"mkdir":  os.Mkdir(dir+"/d", 0o755),
		"remove": os.Remove(dir + "/f"),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
}

// Unmounting with open, unpublished files publishes them.
func TestUnmountPublishes(t *testing.T) {
	fs := newMemFS(t)
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	f, err := os.Create(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("kept"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	e, err := fs.Lookup(ctx, orca.Caller{}, 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(fs.blob(e.Ino, e.Version)); string(b) != "kept" {
		t.Errorf("published %q", b)
	}
}
