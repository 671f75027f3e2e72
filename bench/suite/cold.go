// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/bench/target"
	"orca/bench/workload"
	"orca/engine/client"
	"orca/ufs/s3"
	"orca/ufs/ufstest/minio"
)

const (
	coldBucket = "orcabench"
	coldKey    = "cold"
	coldMount  = "/s3"
	coldPath   = coldMount + "/" + coldKey
	coldSeed   = 3
	// coldDelay is how long the relay of cold-20ms holds each byte, either way.
	coldDelay = 10 * time.Millisecond
	// reportWait is the lease of a worker: what it has not reported by then, it
	// did not keep.
	reportWait = 10 * time.Second
)

// telling is the CPU time from which on it says whether MinIO sent a file;
// below, with the tiny files of tests, it is noise.
const telling = 50 * time.Millisecond

// coldStage is MinIO with one object, mounted in Orca.
type coldStage struct {
	s     *stage
	orca  *target.Orca
	minio *minio.Server
	size  int64
	buf   []byte
	admin *client.FS
	// fs is the client of the next pass: a new one each time, since a client
	// keeps descriptors of blocks that have been freed since.
	fs *client.FS
	// direct is the CPU time that MinIO spent on the last direct GET.
	direct time.Duration
	// endpoint is how both sides reach MinIO: itself, or the relay.
	endpoint string
	relay    *baseline.Relay // nil: none
}

// openCold reads the whole object, over a relay that delays each way.
func openCold(def int64, delay time.Duration) func(ctx context.Context, s *stage) (*trial, error) {
	return func(ctx context.Context, s *stage) (*trial, error) {
		c, url, err := newColdStage(ctx, s, def, delay)
		if err != nil {
			return nil, err
		}
		http := baseline.NewHTTPClient()
		direct := side{name: directName, pids: []int{c.minio.Pid()}, run: func(ctx context.Context) (measure, error) {
			var took time.Duration
			used, err := c.minioCPU(func() (err error) {
				took, err = baseline.Get(ctx, http, url, c.size, c.buf)
				return err
			})
			c.direct = used
			return measure{work: float64(c.size) / 1e6, took: took}, err
		}}
		// MinIO reads the object from the page cache for both sides, and the check
		// of the first cold read has something to compare with.
		if _, err := direct.run(ctx); err != nil {
			return nil, errors.Join(err, c.close())
		}
		cold := side{name: "cold read", pids: []int{c.orca.PID(), c.minio.Pid()}, before: c.free, run: c.read}
		return &trial{system: cold, baselines: []side{direct}, close: func() error { http.CloseIdleConnections(); return c.close() }}, nil
	}
}

// openFirstByte measures from asking for the file to its first byte. Larger is
// better: the unit is how often that could be done in a second.
func openFirstByte(ctx context.Context, s *stage) (*trial, error) {
	c, url, err := newColdStage(ctx, s, defaultBulk, 0)
	if err != nil {
		return nil, err
	}
	http := baseline.NewHTTPClient()
	buf := make([]byte, 1)
	direct := side{name: firstByteName, pids: []int{c.minio.Pid()}, run: func(ctx context.Context) (measure, error) {
		took, err := baseline.FirstByte(ctx, http, url, buf)
		return measure{work: 1, took: took}, err
	}}
	if _, err := direct.run(ctx); err != nil { // MinIO has the object in the page cache
		return nil, errors.Join(err, c.close())
	}
	free := func(ctx context.Context) error {
		if err := c.free(ctx); err != nil {
			return err
		}
		_, err := c.fs.Workers(ctx) // connects, as the client of somebody who works here is
		return err
	}
	first := side{name: "first byte of a cold file", pids: []int{c.orca.PID(), c.minio.Pid()}, before: free, run: func(ctx context.Context) (measure, error) {
		start := time.Now()
		f, err := c.fs.Open(ctx, client.Path(coldPath), client.ReadOptions{})
		if err != nil {
			return measure{}, err
		}
		_, err = f.ReadAtContext(ctx, buf, 0)
		took := time.Since(start)
		return measure{work: 1, took: took}, errors.Join(err, f.Close())
	}}
	return &trial{system: first, baselines: []side{direct}, close: func() error { http.CloseIdleConnections(); return c.close() }}, nil
}

// newColdStage starts what the cold cases need, and signs a URL of the object.
func newColdStage(ctx context.Context, s *stage, def int64, delay time.Duration) (*coldStage, string, error) {
	o, err := s.ioOrca()
	if err != nil {
		return nil, "", err
	}
	c := &coldStage{s: s, orca: o, size: s.opt.size(def), buf: baseline.Buffer(baseline.Chunk)}
	if c.admin, err = s.connect(ctx, o, client.Config{Node: o.Endpoints.Node}); err != nil {
		return nil, "", err
	}
	if err := c.store(ctx, delay); err != nil {
		return nil, "", err
	}
	url, err := baseline.S3{
		Endpoint: c.endpoint, Region: "us-east-1", Bucket: coldBucket, AccessKey: c.minio.AccessKey, Secret: c.minio.SecretKey,
	}.Presign(coldKey, time.Now())
	if err != nil {
		return nil, "", errors.Join(err, c.close())
	}
	return c, url, nil
}

