// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"orca/bench/baseline"
	"orca/bench/workload"
)

const grpcName = "a gRPC stream"

// openRemoteGRPC holds the shipped remote read against gRPC; what counts
// besides the rate is the CPU time per GB of both ends.
func openRemoteGRPC(ctx context.Context, s *stage) (*trial, error) {
	fs, f, o, err := s.remoteFile(ctx, true)
	if err != nil {
		return nil, err
	}
	size := f.Size()
	dir, err := s.native()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p := dir + "/grpc"
	if err := baseline.WriteFile(p, bulkSeed, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	g, err := baseline.StartGRPC(ctx, s.opt.Self, p)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	buf, want := baseline.Buffer(baseline.Chunk), make([]byte, baseline.Chunk)
	if _, err := g.Read(ctx, size, buf, func(off int64, got []byte) error {
		workload.Fill(want[:len(got)], bulkSeed, off)
		if !bytes.Equal(got, want[:len(got)]) {
			return fmt.Errorf("gRPC: wrong bytes near %d", off)
		}
		return nil
	}); err != nil {
		return nil, errors.Join(err, g.Close(), f.Close())
	}
	stream := side{name: grpcName, pids: g.PIDs(), run: func(ctx context.Context) (measure, error) {
		took, err := g.Read(ctx, size, buf, nil)
		return measure{work: float64(size) / 1e6, took: took}, err
	}}
	sys := fileSide("remote read", fs, f, buf, o, func(local, _ int64) error {
		if local != 0 {
			return fmt.Errorf("%d bytes were read by descriptor, not over the network", local)
		}
		return nil
	})
	return &trial{system: sys, baselines: []side{stream}, close: func() error { return errors.Join(g.Close(), f.Close()) }}, nil
}
