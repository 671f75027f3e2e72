// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"encoding/binary"
	"fmt"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
)

var (
	_ dataplane.Chains = (*Client)(nil)
	_ dataplane.Chains = Local{}
)

// CreateChain implements dataplane.Chains.
func (c *Client) CreateChain(ctx context.Context, t dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	var a datapb.CreateWriteReply
	if err := c.call(ctx, frame.OpCreateWrite, &datapb.CreateWriteRequest{Target: datapb.FromTarget(&t)}, &a); err != nil {
		return 0, nil, err
	}
	c.Renew(a.Id, t.Grant)
	return a.Id, datapb.ToLinks(a.Links), nil
}

// Resume implements dataplane.Chains.
func (c *Client) Resume(id uint64, g dataplane.Grant) { c.Renew(id, g) }

// WriteChain implements dataplane.Chains: one request, of at most Config.Range
// bytes. Several may be outstanding.
func (c *Client) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	const op = "blockclient.WriteChain"
	if len(p) > c.cfg.Range {
		return 0, orca.E(op, orca.TooLarge, fmt.Sprintf("%d bytes in one piece", len(p)))
	}
	q, err := c.handle(id, off)
	if err != nil {
		return 0, err
	}
	q.Chained = true
	q.Sums = make([]byte, 0, 4*len(sums))
	for _, s := range sums {
		q.Sums = binary.BigEndian.AppendUint32(q.Sums, s)
	}
	meta, err := q.MarshalVT()
	if err != nil {
		return 0, orca.PathE(op, "", orca.Internal, err)
	}
	c.metrics.Writes.Add(1)
	if len(p) <= smallWrite {
		r, err := c.far.small.Call(ctx, frame.OpWriteAt, meta, p)
		if err != nil {
			return 0, err
		}
		defer r.Release()
		return copiesOf(r.Meta)
	}
	s, _, err := c.far.streams.get(ctx)
	if err != nil {
		return 0, err
	}
	copies, clean, err := c.chainOver(ctx, s, meta, p)
	c.far.streams.put(s, clean)
	return copies, err
}

// chainOver makes the request on a bulk connection.
func (c *Client) chainOver(ctx context.Context, s *transport.Stream, meta, p []byte) (copies int, clean bool, err error) {
	left, done := c.limit(ctx, s, len(p))
	if _, err := s.Send(frame.OpWriteAt, left, meta, p); err != nil {
		done()
		return 0, false, cause(ctx, err)
	}
	h, rmeta, err := s.Recv(0, 0)
	clean = done()
	switch {
	case err != nil:
		return 0, false, cause(ctx, err)
	case h.Body > 0 || h.Flags&frame.FlagMore != 0:
		return 0, false, errProtocol
	case h.Status != orca.OK:
		return 0, clean, frame.DecodeError(h.Status, rmeta)
	}
	copies, err = copiesOf(rmeta)
	return copies, clean, err
}

func copiesOf(meta []byte) (int, error) {
	var a datapb.HandleReply
	if err := a.UnmarshalVT(meta); err != nil {
		return 0, orca.PathE("blockclient.WriteChain", "", orca.Internal, err)
	}
	return int(a.Copies), nil
}

// chains returns what the worker of this process can do.
func (l Local) chains() (dataplane.Chains, error) {
	if c, ok := l.Blocks.(dataplane.Chains); ok {
		return c, nil
	}
	return nil, orca.E("blockclient.Local", orca.Unsupported, "this worker takes no part in chains")
}

// CreateChain implements dataplane.Chains.
func (l Local) CreateChain(ctx context.Context, t dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	c, err := l.chains()
	if err != nil {
		return 0, nil, err
	}
	return c.CreateChain(ctx, t)
}

// WriteChain implements dataplane.Chains.
func (l Local) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	c, err := l.chains()
	if err != nil {
		return 0, err
	}
	return c.WriteChain(ctx, id, p, off, sums)
}

// Resume implements dataplane.Chains: this worker knows its own handles.
func (l Local) Resume(uint64, dataplane.Grant) {}
