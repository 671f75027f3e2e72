// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
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
	names := func(kind string) (out []string) {
		for i := range coldTries {
			out = append(out, fmt.Sprintf("%s%d", kind, i))
		}
		return out
	}
	for _, k := range append(names("new"), names("listed")...) {
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
	// cost says in what the first byte of a file differs from what is wanted.
	cost := func(path string, heads, lists, gets int64) (differs []string) {
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
			differs = append(differs, fmt.Sprintf("the store saw %d HEADs, %d listings and %d GETs; want %d, %d and %d", h2-h, l2-l, g2-g, heads, lists, gets))
		}
		for name, n := range map[string]float64{
			"of the metaplane": p.metric("orca_meta_transport_requests_total") - meta,
			"of the worker":    p.metric("orca_worker_transport_requests_total") - data,
		} {
			if n != 1 {
				differs = append(differs, fmt.Sprintf("%v requests %s, want 1", n, name))
			}
		}
		if n := p.metric("orca_worker_descriptors_requests_total") - fds; n != 0 {
			differs = append(differs, fmt.Sprintf("%v requests for a descriptor of what is not there", n))
		}
		return differs
	}
	// A request whose answer is late is asked again, and a read that is slow is
	// looked after: on a machine that is busy with other things one of several
	// tries tells what is needed.
	least := func(kind string, heads, lists, gets int64) {
		t.Helper()
		var seen []string
		for _, k := range names(kind) {
			differs := cost("/"+k, heads, lists, gets)
			if len(differs) == 0 {
				return
			}
			seen = append(seen, k+": "+strings.Join(differs, "; "))
		}
		t.Errorf("none of %d files was as cheap as it should be:\n%s", coldTries, strings.Join(seen, "\n"))
	}
	least("new", 1, 0, 1)
	if out := p.must("fs", "ls", "/"); !strings.Contains(out, "listed0") {
		t.Fatal(out)
	}
	least("listed", 0, 0, 1)
}

// coldTries is how many files a figure is taken of.
const coldTries = 5
