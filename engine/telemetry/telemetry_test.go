// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"orca/dataplane/timing"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPages(t *testing.T) {
	var n atomic.Int64
	var ready atomic.Bool
	var timed struct{ ReadTime timing.Histogram }
	timed.ReadTime.Observe(3 * time.Second)
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{
		Listener: ln,
		Ready: func(context.Context) error {
			if !ready.Load() {
				return errors.New("starting")
			}
			return nil
		},
		Sources: []Source{Counters("orca_test", "y", &timed), func(emit func(Sample)) {
			emit(Sample{Name: "orca_test_total", Help: "x", Counter: true, Labels: map[string]string{"tier": "MEM"}, Value: float64(n.Load())})
		}},
	}, slog.New(slog.DiscardHandler))
	defer s.Close()
	base := "http://" + s.Addr()
	if code, body := get(t, base+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "starting") {
		t.Errorf("readyz before ready: %d %q", code, body)
	}
	ready.Store(true)
	if code, _ := get(t, base+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d", code)
	}
	n.Store(7)
	code, body := get(t, base+"/metrics")
	for _, want := range []string{`orca_test_total{tier="MEM"} 7`, "orca_build_info", "go_goroutines",
		`orca_test_read_time_seconds_bucket{le="2.097152"} 0`, `orca_test_read_time_seconds_bucket{le="4.194304"} 1`,
		"orca_test_read_time_seconds_sum 3", "orca_test_read_time_seconds_count 1"} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("metrics lacks %q (status %d)", want, code)
		}
	}
	if code, _ := get(t, base+"/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("pprof on loopback: %d", code)
	}
}

func TestProfilesAreLocal(t *testing.T) {
	r, _ := http.NewRequest("GET", "/debug/pprof/", nil)
	r.RemoteAddr = "10.1.2.3:999"
	rec := &recorder{h: http.Header{}}
	loopback(http.NotFoundHandler()).ServeHTTP(rec, r)
	if rec.code != http.StatusForbidden {
		t.Errorf("a stranger got %d", rec.code)
	}
}

type recorder struct {
	h    http.Header
	code int
}

func (r *recorder) Header() http.Header         { return r.h }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(c int)           { r.code = c }

func TestTakenPort(t *testing.T) {
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Listener: ln}, slog.New(slog.DiscardHandler))
	defer s.Close()
	if _, err := Listen(s.Addr()); err == nil || !strings.Contains(err.Error(), s.Addr()) {
		t.Errorf("taken port: %v", err)
	}
}

func TestCounters(t *testing.T) {
	var st struct {
		UFSBytes, CorruptGrains atomic.Int64
		Streams                 atomic.Int64
		PassEnabled             atomic.Bool
		note                    string
	}
	st.UFSBytes.Store(3)
	st.Streams.Store(2)
	st.PassEnabled.Store(true)
	st.note = "not a counter"
	got := map[string]float64{}
	Counters("orca_x", "test", &st, "Streams")(func(s Sample) {
		got[s.Name] = s.Value
		if s.Counter != strings.HasSuffix(s.Name, "_total") {
			t.Errorf("%s: counter=%v", s.Name, s.Counter)
		}
	})
	want := map[string]float64{"orca_x_ufs_bytes_total": 3, "orca_x_corrupt_grains_total": 0, "orca_x_streams": 2, "orca_x_pass_enabled": 1}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %v, want %v", k, got[k], v)
		}
	}
}
