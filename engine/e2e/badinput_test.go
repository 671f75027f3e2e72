// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestGarbageOnEveryPort sends noise to every door; everything else goes on.
func TestGarbageOnEveryPort(t *testing.T) {
	p := up(t, t.TempDir(), "--root", t.TempDir())
	fs := p.fs()
	ctx := ctxFor(t, time.Minute)
	if err := put(ctx, fs, "/f", "content"); err != nil {
		t.Fatal(err)
	}
	doors := []struct{ network, addr string }{
		{"tcp", p.ep.Meta}, {"unix", p.ep.MetaSocket}, {"tcp", p.ep.Worker}, {"unixpacket", p.ep.WorkerSocket}, {"tcp", p.ep.HTTP},
	}
	for _, d := range doors {
		if d.addr == "" {
			t.Errorf("a door is missing in endpoints.json: %+v", p.ep)
			continue
		}
		for _, size := range []int{1, 31, 32, 4096, 1 << 20} {
			c, err := net.Dial(d.network, d.addr)
			if err != nil {
				t.Fatalf("%s %s: %v", d.network, d.addr, err)
			}
			noise := make([]byte, size)
			rand.Read(noise)
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write(noise) // the other end may have closed already: that is right
			c.Close()
		}
	}
	if got, err := get(ctx, fs, "/f", client.Sync{}); err != nil || got != "content" {
		t.Fatalf("after the noise: %q, %v", got, err)
	}
	if got, err := get(ctx, p.fs(), "/f", client.Sync{}); err != nil || got != "content" {
		t.Fatalf("a new client after the noise: %q, %v", got, err)
	}
}

// TestTakenPort names the port (and lets the first go on).
func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, ready := launch(t, t.TempDir(), nil, slices.Concat([]string{"up", "--data", t.TempDir()}, freePorts, []string{"--root", t.TempDir(), "--meta-addr", ln.Addr().String()})...)
	select {
	case <-ready:
		t.Fatal("it started on a taken port")
	case err := <-p.exit:
		p.exit <- err
		if err == nil || !strings.Contains(p.output(), ln.Addr().String()) {
			t.Errorf("exit %v, message does not name the port:\n%s", err, p.output())
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("neither started nor failed")
	}
}

// TestBadStores starts on stores that cannot be: the failing request is named.
func TestBadStores(t *testing.T) {
	s := minioStore(t)
	endpoint := s.endpoint
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"unreachable", []string{"--root", "s3://bucket/x", "--root-option", "s3.endpoint=http://127.0.0.1:1", "--root-option", "s3.access_key=a", "--root-option", "s3.secret_key=b", "--root-option", "s3.region=us-east-1", "--root-option", "s3.path_style=true"}, []string{"127.0.0.1:1"}},
		{"wrong key", []string{"--root", s.uri, "--root-option", "s3.endpoint=" + endpoint, "--root-option", "s3.access_key=nobody", "--root-option", "s3.secret_key=wrongwrong", "--root-option", "s3.region=us-east-1", "--root-option", "s3.path_style=true"}, []string{"nobody", "InvalidAccessKeyId"}},
		{"unknown option", []string{"--root", s.uri, "--root-option", "s3.endpiont=" + endpoint}, []string{"s3.endpiont", "s3.endpoint"}},
		{"unknown scheme", []string{"--root", "gopher://x/y"}, []string{"gopher"}},
		{"missing folder", []string{"--root", filepath.Join(t.TempDir(), "missing")}, []string{"missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ready := launch(t, t.TempDir(), nil, slices.Concat([]string{"up", "--data", t.TempDir()}, freePorts, c.args)...)
			select {
			case <-ready:
				t.Fatal("it started")
			case err := <-p.exit:
				p.exit <- err
				out := p.output()
				found := false
				for _, w := range c.want {
					found = found || strings.Contains(out, w)
				}
				if err == nil || !found {
					t.Errorf("exit %v; the message names none of %q:\n%s", err, c.want, out)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("neither started nor failed")
			}
		})
	}
}

