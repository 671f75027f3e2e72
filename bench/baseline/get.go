// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// S3 names a bucket and who reads it.
type S3 struct {
	Endpoint          string // such as http://127.0.0.1:9000
	Region            string
	Bucket            string
	AccessKey, Secret string
}

// Presign returns a URL that anybody may GET for an hour: AWS Signature
// Version 4 in the query, as in the "Authenticating Requests: Using Query
// Parameters" chapter of the Amazon S3 API reference.
func (s S3) Presign(key string, now time.Time) (string, error) {
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		return "", err
	}
	day, stamp := now.UTC().Format("20060102"), now.UTC().Format("20060102T150405Z")
	scope := day + "/" + s.Region + "/s3/aws4_request"
	q := url.Values{
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":    {s.AccessKey + "/" + scope},
		"X-Amz-Date":          {stamp},
		"X-Amz-Expires":       {"3600"},
		"X-Amz-SignedHeaders": {"host"},
	}
	u.Path = "/" + s.Bucket + "/" + key
	query := strings.ReplaceAll(q.Encode(), "+", "%20")
	request := strings.Join([]string{"GET", u.EscapedPath(), query, "host:" + u.Host + "\n", "host", "UNSIGNED-PAYLOAD"}, "\n")
	hash := sha256.Sum256([]byte(request))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(hash[:])}, "\n")
	k := []byte("AWS4" + s.Secret)
	for _, part := range []string{day, s.Region, "s3", "aws4_request", toSign} {
		m := hmac.New(sha256.New, k)
		m.Write([]byte(part))
		k = m.Sum(nil)
	}
	u.RawQuery = query + "&X-Amz-Signature=" + hex.EncodeToString(k)
	return u.String(), nil
}

// Get reads the object behind url once, in order, into buf again and again,
// and returns the time from the request to the last byte.
func Get(ctx context.Context, c *http.Client, url string, size int64, buf []byte) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET: status %s", resp.Status)
	}
	got := int64(0)
	for {
		n, err := resp.Body.Read(buf)
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	took := time.Since(start)
	if got != size {
		return 0, fmt.Errorf("GET: %d bytes, want %d", got, size)
	}
	return took, nil
}

// FirstByte asks for the object behind url, and returns the time until its
// first byte is in buf. The rest is not read: the next request takes another
// connection.
func FirstByte(ctx context.Context, c *http.Client, url string, buf []byte) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET: status %s", resp.Status)
	}
	if _, err := io.ReadFull(resp.Body, buf[:1]); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// NewHTTPClient returns a client of one kept-alive connection, no compression.
func NewHTTPClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.MaxConnsPerHost = 1
	t.ReadBufferSize = 64 << 10
	return &http.Client{Transport: t}
}
