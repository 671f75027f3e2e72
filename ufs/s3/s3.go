// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package s3 is the under file system of a bucket, or of a prefix in one, at
// Amazon S3 or anything that speaks its protocol. It is the sole owner of the
// AWS SDK.
//
// Directories are implied by keys and may be marked by an empty object whose
// key ends with a slash. A directory below a file of the same name is not
// seen: the file wins in Stat and in List. Names that no dentry can have (an
// empty component, "." or "..", over 255 bytes) are left out of listings.
//
// A fingerprint is the ETag without its quotes. Ranged reads carry it as
// If-Match, so that they are of one version or Stale.
//
// At an explicit endpoint a GET is signed and sent past the SDK (plain.go),
// which asks again when anything but the bytes comes back.
//
// Uploads of at most one part are one PUT at Commit. Longer ones are multipart
// uploads whose parts go up while the caller writes: Write blocks only when
// Config.Parallel parts of this upload are in flight or the memory of
// Config.UploadMemory is used up, in which case it uploads its part itself.
// Commit completes the upload; the key changes at that moment.
//
// Goroutines: one per part in flight, ended by Commit and Abort; one per
// running listing, which fetches the next page. A connection without progress
// for Config.IdleTimeout is closed, so that no call hangs for ever even without
// a deadline.
//
// One call is tried at most twice, 0.2 s apart: wrap.Retry does the rest.
package s3

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"orca"
	"orca/ufs"
)

const (
	// MinPart is the least part size that S3 accepts, in bytes.
	MinPart = 5 << 20
	// maxParts is how many parts an upload may have.
	maxParts = 10_000
	// maxKey is the longest key of a bucket in bytes.
	maxKey = 1024
	// maxCopy is the largest object that one CopyObject copies.
	maxCopy = 5 << 30
)

// Config names a bucket and how to talk to it.
type Config struct {
	Bucket string
	// Prefix is the root within the bucket, without slashes at its ends.
	Prefix string
	// Endpoint is the URL of the service; "": Amazon's of the region.
	Endpoint string
	// Region; "": that of the environment, else us-east-1.
	Region string
	// PathStyle puts the bucket into the path and not into the host name.
	PathStyle bool
	// AccessKey and SecretKey; both "": the standard chain of the AWS SDK
	// (environment, shared files, web identity, instance role).
	AccessKey, SecretKey, SessionToken string
	// Anonymous sends no credentials at all.
	Anonymous bool
	// PartSize of multipart uploads in bytes; 0: 16 MiB. It grows within one
	// upload, so that 10,000 parts are enough.
	PartSize int64
	// Parallel is how many parts of one upload are in flight; 0: 4.
	Parallel int
	// UploadMemory bounds the buffers of parts in flight of all uploads of
	// this store, besides one buffer per upload; 0: 256 MiB.
	UploadMemory int64
	// OpenTimeout bounds the first request, made by Open; 0: 5 s.
	OpenTimeout time.Duration
	// IdleTimeout closes a connection without progress; 0: 60 s.
	IdleTimeout time.Duration
	// CopyPart is the size from which objects are copied in parts, and the
	// size of the parts; 0: 5 GiB and 512 MiB.
	CopyPart int64
}

// Validate checks the fields without asking the service.
func (c Config) Validate() error {
	bad := func(msg string) error {
		return &orca.Error{Op: "s3.Open", Path: c.uri(""), Kind: orca.Invalid, Msg: msg}
	}
	switch {
	case c.Bucket == "" || strings.ContainsAny(c.Bucket, "/ ?#"):
		return bad("no valid bucket name: want s3://bucket/prefix")
	case (c.AccessKey == "") != (c.SecretKey == ""):
		return bad("access key and secret key must be given together")
	case c.Anonymous && c.AccessKey != "":
		return bad("anonymous access and an access key exclude each other")
	case c.PartSize != 0 && c.PartSize < MinPart:
		return bad("part size under 5 MiB")
	case c.CopyPart != 0 && c.CopyPart < MinPart:
		return bad("copy part size under 5 MiB")
	case c.Parallel < 0 || c.UploadMemory < 0 || c.OpenTimeout < 0 || c.IdleTimeout < 0:
		return bad("a limit is negative")
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return bad("endpoint " + c.Endpoint + " is not an http:// or https:// URL")
		}
	}
	return nil
}

