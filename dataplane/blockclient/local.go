// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"fmt"
	"io"

	"orca"
	"orca/dataplane"
)

// Local is the worker of this process as a dataplane.Access: no socket, no
// copy but the one into the caller's buffer, no checksums (the store verifies
// what it reads in).
type Local struct {
	dataplane.Blocks
}

var _ dataplane.Access = Local{}

// ReadAt implements dataplane.Reader.
func (l Local) ReadAt(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		req.N = int64(len(p) - n)
		k, err := l.piece(ctx, &req, p[n:])
		n += k
		req.Off += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// piece copies one extent.
func (l Local) piece(ctx context.Context, req *dataplane.ReadRequest, p []byte) (int, error) {
	ext, err := l.Open(ctx, *req)
	if err != nil {
		return 0, fmt.Errorf("read %v at %d: %w", req.ID, req.Off, err)
	}
	if ext.Release != nil {
		defer ext.Release()
	}
	p = p[:min(int64(len(p)), max(ext.N, 0))]
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := ext.ReadAt(p, ext.Off)
	if n < len(p) {
		return n, orca.PathE("blockclient.ReadAt", req.ID.String(), orca.Internal, fmt.Errorf("extent is longer than its file: %w", err))
	}
	return n, nil
}
