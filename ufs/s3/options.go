// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/dustin/go-humanize"

	"orca"
	"orca/ufs"
)

// Options are the names of the mount options that FromOptions reads.
func Options() []string {
	return []string{
		"s3.endpoint", "s3.region", "s3.path_style", "s3.access_key", "s3.secret_key", "s3.session_token",
		"s3.anonymous", "s3.part_size", "s3.parallel", "s3.upload_memory",
	}
}

// Secrets are those options whose values must not be shown.
func Secrets() []string { return []string{"s3.access_key", "s3.secret_key", "s3.session_token"} }

// Aliases lead from the spellings of Alluxio and Hadoop to ours.
func Aliases() map[string]string { return ufs.Aliases("s3.") }

// FromOptions makes a Config of s3://bucket/prefix (or s3a://, s3n://) and
// options under their canonical names. Path style is on by default where an
// endpoint is given.
func FromOptions(uri string, o map[string]string) (Config, error) {
	_, rest, _ := strings.Cut(uri, "://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	c := Config{
		Bucket: bucket, Prefix: strings.Trim(prefix, "/"), Endpoint: o["s3.endpoint"], Region: o["s3.region"],
		AccessKey: o["s3.access_key"], SecretKey: o["s3.secret_key"], SessionToken: o["s3.session_token"],
		PathStyle: o["s3.endpoint"] != "",
	}
	if c.Endpoint != "" && !strings.Contains(c.Endpoint, "://") {
		c.Endpoint = "https://" + c.Endpoint
	}
	for k, v := range o {
		if v == "" {
			continue
		}
		var err error
		var n uint64
		switch k {
		case "s3.path_style":
			c.PathStyle, err = strconv.ParseBool(v)
		case "s3.anonymous":
			c.Anonymous, err = strconv.ParseBool(v)
		case "s3.part_size":
			n, err = humanize.ParseBytes(v)
			c.PartSize = int64(n)
		case "s3.upload_memory":
			n, err = humanize.ParseBytes(v)
			c.UploadMemory = int64(n)
		case "s3.parallel":
			c.Parallel, err = strconv.Atoi(v)
		}
		if err != nil {
			return Config{}, &orca.Error{Op: "s3.FromOptions", Path: uri, Kind: orca.Invalid, Msg: "option " + k + "=" + strconv.Quote(v) + " is malformed"}
		}
	}
	return c, c.Validate()
}

// CreateBucket makes the bucket of cfg; one of one's own is no error.
func CreateBucket(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	f := &FS{cfg: cfg.filled()}
	f.base, f.stop = context.WithCancel(context.Background())
	defer f.stop()
	if err := f.connect(ctx); err != nil {
		return err
	}
	defer f.http.CloseIdleConnections()
	_, err := f.api.CreateBucket(ctx, &sdk.CreateBucketInput{Bucket: &f.cfg.Bucket})
	var mine *types.BucketAlreadyOwnedByYou
	if err == nil || errors.As(err, &mine) {
		return nil
	}
	return f.fail("CreateBucket", "", err)
}
