// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca/engine/client"
)

// startWorker runs a second worker process on a node of its own.
func startWorker(t *testing.T, meta, node string, args ...string) *proc {
	t.Helper()
	return startWorkerAt(t, t.TempDir(), meta, node, nil, args...)
}

// startWorkerAt is startWorker on a folder that may have been one's before.
func startWorkerAt(t *testing.T, data, meta, node string, env []string, args ...string) *proc {
	t.Helper()
	w, ready := launch(t, data, env, slices.Concat([]string{"start", "--role", "worker", "--meta", meta, "--node", node, "--data", data}, freePorts, args)...)
	select {
	case <-ready:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the worker %s is not ready:\n%s", node, w.output())
	}
	w.loadEndpoints()
	return w
}

// firstMisses counts what the first worker had to fetch for its readers.
const firstMisses = "orca_worker_read_misses_total"

// TestWorkerFailsInMidRead kills or stops (it keeps its sockets and answers
// nothing) the only worker that holds a file while a client of a third node
// reads it. The reader sees all of the bytes and no error: what was not yet
// read comes from the store, through the other worker.
func TestWorkerFailsInMidRead(t *testing.T) {
	p := up(t, t.TempDir(), "--node", "first")
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			w := startWorker(t, p.ep.Meta, name)
			ctx := ctxFor(t, 2*time.Minute)
			want := strings.Repeat("0123456789abcdef", 2<<20) // 32 MiB
			writer := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: name})
			path := "/" + name
			if err := put(ctx, writer, path, want); err != nil {
				t.Fatal(err)
			}
			reader := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "third", Attempt: 2 * time.Second})
			eventually(t, time.Minute, "the worker reports what it holds", func() bool {
				_, locs, err := reader.Locations(ctx, client.Path(path))
				return err == nil && len(locs) == 1 && locs[0].Worker != nil && locs[0].Worker.Node == name
			})
			before := p.metric(firstMisses)
			f, err := reader.Open(ctx, client.Path(path), client.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := make([]byte, len(want))
			half := 0
			for half < len(want)/4 {
				n, err := f.Read(got[half:min(half+100_000, len(got))])
				if err != nil {
					t.Fatal(err)
				}
				half += n
			}
			if n := p.metric(firstMisses) - before; n != 0 {
				t.Fatalf("the other worker was asked %v times before the failure: this tests nothing", n)
			}
			if err := w.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(struct{ io.Reader }{f}, got[half:]); err != nil {
				t.Fatalf("%d bytes after the failure: %v", n, err)
			}
			if !bytes.Equal(got, []byte(want)) {
				t.Fatal("wrong bytes")
			}
			if p.metric(firstMisses) == before {
				t.Error("nothing was read through the other worker")
			}
			if reader.Stats().Failovers.Load() == 0 {
				t.Error("no failover was counted")
			}
		})
	}
}
