// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/target"
	"orca/bench/workload"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/transport"
	"orca/engine/client"
)

// defaultCold is the size of the file of the cold case.
const defaultCold = 1 << 30

// The io suite reads one cached file through the Go API. Sources are larger
// than the caches of the processor, and both sides of a case read into the
// same reused buffer of 1 MiB.
func ioCases() []Case {
	return []Case{
		{Suite: "io", Name: "shortcircuit", Metric: "read rate", Unit: unitMBs, Baseline: memcpyName,
			About: "File.ReadAt of a cached file on the same host, against memcpy of as many bytes", open: openShortCircuit},
		{Suite: "io", Name: "slice", Metric: "read rate", Unit: unitMBs, Baseline: memcpyName,
			About: "File.Slice of a cached file on the same host, every page touched, against memcpy of as many bytes", open: openSlice},
		{Suite: "io", Name: "open-100k", Metric: "whole files read", Unit: unitOps, Baseline: nativeSmall,
			About: "100 KB files read whole by cached descriptor, against native open, pread, close", open: openCached100k},
		{Suite: "io", Name: "remote", Metric: "read rate", Unit: unitMBs, Baseline: "raw sendfile",
			About: "File.ReadAt from a worker of another node over loopback, checksums verified, against the best raw sendfile", open: openRemote(true)},
		{Suite: "io", Name: "remote-noverify", Metric: "read rate", Unit: unitMBs, Baseline: "raw sendfile",
			About: "the same without verifying checksums", open: openRemote(false)},
		{Suite: "io", Name: "domain-socket", Metric: "read rate", Unit: unitMBs, Baseline: overTCPName,
			About: "File.ReadAt from a worker of the same node over its Unix socket, without descriptors, verified, against the same over TCP", open: openDomain},
		{Suite: "io", Name: "encrypted", Metric: "read rate", Unit: unitMBs, Baseline: inClearName,
			About: "File.ReadAt over loopback from an encrypted tier directory, against the same from one in the clear", open: openEncrypted},
		{Suite: "io", Name: "remote-grpc", Metric: "read rate", Unit: unitMBs, Baseline: grpcName,
			About: "the same as remote, against a gRPC stream of messages of 1 MiB between two Go processes", open: openRemoteGRPC},
		{Suite: "io", Name: "remote-4k", Metric: "reads", Unit: unitOps, Baseline: echo4KName,
			About: "File.ReadAt of 4 KiB at random places from a worker of another node, verified, 8 readers, against a netpoll echo of 4 KiB on 8 connections", open: openRemote4K},
		{Suite: "io", Name: "cold", Metric: "read rate", Unit: unitMBs, Baseline: directName,
			About: "first read of a file on MinIO through Orca, filling MEM, against one direct GET stream", open: openCold(defaultCold, 0)},
		{Suite: "io", Name: "cold-20ms", Metric: "read rate", Unit: unitMBs, Baseline: directName,
			About: "the same over a relay that delays each way by 10 ms", open: openCold(defaultFar, coldDelay)},
		{Suite: "io", Name: "cold-parallel", Metric: "read rate", Unit: unitMBs, Baseline: parallelName,
			About: "the same as cold, against the better of two parallel downloads into a file in memory, as s5cmd and rclone make", open: openColdParallel(defaultCold, 0)},
		{Suite: "io", Name: "cold-20ms-parallel", Metric: "read rate", Unit: unitMBs, Baseline: parallelName,
			About: "the same as cold-20ms, against those", open: openColdParallel(defaultFar, coldDelay)},
		{Suite: "io", Name: "cold-ttfb", Metric: "first bytes", Unit: unitOps, Baseline: firstByteName,
			About: "from opening a cold file to its first byte, against that of one direct GET", open: openFirstByte},
	}
}

const (
	directName    = "one direct GET stream"
	firstByteName = "one direct GET, to its first byte"
	// defaultFar is the size of the file of cold-20ms: several blocks.
	defaultFar = 512 << 20
)

