// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package capture takes CPU and allocation profiles of running daemons and of
// this process over one window of time, and sums them per room, so that the
// question "which part of Orca is this spent in" has a table for an answer. It
// is the sole user of google/pprof.
//
// Flow: bench/suite measures first and calls Take in a pass of its own after
// that, so that no figure is taken under a profiler. One goroutine per source
// and profile runs for the length of the window. Profiles are written as they
// came, for go tool pprof.
//
// It refuses to guess: a source that does not answer is an error.
package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/google/pprof/profile"
)

// Source is a process to be profiled.
type Source struct {
	Name string // part of the file names, such as "orca" or "orcabench"
	HTTP string // host:port that serves net/http/pprof; "" is this process
}

// Taken is what one source spent in the window.
type Taken struct {
	Source      string
	Window      time.Duration
	CPU, Allocs Sum
	Files       []string // the profiles, as written
}

// Take profiles all sources for d, writes LABEL.NAME.cpu.pb.gz and
// LABEL.NAME.allocs.pb.gz into dir, and sums them per room. work runs
// meanwhile and is told to end by its context; its error is returned.
func Take(ctx context.Context, dir, label string, d time.Duration, sources []Source, work func(context.Context) error) ([]Taken, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	busy, stop := context.WithCancel(ctx)
	defer stop()
	worked := make(chan error, 1)
	go func() { worked <- work(busy) }()

	out := make([]Taken, len(sources))
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out[i], errs[i] = takeOne(ctx, dir, label, d, s)
		}()
	}
	wg.Wait()
	stop()
	err := <-worked
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = nil // we told it to
	}
	return out, errors.Join(append(errs, err)...)
}

func takeOne(ctx context.Context, dir, label string, d time.Duration, s Source) (Taken, error) {
	t := Taken{Source: s.Name, Window: d}
	cpu, allocs, err := []byte(nil), []byte(nil), error(nil)
	if s.HTTP == "" {
		cpu, allocs, err = takeSelf(ctx, d)
	} else {
		cpu, allocs, err = takeRemote(ctx, s.HTTP, d)
	}
	if err != nil {
		return t, fmt.Errorf("profile of %s: %w", s.Name, err)
	}
	for _, f := range []struct {
		kind string
		data []byte
		into *Sum
		by   string
	}{{"cpu", cpu, &t.CPU, "cpu"}, {"allocs", allocs, &t.Allocs, "alloc_space"}} {
		path := filepath.Join(dir, label+"."+s.Name+"."+f.kind+".pb.gz")
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return t, err
		}
		t.Files = append(t.Files, path)
		p, err := profile.ParseData(f.data)
		if err != nil {
			return t, fmt.Errorf("profile of %s: %w", s.Name, err)
		}
		if *f.into, err = PerRoom(p, f.by); err != nil {
			return t, fmt.Errorf("profile of %s: %w", s.Name, err)
		}
	}
	return t, nil
}

// takeSelf profiles this process.
func takeSelf(ctx context.Context, d time.Duration) (cpu, allocs []byte, err error) {
	var before, during, after bytes.Buffer
	if err := pprof.Lookup("allocs").WriteTo(&before, 0); err != nil {
		return nil, nil, err
	}
	if err := pprof.StartCPUProfile(&during); err != nil {
		return nil, nil, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		err = ctx.Err()
	}
	pprof.StopCPUProfile()
	if err != nil {
		return nil, nil, err
	}
	if err := pprof.Lookup("allocs").WriteTo(&after, 0); err != nil {
		return nil, nil, err
	}
	allocs, err = subtract(after.Bytes(), before.Bytes())
	return during.Bytes(), allocs, err
}

// subtract returns what a cumulative profile gained.
func subtract(after, before []byte) ([]byte, error) {
	a, err := profile.ParseData(after)
	if err != nil {
		return nil, err
	}
	b, err := profile.ParseData(before)
	if err != nil {
		return nil, err
	}
	b.Scale(-1)
	diff, err := profile.Merge([]*profile.Profile{a, b})
	if err != nil {
		return nil, err
	}
	var w bytes.Buffer
	err = diff.Write(&w)
	return w.Bytes(), err
}

// takeRemote asks a daemon for both profiles of the same window.
func takeRemote(ctx context.Context, addr string, d time.Duration) (cpu, allocs []byte, err error) {
	seconds := max(1, int(d.Round(time.Second)/time.Second))
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var errCPU, errAllocs error
	wg.Add(2)
	go func() {
		defer wg.Done()
		cpu, errCPU = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, seconds))
	}()
	go func() {
		defer wg.Done()
		allocs, errAllocs = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/allocs?seconds=%d", addr, seconds))
	}()
	wg.Wait()
	return cpu, allocs, errors.Join(errCPU, errAllocs)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const maxProfile = 256 << 20
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProfile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return b, err
}
