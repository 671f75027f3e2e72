// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/engine/client"
)

// exchange is renameat2 with RENAME_EXCHANGE.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// tradedByMount has names of two groups change places through a real mount, with who
// has them open reading on, and is refused what stays in its group.
func tradedByMount(t *testing.T, mnt, store string) {
	t.Helper()
	a, b, link := filepath.Join(mnt, "1", "a"), filepath.Join(mnt, "2", "b"), filepath.Join(mnt, "1", "l")
	writeFile(t, a, "this one")
	writeFile(t, b, "that")
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.ReadAt(make([]byte, 4), 0); err != nil {
		t.Fatal(err)
	}
	reads := func(path, want string) {
		t.Helper()
		if got, err := os.ReadFile(path); string(got) != want {
			t.Errorf("%s: %q, %v, not %q", path, got, err, want)
		}
	}
	both := func(first, second string) {
		t.Helper()
		reads(a, first)
		reads(b, second)
		reads(filepath.Join(store, "1", "a"), first)
		reads(filepath.Join(store, "2", "b"), second)
	}
	for range 2 { // and back
		if err := exchange(a, b); err != nil {
			t.Errorf("exchange: %v", err)
		}
		both("that", "this one")
		if err := exchange(b, a); err != nil {
			t.Errorf("exchange: %v", err)
		}
		both("this one", "that")
	}
	if got, err := io.ReadAll(open); string(got) != "this one" {
		t.Errorf("who had it open reads %q, %v", got, err)
	}
	if err := exchange(link, b); err != nil {
		t.Errorf("exchange with a link: %v", err)
	}
	if to, err := os.Readlink(b); to != "target" {
		t.Errorf("readlink: %q, %v", to, err)
	}
	reads(filepath.Join(store, "1", "l"), "that")
	if err := exchange(b, link); err != nil {
		t.Errorf("exchange with a link: %v", err)
	}
	both("this one", "that")
	// A file's names are in one group, and so is a directory.
	for _, x := range [][2]string{{a, filepath.Join(mnt, "2", "more")}, {b, filepath.Join(mnt, "1", "more")}, {link, filepath.Join(mnt, "2", "more")}} {
		if err := os.Link(x[0], x[1]); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("link %s to %s: %v", x[0], x[1], err)
		}
		if _, err := os.Lstat(x[1]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", x[1], err)
		}
	}
	dir := filepath.Join(mnt, "1", "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, x := range [][2]string{{dir, b}, {b, dir}} {
		if err := exchange(x[0], x[1]); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("exchange with a directory: %v", err)
		}
	}
	if err := os.Link(a, filepath.Join(mnt, "1", "again")); err != nil {
		t.Error(err)
	}
	for _, x := range [][2]string{{a, b}, {b, a}} {
		if err := exchange(x[0], x[1]); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("exchange of a file with two names: %v", err)
		}
	}
	both("this one", "that")
}

// trader has two names of different groups change places, again and again.
type trader struct {
	fs  *client.FS
	mnt string // by a mount; "": as a client
	i   int
	n   int // how often they have
	at  int // 1: they are the wrong way round
}

// trade has one trader work by a mount, and one as a client.
func trade(t *testing.T, c *cluster, mnt string, wg *sync.WaitGroup, stop <-chan struct{}) []*trader {
	t.Helper()
	rs := []*trader{{fs: c.fs(), i: 0, mnt: mnt}, {fs: c.fs(), i: 1}}
	for _, r := range rs {
		r.begin(t)
		wg.Go(func() { r.run(t, stop) })
	}
	return rs
}

func (r *trader) path(k int) string { return fmt.Sprintf("/m/%d/trade%d", k+1, r.i) }

// content is that of one of the two files.
func (r *trader) content(k int) string { return fmt.Sprintf("file %d of trader %d", k, r.i) }

func (r *trader) begin(t *testing.T) {
	t.Helper()
	for k := range 2 {
		if err := put(ctxFor(t, time.Minute), r.fs, r.path(k), r.content(k)); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *trader) run(t *testing.T, stop <-chan struct{}) {
	ctx := ctxFor(t, 8*time.Minute)
	for k := 0; ; k++ {
		select {
		case <-stop:
			return
		default:
		}
		a, b := r.path(k%2), r.path(1-k%2)
		var err error
		if r.mnt != "" {
			err = exchange(filepath.Join(r.mnt, a), filepath.Join(r.mnt, b))
		} else {
			err = r.fs.Exchange(ctx, client.Path(a), client.Path(b))
		}
		if err == nil {
			r.n, r.at = r.n+1, 1-r.at
			continue
		}
		if r.mnt == "" && !orca.KindOf(err).Retryable() {
			t.Errorf("exchange of %s and %s: %v", a, b, err)
			return
		}
		// What came of it is not known yet: then they are the one way round, or the
		// other.
		eventually(t, 2*time.Minute, "it is known which way round they are", func() bool {
			x, xerr := get(ctx, r.fs, r.path(0), client.Sync{})
			y, yerr := get(ctx, r.fs, r.path(1), client.Sync{})
			for way := range 2 {
				if xerr == nil && yerr == nil && x == r.content(way) && y == r.content(1-way) {
					r.at = way
					return true
				}
			}
			return false
		})
	}
}

// judge compares what there is in the end, in the namespace and in the store, with
// what was answered.
func (r *trader) judge(t *testing.T, store string) {
	t.Helper()
	if r.n == 0 {
		t.Errorf("trader %d exchanged nothing", r.i)
	}
	for k := range 2 {
		path, want := r.path(k), r.content(k^r.at)
		b, err := get(ctxFor(t, time.Minute), r.fs, path, client.Sync{})
		stored, serr := os.ReadFile(filepath.Join(store, path[len("/m/"):]))
		if b != want || string(stored) != want {
			t.Errorf("%s is %q (%v), and in the store %q (%v), not %q", path, b, err, stored, serr, want)
		}
	}
}
