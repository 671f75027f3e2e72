// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestResizeAndRemoveTier shrinks the disk tier of a running worker, adds another directory,
// removes the first one with the only copy in it, and finds it so after a kill.
func TestResizeAndRemoveTier(t *testing.T) {
	data, root := t.TempDir(), t.TempDir()
	args := []string{"--root", root, "--mem", "0", "--ssd", "256MB"}
	p := up(t, data, args...)
	ctx := ctxFor(t, time.Minute)
	want := strings.Repeat("0123456789abcdef", 1<<16)
	for _, name := range []string{"/a", "/b", "/c", "/d", "/e", "/f"} {
		if err := write(ctx, p.fs(), name, want, client.CreateOptions{WriteType: orca.CacheThrough}); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(ctx, p.fs(), "/only", want, client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	var w struct {
		ID    uint64 `json:"id"`
		Node  string `json:"node"`
		Tiers []struct {
			Dir      string `json:"dir"`
			Capacity int64  `json:"capacity_bytes"`
		} `json:"tiers"`
	}
	look := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(p.must("admin", "workers", "--json")), &w); err != nil || len(w.Tiers) != 1 {
			t.Fatalf("%+v: %v", w, err)
		}
	}
	look()
	dir := filepath.Join(data, "worker", "ssd")
	for _, bad := range [][]string{{w.Node, dir, "512KiB"}, {w.Node, dir + "x", "10MB"}, {"nobody", dir, "10MB"}, {w.Node, dir, "1KiB"}} {
		if _, msg, code := p.cli(append([]string{"admin", "tier", "resize"}, bad...)...); code == 0 {
			t.Errorf("resize %v: exit %d: %s", bad, code, msg)
		}
	}
	if _, msg, _ := p.cli("admin", "tier", "resize", w.Node, dir, "512KiB"); !strings.Contains(msg, "may not leave") {
		t.Errorf("not said why: %s", msg)
	}
	p.must("admin", "tier", "resize", w.Node, dir, "4MiB")
	eventually(t, 30*time.Second, "what is too much leaves", func() bool { return p.metric("orca_tier_used_bytes") <= 4<<20 })
	if n := p.metric("orca_tier_capacity_bytes"); n != 4<<20 {
		t.Errorf("capacity %v", n)
	}
	eventually(t, 30*time.Second, "the metaplane knows", func() bool { look(); return w.Tiers[0].Capacity == 4<<20 })
	if _, msg, code := p.cli("admin", "tier", "remove", w.Node, dir); code == 0 || !strings.Contains(msg, "last tier directory") {
		t.Errorf("the last one: exit %d: %s", code, msg)
	}
	other := filepath.Join(t.TempDir(), "hdd")
	p.must("admin", "tier", "add", w.Node, "HDD:"+other+"=64MiB,reserve=1%")
	if _, msg, code := p.cli("admin", "tier", "add", w.Node, "HDD:"+other+"=64MiB"); code == 0 || !strings.Contains(msg, "already") {
		t.Errorf("added twice: exit %d: %s", code, msg)
	}
	p.must("admin", "tier", "remove", w.Node, dir)
	if n := p.metric("orca_worker_drained_total"); n < 1 {
		t.Error("nothing was moved")
	}
	is := func(when string) {
		t.Helper()
		eventually(t, 30*time.Second, when+": only the new directory", func() bool {
			look()
			return w.Tiers[0].Dir == other && w.Tiers[0].Capacity == 64<<20
		})
		for _, name := range []string{"/a", "/f", "/only"} {
			if out := p.must("fs", "cat", name); out != want {
				t.Errorf("%s: %s has changed", when, name)
			}
		}
	}
	is("at once")
	p.kill()
	p = up(t, data, args...)
	is("after a restart")
}
