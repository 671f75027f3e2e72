// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"
	"time"

	"orca/metaplane/metapb"
)

// sessionTTL is used when the metaplane does not say.
const sessionTTL = 15 * time.Second

// sessions renews the write sessions of all Writers of an FS. Its goroutine
// runs while there are any.
type sessions struct {
	c *core

	mu      sync.Mutex
	open    map[uint64]*Writer // GUARDED_BY(mu)
	ttl     time.Duration
	stop    context.CancelFunc // of the goroutine; nil: not running
	wait    sync.WaitGroup
	closing bool
}

func (s *sessions) init(c *core) {
	s.c, s.open, s.ttl = c, map[uint64]*Writer{}, sessionTTL
}

func (s *sessions) add(w *Writer, ws *metapb.WriteSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttl := time.Duration(ws.TtlMs) * time.Millisecond; ttl > 0 && ttl < s.ttl {
		s.ttl = ttl
	}
	s.open[ws.Id] = w
	if s.stop == nil && !s.closing {
		ctx, stop := context.WithCancel(context.Background())
		s.stop = stop
		s.wait.Go(func() { s.run(ctx) })
	}
}

func (s *sessions) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	if len(s.open) == 0 && s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

func (s *sessions) run(ctx context.Context) {
	for {
		s.mu.Lock()
		every := s.ttl / 3
		s.mu.Unlock()
		t := time.NewTimer(every)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		s.renew(ctx, every)
	}
}

// renew extends all sessions once; a failure is tried again at the next turn.
func (s *sessions) renew(ctx context.Context, wait time.Duration) {
	s.mu.Lock()
	ids := make([]uint64, 0, len(s.open))
	for id := range s.open {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	h := &metapb.Header{Caller: callerPB(*s.c.cfg.Caller)}
	r, err := s.c.meta.Renew(ctx, &metapb.RenewRequest{H: h, Sessions: ids})
	if err != nil {
		if ctx.Err() == nil {
			s.c.log.Warn("renew write sessions", "err", err)
		}
		return
	}
	for _, id := range r.Expired {
		s.mu.Lock()
		w := s.open[id]
		delete(s.open, id)
		s.mu.Unlock()
		if w != nil {
			go w.expire(id) // it may be waiting for a worker with its lock held
		}
	}
}

func (s *sessions) close() {
	s.mu.Lock()
	s.closing = true
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	s.mu.Unlock()
	s.wait.Wait()
}
