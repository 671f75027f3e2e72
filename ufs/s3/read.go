// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"orca"
	"orca/ufs"
)

// Stat implements ufs.FS: HEAD of the object, and when there is none a listing
// of one key below it.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Info, error) {
	const op = "Stat"
	if err := f.begin(ctx, op, key); err != nil {
		return ufs.Info{}, err
	}
	if key == "" {
		return ufs.Info{Dir: true}, nil
	}
	in, err := f.head(ctx, op, key, "")
	if !errors.Is(err, orca.NotFound) {
		return in, err
	}
	found, _, lerr := f.below(ctx, op, key)
	if lerr != nil {
		return ufs.Info{}, lerr // a vanished bucket is not a vanished object
	}
	if found {
		return ufs.Info{Key: key, Dir: true}, nil
	}
	return ufs.Info{}, err
}

// head describes an object; with want != "" only if it has this fingerprint.
func (f *FS) head(ctx context.Context, op, key, want string) (ufs.Info, error) {
	object := f.object(key)
	req := &sdk.HeadObjectInput{Bucket: &f.cfg.Bucket, Key: &object}
	if want != "" {
		req.IfMatch = quoted(want)
	}
	out, err := f.api.HeadObject(ctx, req)
	if err != nil {
		return ufs.Info{}, f.fail(op, key, err)
	}
	in := ufs.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Mtime: aws.ToTime(out.LastModified), Fingerprint: etag(out.ETag)}
	if want != "" && in.Fingerprint != want {
		return ufs.Info{}, f.stale(op, key)
	}
	return in, nil
}

func (f *FS) stale(op, key string) error {
	return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(key), Kind: orca.Stale, Msg: "the object changed"}
}

// below reports whether anything has a key below dir, and whether it is more
// than dir's own marker.
func (f *FS) below(ctx context.Context, op, dir string) (found, more bool, err error) {
	prefix := f.under(dir)
	out, err := f.api.ListObjectsV2(ctx, &sdk.ListObjectsV2Input{Bucket: &f.cfg.Bucket, Prefix: &prefix, MaxKeys: aws.Int32(2)})
	if err != nil {
		return false, false, f.fail(op, dir, err)
	}
	for _, o := range out.Contents {
		found = true
		if aws.ToString(o.Key) != prefix {
			more = true
		}
	}
	return found, more, nil
}

// Open implements ufs.FS. The reader is the body of the answer itself.
func (f *FS) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	const op = "Open"
	if err := f.begin(ctx, op, key); err != nil {
		return nil, err
	}
	switch {
	case off < 0:
		return nil, &orca.Error{Op: "s3.Open", Path: f.cfg.uri(key), Kind: orca.Invalid, Msg: "negative offset"}
	case key == "":
		return nil, &orca.Error{Op: "s3.Open", Path: f.cfg.uri(key), Kind: orca.IsDir}
	case n == 0:
		return f.nothing(ctx, key, want)
	}
	object, span := f.object(key), ""
	if off > 0 || n > 0 {
		span = "bytes=" + strconv.FormatInt(off, 10) + "-"
		if n > 0 {
			span += strconv.FormatInt(off+n-1, 10)
		}
	}
	if f.plain != nil {
		if b, err := f.openPlain(ctx, key, object, span, want); b != nil || err != nil {
			return b, err
		}
	}
	req := &sdk.GetObjectInput{Bucket: &f.cfg.Bucket, Key: &object}
	if want != "" {
		req.IfMatch = quoted(want)
	}
	if span != "" {
		req.Range = &span
	}
	out, err := f.api.GetObject(ctx, req)
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		return f.nothing(ctx, key, want)
	}
	if err != nil {
		return nil, f.openFailed(ctx, key, f.fail(op, key, err))
	}
	if want != "" && etag(out.ETag) != want { // a service that ignores If-Match
		_ = out.Body.Close()
		return nil, f.stale(op, key)
	}
	return &body{ctx: ctx, rc: out.Body, f: f, key: key, left: aws.ToInt64(out.ContentLength)}, nil
}

// openPlain opens an object without the SDK; nil and no error when that has to
// do it.
func (f *FS) openPlain(ctx context.Context, key, object, span, want string) (io.ReadCloser, error) {
	resp := f.plain.get(ctx, object, span, want)
	if resp == nil {
		if err := ctx.Err(); err != nil {
			return nil, f.fail("Open", key, err)
		}
		return nil, nil
	}
	if tag := resp.Header.Get("Etag"); want != "" && etag(&tag) != want { // a service that ignores If-Match
		_ = resp.Body.Close()
		return nil, f.stale("Open", key)
	}
	return &body{ctx: ctx, rc: resp.Body, f: f, key: key, left: max(resp.ContentLength, 0)}, nil
}

// nothing opens no bytes of an object that must exist.
func (f *FS) nothing(ctx context.Context, key, want string) (io.ReadCloser, error) {
	if _, err := f.head(ctx, "Open", key, want); err != nil {
		return nil, f.openFailed(ctx, key, err)
	}
	return io.NopCloser(strings.NewReader("")), nil
}

// openFailed tells a directory from nothing.
func (f *FS) openFailed(ctx context.Context, key string, err error) error {
	if !errors.Is(err, orca.NotFound) {
		return err
	}
	found, _, lerr := f.below(ctx, "Open", key)
	switch {
	case lerr != nil:
		return lerr
	case found:
		return &orca.Error{Op: "s3.Open", Path: f.cfg.uri(key), Kind: orca.IsDir}
	}
	return err
}

// body translates the errors of a response body, and notices a short one.
type body struct {
	ctx  context.Context // of Open: what has arrived after its end is not handed out
	rc   io.ReadCloser
	f    *FS
	key  string
	left int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, b.f.fail("Read", b.key, err)
	}
	n, err := b.rc.Read(p)
	b.left -= int64(n)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		if b.left <= 0 {
			return n, io.EOF
		}
		err = io.ErrUnexpectedEOF
	}
	if cerr := b.ctx.Err(); cerr != nil { // which has closed the connection
		err = cerr
	}
	return n, b.f.fail("Read", b.key, err)
}

// Close implements io.Closer.
func (b *body) Close() error { return b.rc.Close() }
