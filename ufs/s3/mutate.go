// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"orca"
	"orca/ufs"
)

// removeBatch is how many objects one DeleteObjects may name.
const removeBatch = 1000

// Mkdir implements ufs.FS: it puts a directory marker. The mode is not kept.
func (f *FS) Mkdir(ctx context.Context, key string, _ uint32) error {
	const op = "Mkdir"
	switch _, err := f.Stat(ctx, key); {
	case err == nil:
		return &orca.Error{Op: "s3.Mkdir", Path: f.cfg.uri(key), Kind: orca.Exists}
	case !errors.Is(err, orca.NotFound):
		return err
	}
	marker := f.under(key)
	_, err := f.api.PutObject(ctx, &sdk.PutObjectInput{Bucket: &f.cfg.Bucket, Key: &marker, Body: bytes.NewReader(nil), ContentLength: aws.Int64(0)})
	if err != nil {
		return f.fail(op, key, err)
	}
	return nil
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string) error {
	const op = "Remove"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if key == "" {
		return &orca.Error{Op: "s3.Remove", Path: f.cfg.uri(""), Kind: orca.Invalid, Msg: "the root cannot be removed"}
	}
	_, err := f.head(ctx, op, key, "")
	if err == nil {
		return f.delete(ctx, key, f.object(key))
	}
	if !errors.Is(err, orca.NotFound) {
		return err
	}
	found, more, lerr := f.below(ctx, op, key)
	switch {
	case lerr != nil:
		return lerr
	case more:
		return &orca.Error{Op: "s3.Remove", Path: f.cfg.uri(key), Kind: orca.NotEmpty}
	case found:
		return f.delete(ctx, key, f.under(key))
	}
	return err
}

func (f *FS) delete(ctx context.Context, key, object string) error {
	if _, err := f.api.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &f.cfg.Bucket, Key: &object}); err != nil {
		return f.fail("Remove", key, err)
	}
	return nil
}

// RemoveIf implements ufs.ConditionalRemover: it looks first, for the services that
// pass over the condition of a delete, or refuse it.
func (f *FS) RemoveIf(ctx context.Context, key, want string) error {
	const op = "RemoveIf"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if _, err := f.head(ctx, op, key, want); err != nil {
		return err
	}
	object := f.object(key)
	_, err := f.api.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &f.cfg.Bucket, Key: &object, IfMatch: quoted(want)})
	if status(err) == http.StatusNotImplemented {
		return f.delete(ctx, key, object)
	}
	if err != nil {
		return f.fail(op, key, err)
	}
	return nil
}

// RemoveMany implements ufs.BulkRemover.
func (f *FS) RemoveMany(ctx context.Context, objects []ufs.Info) error {
	const op = "RemoveMany"
	for len(objects) > 0 {
		if err := f.begin(ctx, op, objects[0].Key); err != nil {
			return err
		}
		n := min(len(objects), removeBatch)
		ids := make([]types.ObjectIdentifier, n)
		for i, in := range objects[:n] {
			object := f.object(in.Key)
			if in.Dir {
				object = f.under(in.Key)
			}
			ids[i].Key = &object
		}
		out, err := f.api.DeleteObjects(ctx, &sdk.DeleteObjectsInput{
			Bucket: &f.cfg.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
		})
		if err != nil {
			return f.fail(op, objects[0].Key, err)
		}
		for _, e := range out.Errors {
			if k := kindOf(aws.ToString(e.Code), 0); k != orca.NotFound {
				return &orca.Error{Op: "s3." + op, Path: "s3://" + f.cfg.Bucket + "/" + aws.ToString(e.Key), Kind: k,
					Msg: fmt.Sprintf("DeleteObjects at %s: %s: %s", f.endpoint, aws.ToString(e.Code), aws.ToString(e.Message))}
			}
		}
		objects = objects[n:]
	}
	return nil
}

