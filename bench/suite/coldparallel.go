// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"orca/bench/baseline"
)

const parallelName = "a parallel download"

// openColdParallel reads the whole object for the first time, against the better
// of the downloaders that take it apart, into a file in memory: what somebody
// would do who does not want to wait for one stream. What they do with the file
// then is not in their time; the reader of Orca has the bytes.
func openColdParallel(def int64, delay time.Duration) func(ctx context.Context, s *stage) (*trial, error) {
	return func(ctx context.Context, s *stage) (*trial, error) {
		dir, err := s.native()
		if err != nil {
			return nil, err
		}
		c, url, err := newColdStage(ctx, s, def, delay)
		if err != nil {
			return nil, err
		}
		to := filepath.Join(dir, "download")
		var sides []side
		var clients []*http.Client
		for _, p := range baseline.Downloaders() {
			client := baseline.NewParallelClient(p.Streams)
			clients = append(clients, client)
			sides = append(sides, side{name: p.Name, pids: []int{c.minio.Pid()}, run: func(ctx context.Context) (measure, error) {
				took, err := p.Download(ctx, client, url, c.size, to)
				if rerr := os.Remove(to); err == nil {
					err = rerr
				}
				return measure{work: float64(c.size) / 1e6, took: took}, err
			}})
		}
		// What a cold read must have cost MinIO at least.
		if c.direct, err = c.minioCPU(func() error { _, err := sides[0].run(ctx); return err }); err != nil {
			return nil, errors.Join(err, c.close())
		}
		cold := side{name: "cold read", pids: []int{c.orca.PID(), c.minio.Pid()}, before: c.free, run: c.read}
		return &trial{system: cold, baselines: sides, close: func() error {
			for _, h := range clients {
				h.CloseIdleConnections()
			}
			return c.close()
		}}, nil
	}
}