// ioOrca is the Orca of the io suite, with room in MEM for its files.
func (s *stage) ioOrca() (*target.Orca, error) {
	// A block goes only into a directory of twice its size.
	mem := 2*s.opt.size(defaultCold) + 2*s.opt.size(defaultBulk) + 2*smallSize*int64(s.opt.Files) + 256<<20
	return s.up("io", "--mem", fmt.Sprint(mem))
}

// connect opens a client of o, closed at the end of the run.
func (s *stage) connect(ctx context.Context, o *target.Orca, cfg client.Config) (*client.FS, error) {
	cfg.Addresses = []string{o.Endpoints.Meta}
	fs, err := client.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.atEnd(fs.Close)
	return fs, nil
}

// put writes the file named by seed with size bytes into the cache of Orca,
// nowhere else.
func put(ctx context.Context, fs *client.FS, path string, seed uint64, size int64) error {
	w, err := fs.Create(ctx, client.Path(path), client.CreateOptions{WriteType: orca.MustCache, Overwrite: true, Parents: true})
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{workload.Content(seed, size)}, make([]byte, baseline.Chunk)); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Close()
}

// openFile opens a file of Orca and compares all of it with its seed.
func openFile(ctx context.Context, fs *client.FS, path string, seed uint64, size int64) (*client.File, error) {
	f, err := fs.Open(ctx, client.Path(path), client.ReadOptions{})
	if err != nil {
		return nil, err
	}
	if f.Size() != size {
		return nil, errors.Join(fmt.Errorf("%s: %d bytes, want %d", path, f.Size(), size), f.Close())
	}
	got, want := make([]byte, baseline.Chunk), make([]byte, baseline.Chunk)
	for off := int64(0); off < size; off += baseline.Chunk {
		n := min(baseline.Chunk, size-off)
		if _, err := f.ReadAtContext(ctx, got[:n], off); err != nil && err != io.EOF {
			return nil, errors.Join(err, f.Close())
		}
		workload.Fill(want[:n], seed, off)
		if !bytes.Equal(got[:n], want[:n]) {
			return nil, errors.Join(fmt.Errorf("%s: wrong bytes near %d", path, off), f.Close())
		}
	}
	return f, nil
}

// readFile reads a file of Orca once, in order, into buf.
func readFile(ctx context.Context, f *client.File, buf []byte) (time.Duration, error) {
	size := f.Size()
	start := time.Now()
	for off := int64(0); off < size; off += int64(len(buf)) {
		n, err := f.ReadAtContext(ctx, buf, off)
		if err != nil && !(err == io.EOF && off+int64(n) == size) {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// fileSide reads f; check looks at the counters of the client after each pass,
// so that a case cannot silently measure another path.
func fileSide(name string, fs *client.FS, f *client.File, buf []byte, o *target.Orca, check func(local, remote int64) error) side {
	size := f.Size()
	return side{name: name, pids: []int{o.PID()}, run: func(ctx context.Context) (measure, error) {
		st := fs.Stats()
		local, remote := st.LocalBytes.Load(), st.RangeBytes.Load()
		took, err := readFile(ctx, f, buf)
		if err != nil {
			return measure{}, err
		}
		return measure{work: float64(size) / 1e6, took: took},
			check(st.LocalBytes.Load()-local, st.RangeBytes.Load()-remote)
	}}
}

func openShortCircuit(ctx context.Context, s *stage) (*trial, error) {
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
	buf := baseline.Buffer(baseline.Chunk)
	base, closeMem, err := memcpy(size, buf)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	sys := fileSide("short-circuit read", fs, f, buf, o, func(local, _ int64) error {
		if local != size {
			return fmt.Errorf("only %d of %d bytes were read by descriptor", local, size)
		}
		return nil
	})
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeMem(), f.Close()) }}, nil
}

const bulkPath, bulkSeed = "/bench/bulk", 2