// TestBadRequests get a typed error, an exit code and a sentence.
func TestBadRequests(t *testing.T) {
	p := up(t, t.TempDir(), "--root", t.TempDir())
	long := "/" + strings.Repeat("x", 256)
	deep := strings.Repeat("/"+strings.Repeat("d", 200), 25)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"fs", "stat", "/nothing"}, 1, "No such file or directory"},
		{[]string{"fs", "mkdir", long}, 1, "File name too long"},
		{[]string{"fs", "mkdir", deep}, 1, "File name too long"},
		{[]string{"fs", "unmount", "/not-a-mount"}, 1, "/not-a-mount"},
		{[]string{"fs", "nonsense"}, 2, "nonsense"},
		{[]string{"fs", "stat"}, 2, ""},
	} {
		_, stderr, code := p.cli(c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("orca %.60s: exit %d, want %d; stderr %q lacks %q", strings.Join(c.args, " "), code, c.code, stderr, c.want)
		}
	}
	if _, err := p.fs().Stat(ctxFor(t, time.Minute), client.Path(long), client.Sync{}); orca.KindOf(err) != orca.NameTooLong {
		t.Errorf("client: %v", err)
	}
}

// TestCorruptBlock flips a byte in every cached block file; what is read is
// right all the same, and the flip is counted.
func TestCorruptBlock(t *testing.T) {
	s := minioStore(t)
	data := t.TempDir()
	args := append([]string{"--mem", "0"}, s.upArgs...)
	p := upEnv(t, data, s.env, args...)
	ctx := ctxFor(t, time.Minute)
	want := strings.Repeat("0123456789abcdef", 20_000)
	if err := put(ctx, p.fs(), "/f", want); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	filepath.WalkDir(filepath.Join(data, "worker"), func(path string, d os.DirEntry, err error) error {
		if st, e := os.Stat(path); err == nil && e == nil && st.Mode().IsRegular() && st.Size() == int64(len(want)) {
			os.Chmod(path, 0o600)
			f, e := os.OpenFile(path, os.O_RDWR, 0)
			if e != nil {
				t.Fatal(e)
			}
			defer f.Close()
			b := make([]byte, 1)
			f.ReadAt(b, 70_000)
			b[0] ^= 0xff
			if _, e := f.WriteAt(b, 70_000); e != nil {
				t.Fatal(e)
			}
			flipped++
		}
		return nil
	})
	if flipped == 0 {
		t.Fatal("no block file found to corrupt")
	}
	p = upEnv(t, data, s.env, args...)
	got, err := get(ctx, p.fs(), "/f", client.Sync{})
	if err != nil || got != want {
		t.Errorf("a corrupted block: %d bytes, equal=%v, %v", len(got), got == want, err)
	}
	if n := p.metric("orca_worker_corrupt_grains_total"); n == 0 {
		t.Error("the flip was not counted")
	}
}

// TestFullDisk gives the worker a disk that is far smaller than its quota: a
// write that needs it fails with NoSpace, reads and everything else go on.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("small", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	s := minioStore(t)
	p := upEnv(t, t.TempDir(), s.env, append([]string{"--mem", "0", "--ssd", "1GB", "--ssd-dir", small}, s.upArgs...)...)
	fs := p.fs()
	ctx := ctxFor(t, 2*time.Minute)
	big := strings.Repeat("0123456789abcdef", 12<<16)
	err := write(ctx, fs, "/cached-only", big, client.CreateOptions{WriteType: orca.MustCache})
	if orca.KindOf(err) != orca.NoSpace {
		t.Errorf("a write over the disk: %v, want no space", err)
	}
	if _, err := fs.Stat(ctx, client.Path("/cached-only"), client.Sync{}); orca.KindOf(err) != orca.NotFound {
		t.Errorf("the half file: %v", err)
	}
	st := s.open(t)
	defer st.Close()
	w, err := st.Create(ctx, "big", "")
	if err == nil {
		_, err = w.Write([]byte(big))
	}
	if err == nil {
		_, err = w.Commit(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := get(ctx, fs, "/big", client.Sync{}); err != nil || got != big {
		t.Errorf("reading what does not fit: %d bytes, equal=%v, %v", len(got), got == big, err)
	}
	if err := put(ctx, fs, "/small", "fits"); err != nil {
		t.Errorf("a small write afterwards: %v", err)
	}
}
