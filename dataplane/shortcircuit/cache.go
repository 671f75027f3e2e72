// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package shortcircuit

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"orca"
	"orca/dataplane"
)

// cache keeps descriptors, the least recently used going first. Client.mu
// guards it.
type cache struct {
	cfg     *ClientConfig
	metrics *ClientMetrics
	entries map[key]*Block
	lru     *list.List // of *Block, most recent first
	timer   *time.Timer
}

// key: a descriptor got with one user's grant does not serve another user.
type key struct {
	id  orca.BlockID
	uid uint32
}

func (c *cache) init(cfg *ClientConfig, m *ClientMetrics) {
	c.cfg, c.metrics = cfg, m
	c.entries, c.lru = make(map[key]*Block), list.New()
}

// Block is an open block: a descriptor of the cache, in use. Close gives it
// back.
type Block struct {
	c      *Client
	key    key
	file   *os.File
	length int64
	gen    uint64
	err    error // of the fetch
	expiry time.Time

	// Guarded by Client.mu.
	users int
	elem  *list.Element // nil when it has left the cache
	ready chan struct{} // closed when the fetch has ended
}

// Open returns a block, from the cache or from the worker. The errors are
// those of Fetch; with any of them the caller reads ranges instead.
func (c *Client) Open(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*Block, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, errClientClosed
		}
		k := key{id, g.UID}
		b := c.entries[k]
		if b != nil && c.now().After(b.expiry) && isClosed(b.ready) {
			c.metrics.Expired.Add(1)
			c.dropLocked(b)
			b = nil
		}
		if b == nil {
			b = c.insertLocked(c, k, g.Expiry)
			c.mu.Unlock()
			c.metrics.Misses.Add(1)
			return c.fetch(ctx, b, g)
		}
		b.users++
		if b.elem != nil {
			c.lru.MoveToFront(b.elem)
		}
		c.mu.Unlock()
		select {
		case <-b.ready:
		case <-ctx.Done():
			_ = b.Close()
			return nil, ctxError(ctx)
		}
		if b.err == nil {
			c.metrics.Hits.Add(1)
			return b, nil
		}
		err := b.err
		_ = b.Close()
		if errors.Is(err, orca.Unsupported) {
			c.metrics.Partial.Add(1)
			return nil, err
		}
		if !errors.Is(err, orca.Canceled) && !errors.Is(err, orca.Timeout) {
			return nil, err
		}
		// The one who fetched gave up: try ourselves.
		if ctx.Err() != nil {
			return nil, ctxError(ctx)
		}
	}
}

// fetch fills in an entry that this caller has inserted.
func (c *Client) fetch(ctx context.Context, b *Block, g dataplane.Grant) (*Block, error) {
	f, length, gen, err := c.Fetch(ctx, b.key.id, g)
	c.mu.Lock()
	b.file, b.length, b.gen, b.err = f, length, gen, err
	if f != nil {
		c.metrics.Open.Add(1)
	}
	switch {
	case errors.Is(err, orca.Unsupported):
		b.expiry = c.now().Add(c.cfg.RetryPartial)
	case err != nil:
		c.dropLocked(b)
	}
	close(b.ready)
	c.mu.Unlock()
	if err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

// insertLocked makes room for an entry and inserts it, in use once.
func (c *cache) insertLocked(cl *Client, k key, grantEnd time.Time) *Block {
	for c.lru.Len() >= c.cfg.MaxOpen {
		c.metrics.Evicted.Add(1)
		c.dropLocked(c.lru.Back().Value.(*Block))
	}
	b := &Block{c: cl, key: k, users: 1, ready: make(chan struct{}), expiry: cl.now().Add(c.cfg.MaxAge)}
	if !grantEnd.IsZero() && grantEnd.Before(b.expiry) {
		b.expiry = grantEnd
	}
	c.entries[k] = b
	b.elem = c.lru.PushFront(b)
	if c.timer == nil {
		c.timer = time.AfterFunc(c.cfg.MaxAge/4+time.Millisecond, cl.prune)
	}
	return b
}

// dropLocked takes an entry out of the cache; its descriptor is closed by its
// last user.
func (c *cache) dropLocked(b *Block) {
	if b.elem == nil {
		return
	}
	c.lru.Remove(b.elem)
	b.elem = nil
	if c.entries[b.key] == b {
		delete(c.entries, b.key)
	}
	if b.users == 0 {
		c.closeLocked(b)
	}
}

func (c *cache) closeLocked(b *Block) {
	if b.file != nil {
		_ = b.file.Close()
		b.file = nil
		c.metrics.Open.Add(-1)
	}
}

func (c *cache) clearLocked() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	for e := c.lru.Front(); e != nil; e = c.lru.Front() {
		c.dropLocked(e.Value.(*Block))
	}
}

