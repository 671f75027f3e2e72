// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"orca/bench/baseline"
	"orca/bench/hist"
)

// defaultBulk is the size of the file of bulk cases.
const defaultBulk = 256 << 20

// The env suite measures the denominators of the others: what this machine
// does without Orca. Each is held against the next simpler thing, so that a
// ratio far from the usual says that the machine, not Orca, is odd.
func envCases() []Case {
	return []Case{
		{Suite: "env", Name: "memcpy", Metric: "copy rate", Unit: unitMBs, Baseline: memcpyCached,
			About: "one thread copying out of memory into a reused 1 MiB buffer, against the same out of the L2 cache", open: openMemcpy},
		{Suite: "env", Name: "pagecache-read", Metric: "read rate", Unit: unitMBs, Baseline: memcpyName,
			About: "pread of 1 MiB of a page-cached file, against memcpy", open: openPagecache},
		{Suite: "env", Name: "sendfile-loopback", Metric: "transfer rate", Unit: unitMBs, Baseline: preadName,
			About: "raw sendfile to another process in 1 MiB pulls, against pread of the same file", open: openSendfile},
		{Suite: "env", Name: "fdatasync", Metric: "durable writes", Unit: unitOps, Baseline: "the same write without fdatasync",
			About: "4 KiB pwrite and fdatasync, against the pwrite alone", open: openFdatasync},
		{Suite: "env", Name: "raw-propose", Metric: "proposals", Unit: unitOps, Baseline: syncName,
			About: "un-merged proposals to a Raft group that does nothing, as many outstanding as clients, against fdatasync of one thread", open: openPropose},
	}
}

const (
	memcpyName   = "memcpy into a reused 1 MiB buffer"
	memcpyCached = "memcpy of a 256 KiB source (L2 cache)"
	syncName     = "4 KiB write and fdatasync"
	preadName    = "pread of the page-cached file"
)

// memcpy returns the memcpy side over size bytes, reading into buf.
func memcpy(size int64, buf []byte) (side, func() error, error) {
	mem, err := baseline.NewMemory(size)
	if err != nil {
		return side{}, nil, err
	}
	return side{name: memcpyName, run: func(context.Context) (measure, error) {
		return measure{work: float64(size) / 1e6, took: mem.Copy(buf)}, nil
	}}, mem.Close, nil
}

func openMemcpy(_ context.Context, s *stage) (*trial, error) {
	size := s.opt.size(defaultBulk)
	buf := baseline.Buffer(baseline.Chunk)
	sys, closeMem, err := memcpy(size, buf)
	if err != nil {
		return nil, err
	}
	small, err := baseline.NewMemory(256 << 10)
	if err != nil {
		return nil, errors.Join(err, closeMem())
	}
	hot := side{name: memcpyCached, run: func(context.Context) (measure, error) {
		start := time.Now()
		n := int(size / small.Size())
		for range n {
			small.Copy(buf[:small.Size()])
		}
		return measure{work: float64(int64(n)*small.Size()) / 1e6, took: time.Since(start)}, nil
	}}
	return &trial{system: sys, baselines: []side{hot}, close: func() error { return errors.Join(small.Close(), closeMem()) }}, nil
}

// cachedFile makes a file of size bytes in the temporary folder, reads it once
// so that it is in the page cache, and returns its path.
func (s *stage) cachedFile(size int64) (string, error) {
	dir, err := s.dir("env")
	if err != nil {
		return "", err
	}
	p := filepath.Join(dir, "file")
	if st, err := os.Stat(p); err == nil && st.Size() == size {
		return p, nil
	}
	return p, errors.Join(baseline.WriteFile(p, 1, size), baseline.Verify(p, 1, size))
}

// pread returns the side that reads the page-cached file at p.
func pread(p string, size int64, buf []byte) (side, func() error, error) {
	fd, err := baseline.OpenRead(p)
	if err != nil {
		return side{}, nil, err
	}
	run := func(context.Context) (measure, error) {
		took, err := baseline.ReadAll(fd, size, buf)
		return measure{work: float64(size) / 1e6, took: took}, err
	}
	return side{name: preadName, run: run}, func() error { return unix.Close(fd) }, nil
}

func openPagecache(_ context.Context, s *stage) (*trial, error) {
	size := s.opt.size(defaultBulk)
	buf := baseline.Buffer(baseline.Chunk)
	p, err := s.cachedFile(size)
	if err != nil {
		return nil, err
	}
	sys, closeFile, err := pread(p, size, buf)
	if err != nil {
		return nil, err
	}
	base, closeMem, err := memcpy(size, buf)
	if err != nil {
		return nil, errors.Join(err, closeFile())
	}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeMem(), closeFile()) }}, nil
}

// rawSide is one pattern of the raw pair as a side.
func rawSide(pair *baseline.RawPair, p baseline.Pattern, size int64) side {
	return side{name: "raw sendfile, " + string(p), pids: pair.PIDs(), run: func(context.Context) (measure, error) {
		took, err := pair.Move(p, size)
		return measure{work: float64(size) / 1e6, took: took}, err
	}}
}

func openSendfile(ctx context.Context, s *stage) (*trial, error) {
	size := s.opt.size(defaultBulk)
	p, err := s.cachedFile(size)
	if err != nil {
		return nil, err
	}
	pair, err := baseline.StartRawPair(ctx, s.opt.Self, p)
	if err != nil {
		return nil, err
	}
	base, closeFile, err := pread(p, size, baseline.Buffer(baseline.Chunk))
	if err != nil {
		return nil, errors.Join(err, pair.Close())
	}
	return &trial{system: rawSide(pair, baseline.Pull1, size), baselines: []side{base},
		close: func() error { return errors.Join(closeFile(), pair.Close()) }}, nil
}

// syncSides returns the sides that write 4 KiB with and without fdatasync.
func (s *stage) syncSides() (durable, plain side, closeFile func() error, err error) {
	dir, err := s.dir("env")
	if err != nil {
		return side{}, side{}, nil, err
	}
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return side{}, side{}, nil, err
	}
	n := 500
	if s.opt.Tiny {
		n = 5
	}
	p := make([]byte, 4096)
	timed := func(name string, n int, write func(*os.File, []byte, int, *hist.Hist) (time.Duration, error)) side {
		return side{name: name, run: func(context.Context) (measure, error) {
			h := hist.New()
			took, err := write(f, p, n, h)
			return measure{work: float64(n), took: took, lat: h}, err
		}}
	}
	return timed(syncName, n, baseline.Fdatasync), timed("the same write without fdatasync", 100*n, baseline.Write), f.Close, nil
}

func openFdatasync(_ context.Context, s *stage) (*trial, error) {
	durable, plain, closeFile, err := s.syncSides()
	if err != nil {
		return nil, err
	}
	return &trial{system: durable, baselines: []side{plain}, close: closeFile}, nil
}

func openPropose(_ context.Context, s *stage) (*trial, error) {
	payload, err := createPayload()
	if err != nil {
		return nil, err
	}
	sys, closeGroup, err := s.proposeSide(s.lanes(), payload)
	if err != nil {
		return nil, err
	}
	durable, _, closeFile, err := s.syncSides()
	if err != nil {
		return nil, errors.Join(err, closeGroup())
	}
	return &trial{system: sys, baselines: []side{durable}, close: func() error { return errors.Join(closeFile(), closeGroup()) }}, nil
}
