// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca/engine/client"
)

// TestDiskErrorEndsTheMember has the disk below the journal or the store fail:
// the process ends, says why in a line, and not with a stack; what it had
// acknowledged is there when the disk is well again.
func TestDiskErrorEndsTheMember(t *testing.T) {
	for _, tc := range []struct {
		name, op, part string
		errno          syscall.Errno
		says           string
	}{
		{"journal fsync EIO", "fsync", "journal/", syscall.EIO, "the journal has failed"},
		{"journal write ENOSPC", "write", "journal/", syscall.ENOSPC, "the journal has failed"},
		{"store write ENOSPC", "write", "store-", syscall.ENOSPC, "the store has failed"},
		{"store fsync EIO", "fsync", "store-", syscall.EIO, "the store has failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			disk := newFaultDisk(t, filepath.Join(data, "meta"))
			args := []string{"start", "--role", "meta", "--data", data, "--meta-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0"}
			start := func() *proc {
				p, ready := launch(t, data, nil, args...)
				select {
				case <-ready:
				case <-time.After(2 * time.Minute):
					t.Fatalf("not ready\n%s", tail(p.output(), 3000))
				}
				p.loadEndpoints()
				return p
			}
			p := start()
			fs := p.fs()
			ctx, cancel := context.WithCancel(ctxFor(t, 2*time.Minute))
			acked := 0
			mkdir := func() error {
				_, err := fs.Mkdir(ctx, client.Path(fmt.Sprintf("/d%d", acked)), 0o755)
				if err == nil {
					acked++
				}
				return err
			}
			for acked < 10 {
				if err := mkdir(); err != nil {
					t.Fatal(err)
				}
			}
			disk.failing(failOn(tc.op, tc.part, tc.errno))
			over := make(chan struct{})
			go func() {
				defer close(over)
				for ctx.Err() == nil && mkdir() == nil {
				}
			}()
			code := p.ended()
			cancel()
			<-over
			out := p.output()
			if code != 1 || !strings.Contains(out, tc.says) || !strings.Contains(out, tc.errno.Error()) || strings.Contains(out, "goroutine ") {
				t.Errorf("exit code %d, want 1 and a line with %q and %q, and no stack:\n%s", code, tc.says, tc.errno, tail(out, 3000))
			}
			disk.failing(nil)
			p = start()
			again := p.fs()
			for i := range acked {
				if _, err := again.Stat(ctxFor(t, time.Minute), client.Path(fmt.Sprintf("/d%d", i)), client.Sync{}); err != nil {
					t.Errorf("acknowledged /d%d of %d: %v", i, acked, err)
				}
			}
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
