// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"sync"

	"orca/engine/telemetry"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
	"orca/ufs"
	"orca/ufs/backends"
	"orca/ufs/wrap"
)

// stores opens the store of each mount and keeps what it was asked for, for
// the metrics page.
type stores struct {
	log *slog.Logger

	mu    sync.Mutex
	stats map[string]*wrap.Stats // by mount path; GUARDED_BY(mu)
}

func newStores(log *slog.Logger) *stores { return &stores{log: log, stats: map[string]*wrap.Stats{}} }

// open is the mount.Opener of this process.
func (s *stores) open(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
	fs, st, err := backends.New().Open(ctx, m.Uri, m.Options, s.log)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.stats[m.Path] = st
	s.mu.Unlock()
	return fs, nil
}

var _ mount.Opener = (*stores)(nil).open

// samples are the requests to each store, attempts of retries one by one.
func (s *stores) samples(emit func(telemetry.Sample)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, st := range s.stats {
		counter := func(name, help string, labels map[string]string, v float64) {
			labels["mount"] = path
			emit(telemetry.Sample{Name: name, Help: help, Counter: true, Labels: labels, Value: v})
		}
		for i := range st.Ops {
			o := &st.Ops[i]
			if o.Calls.Load() == 0 {
				continue
			}
			op := wrap.Op(i).String()
			counter("orca_ufs_requests_total", "Calls of the store.", map[string]string{"op": op}, float64(o.Calls.Load()))
			counter("orca_ufs_errors_total", "Calls that failed.", map[string]string{"op": op}, float64(o.Errors.Load()))
			counter("orca_ufs_request_seconds_total", "Time in calls.", map[string]string{"op": op}, float64(o.Nanos.Load())/1e9)
		}
		for b := range wrap.NumBounds {
			w := &st.Bounds[b]
			if w.Waits.Load() == 0 {
				continue
			}
			bound := b.String()
			counter("orca_ufs_limit_waits_total", "Calls and pieces of data that waited for a limit of the mount.", map[string]string{"limit": bound}, float64(w.Waits.Load()))
			counter("orca_ufs_limit_wait_seconds_total", "Time waited for a limit of the mount.", map[string]string{"limit": bound}, float64(w.Nanos.Load())/1e9)
			emit(telemetry.Sample{Name: "orca_ufs_limit_waiting", Help: "Calls and pieces of data that wait for a limit of the mount now.",
				Labels: map[string]string{"limit": bound, "mount": path}, Value: float64(w.Waiting.Load())})
		}
		counter("orca_ufs_bytes_total", "Bytes moved.", map[string]string{"direction": "read"}, float64(st.ReadBytes.Load()))
		counter("orca_ufs_bytes_total", "Bytes moved.", map[string]string{"direction": "write"}, float64(st.WriteBytes.Load()))
	}
}
