// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"orca"
)

// through mounts an FS whose files can only be read by the daemon, and not at
// all once they are removed.
func through(t *testing.T) (*memFS, string) {
	fs := newMemFS(t)
	fs.noBacking, fs.fragile = true, true
	m, dir := mounted(t, fs, func(c *Config) { c.NoPassthrough = true })
	ready(t, m)
	return fs, dir
}

func (m *memFS) hookRemove(hook func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onRemove = hook
}

// An open that comes while a removal is on its way to the metaplane reads all
// of the old file, whether or not others had it open before.
func TestOpenedDuringItsRemoval(t *testing.T) {
	for _, how := range []string{"unlink", "rename"} {
		for _, busy := range []string{"idle", "another open file", "open already"} {
			t.Run(how+" "+busy, func(t *testing.T) {
				fs, dir := through(t)
				data := bytes.Repeat([]byte("old "), 100_000)
				fs.put(t, 1, "f", data)
				fs.put(t, 1, "new", []byte("new"))
				fs.put(t, 1, "other", []byte("other"))
				name := map[string]string{"another open file": "/other", "open already": "/f"}[busy]
				if name != "" {
					other, err := os.Open(dir + name)
					if err != nil {
						t.Fatal(err)
					}
					defer other.Close()
				}
				if _, err := os.Stat(dir + "/f"); err != nil { // the name is in the kernel now
					t.Fatal(err)
				}
				// Over a channel: what the kernel puts in order the race detector
				// does not see.
				opened := make(chan *os.File, 1)
				fs.hookRemove(func() error {
					f, err := os.Open(dir + "/f")
					if err != nil {
						t.Error(err)
					}
					opened <- f
					return nil
				})
				var err error
				if how == "unlink" {
					err = os.Remove(dir + "/f")
				} else {
					err = os.Rename(dir+"/new", dir+"/f")
				}
				if err != nil {
					t.Fatal(err)
				}
				f := <-opened
				defer f.Close()
				if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
				}
			})
		}
	}
}

