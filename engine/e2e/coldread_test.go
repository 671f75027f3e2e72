// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"orca/engine/client"
)

// TestColdReadAsksOnce counts what the first byte of a file costs that Orca has
// never heard of, and of one that it knows by name: requests to the store, and
// round trips of the client. The local worker is not asked for a descriptor of
// what it cannot have.
func TestColdReadAsksOnce(t *testing.T) {
	s := minioStore(t)
	st := s.open(t)
	ctx := ctxFor(t, 2*time.Minute)
	content := strings.Repeat("0123456789abcdef", 8192)
	for _, k := range []string{"new", "listed"} {
		w, err := st.Create(ctx, k, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	p := up(t, t.TempDir(), append(s.upArgs, "--mem", "64MB")...)
	fs := dial(t, client.Config{Addresses: []string{p.ep.Meta}})
	cost := func(path string, heads, lists, gets int64) {
		t.Helper()
		h, l, g := s.asked()
		meta, data, fds := p.metric("orca_meta_transport_requests_total"), p.metric("orca_worker_transport_requests_total"), p.metric("orca_worker_descriptors_requests_total")
		f, err := fs.Open(ctx, client.Path(path), client.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAtContext(ctx, b, 0); err != nil || b[0] != content[0] {
			t.Fatalf("%s: %q, %v", path, b, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		h2, l2, g2 := s.asked()
		if h2-h != heads || l2-l != lists || g2-g != gets {
			t.Errorf("%s: the store saw %d HEADs, %d listings and %d GETs; want %d, %d and %d", path, h2-h, l2-l, g2-g, heads, lists, gets)
		}
		for name, n := range map[string]float64{
			"of the metaplane": p.metric("orca_meta_transport_requests_total") - meta,
			"of the worker":    p.metric("orca_worker_transport_requests_total") - data,
		} {
			if n != 1 {
				t.Errorf("%s: %v requests %s, want 1", path, n, name)
			}
		}
		if n := p.metric("orca_worker_descriptors_requests_total") - fds; n != 0 {
			t.Errorf("%s: %v requests for a descriptor of what is not there", path, n)
		}
	}
	cost("/new", 1, 0, 1)
	if out := p.must("fs", "ls", "/"); !strings.Contains(out, "listed") {
		t.Fatal(out)
	}
	cost("/listed", 0, 0, 1)
}
