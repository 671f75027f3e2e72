// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"orca/bench/baseline"
	"orca/bench/target"
	"orca/engine/client"
)

const inClearName = "remote read from a directory in the clear"

// openEncrypted reads over the network from an Orca whose only tier directory
// is encrypted, and from one whose is not. Both lie in the page cache.
func openEncrypted(ctx context.Context, s *stage) (*trial, error) {
	key := filepath.Join(s.temp, "tier.key")
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		return nil, err
	}
	sys, closeSys, err := s.diskSide(ctx, "io-encrypted", "remote read from an encrypted directory", ",encrypt="+key)
	if err != nil {
		return nil, err
	}
	base, closeBase, err := s.diskSide(ctx, "io-disk", inClearName, "")
	if err != nil {
		return nil, errors.Join(err, closeSys())
	}
	return &trial{system: sys, baselines: []side{base}, close: func() error { return errors.Join(closeSys(), closeBase()) }}, nil
}

// diskSide reads the bulk file as a client of another node, of an Orca with one
// tier directory on disk.
func (s *stage) diskSide(ctx context.Context, orca, name, options string) (side, func() error, error) {
	o, f, fs, err := s.diskFile(ctx, orca, options)
	if err != nil {
		return side{}, nil, err
	}
	sd := fileSide(name, fs, f, baseline.Buffer(baseline.Chunk), o, func(local, _ int64) error {
		if local != 0 {
			return fmt.Errorf("%d bytes were read by descriptor, not over the network", local)
		}
		return nil
	})
	return sd, f.Close, nil
}

func (s *stage) diskFile(ctx context.Context, orca, options string) (*target.Orca, *client.File, *client.FS, error) {
	tier, err := s.dir(orca, "tier")
	if err != nil {
		return nil, nil, nil, err
	}
	s.note("tier of "+orca, tier)
	size := s.opt.size(defaultBulk)
	o, err := s.up(orca, "--mem", "0", "--ssd", "0", "--tier", fmt.Sprintf("SSD:%s=%d%s", tier, 3*size+64<<20, options))
	if err != nil {
		return nil, nil, nil, err
	}
	fs, err := s.connect(ctx, o, s.elsewhere(true))
	if err != nil {
		return nil, nil, nil, err
	}
	if err := put(ctx, fs, bulkPath, bulkSeed, size); err != nil {
		return nil, nil, nil, err
	}
	f, err := openFile(ctx, fs, bulkPath, bulkSeed, size)
	return o, f, fs, err
}
