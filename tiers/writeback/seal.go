// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// frozen is content that nobody can change any more, in a private file.
type frozen struct {
	file   *private // read only, or a copy of our own
	path   string
	room   tiers.Room
	copied bool // file and room are ours to discard
	kept   bool // file stays the handle's: it is encrypted, and no writer has it
	live   bool // no room for a copy: the writer's file, good for one pass only
	length int64
}

// Seal implements dataplane.Writes. Repeated for the same session, fence and
// version it returns what it returned before.
func (s *Service) Seal(ctx context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	const op = "writeback.Seal"
	var none dataplane.SealResult
	if err := checkTarget(op, &t); err != nil {
		return none, err
	}
	if p := s.recall(id); p.is(&t) {
		if !p.linked || t.Linked {
			return p.res, nil
		}
		p, err := s.promote(ctx, p, &t)
		if err != nil {
			s.Metrics.SealFailures.Add(1)
			return none, err
		}
		s.remember(id, p)
		return p.res, nil
	}
	h, err := s.find(op, id)
	if err != nil {
		return none, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.sealed
	if !p.is(&t) || p.linked && !t.Linked {
		if err := s.openLocked(op, h); err != nil {
			return none, err
		}
		res, err := s.seal(ctx, h, &t, keep)
		h.touch()
		if err != nil {
			s.Metrics.SealFailures.Add(1)
			return none, err
		}
		s.Metrics.Sealed.Add(1)
		s.Metrics.BytesSealed.Add(res.Length)
		p = &sealed{t.Session, t.Fence, t.Version, t.Linked, res}
	}
	if keep {
		h.sealed = p
		return p.res, nil
	}
	s.remember(id, p)
	s.dropLocked(h)
	return p.res, nil
}

// is reports whether this is the answer to a request.
func (p *sealed) is(t *dataplane.WriteTarget) bool {
	return p != nil && p.session == t.Session && p.fence == t.Fence && p.version == t.Version
}

func (s *Service) recall(id uint64) *sealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past[id]
}

func (s *Service) remember(id uint64, p *sealed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.past, s.ring[s.at])
	s.past[id], s.ring[s.at] = p, id
	s.at = (s.at + 1) % pastCap
}

// seal does the work; h.mu is held.
func (s *Service) seal(ctx context.Context, h *handle, t *dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	var res dataplane.SealResult
	fz, err := s.freeze(ctx, h, t, keep)
	if err != nil {
		return res, err
	}
	defer s.thaw(fz)
	res.Length = fz.length
	res.BlockSize = t.WholeMax
	if fz.length > t.WholeMax {
		res.BlockSize = t.BlockSize
	}
	through, err := s.uploads(t, fz)
	if err != nil {
		return res, err
	}
	var c content
	if !through {
		if c, err = s.copyOf(fz, t); err != nil {
			return res, err
		}
	}
	var got copies
	clean := through || t.Type == orca.CacheThrough // adopted so
	if !clean && fz.length > 0 && t.Replicas > 1 {
		got = s.sealLinks(ctx, h.link, t, c, keep)
		switch {
		case got.n+1 >= int(t.Replicas) || t.Linked:
		case t.Type == orca.MustCache:
			return res, tooFew(t, got.n+1)
		default:
			s.Metrics.AsyncAsSync.Add(1)
			through, clean = true, true
		}
	}
	if through {
		done, err := s.upload(ctx, t, io.NewSectionReader(fz.file, 0, fz.length), fz.length)
		if err != nil {
			return res, err
		}
		c = content{r: fz.file, n: fz.length, sums: done.Sums, crc: done.CRC32C}
		res.Fingerprint, res.UFSMtime = done.Info.Fingerprint, done.Info.Mtime
	}
	res.CRC32C = c.crc
	if t.Type == orca.Through || fz.live || fz.length == 0 {
		return res, nil
	}
	if clean && got.n == 0 { // further copies of what is in its UFS: as many as there can be
		cached := *t
		cached.Type = orca.CacheThrough
		got = s.sealLinks(ctx, h.link, &cached, c, keep)
	}
	s.Metrics.Copies.Add(int64(got.n))
	res.Holders, res.Copies = got.holders, got.n
	tier, err := s.adopt(ctx, fz, t, res.BlockSize, c.sums, !clean)
	switch {
	case err == nil:
		res.Copies++
		res.Durable = !clean && tier != orca.MEM
	case through:
		// It is in the UFS: not being cached is no failure.
		s.Metrics.Uncached.Add(1)
		s.log.Warn("sealed file not cached", "ino", t.File.String(), "bytes", fz.length, "err", err)
	default:
		return res, err
	}
	return res, nil
}

