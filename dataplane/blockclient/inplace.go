// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
)

const (
	// sharedCap is how many descriptors of partial blocks are kept.
	sharedCap = 64
	// sharedIdle closes one that nobody used for this long.
	sharedIdle = 5 * time.Second
	// apartFor is how long a block whose bytes do not stay in its file is read
	// by ranges instead.
	apartFor = time.Second
)

// shared keeps the descriptors of blocks that are read in place while their
// worker, on this host, fills them: the worker says which range is present,
// and the bytes come from the page cache, verified by it as for a Descriptor.
type shared struct {
	mu     sync.Mutex
	m      map[orca.BlockID]*sharedBlock
	timer  *time.Timer // runs while m is not empty
	closed bool
}

type sharedBlock struct {
	file  *os.File // nil: to be read apart until used + apartFor
	gen   uint64
	used  time.Time
	users int // GUARDED_BY(shared.mu)
	gone  bool
}

// InPlace reports whether reads longer than Config.SmallRead are read from the
// block's own file.
func (c *Client) InPlace() bool { return c.local != nil }

// readInPlace reads p like bulk. Unsupported when it has to be read by ranges.
func (c *Client) readInPlace(ctx context.Context, req *dataplane.ReadRequest, p []byte) (int, error) {
	n := 0
	for tries := 0; n < len(p); {
		k := min(len(p)-n, c.cfg.Range)
		got, gen, err := c.present(ctx, req, req.Off+int64(n), k)
		if err != nil {
			if errors.Is(err, orca.Unsupported) {
				c.shared.put(req.ID, nil, 0)
			}
			return n, err
		}
		if got == 0 {
			return n, errApart // the end of the block: bulk finds the right words
		}
		b, err := c.sharedFile(ctx, req, gen)
		if err != nil {
			return n, err
		}
		if b == nil { // another file by now
			if tries++; tries > 3 {
				return n, errApart
			}
			continue
		}
		m, err := b.file.ReadAt(p[n:n+min(got, k)], req.Off+int64(n))
		c.shared.done(b)
		n += m
		if err != nil {
			return n, errApart
		}
	}
	c.metrics.InPlaceBytes.Add(int64(n))
	return n, nil
}

var errApart = orca.E("blockclient.readInPlace", orca.Unsupported, "to be read by ranges")

// present asks the worker for [off, off+n) of the block in its file.
func (c *Client) present(ctx context.Context, req *dataplane.ReadRequest, off int64, n int) (int, uint64, error) {
	r := pullPool.Get().(*pull)
	defer r.recycle()
	r.begin(c, req, nil)
	resp, err := c.small.CallWithin(ctx, req.Patience, frame.OpPresent, r.request(off, int64(n)), nil)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Release()
	var a datapb.PresentReply
	if err := a.UnmarshalVT(resp.Meta); err != nil || a.N < 0 || a.N > int64(n) {
		return 0, 0, errProtocol
	}
	return int(a.N), a.Generation, nil
}

// sharedFile returns the descriptor of this generation of a block, in use
// until shared.done; nil when the worker has another generation by now.
func (c *Client) sharedFile(ctx context.Context, req *dataplane.ReadRequest, gen uint64) (*sharedBlock, error) {
	if b := c.shared.get(req.ID, gen); b != nil {
		return b, nil
	}
	f, _, now, err := c.local.Share(ctx, req.ID, req.Grant)
	if errors.Is(err, orca.NotFound) {
		return nil, nil
	}
	if err != nil {
		c.shared.put(req.ID, nil, 0)
		return nil, errApart
	}
	if b := c.shared.put(req.ID, f, now); now == gen {
		return b, nil
	} else if b != nil {
		c.shared.done(b)
	}
	return nil, nil
}

// apart reports whether a block was found not to be readable in place.
func (s *shared) apart(id orca.BlockID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[id]
	return b != nil && b.file == nil && time.Since(b.used) < apartFor
}

func (s *shared) get(id orca.BlockID, gen uint64) *sharedBlock {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[id]
	if b == nil || b.file == nil || b.gen != gen {
		return nil
	}
	b.users++
	b.used = time.Now()
	return b
}

// put keeps a descriptor and returns it in use; without a file it notes that
// the block is to be read apart.
func (s *shared) put(id orca.BlockID, f *os.File, gen uint64) *sharedBlock {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &sharedBlock{file: f, gen: gen, used: time.Now()}
	if f != nil {
		b.users = 1
	}
	if s.closed {
		b.gone = true
		return b
	}
	if s.m == nil {
		s.m = map[orca.BlockID]*sharedBlock{}
	}
	s.dropLocked(id)
	for len(s.m) >= sharedCap {
		var oldest orca.BlockID
		var at time.Time
		for k, o := range s.m {
			if at.IsZero() || o.used.Before(at) {
				oldest, at = k, o.used
			}
		}
		s.dropLocked(oldest)
	}
	s.m[id] = b
	if s.timer == nil {
		s.timer = time.AfterFunc(sharedIdle, s.prune)
	}
	return b
}

func (s *shared) dropLocked(id orca.BlockID) {
	b := s.m[id]
	if b == nil {
		return
	}
	delete(s.m, id)
	b.gone = true
	if b.users == 0 && b.file != nil {
		_ = b.file.Close()
	}
}

// done ends one use.
func (s *shared) done(b *sharedBlock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users == 0 && b.gone {
		_ = b.file.Close()
	}
}

// prune lets go of what is not used: a descriptor holds the space of its
// block when that is evicted.
func (s *shared) prune() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	for id, b := range s.m {
		if time.Since(b.used) >= sharedIdle {
			s.dropLocked(id)
		}
	}
	if len(s.m) > 0 && !s.closed {
		s.timer = time.AfterFunc(sharedIdle, s.prune)
	}
}

func (s *shared) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	for id := range s.m {
		s.dropLocked(id)
	}
}
