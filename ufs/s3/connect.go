// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"orca"
)

const (
	dialTimeout = 3 * time.Second
	idleConns   = 256
	writeBuffer = 256 << 10
	// readBuffer holds the head of an answer. Reads of a body that are longer
	// pass it by, so it is short: the rest of a body that came with the head,
	// and the end of a read that the socket filled in part, are copied twice.
	readBuffer = 16 << 10
	// maxHead bounds the head of an answer.
	maxHead = 1 << 20
	// tries and pause bound what the SDK does by itself.
	tries = 2
	pause = 200 * time.Millisecond
)

// tune makes a transport talk HTTP/1.1 without compression: many parallel
// streams want many connections, and bodies go straight from the socket to the
// reader.
func tune(t *http.Transport, idle time.Duration) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &liveConn{Conn: c, idle: idle}, nil
	}
	t.TLSHandshakeTimeout = dialTimeout
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // no HTTP/2
	t.DisableCompression = true
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*idleConns, idleConns
	t.IdleConnTimeout, t.ResponseHeaderTimeout = idle, idle
	t.ReadBufferSize, t.WriteBufferSize = readBuffer, writeBuffer
	t.MaxResponseHeaderBytes = maxHead
}

// liveConn fails reads and writes that make no progress for idle.
type liveConn struct {
	net.Conn
	idle time.Duration
}

func (c *liveConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *liveConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// connect makes the client and finds the credentials.
func (f *FS) connect(ctx context.Context) error {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { tune(t, f.cfg.IdleTimeout) })
	opts := []func(*config.LoadOptions) error{config.WithHTTPClient(client)}
	if f.cfg.Region != "" {
		opts = append(opts, config.WithRegion(f.cfg.Region))
	}
	switch {
	case f.cfg.Anonymous:
		opts = append(opts, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	case f.cfg.AccessKey != "":
		opts = append(opts, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(f.cfg.AccessKey, f.cfg.SecretKey, f.cfg.SessionToken)))
	}
	ac, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return &orca.Error{Op: "s3.Open", Path: f.cfg.uri(""), Kind: orca.Invalid, Msg: "the AWS configuration of this host cannot be read", Err: err}
	}
	if b, ok := ac.HTTPClient.(*awshttp.BuildableClient); ok { // with AWS_CA_BUNDLE by now
		client = b
	}
	t := client.GetTransport()
	f.http = &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if ac.Region == "" {
		ac.Region = "us-east-1"
	}
	if !f.cfg.Anonymous {
		if _, err := ac.Credentials.Retrieve(ctx); err != nil {
			return &orca.Error{Op: "s3.Open", Path: f.cfg.uri(""), Kind: orca.Unauthenticated, Err: err,
				Msg: "no credentials: set s3.access_key and s3.secret_key, or the AWS_* environment, or s3.anonymous=true"}
		}
	}
	f.api = sdk.NewFromConfig(ac, func(o *sdk.Options) {
		if f.cfg.Endpoint != "" {
			o.BaseEndpoint = &f.cfg.Endpoint
		}
		o.HTTPClient = f.http
		o.UsePathStyle = f.cfg.PathStyle
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.ContinueHeaderThresholdBytes = -1
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts, r.MaxBackoff, r.RateLimiter = tries, pause, ratelimit.None
		})
	})
	f.endpoint = f.cfg.Endpoint
	if b := f.api.Options().BaseEndpoint; b != nil { // from AWS_ENDPOINT_URL
		f.endpoint = *b
	}
	if f.endpoint != "" {
		f.plain = newPlain(&f.cfg, f.endpoint, &ac, f.http)
	}
	if f.endpoint == "" {
		f.endpoint = "https://s3." + ac.Region + ".amazonaws.com"
	}
	return nil
}

// probe asks the service for one key.
func (f *FS) probe(ctx context.Context) error {
	in := &sdk.ListObjectsV2Input{Bucket: &f.cfg.Bucket, MaxKeys: aws.Int32(1)}
	if p := f.under(""); p != "" {
		in.Prefix = &p
	}
	_, err := f.api.ListObjectsV2(ctx, in)
	if err != nil {
		return f.fail("Open", "", err)
	}
	return nil
}