// prune gives up descriptors whose lease is over, so that evicted blocks free
// their space.
func (c *Client) prune() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer = nil; c.closed {
		return
	}
	now := c.now()
	for _, b := range c.entries {
		if now.After(b.expiry) && isClosed(b.ready) {
			c.metrics.Expired.Add(1)
			c.dropLocked(b)
		}
	}
	if c.lru.Len() > 0 {
		c.timer = time.AfterFunc(c.cfg.MaxAge/4+time.Millisecond, c.prune)
	}
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Forget gives up what is cached of a file: its version is of the past.
func (c *Client) Forget(file orca.Ino) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, b := range c.entries {
		if k.id.File == file && isClosed(b.ready) {
			c.dropLocked(b)
		}
	}
}

// Prefetch gets up to MaxBatch descriptors into the cache in one round trip;
// those that are there already are not asked for. Blocks without a descriptor
// are left out.
func (c *Client) Prefetch(ctx context.Context, wants []Want) error {
	ask := make([]Want, 0, len(wants))
	c.mu.Lock()
	for _, w := range wants {
		if c.entries[key{w.ID, w.Grant.UID}] == nil {
			ask = append(ask, w)
		}
	}
	c.mu.Unlock()
	if len(ask) == 0 {
		return nil
	}
	got, err := c.FetchMany(ctx, ask)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, g := range got {
		if g.Err != nil {
			continue
		}
		k := key{ask[i].ID, ask[i].Grant.UID}
		if c.closed || c.entries[k] != nil {
			_ = g.File.Close()
			continue
		}
		b := c.insertLocked(c, k, ask[i].Grant.Expiry)
		b.file, b.length, b.gen, b.users = g.File, g.Length, g.Generation, 0
		close(b.ready)
		c.metrics.Open.Add(1)
	}
	return nil
}

// File returns the descriptor, valid until Close: for mmap, passthrough or
// sendfile. It is read-only.
func (b *Block) File() *os.File { return b.file }

// Length returns the length of the block in bytes.
func (b *Block) Length() int64 { return b.length }

// Generation returns the worker's count of the files that the block has had: a
// block whose file was replaced after a bad grain has a higher one.
func (b *Block) Generation() uint64 { return b.gen }

// ReadAt implements io.ReaderAt by pread.
func (b *Block) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= b.length {
		return 0, io.EOF
	}
	short := int64(len(p)) > b.length-off
	if short {
		p = p[:b.length-off]
	}
	n, err := b.file.ReadAt(p, off)
	b.c.metrics.ReadBytes.Add(int64(n))
	if n < len(p) {
		return n, orca.PathE("shortcircuit.ReadAt", b.key.id.String(), orca.Corrupt, fmt.Errorf("block file is short: %w", err))
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// Close gives the block back to the cache.
func (b *Block) Close() error {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	if b.users--; b.users == 0 && b.elem == nil {
		b.c.closeLocked(b)
	}
	return nil
}

var _ dataplane.Reader = (*Client)(nil)

// ReadAt implements dataplane.Reader over cached descriptors. Checksums are
// not verified here: the worker has verified the block before it passed its
// descriptor. With any error but io.EOF the caller reads ranges instead.
func (c *Client) ReadAt(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	b, err := c.Open(ctx, req.ID, req.Grant)
	if err != nil {
		return 0, err
	}
	defer func() { _ = b.Close() }() // lets go of a cached descriptor: never fails
	return b.ReadAt(p, req.Off)
}
