// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the ETag of a multipart object is made with it
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"orca"
	"orca/ufs"
)

const (
	// abortTimeout bounds the clean-up of an upload.
	abortTimeout = 30 * time.Second
	// firstBuffer is what an upload of unknown length starts with.
	firstBuffer = 64 << 10
	// steadyParts is how many parts have the configured size; from there on
	// the size doubles every growParts parts.
	steadyParts, growParts = 4000, 2000
)

// writer is one upload. Its goroutines upload one part each.
type writer struct {
	f      *FS
	key    string
	object string
	hint   ufs.WriteHint
	ctx    context.Context //nolint:containedctx // of the parts; ends with Abort or Close of the store
	cancel context.CancelFunc
	buf    []byte
	size   int64
	done   bool

	upload *string // nil until the second part begins
	slots  chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	parts []types.CompletedPart // by number; GUARDED_BY(mu) while parts run
	err   error                 // first failure; GUARDED_BY(mu)
}

var (
	_ ufs.Writer   = (*writer)(nil)
	_ ufs.Preparer = (*writer)(nil)
	_ ufs.Hinted   = (*writer)(nil)
)

// Create implements ufs.FS. It sends no request: the service sees an upload
// when its second part begins, or at Commit.
func (f *FS) Create(ctx context.Context, key, _ string) (ufs.Writer, error) {
	if err := f.begin(ctx, "Create", key); err != nil {
		return nil, err
	}
	if key == "" {
		return nil, &orca.Error{Op: "s3.Create", Path: f.cfg.uri(""), Kind: orca.IsDir}
	}
	w := &writer{f: f, key: key, object: f.object(key), slots: make(chan struct{}, f.cfg.Parallel)}
	w.ctx, w.cancel = context.WithCancel(f.base)
	return w, nil
}

// Hint implements ufs.Hinted.
func (w *writer) Hint(h ufs.WriteHint) { w.hint = h }

// partSize returns the size of part i (from 0).
func (w *writer) partSize(i int) int64 {
	size := w.f.cfg.PartSize
	if w.hint.Length > size*maxParts {
		const unit = 1 << 20
		return ((w.hint.Length+maxParts-1)/maxParts + unit - 1) / unit * unit
	}
	if w.hint.Length == 0 && i >= steadyParts {
		size <<= 1 + (i-steadyParts)/growParts
	}
	return size
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, &orca.Error{Op: "s3.Write", Path: w.f.cfg.uri(w.key), Kind: orca.Invalid, Msg: "the upload has ended"}
	}
	if err := w.failed(); err != nil {
		return 0, err
	}
	total := len(p)
	for len(p) > 0 {
		size := w.partSize(len(w.parts))
		if int64(len(w.buf)) == size { // only now it is known that more comes
			if err := w.ship(); err != nil {
				return total - len(p), err
			}
			continue
		}
		n := int(min(int64(len(p)), size-int64(len(w.buf))))
		w.grow(n, size)
		w.buf = append(w.buf, p[:n]...)
		w.size += int64(n)
		p = p[n:]
	}
	return total, nil
}

// grow makes room for n bytes, doubling up to the part size, so that a small
// object does not cost the memory of a part.
func (w *writer) grow(n int, size int64) {
	need := int64(len(w.buf) + n)
	if need <= int64(cap(w.buf)) {
		return
	}
	c := max(need, 2*int64(cap(w.buf)), firstBuffer)
	if w.buf == nil && w.hint.Length > 0 {
		c = max(need, min(w.hint.Length, size))
	}
	if len(w.parts) > 0 {
		c = size
	}
	c = min(c, size)
	var b []byte
	if c == w.f.cfg.PartSize {
		if x, ok := w.f.parts.Get().(*[]byte); ok {
			b = (*x)[:0]
		}
	}
	if b == nil {
		b = make([]byte, 0, c)
	}
	b = append(b, w.buf...)
	w.f.recycle(w.buf)
	w.buf = b
}

