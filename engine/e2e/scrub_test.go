// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// scrubLine is `orca admin scrub --json`.
type scrubLine struct {
	Worker  uint64 `json:"worker"`
	Running bool   `json:"running"`
	Last    *struct {
		Forced   bool    `json:"forced"`
		Done     float64 `json:"done"`
		Blocks   int64   `json:"blocks"`
		Bytes    int64   `json:"bytes"`
		Bad      int64   `json:"bad_blocks"`
		BadDirty int64   `json:"bad_dirty_blocks"`
	} `json:"last"`
	PeriodSeconds float64 `json:"period_seconds"`
	Rate          int64   `json:"rate_bytes_per_second"`
}

func scrubNow(t *testing.T, p *proc, args ...string) scrubLine {
	t.Helper()
	var l scrubLine
	if err := json.Unmarshal([]byte(p.must(append([]string{"admin", "scrub", "--json"}, args...)...)), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestScrub rots the disk of a worker below readers that hold its files open.
func TestScrub(t *testing.T) {
	data, root := t.TempDir(), t.TempDir()
	p := up(t, data, "--root", root, "--mem", "0", "--ssd", "256MB", "--scrub-rate", "1GiB", "--scrub-period", "2h")
	ctx := ctxFor(t, time.Minute)
	here := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Lease: 20 * time.Millisecond})
	want := strings.Repeat("0123456789abcdef", 20_000)
	if err := write(ctx, here, "/through", want, client.CreateOptions{WriteType: orca.CacheThrough}); err != nil {
		t.Fatal(err)
	}
	if err := write(ctx, here, "/only", want, client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	f, err := here.Open(ctx, client.Path("/through"), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := f.Slice(ctx, 0, int64(len(want)))
	if err != nil || !v.Mapped() || string(v.Bytes()) != want {
		t.Fatalf("mapped %v: %v", v.Mapped(), err)
	}
	if l := scrubNow(t, p, "--wait"); l.Last == nil || !l.Last.Forced || l.Last.Done != 1 || l.Last.Blocks != 2 ||
		l.Last.Bytes != int64(2*len(want)) || l.Last.Bad != 0 || l.PeriodSeconds != 7200 || l.Rate != 1<<30 {
		t.Fatalf("a good disk: %+v", l)
	}

	rotted := 0
	_ = filepath.WalkDir(filepath.Join(data, "worker", "ssd", "blocks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			flip(t, path, 100_000)
			rotted++
		}
		return nil
	})
	if rotted != 2 {
		t.Fatalf("%d block files", rotted)
	}
	if l := scrubNow(t, p, "--wait"); l.Last == nil || l.Last.Bad != 2 || l.Last.BadDirty != 1 {
		t.Fatalf("a bad disk: %+v", l.Last)
	}
	if n := p.metric("orca_worker_scrub_bad_blocks_total"); n != 2 {
		t.Errorf("bad blocks on the metrics page: %v", n)
	}

	// Read again from the store by everybody, also by who has the file open,
	// once its lease is over.
	if out := p.must("fs", "cat", "/through"); out != want {
		t.Error("cat gives wrong bytes")
	}
	buf := make([]byte, len(want))
	eventually(t, time.Minute, "an open file gives up the bad descriptor", func() bool {
		n, err := f.ReadAt(buf, 0)
		return n == len(want) && err == nil && string(buf) == want
	})
	eventually(t, time.Minute, "and maps the new file", func() bool {
		v, err := f.Slice(ctx, 0, int64(len(want)))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release()
		return v.Mapped() && string(v.Bytes()) == want
	})
	v.Release()
	// Of the only copy the bad grain is refused, the rest is there.
	if _, e, code := p.cli("fs", "cat", "/only"); code == 0 || e == "" {
		t.Errorf("cat of a damaged only copy: exit %d, %q", code, e)
	}
	if out := p.must("fs", "head", "-c", "65536", "/only"); out != want[:65536] {
		t.Error("the good part of the only copy")
	}
	if l := scrubNow(t, p, "--status"); l.Last == nil || l.Last.Bad != 2 {
		t.Errorf("status: %+v", l.Last)
	}
	for _, bad := range [][]string{{"admin", "scrub", "nobody"}, {"admin", "scrub", "--wait", "--status"}, {"up", "--scrub-rate", "0"}, {"up", "--scrub-period", "-1h"}} {
		if _, e, code := p.cli(bad...); code == 0 || strings.TrimSpace(e) == "" {
			t.Errorf("%v: exit %d, %q", bad, code, e)
		}
	}
}

// flip changes a bit of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}