func (c Config) filled() Config {
	if c.PartSize == 0 {
		c.PartSize = 16 << 20
	}
	if c.Parallel == 0 {
		c.Parallel = 4
	}
	if c.UploadMemory == 0 {
		c.UploadMemory = 256 << 20
	}
	if c.OpenTimeout == 0 {
		c.OpenTimeout = 5 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = time.Minute
	}
	c.Prefix = strings.Trim(c.Prefix, "/")
	return c
}

// uri names an object for messages.
func (c Config) uri(key string) string {
	s := "s3://" + c.Bucket
	if c.Prefix != "" {
		s += "/" + c.Prefix
	}
	if key != "" {
		s += "/" + key
	}
	return s
}

// FS is an open bucket.
type FS struct {
	cfg      Config
	api      *sdk.Client
	http     *http.Client
	plain    *plain // nil: every GET is the SDK's
	endpoint string // for messages
	log      *slog.Logger

	base   context.Context //nolint:containedctx // ends with Close; parent of uploads
	stop   context.CancelFunc
	closed atomic.Bool
	spare  atomic.Int64 // bytes of UploadMemory that are free
	parts  sync.Pool    // of *[]byte with capacity PartSize
	// Skipped counts names that listings left out because no dentry can have
	// them.
	Skipped atomic.Int64
}

var (
	_ ufs.FS          = (*FS)(nil)
	_ ufs.Copier      = (*FS)(nil)
	_ ufs.Lister      = (*FS)(nil)
	_ ufs.BulkRemover = (*FS)(nil)

	_ ufs.ConditionalRemover = (*FS)(nil)
	_ ufs.Namer              = (*FS)(nil)
)

// Open connects to the bucket and lists one key of it, so that a wrong
// endpoint, credential or bucket fails here, naming the request that failed.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*FS, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &FS{cfg: cfg.filled(), log: log}
	f.base, f.stop = context.WithCancel(context.Background())
	f.spare.Store(f.cfg.UploadMemory)
	ctx, cancel := context.WithTimeout(ctx, f.cfg.OpenTimeout)
	defer cancel()
	if err := f.connect(ctx); err != nil {
		f.stop()
		return nil, err
	}
	if err := f.probe(ctx); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Caps implements ufs.FS.
func (f *FS) Caps() ufs.Caps { return ufs.Caps{} }

// Close implements ufs.FS.
func (f *FS) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	f.stop()
	f.http.CloseIdleConnections()
	return nil
}

// object returns the key in the bucket of a key of this FS.
func (f *FS) object(key string) string {
	if f.cfg.Prefix == "" || key == "" {
		return f.cfg.Prefix + key
	}
	return f.cfg.Prefix + "/" + key
}

// under returns the prefix in the bucket of all that lies below dir.
func (f *FS) under(dir string) string {
	if p := f.object(dir); p != "" {
		return p + "/"
	}
	return ""
}

// relative is the inverse of object; ok is false for what lies elsewhere.
func (f *FS) relative(object string) (key string, ok bool) {
	if f.cfg.Prefix == "" {
		return object, true
	}
	return strings.CutPrefix(object, f.cfg.Prefix+"/")
}

// begin refuses a call when its context or the FS is done, or when no object
// can have the key.
func (f *FS) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		k := orca.Canceled
		if errors.Is(err, context.DeadlineExceeded) {
			k = orca.Timeout
		}
		return orca.PathE("s3."+op, f.cfg.uri(key), k, err)
	}
	if f.closed.Load() {
		return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(key), Kind: orca.Unavailable, Msg: "the store is closed"}
	}
	if key == "" {
		return nil
	}
	if len(f.object(key)) > maxKey {
		return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(key[:64] + "…"), Kind: orca.NameTooLong, Msg: "key over 1024 bytes"}
	}
	for name := range strings.SplitSeq(key, "/") {
		if err := orca.CheckName(name); err != nil {
			return &orca.Error{Op: "s3." + op, Path: f.cfg.uri(key), Kind: orca.KindOf(err), Err: err}
		}
	}
	return nil
}

// etag strips the quotes; quoted puts them back for a condition.
func etag(p *string) string {
	if p == nil {
		return ""
	}
	return strings.Trim(*p, `"`)
}

func quoted(fingerprint string) *string {
	s := `"` + fingerprint + `"`
	return &s
}
