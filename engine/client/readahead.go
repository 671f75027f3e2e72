// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"
)

// chunkSize is the unit of a range request, in bytes: large enough to make the
// header vanish, small enough that several are outstanding in a window.
const chunkSize = 1 << 20

// smallRead is a read that is cheaper to be served from a chunk.
const smallRead = 64 << 10

var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// seqAfter is how many reads in a row must touch the end of the one before
// until the reader counts as sequential.
const seqAfter = 2

// readAhead serves reads by range and, for a sequential reader, keeps the next
// Config.Prefetch bytes of the block under way in chunks of chunkSize:
//
//	      reader
//	        ▼
//	…│ done │ chunk k │ k+1 … │ k+w │        w = Prefetch / chunkSize
//
// Reads of more than 128 KiB are not copied out of chunks: they are received
// where the reader wants them, with the window under way on the connection
// (dataplane.ReadRequest.Ahead).
//
// A reader that jumps gets exactly what it asks for, nothing ahead.
type readAhead struct {
	mu     sync.Mutex
	next   int64 // file offset where a sequential reader goes on
	run    int   // sequential reads so far
	chunks map[chunkID]*chunk
	at     chunkID // where the window starts
	closed bool
}

// chunk is one range of a block, being fetched or here. buf may be read once
// ready is closed, and goes back to the pool when refs gets to 0.
type chunk struct {
	ready chan struct{}
	buf   *[chunkSize]byte
	n     int
	err   error
	refs  int // GUARDED_BY(readAhead.mu)
	stop  context.CancelFunc
}

func (r *readAhead) read(ctx context.Context, f *File, idx uint32, boff int64, p []byte) (int, error) {
	off := int64(idx)*f.info.BlockSize + boff
	window := f.fs.cfg.Prefetch
	r.mu.Lock()
	seq := off == r.next
	if seq {
		r.run++
	} else {
		r.run = 0
	}
	r.next = off + int64(len(p))
	ahead := window > 0 && r.run >= seqAfter && !r.closed
	if !ahead {
		r.dropLocked(-1)
	}
	r.mu.Unlock()
	switch {
	case len(p) > 4*smallRead && f.inPlace():
		// The worker reads ahead, and nothing but a copy is left to be done here.
		return f.fetch(ctx, idx, boff, p, seq)
	case ahead && len(p) > 2*smallRead:
		return f.fetchAhead(ctx, idx, boff, p, true, window)
	case len(p) > chunkSize:
		return r.wide(ctx, f, idx, boff, p)
	case ahead:
		return r.fromChunks(ctx, f, idx, boff, p)
	}
	return f.fetch(ctx, idx, boff, p, seq && off > 0)
}

// wide fills a large buffer with several requests at a time, straight into it.
func (r *readAhead) wide(ctx context.Context, f *File, idx uint32, boff int64, p []byte) (int, error) {
	n := (len(p) + chunkSize - 1) / chunkSize
	errs := make([]error, n)
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			lo, hi := i*chunkSize, min((i+1)*chunkSize, len(p))
			_, errs[i] = f.fetch(ctx, idx, boff+int64(lo), p[lo:hi], true)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return i * chunkSize, err
		}
	}
	return len(p), nil
}

// chunkID orders the chunks of a file: block index and chunk within the block.
// Blocks need not be whole numbers of chunks.
type chunkID int64

func chunkAt(idx uint32, boff int64) chunkID { return chunkID(int64(idx)<<32 | boff/chunkSize) }

func (k chunkID) block() uint32 { return uint32(k >> 32) }
func (k chunkID) off() int64    { return int64(k&(1<<32-1)) * chunkSize }

// after returns the chunk that follows k, false at the end of the file.
func (k chunkID) after(f *File) (chunkID, bool) {
	if k.off()+chunkSize < f.info.BlockLength(k.block()) {
		return k + 1, true
	}
	next := k.block() + 1
	return chunkAt(next, 0), int(next) < len(f.blocks)
}

// fromChunks copies out of fetched chunks and keeps the window under way.
func (r *readAhead) fromChunks(ctx context.Context, f *File, idx uint32, boff int64, p []byte) (int, error) {
	k := chunkAt(idx, boff)
	c := r.want(f, k)
	if c == nil {
		return f.fetch(ctx, idx, boff, p, true)
	}
	defer r.unref(c)
	select {
	case <-c.ready:
	case <-ctx.Done():
		return 0, ctxError("client.ReadAt", ctx)
	}
	if c.err != nil {
		r.forget(k, c)
		return f.fetch(ctx, idx, boff, p, true) // its own error, with its own context
	}
	return copy(p, c.buf[boff-k.off():c.n]), nil
}

// want returns chunk k referenced, starts what is missing up to the end of the
// window, and lets go of what is behind. nil when f is closed.
func (r *readAhead) want(f *File, k chunkID) *chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.at != k { // the window moves a chunk at a time, not with every read
		r.dropLocked(k)
		r.at = k
	}
	if r.chunks == nil {
		r.chunks = map[chunkID]*chunk{}
	}
	next, more := k, true
	for n := f.fs.cfg.Prefetch / chunkSize; more && n >= 0; n-- {
		if r.chunks[next] == nil {
			r.chunks[next] = r.start(f, next)
		}
		next, more = next.after(f)
	}
	c := r.chunks[k]
	c.refs++
	return c
}

// start fetches chunk k in the background. It holds two references: the map's
// and the fetcher's.
func (r *readAhead) start(f *File, k chunkID) *chunk {
	ctx, stop := context.WithCancel(context.Background())
	c := &chunk{ready: make(chan struct{}), buf: buffers.Get().(*[chunkSize]byte), refs: 2, stop: stop}
	n := int(min(chunkSize, f.info.BlockLength(k.block())-k.off()))
	go func() {
		defer r.unref(c)
		c.n, c.err = f.fetch(ctx, k.block(), k.off(), c.buf[:n], true)
		close(c.ready)
		f.fs.stats.PrefetchedBytes.Add(int64(c.n))
	}()
	return c
}

func (r *readAhead) unref(c *chunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unrefLocked(c)
}

func (r *readAhead) unrefLocked(c *chunk) {
	if c.refs--; c.refs == 0 {
		c.stop()
		buffers.Put(c.buf)
		c.buf = nil
	}
}

// forget drops chunk k after it failed.
func (r *readAhead) forget(k chunkID, c *chunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chunks[k] == c {
		delete(r.chunks, k)
		r.unrefLocked(c)
	}
}

// dropLocked lets go of the chunks before k; all of them when k is negative.
func (r *readAhead) dropLocked(k chunkID) {
	for i, c := range r.chunks {
		if k < 0 || i < k {
			delete(r.chunks, i)
			if k < 0 {
				c.stop() // nobody waits for it any more
			}
			r.unrefLocked(c)
		}
	}
}

func (r *readAhead) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.dropLocked(-1)
}
