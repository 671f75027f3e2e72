// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"orca"
	"orca/ufs"
)

// List implements ufs.FS.
func (f *FS) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	return f.listing(ctx, "List", dir, "/", fn)
}

// Walk implements ufs.Lister.
func (f *FS) Walk(ctx context.Context, prefix string, fn func(ufs.Info) error) error {
	return f.listing(ctx, "Walk", prefix, "", fn)
}

// page is one answer, decoded.
type page struct {
	infos []ufs.Info
	raw   int    // keys in the answer, of whatever use
	next  string // continuation token, "" at the end
	err   error
}

// listing hands out a prefix page by page; while fn works on one, the next one
// is fetched.
func (f *FS) listing(ctx context.Context, op, dir, delimiter string, fn func(ufs.Info) error) error {
	if err := f.begin(ctx, op, dir); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var shadow shadows
	p := f.page(ctx, op, dir, delimiter, "")
	raw := 0
	for {
		if p.err != nil {
			return p.err
		}
		raw += p.raw
		next := make(chan page, 1)
		if p.next != "" {
			go func() { next <- f.page(ctx, op, dir, delimiter, p.next) }()
		}
		for _, in := range p.infos {
			if shadow.hides(in) {
				continue
			}
			if err := fn(in); err != nil {
				return err
			}
		}
		if p.next == "" {
			break
		}
		p = <-next
	}
	if raw == 0 && dir != "" {
		return f.noDirectory(ctx, op, dir)
	}
	return nil
}

// noDirectory says why nothing lies below dir.
func (f *FS) noDirectory(ctx context.Context, op, dir string) error {
	_, err := f.head(ctx, op, dir, "")
	if err == nil {
		return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(dir), Kind: orca.NotDir}
	}
	if errors.Is(err, orca.NotFound) {
		return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(dir), Kind: orca.NotFound}
	}
	return err
}

// page fetches and decodes one answer.
func (f *FS) page(ctx context.Context, op, dir, delimiter, token string) page {
	prefix := f.under(dir)
	req := &sdk.ListObjectsV2Input{Bucket: &f.cfg.Bucket, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
	if delimiter != "" {
		req.Delimiter = &delimiter
	}
	if token != "" {
		req.ContinuationToken = &token
	}
	out, err := f.api.ListObjectsV2(ctx, req)
	if err != nil {
		return page{err: f.fail(op, dir, err)}
	}
	p := page{raw: len(out.Contents) + len(out.CommonPrefixes)}
	encoded := out.EncodingType == types.EncodingTypeUrl
	for _, o := range out.Contents {
		p.add(f, dir, decode(aws.ToString(o.Key), encoded), func(in *ufs.Info) {
			in.Size, in.Mtime, in.Fingerprint = aws.ToInt64(o.Size), aws.ToTime(o.LastModified), etag(o.ETag)
		})
	}
	for _, c := range out.CommonPrefixes {
		p.add(f, dir, decode(aws.ToString(c.Prefix), encoded), func(*ufs.Info) {})
	}
	slices.SortFunc(p.infos, ufs.Compare)
	if aws.ToBool(out.IsTruncated) {
		p.next = aws.ToString(out.NextContinuationToken)
	}
	return p
}

// decode undoes the encoding that was asked for; some services ignore it.
func decode(key string, encoded bool) string {
	if !encoded {
		return key
	}
	if s, err := url.QueryUnescape(key); err == nil {
		return s
	}
	return key
}

// add appends the info of one raw key, unless it is dir's own marker or a name
// that no dentry can have.
func (p *page) add(f *FS, dir, object string, fill func(*ufs.Info)) {
	key, ok := f.relative(object)
	if !ok {
		return
	}
	in := ufs.Info{}
	in.Key, in.Dir = strings.CutSuffix(key, "/")
	if in.Key == dir || ufs.IsTemp(in.Key) {
		return
	}
	below := in.Key
	if dir != "" {
		below = strings.TrimPrefix(in.Key, dir+"/")
	}
	for name := range strings.SplitSeq(below, "/") {
		if orca.CheckName(name) != nil {
			f.Skipped.Add(1)
			return
		}
	}
	if !in.Dir {
		fill(&in)
	}
	p.infos = append(p.infos, in)
}

// shadows finds directories that have the name of a file. Objects that may
// still shadow something are proper prefixes of what comes, so that the stack
// is never deeper than a key is long.
type shadows struct{ files []string }

func (s *shadows) hides(in ufs.Info) bool {
	for len(s.files) > 0 && !strings.HasPrefix(in.Key, s.files[len(s.files)-1]) {
		s.files = s.files[:len(s.files)-1]
	}
	for _, file := range s.files {
		if rest := in.Key[len(file):]; in.Dir && rest == "" || strings.HasPrefix(rest, "/") {
			return true
		}
	}
	if !in.Dir {
		s.files = append(s.files, in.Key)
	}
	return false
}