// recycle keeps a buffer of the usual part size for the next upload.
func (f *FS) recycle(b []byte) {
	if int64(cap(b)) == f.cfg.PartSize {
		b = b[:0]
		f.parts.Put(&b)
	}
}

// take reserves bytes of the store's upload memory, if there are.
func (f *FS) take(n int64) bool {
	for {
		have := f.spare.Load()
		if have < n {
			return false
		}
		if f.spare.CompareAndSwap(have, have-n) {
			return true
		}
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// ship uploads the full buffer as the next part: in the background if this
// upload has a slot and the store has memory for another buffer, else here.
func (w *writer) ship() error {
	if err := w.failed(); err != nil {
		return err
	}
	if len(w.parts) >= maxParts {
		return &orca.Error{Op: "s3.Write", Path: w.f.cfg.uri(w.key), Kind: orca.TooLarge, Msg: "the upload has 10,000 parts"}
	}
	if err := w.begin(); err != nil {
		return err
	}
	b, n := w.buf, int64(cap(w.buf))
	w.mu.Lock()
	w.parts = append(w.parts, types.CompletedPart{})
	i := len(w.parts) - 1
	w.mu.Unlock()
	if !w.f.take(n) {
		w.part(i, b)
		w.buf = b[:0]
		return w.failed()
	}
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		w.f.spare.Add(n)
		return w.f.fail("Write", w.key, w.ctx.Err())
	}
	w.buf = nil
	w.wg.Go(func() {
		defer func() {
			w.f.recycle(b)
			w.f.spare.Add(n)
			<-w.slots
		}()
		w.part(i, b)
	})
	return nil
}

// begin starts the multipart upload, once.
func (w *writer) begin() error {
	if w.upload != nil {
		return nil
	}
	out, err := w.f.api.CreateMultipartUpload(w.ctx, &sdk.CreateMultipartUploadInput{Bucket: &w.f.cfg.Bucket, Key: &w.object})
	if err != nil {
		return w.f.fail("Write", w.key, err)
	}
	w.upload = out.UploadId
	if w.hint.Named != nil {
		w.hint.Named(aws.ToString(w.upload))
	}
	return nil
}

// part uploads part i; its failure is remembered and stops the others.
func (w *writer) part(i int, b []byte) {
	out, err := w.f.api.UploadPart(w.ctx, &sdk.UploadPartInput{
		Bucket: &w.f.cfg.Bucket, Key: &w.object, UploadId: w.upload, PartNumber: aws.Int32(int32(i + 1)),
		Body: bytes.NewReader(b), ContentLength: aws.Int64(int64(len(b))),
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.parts[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.ETag}
		return
	}
	if w.err == nil {
		w.err = w.f.fail("Write", w.key, err)
		w.cancel()
	}
}

// Prepare implements ufs.Preparer: every part is with the service, unless the
// object is one PUT.
func (w *writer) Prepare(ctx context.Context) error {
	const op = "Prepare"
	if err := w.f.begin(ctx, op, w.key); err != nil {
		return err
	}
	if w.upload == nil {
		return w.failed()
	}
	if len(w.buf) > 0 {
		if err := w.ship(); err != nil {
			return err
		}
		w.buf = w.buf[:0]
	}
	stop := context.AfterFunc(ctx, w.cancel)
	defer stop()
	w.wg.Wait()
	if err := w.failed(); err != nil {
		if ctx.Err() != nil {
			return w.f.fail(op, w.key, ctx.Err())
		}
		return err
	}
	return nil
}

// Commit implements ufs.Writer.
func (w *writer) Commit(ctx context.Context) (ufs.Info, error) {
	if w.done {
		return ufs.Info{}, &orca.Error{Op: "s3.Commit", Path: w.f.cfg.uri(w.key), Kind: orca.Invalid, Msg: "the upload has ended"}
	}
	if err := w.Prepare(ctx); err != nil {
		return ufs.Info{}, err
	}
	in, err := w.put(ctx)
	if w.upload != nil {
		in, err = w.complete(ctx)
	}
	if err != nil {
		return ufs.Info{}, err
	}
	w.end()
	return in, nil
}

// conditions are the headers of WriteHint.Expect.
func (w *writer) conditions() (match, noneMatch *string) {
	switch w.hint.Expect {
	case "":
		return nil, nil
	case ufs.Absent:
		return nil, aws.String("*")
	}
	return quoted(w.hint.Expect), nil
}

// conflict turns what a failed condition looks like into Conflict.
func (w *writer) conflict(err error) error {
	if w.hint.Expect == "" {
		return err
	}
	switch k := orca.KindOf(err); {
	case k == orca.NotFound, k == orca.Stale && !errors.Is(err, errSwept):
		return &orca.Error{Op: "s3.Commit", Path: w.f.cfg.uri(w.key), Kind: orca.Conflict, Msg: "the object changed meanwhile", Err: err}
	}
	return err
}

// put makes the object with one request.
func (w *writer) put(ctx context.Context) (ufs.Info, error) {
	if w.upload != nil {
		return ufs.Info{}, nil
	}
	req := &sdk.PutObjectInput{
		Bucket: &w.f.cfg.Bucket, Key: &w.object, Body: bytes.NewReader(w.buf), ContentLength: aws.Int64(int64(len(w.buf))),
	}
	req.IfMatch, req.IfNoneMatch = w.conditions()
	out, err := w.f.api.PutObject(ctx, req)
	if err != nil {
		return ufs.Info{}, w.conflict(w.f.fail("Commit", w.key, err))
	}
	mtime, ok := middleware.GetServerTime(out.ResultMetadata)
	return w.info(etag(out.ETag), mtime, ok), nil
}

func (w *writer) info(fingerprint string, mtime time.Time, known bool) ufs.Info {
	if !known {
		mtime = time.Now()
	}
	return ufs.Info{Key: w.key, Size: w.size, Mtime: mtime.Truncate(time.Second), Fingerprint: fingerprint}
}

// errSwept marks an upload that is gone.
var errSwept = errors.New("the upload was swept")

// complete makes the object out of its parts.
func (w *writer) complete(ctx context.Context) (ufs.Info, error) {
	req := &sdk.CompleteMultipartUploadInput{
		Bucket: &w.f.cfg.Bucket, Key: &w.object, UploadId: w.upload,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: w.parts},
	}
	req.IfMatch, req.IfNoneMatch = w.conditions()
	out, err := w.f.api.CompleteMultipartUpload(ctx, req)
	if err == nil {
		mtime, ok := middleware.GetServerTime(out.ResultMetadata)
		return w.info(etag(out.ETag), mtime, ok), nil
	}
	var gone *types.NoSuchUpload
	err2 := w.f.fail("Commit", w.key, err)
	if errors.As(err, &gone) || strings.EqualFold(code(err), "NoSuchUpload") {
		// A first attempt may have completed it and lost its answer.
		if in, herr := w.f.head(ctx, "Commit", w.key, ""); herr == nil && in.Fingerprint == w.composite() {
			return in, nil
		}
		return ufs.Info{}, &orca.Error{Op: "s3.Commit", Path: w.f.cfg.uri(w.key), Kind: orca.Stale, Err: errSwept}
	}
	return ufs.Info{}, w.conflict(err2)
}

// composite is the ETag that S3 gives to an object made of these parts.
func (w *writer) composite() string {
	h := md5.New() //nolint:gosec // see above
	for _, p := range w.parts {
		b, err := hex.DecodeString(etag(p.ETag))
		if err != nil {
			return "unknown"
		}
		h.Write(b)
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(w.parts))
}

// end frees what the upload holds.
func (w *writer) end() {
	w.done = true
	w.cancel()
	w.f.recycle(w.buf)
	w.buf = nil
}

// Abort implements ufs.Writer. It goes on when ctx is done: a multipart upload
// that is left behind costs money.
func (w *writer) Abort(ctx context.Context) error {
	if w.done {
		return nil
	}
	w.cancel()
	w.wg.Wait() // a part that lands after the abort would stay
	w.end()
	if w.upload == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	return w.f.abort(ctx, "Abort", w.key, w.upload)
}
