// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/hist"
	"orca/bench/workload"
	"orca/engine/client"
)

const (
	// viewPage is what a view is touched by: one load in each.
	viewPage = 4 << 10
	smallDir = "/bench/small"
)

// touched keeps the loads of the slice case from being left out.
var touched byte

func openSlice(ctx context.Context, s *stage) (*trial, error) {
	o, err := s.ioOrca()
	if err != nil {
		return nil, err
	}
	fs, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node})
	if err != nil {
		return nil, err
	}
	size := s.opt.size(defaultBulk)
	f, err := s.cached(ctx, fs, size)
	if err != nil {
		return nil, err
	}
	base, closeMem, err := memcpy(size, baseline.Buffer(baseline.Chunk))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	sys := side{name: "slice", pids: []int{o.PID()}, run: func(ctx context.Context) (measure, error) {
		st := fs.Stats()
		before := st.MappedBytes.Load()
		start := time.Now()
		for off := int64(0); off < size; off += baseline.Chunk {
			v, err := f.Slice(ctx, off, baseline.Chunk)
			if err != nil {
				return measure{}, err
			}
			b := v.Bytes()
			for i := 0; i < len(b); i += viewPage {
				touched += b[i]
			}
			v.Release()
		}
		took := time.Since(start)
		if lent := st.MappedBytes.Load() - before; lent != size || fs.Held().Views != 0 {
			return measure{}, fmt.Errorf("only %d of %d bytes were lent without a copy, %d views are held", lent, size, fs.Held().Views)
		}
		return measure{work: float64(size) / 1e6, took: took}, nil
	}}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeMem(), f.Close()) }}, nil
}

// openCached100k compares whole small files, read from descriptors that the client
// has, with opening, reading and closing as many on a native folder.
func openCached100k(ctx context.Context, s *stage) (*trial, error) {
	o, err := s.ioOrca()
	if err != nil {
		return nil, err
	}
	fs, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node})
	if err != nil {
		return nil, err
	}
	order := workload.Order(smallSeed, s.opt.Files)
	files, err := s.smallFiles(ctx, fs)
	closeFiles := func() (err error) {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	if err != nil {
		return nil, errors.Join(err, closeFiles())
	}
	native, err := s.native()
	if err != nil {
		return nil, errors.Join(err, closeFiles())
	}
	paths, err := baseline.WriteTree(filepath.Join(native, "io-small"), smallSeed, s.opt.Files, smallSize)
	if err != nil {
		return nil, errors.Join(err, closeFiles())
	}
	shuffled := make([]string, len(paths))
	for i, n := range order {
		shuffled[i] = paths[n]
	}
	buf := baseline.Buffer(smallSize)
	base := side{name: nativeSmall, run: func(context.Context) (measure, error) {
		h := hist.New()
		took, err := baseline.OpenReadClose(shuffled, smallSize, buf, h)
		return measure{work: float64(len(shuffled)), took: took, lat: h}, err
	}}
	sys := side{name: "descriptor read", pids: []int{o.PID()}, run: func(ctx context.Context) (measure, error) {
		st := fs.Stats()
		local, passed := st.LocalReads.Load(), st.Descrips.Load()
		h := hist.New()
		start := time.Now()
		last := start
		for _, n := range order {
			if m, err := files[n].ReadAtContext(ctx, buf, 0); m != smallSize {
				return measure{}, err
			}
			now := time.Now()
			h.Record(now.Sub(last))
			last = now
		}
		took := last.Sub(start)
		if n := st.LocalReads.Load() - local; n != int64(len(order)) || st.Descrips.Load() != passed {
			return measure{}, fmt.Errorf("%d of %d files were read by descriptor, %d descriptors had to be passed", n, len(order), st.Descrips.Load()-passed)
		}
		return measure{work: float64(len(order)), took: took, lat: h}, nil
	}}
	return &trial{system: sys, baselines: []side{base}, close: closeFiles}, nil
}

const nativeSmall = "native open, pread, close"

// smallFiles opens the cached small files, writing and comparing them first.
func (s *stage) smallFiles(ctx context.Context, fs *client.FS) ([]*client.File, error) {
	var files []*client.File
	for i, name := range workload.Names("file", s.opt.Files) {
		p, seed := smallDir+"/"+name, uint64(smallSeed+i)
		if _, err := fs.Stat(ctx, client.Path(p), client.Sync{}); errors.Is(err, orca.NotFound) {
			if err := put(ctx, fs, p, seed, smallSize); err != nil {
				return files, err
			}
		} else if err != nil {
			return files, err
		}
		f, err := openFile(ctx, fs, p, seed, smallSize)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}
