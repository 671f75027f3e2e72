// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
)

// DeleteBucket deletes the empty bucket of f, as its owner might.
func (f *FS) DeleteBucket(ctx context.Context) error {
	_, err := f.api.DeleteBucket(ctx, &sdk.DeleteBucketInput{Bucket: &f.cfg.Bucket})
	return err
}