// uploads reports whether the file goes to its UFS before anybody hears of it.
func (s *Service) uploads(t *dataplane.WriteTarget, fz *frozen) (bool, error) {
	memory := t.Type == orca.AsyncThrough && fz.room.Tier() == orca.MEM
	switch {
	case t.Linked && memory && fz.length > 0:
		return false, orca.E("writeback.Seal", orca.NoSpace, "no durable tier has room for a copy")
	case t.Linked:
		return false, nil
	case memory:
		s.Metrics.AsyncAsSync.Add(1)
		return true, nil
	}
	return t.Type == orca.Through || t.Type == orca.CacheThrough, nil
}

// copyOf sums a frozen file: Corrupt when it is to be the copy of another one
// and is not.
func (s *Service) copyOf(fz *frozen, t *dataplane.WriteTarget) (content, error) {
	c := content{r: fz.file, n: fz.length}
	var err error
	if c.sums, c.crc, err = fz.file.sums(fz.length); err != nil {
		return c, err
	}
	if t.Linked && (c.crc != t.WantCRC || c.n != t.WantLength) {
		return c, orca.E("writeback.Seal", orca.Corrupt, "the copy is not what the worker before has")
	}
	return c, nil
}

// upload brings a frozen file into its UFS.
func (s *Service) upload(ctx context.Context, t *dataplane.WriteTarget, r io.Reader, length int64) (Uploaded, error) {
	up := Upload{Key: t.UFSKey, Session: t.Session, Again: t.Takeover, Length: length, Mode: t.Mode, UID: t.UID, GID: t.GID, Expect: t.Expect}
	fs, err := s.mounts.FS(ctx, t.MountID)
	if err != nil {
		return Uploaded{}, err
	}
	up.Prepared = s.hold(ctx, t, length)
	done, err := up.Run(ctx, fs, r)
	if err == nil {
		s.Metrics.BytesUploaded.Add(length)
	}
	return done, err
}

// holdAhead is up to which length the metaplane is asked while the upload goes
// on; a longer one could outlive the answer.
const holdAhead = 4 << 20

// hold returns what stands between Prepare and Commit of an upload: the word
// of the metaplane that the session still has its fence, and quotas have room.
func (s *Service) hold(ctx context.Context, t *dataplane.WriteTarget, length int64) func(context.Context) error {
	if s.cfg.Hold == nil {
		return nil
	}
	if length > holdAhead {
		return func(ctx context.Context) error { return s.cfg.Hold(ctx, t.Session, t.Fence, length) }
	}
	answer := make(chan error, 1)
	go func() { answer <- s.cfg.Hold(ctx, t.Session, t.Fence, length) }() // ends with ctx, the request's
	return func(context.Context) error { return <-answer }
}

// freeze makes sure that what is sealed cannot change: the private file itself
// when no writer can exist any more, else a copy of it.
func (s *Service) freeze(ctx context.Context, h *handle, t *dataplane.WriteTarget, keep bool) (*frozen, error) {
	const op = "writeback.Seal"
	if !keep && h.file.enc != nil {
		_, n := h.file.stored()
		return &frozen{file: h.file, path: h.path, room: h.room, kept: true, length: n}, nil
	}
	if !keep {
		_ = h.file.close()
		h.file = nil
		if noWriter(h.path) {
			f, err := s.cfg.Ops.OpenFile(h.path, os.O_RDONLY, 0)
			if err != nil {
				return nil, blockfile.Fail(op, h.path, err)
			}
			_, n := stored(f)
			if t.Type != orca.Through {
				s.Metrics.HugeBytes.Add(collapse(f, n))
			}
			return &frozen{file: &private{f: f, ops: s.cfg.Ops}, path: h.path, room: h.room, length: n}, nil
		}
		if err := s.openLocked(op, h); err != nil {
			return nil, err
		}
	}
	_, n := h.file.stored()
	through := t.Type == orca.Through || t.Type == orca.CacheThrough
	live := &frozen{file: h.file, path: h.path, room: h.room, live: true, length: n}
	if t.Type == orca.Through || n == 0 {
		return live, nil
	}
	room, err := s.store.Reserve(ctx, n, t.Type == orca.AsyncThrough && h.room.Tier() != orca.MEM)
	if err == nil {
		var fz *frozen
		if fz, err = s.copyOut(ctx, h, room, n); err == nil {
			return fz, nil
		}
	}
	if through && orca.KindOf(err) == orca.NoSpace {
		s.Metrics.Uncached.Add(1)
		return live, nil
	}
	return nil, err
}

