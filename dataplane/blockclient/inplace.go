// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"bytes"
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
	// aheadRange is what a reader in order asks the worker to make present at
	// a time, so that it is woken once for several of its pieces.
	aheadRange = 4 << 20
	// aheadAfter is how many reads must have gone on in order before.
	aheadAfter = 2
)

// shared keeps the descriptors of blocks that are read in place while their
// worker, on this host, fills them: the worker says which range is present,
// and the bytes come from the page cache, verified by it as for a Descriptor.
// A reader in order asks for several of its pieces at once; who comes from
// elsewhere, or with another grant, asks for what it reads.
type shared struct {
	knownFor time.Duration

	mu     sync.Mutex
	m      map[orca.BlockID]*sharedBlock
	timer  *time.Timer // runs while m is not empty
	closed bool
}

type sharedBlock struct {
	file *os.File // nil: to be read apart until used + apartFor
	gen  uint64

	// GUARDED_BY(shared.mu)
	used  time.Time
	users int
	gone  bool
	next  int64 // where the last read ended
	run   int   // reads in order up to there
	known known
}

// known is what the worker has said last to be present, and to whom.
type known struct {
	from, to int64
	at       time.Time
	uid      uint32
	token    []byte
	expiry   time.Time
}

// InPlace reports whether reads longer than Config.SmallRead are read from the
// block's own file.
func (c *Client) InPlace() bool { return c.local != nil }

// readInPlace reads p like bulk. Unsupported when it has to be read by ranges.
func (c *Client) readInPlace(ctx context.Context, req *dataplane.ReadRequest, p []byte) (int, error) {
	n := 0
	for tries := 0; n < len(p); {
		off, k := req.Off+int64(n), min(len(p)-n, c.cfg.Range)
		b, got := c.shared.present(req, off)
		if b == nil {
			var gen uint64
			var err error
			ask := c.shared.ask(req.ID, off, k)
			if got, gen, err = c.present(ctx, req, off, ask); err != nil {
				if errors.Is(err, orca.Unsupported) {
					c.shared.put(req.ID, nil, 0)
				}
				return n, err
			}
			if got == 0 {
				return n, errApart // the end of the block: bulk finds the right words
			}
			if b, err = c.sharedFile(ctx, req, gen); err != nil {
				return n, err
			}
			if b == nil { // another file by now
				if tries++; tries > 3 {
					return n, errApart
				}
				continue
			}
			c.shared.learn(b, req, off, got)
		}
		m, err := b.file.ReadAt(p[n:n+min(got, k)], off)
		c.shared.done(b, off, m)
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
	r.begin(c, &c.far, req, nil)
	c.metrics.Presents.Add(1)
	resp, err := c.far.small.CallWithin(ctx, req.Patience, frame.OpPresent, r.request(off, int64(n)), nil)
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
		c.shared.done(b, 0, 0)
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

// present returns a block of which the worker said a moment ago, to the same
// reader, that bytes from off on are present, and how many: in use until done.
func (s *shared) present(req *dataplane.ReadRequest, off int64) (*sharedBlock, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[req.ID]
	if b == nil || b.file == nil || req.Verify {
		return nil, 0
	}
	k, g := &b.known, &req.Grant
	now := time.Now()
	if off < k.from || off >= k.to || now.Sub(k.at) > s.knownFor ||
		g.UID != k.uid || !bytes.Equal(g.Token, k.token) || !k.expiry.IsZero() && now.After(k.expiry) {
		return nil, 0
	}
	b.users++
	b.used = now
	return b, int(k.to - off)
}

// ask returns how much to ask for of a reader that wants k bytes at off.
func (s *shared) ask(id orca.BlockID, off int64, k int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.m[id]; b != nil && b.next == off && b.run >= aheadAfter {
		return max(k, aheadRange)
	}
	return k
}

// learn notes what the worker said to be present of a block in use.
func (s *shared) learn(b *sharedBlock, req *dataplane.ReadRequest, off int64, n int) {
	g := &req.Grant
	s.mu.Lock()
	defer s.mu.Unlock()
	b.known = known{from: off, to: off + int64(n), at: time.Now(), uid: g.UID, token: g.Token, expiry: g.Expiry}
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

// done ends one use, a read of n bytes at off.
func (s *shared) done(b *sharedBlock, off int64, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && off == b.next {
		b.run++
	} else if n > 0 {
		b.run = 0
	}
	if n > 0 {
		b.next = off + int64(n)
	}
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
