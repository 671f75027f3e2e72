// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orca/engine/client"
)

// full runs the tests on their real sizes: the whole source tree of the Go
// tool chain, a file of 1 GiB, 1,000 files a directory. docs/proof.md gives
// the commands; without it the same tests run on a part.
var full = flag.Bool("full", false, "real sizes: the whole tree, a file of 1 GiB")

// goSource returns the root of the real input.
func goSource(t *testing.T) string {
	t.Helper()
	root := filepath.Join(strings.TrimSpace(command(t, "go", "env", "GOROOT")), "src")
	if !*full {
		root = filepath.Join(root, "net")
	}
	if _, err := os.Stat(root); err != nil {
		t.Fatalf("the Go tool chain's source is the input: %v", err)
	}
	return root
}

// upload puts a folder and one big file into the bucket behind Orca's back.
func (s *store) upload(t *testing.T, src string, big int64) (bigSum string) {
	t.Helper()
	ctx := ctxFor(t, 10*time.Minute)
	st := s.open(t)
	defer st.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	n := 0
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		rel, _ := filepath.Rel(src, p)
		g.Go(func() error {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			w, err := st.Create(gctx, "src/"+filepath.ToSlash(rel), "")
			if err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
			_, err = w.Commit(gctx)
			return err
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	w, err := st.Create(ctx, "big", "")
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog. 0123456789 abcdefg\n"), 1<<14)
	for left, i := big, 0; left > 0; i++ {
		page[0], page[1], page[2] = byte(i), byte(i>>8), byte(i>>16)
		b := page[:min(left, int64(len(page)))]
		h.Write(b)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		left -= int64(len(b))
	}
	if _, err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("the bucket holds %d files and one of %d bytes", n, big)
	return hex.EncodeToString(h.Sum(nil))
}

func sha256File(t *testing.T, p string) string {
	t.Helper()
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(string(out), 2000))
	}
	return string(out)
}

// TestRealInput mounts a bucket with a real source tree at /s3 and reads it
// with cp, diff and sha256 through the FUSE mount, cold and warm. The second
// pass makes no request for data.
func TestRealInput(t *testing.T) {
	src := goSource(t)
	size := int64(64 << 20)
	if *full {
		size = 1 << 30
	}
	s := minioStore(t)
	wantBig := s.upload(t, src, size)

	mnt := t.TempDir()
	p := upEnv(t, t.TempDir(), s.env, "--root", t.TempDir(), "--mount", mnt, "--mem", "3GB")
	args := append([]string{"fs", "mount"}, s.mountOptions...)
	p.must(append(args, "/s3", s.uri)...)

	for _, pass := range []string{"cold", "warm"} {
		begin, reads := time.Now(), s.reads()
		out := filepath.Join(t.TempDir(), "copy")
		command(t, "cp", "-r", filepath.Join(mnt, "s3", "src"), out)
		command(t, "diff", "-r", src, out)
		command(t, "diff", "-r", src, filepath.Join(mnt, "s3", "src"))
		if got := sha256File(t, filepath.Join(mnt, "s3", "big")); got != wantBig {
			t.Errorf("%s: sha256 of the big file is %s, want %s", pass, got, wantBig)
		}
		n := s.reads() - reads
		t.Logf("%s pass: %v, %d requests for data", pass, time.Since(begin).Round(time.Millisecond), n)
		if pass == "warm" && n != 0 {
			t.Errorf("the second pass made %d requests for data", n)
		}
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
			t.Fatalf("dropping the kernel's caches: %v", err)
		}
	}
	for _, m := range []string{"orca_fuse_ops_total", "orca_ufs_requests_total", "orca_ufs_bytes_total", "orca_worker_tier_hits_total"} {
		if p.metric(m) == 0 {
			t.Errorf("%s saw nothing of all this", m)
		}
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if b, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(b), mnt) {
		t.Errorf("the mount is still there after a clean stop (%v)", err)
	}
}

// TestRemoteWorker reads through a second worker process: a remote hit, after
// which the reader's own worker holds a copy.
func TestRemoteWorker(t *testing.T) {
	s := minioStore(t)
	p := upEnv(t, t.TempDir(), s.env, append([]string{"--node", "first"}, s.upArgs...)...)
	ctx := ctxFor(t, time.Minute)
	want := strings.Repeat("0123456789abcdef", 200_000)
	if err := put(ctx, p.fs(), "/f", want); err != nil {
		t.Fatal(err)
	}
	data2 := t.TempDir()
	w2, ready := launch(t, data2, s.env, slices.Concat([]string{"start", "--role", "worker", "--meta", p.ep.Meta, "--node", "second", "--data", data2}, freePorts)...)
	select {
	case <-ready:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the second worker is not ready:\n%s", w2.output())
	}
	w2.loadEndpoints()
	far := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "second"})
	reads := s.reads()
	got, err := get(ctx, far, "/f", client.Sync{})
	if err != nil || got != want {
		t.Fatalf("remote hit: %d bytes, %v", len(got), err)
	}
	if n := s.reads() - reads; n != 0 {
		t.Errorf("the bucket was asked %d times for what the first worker holds", n)
	}
	eventually(t, time.Minute, "the second worker reports its copy", func() bool {
		_, locs, err := far.Locations(ctx, client.Path("/f"))
		return err == nil && len(locs) == 2
	})
	// The first node may go now: the copy serves.
	third := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "third"})
	if got, err := get(ctx, third, "/f", client.Sync{}); err != nil || got != want {
		t.Fatalf("a client without a worker of its own: %d bytes, %v", len(got), err)
	}
}