// store starts MinIO, puts the object there, mounts it, and compares what Orca
// reads with the seed.
func (c *coldStage) store(ctx context.Context, delay time.Duration) error {
	dir, err := c.s.dir("minio")
	if err != nil {
		return err
	}
	c.s.progress("io: starting MinIO")
	c.minio, err = minio.Start(ctx, minio.Config{Dir: dir, Buckets: []string{coldBucket}, Progress: c.s.opt.Progress})
	if err != nil {
		return err
	}
	c.endpoint = c.minio.Endpoint
	if delay > 0 {
		const scheme = "http://"
		if c.relay, err = baseline.NewRelay(strings.TrimPrefix(c.endpoint, scheme), delay); err != nil {
			return errors.Join(err, c.close())
		}
		c.endpoint = scheme + c.relay.Addr()
	}
	if err = c.fill(ctx); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

func (c *coldStage) fill(ctx context.Context) error {
	ufs, err := s3.Open(ctx, c.minio.Config(coldBucket, ""), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	w, err := ufs.Create(ctx, coldKey, "")
	if err != nil {
		return errors.Join(err, ufs.Close())
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{workload.Content(coldSeed, c.size)}, make([]byte, baseline.Chunk)); err != nil {
		return errors.Join(err, w.Abort(ctx), ufs.Close())
	}
	if _, err := w.Commit(ctx); err != nil {
		return errors.Join(err, w.Abort(ctx), ufs.Close())
	}
	if err := ufs.Close(); err != nil {
		return err
	}
	options := c.minio.Options()
	options["s3.endpoint"] = c.endpoint
	m := &client.Mount{Path: coldMount, Uri: "s3://" + coldBucket + "/", Options: options, SyncIntervalMs: -1} // as orca fs mount does
	if _, err := c.admin.Mount(ctx, m, true); err != nil {
		return err
	}
	f, err := openFile(ctx, c.admin, coldPath, coldSeed, c.size)
	if err != nil {
		return err
	}
	return f.Close()
}

// free drops the file from the cache, waits until no worker holds any of it,
// and connects a new client. Before, it waits for a report of the file: without
// one nothing is on record, the order to drop it comes with the report, and that
// would be in the middle of the next read.
func (c *coldStage) free(ctx context.Context) error {
	if err := c.reported(ctx); err != nil {
		return err
	}
	if c.fs != nil {
		if err := c.fs.Close(); err != nil {
			return err
		}
		c.fs = nil
	}
	if err := c.awaitFreed(ctx); err != nil {
		return err
	}
	var err error
	c.fs, err = client.Open(ctx, client.Config{Addresses: []string{c.orca.Endpoints.Meta}, Node: c.orca.Endpoints.Node})
	return err
}

// reported waits until some of the file is on record as cached, at most for
// reportWait: what was not kept is never reported.
func (c *coldStage) reported(ctx context.Context) error {
	for end := time.Now().Add(reportWait); time.Now().Before(end); {
		held, _, err := c.held(ctx)
		if err != nil || held > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// awaitFreed frees the file and waits until no worker reports to hold anything.
// It asks again only when much time has passed: an order that is on its way when
// the report of the first one comes would strike the next read.
func (c *coldStage) awaitFreed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var due time.Time
	for {
		held, locs, err := c.held(ctx)
		if err != nil || held == 0 {
			return err
		}
		if now := time.Now(); now.After(due) {
			if err := c.admin.Free(ctx, client.Path(coldPath), client.FreeOptions{Force: true}); err != nil {
				return err
			}
			due = now.Add(reportWait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("some bytes of %s are still cached a minute after it was freed: %+v", coldPath, locs)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// held returns how many bytes of the file the workers report to hold.
func (c *coldStage) held(ctx context.Context) (n int64, locs []client.Location, err error) {
	_, locs, err = c.admin.Locations(ctx, client.Path(coldPath))
	for _, l := range locs {
		n += l.Cached
	}
	return n, locs, err
}

// read reads the file for the first time, and checks that MinIO had to send it
// and that all of it is in MEM now.
func (c *coldStage) read(ctx context.Context) (measure, error) {
	var took time.Duration
	used, err := c.minioCPU(func() error {
		start := time.Now()
		f, err := c.fs.Open(ctx, client.Path(coldPath), client.ReadOptions{})
		if err != nil {
			return err
		}
		if _, err = readFile(ctx, f, c.buf); err == nil {
			took = time.Since(start)
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return measure{}, err
	}
	if c.direct > telling && used < c.direct/4 {
		return measure{}, fmt.Errorf("MinIO worked for %s only, %s for a direct GET: the read was not cold", used, c.direct)
	}
	return measure{work: float64(c.size) / 1e6, took: took}, c.s.inMemory(ctx, c.admin, coldPath, c.size)
}

// minioCPU returns the CPU time that MinIO used during fn.
func (c *coldStage) minioCPU(fn func() error) (time.Duration, error) {
	before, err := facts.CPUTime(c.minio.Pid())
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := facts.CPUTime(c.minio.Pid())
	return after - before, err
}

func (c *coldStage) close() error {
	var errs []error
	if c.fs != nil {
		errs = append(errs, c.fs.Close())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.s.ctx), 10*time.Second)
	defer cancel()
	if err := c.admin.Unmount(ctx, coldMount); err != nil && !errors.Is(err, orca.NotFound) {
		errs = append(errs, err)
	}
	if c.relay != nil {
		errs = append(errs, c.relay.Close())
	}
	c.minio.Stop()
	return errors.Join(errs...)
}