// cached opens the cached bulk file, writing it at first use.
func (s *stage) cached(ctx context.Context, fs *client.FS, size int64) (*client.File, error) {
	info, err := fs.Stat(ctx, client.Path(bulkPath), client.Sync{})
	if errors.Is(err, orca.NotFound) || err == nil && info.Length != size {
		err = put(ctx, fs, bulkPath, bulkSeed, size)
	}
	if err != nil {
		return nil, err
	}
	if err := s.inMemory(ctx, fs, bulkPath, size); err != nil {
		return nil, err
	}
	return openFile(ctx, fs, bulkPath, bulkSeed, size)
}

// inMemory waits until the workers report that all of a file is in MEM, and
// notes the file system of that tier.
func (s *stage) inMemory(ctx context.Context, fs *client.FS, path string, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, locs, err := fs.Locations(ctx, client.Path(path))
		if err != nil {
			return err
		}
		for _, l := range locs {
			if l.Tier == orca.MEM && l.Cached == size {
				if l.Worker != nil {
					for _, t := range l.Worker.Tiers {
						s.note("tier "+orca.Tier(t.Tier).String(), t.Dir)
						if orca.Tier(t.Tier) == orca.MEM {
							s.memDirs[t.Dir] = struct{}{}
						}
					}
				}
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not wholly in MEM: %v", path, locs)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// remoteNode is no worker's node: its client must use the network.
const remoteNode = "orcabench-elsewhere"

// elsewhere configures a client of another node. The shipped client verifies;
// the one that does not is dialled here with the check turned off.
func (s *stage) elsewhere(verify bool) client.Config {
	cfg := client.Config{Node: remoteNode}
	if verify {
		return cfg
	}
	cfg.Dial = func(_ context.Context, w *client.Worker) (dataplane.Access, error) {
		c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: w.Addr}, NoVerify: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		s.atEnd(c.Close)
		return c, nil
	}
	return cfg
}

// remoteFile opens the cached bulk file as a client of another node does.
func (s *stage) remoteFile(ctx context.Context, verify bool) (*client.FS, *client.File, *target.Orca, error) {
	o, err := s.ioOrca()
	if err != nil {
		return nil, nil, nil, err
	}
	writer, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node})
	if err != nil {
		return nil, nil, nil, err
	}
	size := s.opt.size(defaultBulk)
	local, err := s.cached(ctx, writer, size)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := local.Close(); err != nil {
		return nil, nil, nil, err
	}
	fs, err := s.connect(ctx, o, s.elsewhere(verify))
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := openFile(ctx, fs, bulkPath, bulkSeed, size)
	return fs, f, o, err
}

func openRemote(verify bool) func(ctx context.Context, s *stage) (*trial, error) {
	return func(ctx context.Context, s *stage) (*trial, error) {
		fs, f, o, err := s.remoteFile(ctx, verify)
		if err != nil {
			return nil, err
		}
		size := f.Size()
		sides, closeRaw, err := s.rawSides(ctx, size)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		sys := fileSide("remote read", fs, f, baseline.Buffer(baseline.Chunk), o, func(local, _ int64) error {
			if local != 0 {
				return fmt.Errorf("%d bytes were read by descriptor, not over the network", local)
			}
			return nil
		})
		return &trial{system: sys, baselines: sides, close: func() error { return errors.Join(closeRaw(), f.Close()) }}, nil
	}
}

// rawSides serves a copy of the bulk file, on a file system like that of the
// MEM tier, by raw sendfile in every pattern.
func (s *stage) rawSides(ctx context.Context, size int64) ([]side, func() error, error) {
	dir, err := s.native()
	if err != nil {
		return nil, nil, err
	}
	p := dir + "/raw"
	if err := baseline.WriteFile(p, bulkSeed, size); err != nil {
		return nil, nil, err
	}
	pair, err := baseline.StartRawPair(ctx, s.opt.Self, p)
	if err != nil {
		return nil, nil, err
	}
	var sides []side
	for _, pattern := range baseline.Patterns() {
		sides = append(sides, rawSide(pair, pattern, size))
	}
	return sides, pair.Close, nil
}
