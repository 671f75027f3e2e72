// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// page returns the metrics page.
func (p *proc) page() string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.ep.HTTP + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// TestMetricsPage reads what a worker tells an operator after a cold and a warm
// read and a write: each value is of the work that was done.
func TestMetricsPage(t *testing.T) {
	root := t.TempDir()
	const size = 300_000
	want := strings.Repeat("0123456789", size/10)
	if err := os.WriteFile(filepath.Join(root, "cold"), []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	p := up(t, t.TempDir(), "--root", root, "--mem", "64MB", "--ssd", "256MB")
	remote := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "elsewhere"})
	handed := regexp.MustCompile(`(?m)^orca_worker_tier_hits_total\{kind="descriptor",tier="MEM"\} [1-9]\d*$`)
	eventually(t, time.Minute, "the worker has reported the file, and hands it to readers", func() bool {
		if out := p.must("fs", "cat", "/cold"); out != want {
			t.Fatal("cat")
		}
		return handed.MatchString(p.page())
	})
	ctx := ctxFor(t, time.Minute)
	if err := write(ctx, remote, "/new", want, client.CreateOptions{WriteType: orca.CacheThrough}); err != nil {
		t.Fatal(err)
	}
	f, err := remote.Open(ctx, client.Path("/new"), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != size || err != nil && err != io.EOF || string(b) != want {
		t.Fatalf("read %d: %v", n, err)
	}
	page := p.page()
	for _, line := range []string{
		`orca_worker_bytes_total\{path="ufs"\} 300000`,
		`orca_worker_bytes_total\{path="cache"\} [1-9]\S*`,
		`orca_worker_bytes_total\{path="(peer|pass)"\} 0`,
		`orca_worker_tier_hits_total\{kind="extent",tier="MEM"\} [1-9]\d*`,
		`orca_worker_tier_hit_bytes_total\{tier="MEM"\} [1-9]\S*`,
		`orca_worker_read_joins_total \d+`,
		`orca_block_evictions_total\{reason="need",tier="MEM"\} 0`,
		`orca_block_evictions_total\{reason="watermark",tier="SSD"\} 0`,
		`orca_worker_promoted_total 0`, `orca_worker_promoted_bytes_total 0`, `orca_worker_demoted_total 0`,
		`orca_worker_queue_depth\{queue="(room|move|unlink)"\} 0`,
		`orca_worker_queue_depth\{queue="(held|streams|fills|writers)"\} \d+`,
		`orca_worker_server_read_time_seconds_bucket\{le="\+Inf"\} [1-9]\d*`,
		`orca_worker_server_write_time_seconds_count [1-9]\d*`,
		`orca_worker_server_seal_time_seconds_count 1`,
		`orca_worker_room_wait_time_seconds_count 0`,
		`orca_worker_move_time_seconds_count 0`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(page) {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		for l := range strings.Lines(page) {
			if strings.HasPrefix(l, "orca_worker") || strings.HasPrefix(l, "orca_block") {
				t.Log(strings.TrimSpace(l))
			}
		}
	}
}
