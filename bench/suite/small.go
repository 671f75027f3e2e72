// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"orca/bench/baseline"
	"orca/bench/hist"
	"orca/engine/client"
)

const (
	echo4KName   = "netpoll echo of 4 KiB, 8 connections"
	smallRead    = 4096
	smallReaders = 8
	smallEach    = 1000 // operations of each reader per pass
)

// openRemote4K reads 4 KiB at a time over the network. Readers share what the
// client shares; each connection of the echo has one user.
func openRemote4K(ctx context.Context, s *stage) (*trial, error) {
	fs, f, o, err := s.remoteFile(ctx, true)
	if err != nil {
		return nil, err
	}
	echo, err := baseline.StartEcho(ctx, s.opt.Self, smallRead, smallReaders)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	size := f.Size()
	sys := side{name: "remote 4 KiB reads", pids: []int{o.PID()}, run: func(ctx context.Context) (measure, error) {
		local := fs.Stats().LocalReads.Load()
		m, err := readers(func(i int) (func() error, error) { return smallReader(ctx, f, size, uint64(i)), nil })
		if n := fs.Stats().LocalReads.Load() - local; err == nil && n != 0 {
			err = fmt.Errorf("%d reads went by descriptor, not over the network", n)
		}
		return m, err
	}}
	base := side{name: echo4KName, pids: []int{echo.PID()}, run: func(context.Context) (measure, error) {
		return readers(func(i int) (func() error, error) { return func() error { return echo.Call(i) }, nil })
	}}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(echo.Close(), f.Close()) }}, nil
}

// smallReader reads at random places of f.
func smallReader(ctx context.Context, f *client.File, size int64, seed uint64) func() error {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, smallRead)
	return func() error {
		_, err := f.ReadAtContext(ctx, p, r.Int64N(size/smallRead)*smallRead)
		return err
	}
}

// readers runs smallEach operations of each reader, all at once.
func readers(open func(i int) (func() error, error)) (measure, error) {
	errs := make([]error, smallReaders)
	lats := make([]*hist.Hist, smallReaders)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range smallReaders {
		wg.Go(func() {
			op, err := open(i)
			lats[i] = hist.New()
			for n := 0; n < smallEach && err == nil; n++ {
				begin := time.Now()
				err = op()
				lats[i].Record(time.Since(begin))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	m := measure{work: smallReaders * smallEach, took: time.Since(start), lat: lats[0]}
	for _, l := range lats[1:] {
		m.lat.Merge(l)
	}
	return m, errors.Join(errs...)
}
