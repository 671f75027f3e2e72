// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"

	"orca/bench/baseline"
	"orca/engine/client"
)

const overTCPName = "remote read over TCP"

// openDomain reads as a client of the worker's host that takes no descriptors;
// the baseline is the client of another node, of the same file.
func openDomain(ctx context.Context, s *stage) (*trial, error) {
	far, there, o, err := s.remoteFile(ctx, true)
	if err != nil {
		return nil, err
	}
	size := there.Size()
	near, err := s.connect(ctx, o, client.Config{Node: o.Endpoints.Node, ShortCircuit: client.StreamDomain})
	if err != nil {
		return nil, errors.Join(err, there.Close())
	}
	here, err := openFile(ctx, near, bulkPath, bulkSeed, size)
	if err != nil {
		return nil, errors.Join(err, there.Close())
	}
	buf := baseline.Buffer(baseline.Chunk)
	domain := near.Stats().DomainBytes.Load()
	sys := fileSide("read over a Unix socket", near, here, buf, o, func(local, _ int64) error {
		now := near.Stats().DomainBytes.Load()
		was := domain
		if domain = now; local != 0 || now-was < size {
			return fmt.Errorf("%d of %d bytes came over the Unix socket, %d by descriptor", now-was, size, local)
		}
		return nil
	})
	base := fileSide(overTCPName, far, there, buf, o, func(local, _ int64) error {
		if n := far.Stats().DomainBytes.Load(); local != 0 || n != 0 {
			return fmt.Errorf("%d bytes came over a Unix socket, %d by descriptor", n, local)
		}
		return nil
	})
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(here.Close(), there.Close()) }}, nil
}
