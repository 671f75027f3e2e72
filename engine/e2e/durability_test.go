// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestKillDuringWrites kills Orca in the middle of 10,000 creates and writes
// by 16 clients. Every acknowledged file is there after the restart, with its
// content (a memory tier outlives the process, and is adopted); data of the
// types that promise it is in the bucket; no half file is readable.
func TestKillDuringWrites(t *testing.T) {
	const total = 10_000
	s := minioStore(t)
	data := t.TempDir()
	p := upEnv(t, data, s.env, s.upArgs...)
	fs := p.fs()
	ctx := ctxFor(t, 5*time.Minute)
	for d := range 16 {
		if _, err := fs.MkdirAll(ctx, client.Path(fmt.Sprintf("/w%02d", d)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := func(i int) string { return fmt.Sprintf("/w%02d/f%05d", i%16, i) }
	types := []orca.WriteType{orca.CacheThrough, orca.MustCache, orca.Through, orca.AsyncThrough}

	var next, done atomic.Int64
	started := time.Now()
	acked := make([]atomic.Bool, total)
	tried := make([]atomic.Bool, total)
	killAt := int64(total * 4 / 10)
	var once sync.Once
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 16 {
		wg.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= total || stop.Err() != nil {
					return
				}
				tried[i].Store(true)
				var err error
				opts := client.CreateOptions{WriteType: types[i%len(types)]}
				if i%8 == 7 {
					_, err = fs.CreateEmpty(stop, client.Path(name(i)), opts)
				} else {
					err = write(stop, fs, name(i), content(i), opts)
				}
				if err != nil {
					cancel() // the process is dead: nothing more can be acknowledged
					return
				}
				acked[i].Store(true)
				if done.Add(1) >= killAt {
					once.Do(func() { go p.kill() })
				}
			}
		})
	}
	wg.Wait()
	if done.Load() < killAt {
		t.Fatalf("only %d of %d files were acknowledged before the kill", done.Load(), killAt)
	}

	t.Logf("%d acknowledged in %v", done.Load(), time.Since(started).Round(time.Millisecond))
	begin := time.Now()
	p = upEnv(t, data, s.env, s.upArgs...)
	fs = p.fs()
	if _, err := fs.Stat(ctx, client.Path("/w00"), client.Sync{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("restart to the first operation: %v (%d files acknowledged)", time.Since(begin), done.Load())
	eventually(t, 2*time.Minute, "sessions of the dead and persists drained", func() bool { return drained(ctx, fs) && persisted(ctx, fs) })
	t.Logf("drained after %v", time.Since(begin).Round(time.Millisecond))
	inStore := s.tree(t)
	for i := range total {
		if !tried[i].Load() {
			continue
		}
		want := content(i)
		if i%8 == 7 {
			want = ""
		}
		got, err := get(ctx, fs, name(i), client.Sync{})
		typ := types[i%len(types)]
		switch {
		case !acked[i].Load():
			if err == nil && got != want {
				t.Errorf("%s was not acknowledged and is readable with %d of %d bytes", name(i), len(got), len(want))
			}
		case err != nil:
			t.Errorf("%s (%v) was acknowledged: %v", name(i), typ, err)
		case got != want:
			t.Errorf("%s (%v): %d bytes, want %d", name(i), typ, len(got), len(want))
		}
		if acked[i].Load() && typ != orca.MustCache {
			if c, ok := inStore[name(i)]; !ok || c != want {
				t.Errorf("%s (%v): in the bucket: %v, %d bytes", name(i), typ, ok, len(c))
			}
		}
	}
}

func content(i int) string {
	return fmt.Sprintf("%0*d", 100+i%7919, i)
}

func write(ctx context.Context, fs *client.FS, p, s string, o client.CreateOptions) error {
	w, err := fs.Create(ctx, client.Path(p), o)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(s)); err != nil {
		w.Abort()
		return err
	}
	return w.Close()
}

// persisted reports whether no file waits for its store any more.
func persisted(ctx context.Context, fs *client.FS) bool {
	r, err := fs.Report(ctx)
	return err == nil && r.Counters["to_be_persisted"] == 0
}

// TestSecondStart finds the namespace and the SSD cache of the first run after
// a clean stop.
func TestSecondStart(t *testing.T) {
	s := minioStore(t)
	data := t.TempDir()
	args := append([]string{"--mem", "0"}, s.upArgs...) // everything is cached on SSD
	p := upEnv(t, data, s.env, args...)
	t.Logf("ready after %v", p.took)
	fs := p.fs()
	ctx := ctxFor(t, time.Minute)
	if err := put(ctx, fs, "/dir/file", content(123456)); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatalf("clean stop: %v", err)
	}
	p = upEnv(t, data, s.env, args...)
	fs = p.fs()
	before := s.reads()
	got, err := get(ctx, fs, "/dir/file", client.Sync{})
	if err != nil || got != content(123456) {
		t.Fatalf("after the second start: %d bytes, %v", len(got), err)
	}
	if n := s.reads() - before; n != 0 {
		t.Errorf("the second run read the bucket %d times: the SSD cache was not found", n)
	}
	if err := p.stop(); err != nil {
		t.Fatalf("clean stop: %v", err)
	}
}