// Sweep implements ufs.FS. S3 keeps no token with an upload: every unfinished
// upload of this very key is aborted.
func (f *FS) Sweep(ctx context.Context, key, _ string) error {
	const op = "Sweep"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	if key == "" {
		return nil
	}
	object := f.object(key)
	req := &sdk.ListMultipartUploadsInput{Bucket: &f.cfg.Bucket, Prefix: &object}
	for {
		out, err := f.api.ListMultipartUploads(ctx, req)
		if err != nil {
			return f.fail(op, key, err)
		}
		for _, u := range out.Uploads {
			if aws.ToString(u.Key) != object {
				continue
			}
			if err := f.abort(ctx, op, key, u.UploadId); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		req.KeyMarker, req.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

// SweepNamed implements ufs.Namer.
func (f *FS) SweepNamed(ctx context.Context, key, name string) error {
	const op = "Sweep"
	if err := f.begin(ctx, op, key); err != nil {
		return err
	}
	return f.abort(ctx, op, key, &name)
}

// abort ends a multipart upload; one that is gone already is no error.
func (f *FS) abort(ctx context.Context, op, key string, upload *string) error {
	object := f.object(key)
	_, err := f.api.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: &f.cfg.Bucket, Key: &object, UploadId: upload})
	if err == nil || status(err) == http.StatusNotFound {
		return nil
	}
	return f.fail(op, key, err)
}

// Copy implements ufs.Copier.
func (f *FS) Copy(ctx context.Context, src, dst, want string) (ufs.Info, error) {
	const op = "Copy"
	if err := f.begin(ctx, op, src); err != nil {
		return ufs.Info{}, err
	}
	if err := f.begin(ctx, op, dst); err != nil {
		return ufs.Info{}, err
	}
	in, err := f.head(ctx, op, src, want)
	if err != nil {
		return ufs.Info{}, err
	}
	limit, part := int64(maxCopy), int64(512<<20)
	if f.cfg.CopyPart != 0 {
		limit, part = f.cfg.CopyPart, f.cfg.CopyPart
	}
	if in.Size > limit {
		return f.copyParts(ctx, src, dst, in, part)
	}
	object := f.object(dst)
	out, err := f.api.CopyObject(ctx, &sdk.CopyObjectInput{
		Bucket: &f.cfg.Bucket, Key: &object, CopySource: f.source(src), CopySourceIfMatch: quoted(in.Fingerprint),
	})
	if err != nil {
		return ufs.Info{}, f.fail(op, src, err)
	}
	to := ufs.Info{Key: dst, Size: in.Size, Mtime: time.Now()}
	if r := out.CopyObjectResult; r != nil {
		to.Fingerprint, to.Mtime = etag(r.ETag), aws.ToTime(r.LastModified)
	}
	return to, nil
}

// source is bucket and object of a copy's source, as a header value.
func (f *FS) source(key string) *string {
	parts := strings.Split(f.object(key), "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.QueryEscape(p), "+", "%20")
	}
	return aws.String(f.cfg.Bucket + "/" + strings.Join(parts, "/"))
}

// copyParts copies a large object part by part, still of one version.
func (f *FS) copyParts(ctx context.Context, src, dst string, in ufs.Info, part int64) (ufs.Info, error) {
	const op = "Copy"
	part = max(part, (in.Size+maxParts-1)/maxParts)
	object := f.object(dst)
	mp, err := f.api.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{Bucket: &f.cfg.Bucket, Key: &object})
	if err != nil {
		return ufs.Info{}, f.fail(op, dst, err)
	}
	parts := make([]types.CompletedPart, (in.Size+part-1)/part)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.cfg.Parallel)
	for i := range parts {
		g.Go(func() error {
			off := int64(i) * part
			out, err := f.api.UploadPartCopy(gctx, &sdk.UploadPartCopyInput{
				Bucket: &f.cfg.Bucket, Key: &object, UploadId: mp.UploadId, PartNumber: aws.Int32(int32(i + 1)),
				CopySource: f.source(src), CopySourceIfMatch: quoted(in.Fingerprint),
				CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", off, min(off+part, in.Size)-1)),
			})
			if err != nil {
				return f.fail(op, src, err)
			}
			parts[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.CopyPartResult.ETag}
			return nil
		})
	}
	if err = g.Wait(); err == nil {
		var out *sdk.CompleteMultipartUploadOutput
		out, err = f.api.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{
			Bucket: &f.cfg.Bucket, Key: &object, UploadId: mp.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if err == nil {
			mtime, ok := middleware.GetServerTime(out.ResultMetadata)
			if !ok {
				mtime = time.Now()
			}
			return ufs.Info{Key: dst, Size: in.Size, Mtime: mtime, Fingerprint: etag(out.ETag)}, nil
		}
		err = f.fail(op, dst, err)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	return ufs.Info{}, errors.Join(err, f.abort(end, op, dst, mp.UploadId))
}
