// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"context"
	"io"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
)

// knownCap bounds the sources that are remembered.
const knownCap = 8192

// sources remembers where files are.
type sources struct {
	ttl time.Duration

	mu sync.Mutex
	m  map[orca.Ino]knownSource // GUARDED_BY(mu)
}

type knownSource struct {
	src Source
	at  time.Time
}

func (c *sources) get(k orca.Ino) (Source, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[k]
	return e.src, ok && time.Since(e.at) < c.ttl
}

func (c *sources) put(k orca.Ino, src Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[orca.Ino]knownSource{}
	}
	if len(c.m) >= knownCap {
		for old := range c.m { // any: it is only asked again
			delete(c.m, old)
			break
		}
	}
	c.m[k] = knownSource{src, time.Now()}
}

// source finds where the block is. Stale when the file has another version by
// now, Unavailable when no worker that is known has it and no UFS does, and
// LostData when it is known to be lost.
func (s *Service) source(ctx context.Context, id orca.BlockID, fresh bool) (Source, error) {
	if !fresh {
		if src, ok := s.known.get(id.File); ok && check(&src, id) == nil {
			return src, nil
		}
	}
	s.Metrics.Resolves.Add(1)
	src, err := s.resolve.Resolve(ctx, id.File)
	if err == nil {
		err = check(&src, id)
	}
	if err != nil {
		return Source{}, err
	}
	s.known.put(id.File, src)
	return src, nil
}

// check refuses a source that cannot serve the block.
func check(src *Source, id orca.BlockID) error {
	const op = "readthrough.Open"
	a := &src.Attr
	outside := a.BlockSize <= 0 || int64(id.Index)*a.BlockSize >= a.Length
	switch {
	case outside && a.Version == id.Version:
		return &orca.Error{Op: op, Path: id.String(), Kind: orca.NotFound, Msg: "no such block in the file"}
	case outside || a.BlockVersion(id.Index) != id.Version:
		return &orca.Error{Op: op, Path: id.String(), Kind: orca.Stale, Msg: "the file has another version now"}
	case inUFS(a) || len(src.Peers) > 0:
		return nil
	case a.Persist == orca.Lost:
		return &orca.Error{Op: op, Path: id.String(), Kind: orca.LostData}
	}
	return &orca.Error{Op: op, Path: id.String(), Kind: orca.Unavailable, Msg: "no worker that holds the unpersisted block can be reached"}
}

// inUFS reports whether this version can be read from its UFS.
func inUFS(a *orca.Attr) bool { return a.Persist == orca.Persisted && a.Fingerprint != "" }

// body is an open source of bytes of a block.
type body struct {
	io.ReadCloser
	peer bool
}

// openBody opens [off, off+n) of a block: at the peers from skip on, then
// through the homes of the file, then at the UFS. It returns how many of the
// peers and the homes are used up. away: this worker has handed the block on.
func (s *Service) openBody(ctx context.Context, src *Source, req dataplane.ReadRequest, skip int, away bool) (body, int, error) {
	home := req
	home.Direct, home.Type, home.Verify = true, orca.ReadCache, false
	homes := src.homes(req, away)
	for ; s.peers != nil && skip < len(src.Peers); skip++ {
		req.OnlyCached, req.Sequential, req.Verify, req.Type = true, true, false, orca.ReadCache
		rc, err := s.peers.Open(ctx, src.Peers[skip], req)
		if err == nil {
			s.Metrics.PeerReads.Add(1)
			return body{rc, true}, skip, nil
		}
		s.Metrics.PeerErrors.Add(1)
		if ctx.Err() != nil {
			return body{}, skip, err
		}
	}
	for ; s.peers != nil && skip-len(src.Peers) < len(homes); skip++ {
		rc, err := s.peers.Open(ctx, homes[skip-len(src.Peers)], home)
		if err == nil {
			s.Metrics.HomeReads.Add(1)
			return body{rc, true}, skip, nil
		}
		s.Metrics.PeerErrors.Add(1)
		if ctx.Err() != nil {
			return body{}, skip, err
		}
	}
	if !inUFS(&src.Attr) {
		return body{}, skip, &orca.Error{Op: "readthrough.Open", Path: req.ID.String(), Kind: orca.Unavailable, Msg: "no worker that holds the unpersisted block could serve it"}
	}
	rc, err := s.openUFS(ctx, src, req)
	if k := orca.KindOf(err); k == orca.Stale || k == orca.NotFound {
		// Renamed or copied under us, perhaps: look once more.
		now, rerr := s.source(ctx, req.ID, true)
		if rerr != nil {
			return body{}, skip, rerr
		}
		if now.Key == src.Key && now.Attr.Fingerprint == src.Attr.Fingerprint && now.Attr.MountID == src.Attr.MountID {
			return body{}, skip, s.stale(req.ID, err)
		}
		now.Peers, now.Homes = nil, nil
		*src = now
		skip = 0
		if !inUFS(&src.Attr) {
			return body{}, skip, s.stale(req.ID, err)
		}
		if rc, err = s.openUFS(ctx, src, req); orca.KindOf(err) == orca.Stale || orca.KindOf(err) == orca.NotFound {
			return body{}, skip, s.stale(req.ID, err)
		}
	}
	if err != nil {
		return body{}, skip, err
	}
	return body{rc, false}, skip, nil
}

func (s *Service) openUFS(ctx context.Context, src *Source, req dataplane.ReadRequest) (io.ReadCloser, error) {
	fs, err := s.mounts.FS(ctx, src.Attr.MountID)
	if err != nil {
		return nil, err
	}
	s.Metrics.UFSReads.Add(1)
	base := int64(req.ID.Index) * src.Attr.BlockSize
	asked := time.Now()
	rc, err := fs.Open(ctx, src.Key, base+req.Off, req.N, src.Attr.Fingerprint)
	if err == nil {
		s.lat.note(src.Attr.MountID, time.Since(asked))
	}
	return rc, err
}

// stale reports that the content of a version is gone.
func (s *Service) stale(id orca.BlockID, cause error) error {
	s.Metrics.Stale.Add(1)
	if s.onStale != nil {
		s.onStale(id.File, id.Version)
	}
	return &orca.Error{Op: "readthrough.Open", Path: id.String(), Kind: orca.Stale, Msg: "the UFS object was changed or removed under this version", Err: cause}
}

// Forget drops what is remembered of where a file is.
func (s *Service) Forget(file orca.Ino) {
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	delete(s.known.m, file)
}
