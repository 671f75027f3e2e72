// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"fmt"
	"os"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
)

// smallWrite is the longest piece in bytes that shares a connection.
const smallWrite = 64 << 10

// CreateWrite implements dataplane.Writes. The grant of t goes with every
// later call about the handle, until Renew or Seal brings another.
func (c *Client) CreateWrite(ctx context.Context, t dataplane.WriteTarget) (uint64, error) {
	var a datapb.CreateWriteReply
	if err := c.call(ctx, frame.OpCreateWrite, &datapb.CreateWriteRequest{Target: datapb.FromTarget(&t)}, &a); err != nil {
		return 0, err
	}
	c.Renew(a.Id, t.Grant)
	return a.Id, nil
}

// Renew replaces the grant that goes with calls about a write handle.
func (c *Client) Renew(id uint64, g dataplane.Grant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handles[id] = datapb.FromGrant(&g)
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.handles, id)
}

func (c *Client) handle(id uint64, off int64) (*datapb.HandleRequest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.handles[id]
	if g == nil {
		return nil, orca.E("blockclient", orca.NotFound, fmt.Sprintf("write handle %d was not made here", id))
	}
	return &datapb.HandleRequest{Id: id, Off: off, Grant: g}, nil
}

// onHandle makes a call that has no reply but its status.
func (c *Client) onHandle(ctx context.Context, op frame.Op, id uint64, off int64) error {
	q, err := c.handle(id, off)
	if err != nil {
		return err
	}
	return c.call(ctx, op, q, nil)
}

// WriteFile implements dataplane.Access over the descriptor socket:
// Unsupported without one.
func (c *Client) WriteFile(ctx context.Context, id uint64) (*os.File, error) {
	if c.local == nil {
		return nil, errRemote
	}
	q, err := c.handle(id, 0)
	if err != nil {
		return nil, err
	}
	return c.local.WriteFile(ctx, id, q.Grant.ToGrant())
}

// WriteAt implements dataplane.Writes. A long p is sent in pieces, several
// outstanding; after an error any of them may have been written.
func (c *Client) WriteAt(ctx context.Context, id uint64, p []byte, off int64) error {
	q, err := c.handle(id, off)
	if err != nil {
		return err
	}
	c.metrics.Writes.Add(1)
	if len(p) <= smallWrite {
		meta, err := q.MarshalVT()
		if err != nil {
			return orca.PathE("blockclient.WriteAt", "", orca.Internal, err)
		}
		r, err := c.far.small.Call(ctx, frame.OpWriteAt, meta, p)
		r.Release()
		return err
	}
	s, _, err := c.far.streams.get(ctx)
	if err != nil {
		return err
	}
	clean, err := c.writeOver(ctx, s, q, p)
	c.far.streams.put(s, clean)
	return err
}

// limit bounds the write of n bytes over s by ctx and by StallTimeout, and
// returns the time that is left. done ends that; false: ctx has ended, and s is
// not to be used again.
func (c *Client) limit(ctx context.Context, s *transport.Stream, n int) (left time.Duration, done func() bool) {
	left = c.cfg.StallTimeout + time.Duration(n>>20)*time.Second
	if d, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(d))
	}
	s.SetDeadline(time.Now().Add(left))
	if ctx.Done() == nil {
		return left, func() bool { return true }
	}
	return left, context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
}

func (c *Client) writeOver(ctx context.Context, s *transport.Stream, q *datapb.HandleRequest, p []byte) (clean bool, err error) {
	left, done := c.limit(ctx, s, len(p))
	deadline := time.Now().Add(left)
	defer func() {
		if !done() {
			clean = false
		}
	}()
	outstanding := 0
	for len(p) > 0 || outstanding > 0 {
		if len(p) > 0 && outstanding < c.cfg.WriteDepth {
			n := min(len(p), c.cfg.Range)
			meta, err := q.MarshalVT()
			if err != nil {
				return false, orca.PathE("blockclient.WriteAt", "", orca.Internal, err)
			}
			if _, err := s.Send(frame.OpWriteAt, time.Until(deadline), meta, p[:n]); err != nil {
				return false, cause(ctx, err)
			}
			p, q.Off = p[n:], q.Off+int64(n)
			outstanding++
			continue
		}
		h, meta, err := s.Recv(0, 0)
		if err != nil {
			return false, cause(ctx, err)
		}
		outstanding--
		if h.Body > 0 || h.Flags&frame.FlagMore != 0 {
			return false, errProtocol
		}
		if h.Status != orca.OK {
			return outstanding == 0, frame.DecodeError(h.Status, meta)
		}
	}
	return true, nil
}

// cause prefers the end of ctx to its consequence.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	return err
}

// Truncate implements dataplane.Writes.
func (c *Client) Truncate(ctx context.Context, id uint64, length int64) error {
	return c.onHandle(ctx, frame.OpTruncate, id, length)
}

// Sync implements dataplane.Writes.
func (c *Client) Sync(ctx context.Context, id uint64) error {
	return c.onHandle(ctx, frame.OpSync, id, 0)
}

// Seal implements dataplane.Writes. It takes as long as the upload does: give
// ctx a deadline to match.
func (c *Client) Seal(ctx context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	var a datapb.SealReply
	q := datapb.SealRequest{Id: id, Target: datapb.FromTarget(&t), Keep: keep}
	if err := c.call(ctx, frame.OpSeal, &q, &a); err != nil {
		return dataplane.SealResult{}, err
	}
	if keep {
		c.Renew(id, t.Grant)
	} else {
		c.forget(id)
	}
	return a.ToSeal(), nil
}

// Abort implements dataplane.Writes.
func (c *Client) Abort(ctx context.Context, id uint64) error {
	err := c.onHandle(ctx, frame.OpAbort, id, 0)
	if err == nil {
		c.forget(id)
	}
	return err
}
