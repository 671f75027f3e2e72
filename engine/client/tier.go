// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"orca"
)

// TierPath is the page that takes orders about a worker's tier directories.
const TierPath = "/tier"

// TierOp is what an order is for.
type TierOp string

// The orders.
const (
	TierAdd    TierOp = "add"
	TierRemove TierOp = "remove"
	TierResize TierOp = "resize"
)

// TierOrder is an order about one tier directory of a worker: Add names all of
// it, Resize Dir and Capacity, Remove Dir.
type TierOrder struct {
	Op          TierOp    `json:"op"`
	Dir         string    `json:"dir"`
	Tier        orca.Tier `json:"tier"`
	Capacity    int64     `json:"capacity_bytes"`
	Reserve     int64     `json:"reserve_bytes,omitempty"`
	ReservePart float64   `json:"reserve_part,omitempty"` // of the file system's size
	KeyFile     string    `json:"key_file,omitempty"`     // on the worker's host; "": in the clear
}

// TierFailure is the answer to an order that was not carried out.
type TierFailure struct {
	Kind orca.Kind `json:"kind"`
	Text string    `json:"error"`
}

// OrderTier has a worker add, remove or resize a tier directory, for good. A
// removal returns when the directory is empty and closed, which takes as long as
// moving its blocks does; ending ctx gives it up. The errors are those of the
// worker's store, Unavailable when its HTTP door does not answer, Unsupported
// when it has none.
func (fs *FS) OrderTier(ctx context.Context, w *Worker, o TierOrder) error {
	const op = "client.OrderTier"
	if w.Http == "" {
		return &orca.Error{Op: op, Path: w.Node, Kind: orca.Unsupported, Msg: "the worker was started without an HTTP door"}
	}
	body, err := json.Marshal(o)
	if err != nil {
		return orca.PathE(op, o.Dir, orca.Invalid, err)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.Http+TierPath, bytes.NewReader(body))
	if err != nil {
		return orca.PathE(op, w.Http, orca.Invalid, err)
	}
	q.Header.Set(AdminHeader, "tier")
	t := &http.Transport{DisableKeepAlives: true} // one request
	a, err := (&http.Client{Transport: t}).Do(q)
	if err != nil && ctx.Err() != nil {
		return orca.PathE(op, o.Dir, orca.Canceled, ctx.Err())
	}
	if err != nil {
		return &orca.Error{Op: op, Path: w.Http, Kind: orca.Unavailable, Msg: "the worker's HTTP door does not answer", Err: err}
	}
	defer a.Body.Close()
	if a.StatusCode == http.StatusOK {
		return nil
	}
	var f TierFailure
	if err := json.NewDecoder(io.LimitReader(a.Body, 1<<20)).Decode(&f); err != nil || f.Kind == orca.OK {
		return &orca.Error{Op: op, Path: w.Http, Kind: orca.Unsupported, Msg: "the worker answered " + a.Status}
	}
	return &orca.Error{Op: op, Path: o.Dir, Kind: f.Kind, Msg: f.Text}
}
