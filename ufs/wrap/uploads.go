// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"

	"orca/ufs"
)

// Upload hears of what becomes of one upload.
type Upload interface {
	// Named is called when the store has given the upload a name of its own.
	Named(name string)
	// Ended is called when nothing is left of it, or, with clean unset, when its
	// Abort has failed. It may be called again.
	Ended(clean bool)
}

// Uploads decorates inner: begin is called before each Create.
func Uploads(inner ufs.FS, begin func(key, token string) Upload) ufs.FS {
	return shape(&layer{in: inner, begin: begin, around: func(ctx context.Context, _ Call, do func(context.Context) error) error { return do(ctx) }})
}