// A removal that fails leaves the file as it was: what is written through
// handles of that time is published.
func TestFailedRemovalLosesNothing(t *testing.T) {
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY} {
		fs, dir := through(t)
		fs.put(t, 1, "f", bytes.Repeat([]byte("old "), 1000))
		held, err := os.OpenFile(dir+"/f", flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		fs.hookRemove(func() error { return merr(orca.Unavailable) })
		if err := os.Remove(dir + "/f"); err == nil {
			t.Fatal("the removal did not fail")
		}
		fs.hookRemove(nil)
		w := held
		if flag == os.O_RDONLY {
			if w, err = os.OpenFile(dir+"/f", os.O_WRONLY, 0); err != nil {
				t.Fatal(err)
			}
			defer held.Close()
		}
		if _, err := w.WriteAt([]byte("new"), 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		e, err := fs.Lookup(context.Background(), orca.Caller{}, 1, "f")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(fs.blob(e.Ino, e.Version))
		if err != nil || len(got) != 4000 || string(got[:8]) != "new old " {
			t.Errorf("flag %d: published %d bytes %q, %v", flag, len(got), got[:min(8, len(got))], err)
		}
	}
}

// What a close acknowledges during a removal that fails in the end is published:
// the close waits until it is known whether there is a name.
func TestCloseDuringARemovalThatFails(t *testing.T) {
	for _, how := range []string{"unlink", "rename"} {
		for _, fails := range []bool{true, false} {
			t.Run(fmt.Sprint(how, " fails ", fails), func(t *testing.T) {
				fs, dir := through(t)
				fs.put(t, 1, "f", bytes.Repeat([]byte("old "), 1000))
				fs.put(t, 1, "other", []byte("other"))
				f, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt([]byte("new"), 0); err != nil {
					t.Fatal(err)
				}
				closed := make(chan error, 1)
				fs.hookRemove(func() error {
					go func() { closed <- f.Close() }()
					select {
					case err := <-closed:
						t.Errorf("the close was answered (%v) before the removal", err)
						closed <- err
					case <-time.After(50 * time.Millisecond): // it may be late: then it is later still
					}
					if fails {
						return merr(orca.Unavailable)
					}
					return nil
				})
				if how == "unlink" {
					err = os.Remove(dir + "/f")
				} else {
					err = os.Rename(dir+"/other", dir+"/f")
				}
				if fails != (err != nil) {
					t.Fatal(err)
				}
				if err := <-closed; err != nil {
					t.Fatal(err)
				}
				fs.hookRemove(nil)
				e, err := fs.Lookup(context.Background(), orca.Caller{}, 1, "f")
				switch {
				case !fails && how == "unlink":
					if orca.KindOf(err) != orca.NotFound {
						t.Fatalf("the file is back: %v", err)
					}
					return
				case err != nil:
					t.Fatal(err)
				}
				got, err := os.ReadFile(fs.blob(e.Ino, e.Version))
				want := "new old "
				if !fails {
					want = "other"
				}
				if err != nil || !bytes.HasPrefix(got, []byte(want)) {
					t.Errorf("%d bytes %q, %v", len(got), got[:min(8, len(got))], err)
				}
			})
		}
	}
}

// A new file that a rename was to replace is still there when that fails.
func TestNewFileOutlivesAFailedReplacement(t *testing.T) {
	fs, dir := through(t)
	fs.put(t, 1, "other", []byte("other"))
	f, err := os.Create(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	fs.hookRemove(func() error { return merr(orca.Unavailable) })
	if err := os.Rename(dir+"/other", dir+"/f"); err == nil {
		t.Fatal("the rename did not fail")
	}
	fs.hookRemove(nil)
	if _, err := f.WriteString("er"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/f"); err != nil || string(got) != "newer" {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := os.ReadFile(dir + "/other"); err != nil || string(got) != "other" {
		t.Fatalf("%q, %v", got, err)
	}
}

// Readers see the old content while a write copies it to the private file.
func TestReadDuringTheFirstWriteOfASharedHandle(t *testing.T) {
	fs, dir := through(t)
	data := bytes.Repeat([]byte("old "), 2<<20)
	fs.put(t, 1, "f", data)
	r, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var first atomic.Bool
	got := make([]byte, 4096)
	done := make(chan error, 1)
	fs.mu.Lock()
	fs.onRead = func() { // the read in it calls it again
		if first.CompareAndSwap(false, true) {
			_, err := r.ReadAt(got, 4<<20)
			done <- err
		}
	}
	fs.mu.Unlock()
	if _, err := w.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !bytes.Equal(got, data[4<<20:4<<20+4096]) {
		t.Errorf("%q, %v", got[:8], err)
	}
}

// Who is asked for a file that this mount itself is removing answers at once: a
// close that waits for the outcome holds what a copy would take.
func TestRecallOfOwnRemoval(t *testing.T) {
	fs := newMemFS(t)
	fs.noBacking, fs.fragile = true, true
	m, dir := mounted(t, fs, func(c *Config) { c.NoPassthrough = true })
	ready(t, m)
	fs.put(t, 1, "f", bytes.Repeat([]byte("old "), 1000))
	e, err := fs.Lookup(context.Background(), orca.Caller{}, 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(dir + "/f") // so that there is something to copy
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	fs.hookRemove(func() error {
		go func() { closed <- f.Close() }()
		select {
		case <-time.After(50 * time.Millisecond): // it may be late: then nothing is in the way
		case err := <-closed:
			closed <- err
		}
		// The last handle is closed by RELEASE, which waits with the node's mu.
		go m.g.closeHandle(m.g.nextFh.Load())
		<-time.After(50 * time.Millisecond) // likewise
		answered := make(chan struct{})
		go func() { defer close(answered); m.g.leaving(e.Ino) }()
		select {
		case <-answered:
		case <-time.After(10 * time.Second):
			t.Error("the recall waits for the removal, which waits for it")
		}
		return nil
	})
	if err := os.Remove(dir + "/f"); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
