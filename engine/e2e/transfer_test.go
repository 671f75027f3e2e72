// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestTransfers moves files to and fro between directories of two groups, by
// clients and by a mount, while the leaders of both are killed: each file is at one
// name in the end, with its bytes, and the store has it there and nowhere else.
func TestTransfers(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	lead := c.nodes[c.leader(fs)]
	lead.must("admin", "group", "add")
	store := t.TempDir()
	c.must(lead, "fs", "mount", "/m", store)
	c.must(lead, "fs", "mkdir", "--group", "2", "/m/2")
	c.must(lead, "fs", "mkdir", "/m/1")
	ctx := ctxFor(t, 8*time.Minute)
	const movers, files = 4, 6
	name := func(mover, file int) string { return fmt.Sprintf("%d-%d", mover, file) }
	for m := range movers {
		for f := range files {
			if err := put(ctx, fs, "/m/1/"+name(m, f), "bytes of "+name(m, f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mnt := c.fuse(lead)
	tradedByMount(t, filepath.Join(mnt, "m"), store)
	stop := make(chan struct{})
	moves := make([]int, movers)
	var wg sync.WaitGroup
	for m := range movers {
		own := c.fs()
		wg.Go(func() {
			at := make([]string, files)
			for i := range at {
				at[i] = "1"
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				f := i % files
				to := map[string]string{"1": "2", "2": "1"}[at[f]]
				src, dst := "/m/"+at[f]+"/"+name(m, f), "/m/"+to+"/"+name(m, f)
				var err error
				if m == 0 {
					err = os.Rename(filepath.Join(mnt, src), filepath.Join(mnt, dst))
				} else {
					err = own.Rename(ctx, client.Path(src), client.Path(dst), true)
				}
				if err == nil {
					moves[m]++
					at[f] = to
					continue
				}
				if m != 0 && !orca.KindOf(err).Retryable() {
					t.Errorf("%s to %s: %v", src, dst, err)
					return
				}
				// What came of it is not known yet; then the file is at one of the
				// two.
				eventually(t, 2*time.Minute, "it is known where "+src+" is", func() bool {
					_, gone := own.Stat(ctx, client.Path(src), client.Sync{})
					_, err := own.Stat(ctx, client.Path(dst), client.Sync{})
					if orca.KindOf(gone) == orca.NotFound && err == nil {
						at[f] = to
						return true
					}
					return gone == nil && orca.KindOf(err) == orca.NotFound
				})
			}
		})
	}
	traders := trade(t, c, mnt, &wg, stop)
	for _, group := range []uint16{2, 1, 2} {
		time.Sleep(time.Second) // under load
		var dead string
		eventually(t, 2*time.Minute, "the groups have leaders", func() bool {
			gs := c.leaders(fs)
			if gs[group] != nil {
				dead = gs[group].Leader.Node
			}
			return dead != ""
		})
		c.kill(dead)
		time.Sleep(2 * time.Second) // with two
		c.restart(dead)
	}
	close(stop)
	wg.Wait()
	for m, n := range moves {
		if n == 0 {
			t.Errorf("mover %d moved nothing", m)
		}
	}
	t.Logf("moves: %v, exchanges: %d by the mount, %d by a client", moves, traders[0].n, traders[1].n)
	eventually(t, 2*time.Minute, "nothing is under way", func() bool {
		r, err := fs.Report(ctx)
		return err == nil && len(r.Intents) == 0
	})
	for _, r := range traders {
		r.judge(t, store)
	}
	for m := range movers {
		for f := range files {
			n := name(m, f)
			var found, stored []string
			for _, dir := range []string{"1", "2"} {
				if b, err := get(ctx, fs, "/m/"+dir+"/"+n, client.Sync{}); err == nil {
					found = append(found, dir+":"+b)
				} else if orca.KindOf(err) != orca.NotFound {
					t.Errorf("%s: %v", n, err)
				}
				if b, err := os.ReadFile(filepath.Join(store, dir, n)); err == nil {
					stored = append(stored, dir+":"+string(b))
				}
			}
			if len(found) != 1 || !strings.HasSuffix(found[0], ":bytes of "+n) || strings.Join(stored, " ") != found[0] {
				t.Errorf("%s is %q, and in the store %q", n, found, stored)
			}
		}
	}
}