// copyOut copies the private file into a room.
func (s *Service) copyOut(ctx context.Context, h *handle, room tiers.Room, n int64) (*frozen, error) {
	f, path, err := s.private(ctx, room)
	if err != nil {
		room.Release()
		return nil, err
	}
	fz := &frozen{file: f, path: path, room: room, copied: true}
	err = room.WithSpace(ctx, n, func() (err error) {
		fz.length, err = copyRange(f, h.file, 0, n)
		return err
	})
	if err != nil {
		s.thaw(fz)
		return nil, err
	}
	return fz, nil
}

// thaw discards what a Seal made.
func (s *Service) thaw(fz *frozen) {
	if fz.live || fz.kept {
		return
	}
	_ = fz.file.close()
	if fz.copied {
		_ = s.cfg.Ops.Remove(fz.path)
		fz.room.Release()
	}
}

// adopt hands frozen content to the store as one block or several, and says
// in which tier it is. Of dirty content either all blocks are adopted or none.
func (s *Service) adopt(ctx context.Context, fz *frozen, t *dataplane.WriteTarget, blockSize int64, sums []uint32, dirty bool) (orca.Tier, error) {
	id := orca.BlockID{File: t.File, Version: t.Version}
	if fz.length <= blockSize {
		a := tiers.Adoption{ID: id, Path: fz.path, Length: fz.length, Sums: sums, Dirty: dirty}
		err := fz.file.finish(ctx, fz.room, id)
		if err == nil {
			err = s.adoptOne(ctx, fz.room, a)
		}
		if err == nil {
			if fz.copied {
				s.Metrics.Copied.Add(1)
			} else {
				s.Metrics.Renamed.Add(1)
			}
			return fz.room.Tier(), nil
		}
		if orca.KindOf(err) != orca.NoSpace {
			return 0, err
		}
		// Too long for the directory that it was written in.
	}
	tier := orca.MEM
	for i := uint32(0); int64(i)*blockSize < fz.length; i++ {
		id.Index = i
		off := int64(i) * blockSize
		n := min(blockSize, fz.length-off)
		g := int(off / orca.GrainSize)
		at, err := s.adoptCopy(ctx, fz, id, off, n, append([]uint32(nil), sums[g:g+blockfile.Grains(n)]...), dirty, t.Type)
		if err != nil {
			for j := range i {
				id.Index = j
				_ = s.store.Remove(id)
			}
			return 0, err
		}
		if i == 0 || at == orca.MEM {
			tier = at
		}
	}
	return tier, nil
}

// adoptCopy adopts a copy of [off, off+n).
func (s *Service) adoptCopy(ctx context.Context, fz *frozen, id orca.BlockID, off, n int64, sums []uint32, dirty bool, w orca.WriteType) (orca.Tier, error) {
	room, err := s.store.Reserve(ctx, n, dirty && w == orca.AsyncThrough)
	if err != nil {
		return 0, err
	}
	defer room.Release()
	f, path, err := s.private(ctx, room)
	if err != nil {
		return 0, err
	}
	var got int64
	err = room.WithSpace(ctx, n, func() (err error) {
		got, err = copyRange(f, fz.file, off, n)
		return err
	})
	if err == nil {
		err = f.finish(ctx, room, id)
	}
	_ = f.close()
	if err == nil && got != n {
		err = &orca.Error{Op: "writeback.Seal", Path: fz.path, Kind: orca.Corrupt, Msg: "frozen file became shorter"}
	}
	if err == nil {
		err = s.adoptOne(ctx, room, tiers.Adoption{ID: id, Path: path, Length: n, Sums: sums, Dirty: dirty})
	}
	if err != nil {
		_ = s.cfg.Ops.Remove(path)
		return 0, err
	}
	s.Metrics.Copied.Add(1)
	return room.Tier(), nil
}

// adoptOne replaces what an earlier attempt to seal the same version left: it
// was never published.
func (s *Service) adoptOne(ctx context.Context, room tiers.Room, a tiers.Adoption) error {
	err := s.store.Adopt(ctx, room, a)
	if orca.KindOf(err) == orca.Exists {
		if err := s.store.Remove(a.ID); err != nil && orca.KindOf(err) != orca.NotFound {
			return err
		}
		err = s.store.Adopt(ctx, room, a)
	}
	return err
}

// noWriter reports whether nobody has the file open or mapped for writing: the
// kernel grants a read lease only then.
func noWriter(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return false
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return true
}
