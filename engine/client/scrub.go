// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"orca"
)

const (
	// ScrubPath is the page of a worker's scrubber: GET tells, POST orders.
	ScrubPath = "/scrub"
	// AdminHeader must be set on an order to a daemon's HTTP door.
	AdminHeader = "Orca-Admin"
)

// ScrubRound is what one pass of a worker over its cached blocks found.
type ScrubRound struct {
	Forced   bool      `json:"forced"`
	Started  time.Time `json:"started"`
	Done     float64   `json:"done"` // 0 to 1
	Blocks   int64     `json:"blocks"`
	Bytes    int64     `json:"bytes"`
	Bad      int64     `json:"bad_blocks"`
	BadDirty int64     `json:"bad_dirty_blocks"` // the only copies among them
	Finished time.Time `json:"finished,omitzero"`
}

// ScrubStatus says what a worker's scrubber does and has found last.
type ScrubStatus struct {
	Running       bool        `json:"running"`
	Round         ScrubRound  `json:"round"`
	Last          *ScrubRound `json:"last,omitempty"`
	Rounds        int64       `json:"rounds"`
	PeriodSeconds float64     `json:"period_seconds"`
	RateBytes     int64       `json:"rate_bytes_per_second"`
}

// Scrub asks a worker where its scrubber stands; start makes it read every
// cached block again now. Unavailable when its HTTP door does not answer,
// Unsupported when it has none.
func (fs *FS) Scrub(ctx context.Context, w *Worker, start bool) (ScrubStatus, error) {
	const op = "client.Scrub"
	var st ScrubStatus
	if w.Http == "" {
		return st, &orca.Error{Op: op, Path: w.Node, Kind: orca.Unsupported, Msg: "the worker was started without an HTTP door"}
	}
	method := http.MethodGet
	if start {
		method = http.MethodPost
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, "http://"+w.Http+ScrubPath, nil)
	if err != nil {
		return st, orca.PathE(op, w.Http, orca.Invalid, err)
	}
	q.Header.Set(AdminHeader, "scrub")
	t := &http.Transport{DisableKeepAlives: true} // one request
	r, err := (&http.Client{Transport: t}).Do(q)
	if err != nil {
		return st, &orca.Error{Op: op, Path: w.Http, Kind: orca.Unavailable, Msg: "the worker's HTTP door does not answer", Err: err}
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return st, &orca.Error{Op: op, Path: w.Http, Kind: orca.Unsupported, Msg: "the worker answered " + r.Status}
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&st); err != nil {
		return st, orca.PathE(op, w.Http, orca.Internal, err)
	}
	return st, nil
}
