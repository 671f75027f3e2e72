// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"context"
	"errors"
	"io"
	"os"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// Keep makes the store have a block of length bytes as one of the only copies
// of what is in no UFS. It is read from the first of sources that has it whole;
// what they deliver is verified by them and on the way. Only then does it take
// the place of what was here: a damaged copy, or a clean one, which might be
// evicted. moved is told of bytes as they come; its error ends the copying.
func (s *Service) Keep(ctx context.Context, id orca.BlockID, length int64, durable bool, sources int,
	open func(ctx context.Context, source int) (io.ReadCloser, error), moved func(int64) error) error {
	const op = "writeback.Keep"
	if m, err := s.store.Stat(id); err == nil && m.Complete && m.Dirty && (!durable || m.Tier != orca.MEM) {
		return nil
	}
	if length <= 0 || sources == 0 {
		return &orca.Error{Op: op, Path: id.String(), Kind: orca.Unavailable, Msg: "no live worker has the block"}
	}
	room, err := s.store.Reserve(ctx, length, durable)
	if err != nil {
		return err
	}
	defer room.Release()
	for n := range sources {
		err = s.keepFrom(ctx, room, id, length, func(ctx context.Context) (io.ReadCloser, error) { return open(ctx, n) }, moved)
		if err == nil {
			s.Metrics.Kept.Add(1)
			return nil
		}
		if ctx.Err() != nil || orca.KindOf(err) == orca.NoSpace {
			break
		}
	}
	return err
}

func (s *Service) keepFrom(ctx context.Context, room tiers.Room, id orca.BlockID, length int64,
	open func(ctx context.Context) (io.ReadCloser, error), moved func(int64) error) error {
	r, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	f, path, err := s.private(ctx, room)
	if err != nil {
		return err
	}
	sums, err := s.pull(ctx, room, f, r, length, moved)
	if err == nil {
		err = f.finish(ctx, room, id)
	}
	if cerr := f.close(); err == nil && cerr != nil {
		err = blockfile.Fail("writeback.Keep", path, cerr)
	}
	if err == nil {
		err = s.adoptOne(ctx, room, tiers.Adoption{ID: id, Path: path, Length: length, Sums: sums, Dirty: true})
	}
	if err != nil {
		if rerr := s.cfg.Ops.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			s.log.Warn("private file not removed", "path", path, "err", rerr)
		}
	}
	return err
}

// pull writes what r delivers to f, and sums it.
func (s *Service) pull(ctx context.Context, room tiers.Room, f *private, r io.Reader, length int64, moved func(int64) error) ([]uint32, error) {
	const op = "writeback.Keep"
	buf := pushBuffers.Get().(*[pushPiece]byte)
	defer pushBuffers.Put(buf)
	sums := make([]uint32, 0, blockfile.Grains(length))
	for off := int64(0); off < length; {
		p := buf[:min(pushPiece, length-off)]
		if _, err := io.ReadFull(r, p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = &orca.Error{Op: op, Path: f.f.Name(), Kind: orca.Unavailable, Msg: "the other worker does not have all of it"}
			}
			return nil, err
		}
		sums = blockfile.AppendSums(sums, p)
		err := room.WithSpace(ctx, int64(len(p)), func() error {
			_, err := f.WriteAt(p, off)
			return blockfile.Fail(op, f.f.Name(), err)
		})
		if err != nil {
			return nil, err
		}
		off += int64(len(p))
		if err := moved(int64(len(p))); err != nil {
			return nil, err
		}
	}
	return sums, nil
}
