// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Parallel is how a downloader takes an object apart.
type Parallel struct {
	Name    string
	Streams int
	Part    int64 // bytes of one ranged GET
}

// Downloaders are what people take for large objects, by the defaults in their
// own documentation: `s5cmd cp` (--concurrency 5, --part-size 50, in MiB) and
// rclone's multi-thread copies (--multi-thread-streams 4,
// --multi-thread-chunk-size 64Mi).
func Downloaders() []Parallel {
	return []Parallel{
		{Name: "5 streams of 50 MiB parts into a file", Streams: 5, Part: 50 << 20},
		{Name: "4 streams of 64 MiB parts into a file", Streams: 4, Part: 64 << 20},
	}
}

// NewParallelClient returns a client of so many kept-alive connections, no
// compression.
func NewParallelClient(conns int) *http.Client {
	c := NewHTTPClient()
	t := c.Transport.(*http.Transport)
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost = conns, conns
	return c
}

// Download gets the object behind url into a new file, each part by a ranged GET
// of its own, and returns the time until the last byte is in the file.
func (p Parallel) Download(ctx context.Context, c *http.Client, url string, size int64, path string) (took time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	start := time.Now()
	var mu sync.Mutex
	next := int64(0)
	take := func() (off, n int64) {
		mu.Lock()
		defer mu.Unlock()
		off, n = next, min(p.Part, size-next)
		next += n
		return off, n
	}
	errs := make([]error, p.Streams)
	var wg sync.WaitGroup
	for i := range p.Streams {
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			for errs[i] == nil {
				off, n := take()
				if n == 0 {
					return
				}
				errs[i] = part(ctx, c, url, f, off, n, buf)
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}

// part gets a range into its place.
func part(ctx context.Context, c *http.Client, url string, f *os.File, off, n int64, buf []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("GET of a range: status %s", resp.Status)
	}
	// Through buf alone: neither side may have the kernel splice for it.
	got, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(f, off)}, struct{ io.Reader }{resp.Body}, buf)
	if err == nil && got != n {
		err = fmt.Errorf("GET of a range: %d bytes, want %d", got, n)
	}
	return err
}
