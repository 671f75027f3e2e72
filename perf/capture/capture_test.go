// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package capture

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// stack makes a sample whose innermost frame comes first.
func stack(p *profile.Profile, value int64, symbols ...string) {
	s := &profile.Sample{Value: []int64{1, value}}
	for _, name := range symbols {
		f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
		l := &profile.Location{ID: uint64(len(p.Location) + 1), Line: []profile.Line{{Function: f}}}
		p.Function, p.Location = append(p.Function, f), append(p.Location, l)
		s.Location = append(s.Location, l)
	}
	p.Sample = append(p.Sample, s)
}

func example() *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	stack(p, 50, "runtime.memmove", "orca/metaplane/fsm.(*Machine).Apply", "github.com/lni/dragonboat/v4/internal/rsm.(*StateMachine).Handle")
	stack(p, 30, "syscall.Syscall6", "orca/dataplane/transport.(*outbox).sendFile", "orca/dataplane/blockserver.(*Server).handle")
	stack(p, 20, "orca/metaplane/inodekv.(*DB[go.shape.struct { a/b.X int }]).Get", "orca/metaplane/fsm.(*Machine).Apply")
	stack(p, 10, "runtime.futex", "github.com/lni/dragonboat/v4.(*engine).stepWorkerMain")
	stack(p, 5, "runtime.gcBgMarkWorker")
	stack(p, 2, "orca.CleanPath", "orca/engine/client.(*FS).Open")
	stack(p, 1, "gopkg%2ein/yaml%2ev3.Unmarshal")
	stack(p, 1)
	return p
}

func TestPerRoom(t *testing.T) {
	sum, err := PerRoom(example(), "cpu")
	require.NoError(t, err)
	require.EqualValues(t, 119, sum.Total)
	require.Equal(t, "nanoseconds", sum.Unit)
	require.Equal(t, []Room{
		{Name: "metaplane", Value: 70, Packages: []Package{{"metaplane/fsm", 50}, {"metaplane/inodekv", 20}}},
		{Name: "dataplane", Value: 30, Packages: []Package{{"dataplane/transport", 30}}},
		{Name: "github.com/lni/dragonboat", Value: 10},
		{Name: "go: runtime", Value: 5},
		{Name: "orca", Value: 2, Packages: []Package{{"orca", 2}}},
		{Name: "gopkg.in/yaml.v3", Value: 1},
		{Name: "unknown", Value: 1},
	}, sum.Rooms)

	var total int64
	for _, r := range sum.Rooms {
		total += r.Value
	}
	require.Equal(t, sum.Total, total, "each sample counts once")
	_, err = PerRoom(example(), "alloc_space")
	require.Error(t, err)
}

func TestTable(t *testing.T) {
	sum, err := PerRoom(example(), "cpu")
	require.NoError(t, err)
	sum.Total *= 1e7
	for i := range sum.Rooms {
		sum.Rooms[i].Value *= 1e7
		for j := range sum.Rooms[i].Packages {
			sum.Rooms[i].Packages[j].Value *= 1e7
		}
	}
	var b strings.Builder
	taken := Taken{Source: "orca", Window: 2 * time.Second, CPU: sum, Allocs: Sum{Total: 4 << 20, Rooms: []Room{{Name: "metaplane", Value: 1 << 20, Packages: []Package{{"metaplane/fsm", 1 << 20}}}}}}
	require.NoError(t, WriteTable(&b, []Taken{taken, {Source: "idle", Window: time.Second}}))
	golden := filepath.Join("testdata", "table.txt")
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// burn is what the profiles of this test must find.
func burn(ctx context.Context) error {
	for ctx.Err() == nil {
		sink = make([]byte, 64<<10)
		for i := range sink {
			sink[i] = byte(i)
		}
	}
	return ctx.Err()
}

var sink []byte

// requireRoom finds this package among the rooms of a real profile.
func requireRoom(t *testing.T, sum Sum) {
	t.Helper()
	for _, r := range sum.Rooms {
		if r.Name == "perf" {
			require.Positive(t, r.Value)
			require.Equal(t, "perf/capture", r.Packages[0].Name)
			return
		}
	}
	require.Fail(t, "the room perf is missing", "%+v", sum.Rooms)
}

// TestTakeSelf profiles real work in this process and finds its room.
func TestTakeSelf(t *testing.T) {
	dir := t.TempDir()
	taken, err := Take(context.Background(), dir, "case", 300*time.Millisecond, []Source{{Name: "me"}}, burn)
	require.NoError(t, err)
	require.Len(t, taken, 1)
	for _, sum := range []Sum{taken[0].CPU, taken[0].Allocs} {
		require.Positive(t, sum.Total)
		requireRoom(t, sum)
	}
	require.FileExists(t, filepath.Join(dir, "case.me.cpu.pb.gz"))
	require.FileExists(t, filepath.Join(dir, "case.me.allocs.pb.gz"))
}

// TestTakeRemote asks a server for the profiles, as a daemon serves them.
func TestTakeRemote(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	taken, err := Take(context.Background(), t.TempDir(), "case", time.Second, []Source{{Name: "orca", HTTP: srv.Listener.Addr().String()}}, burn)
	require.NoError(t, err)
	requireRoom(t, taken[0].CPU)
	requireRoom(t, taken[0].Allocs)
	require.Len(t, taken[0].Files, 2)
}

func TestTakeFails(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	idle := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	_, err := Take(context.Background(), t.TempDir(), "case", time.Millisecond, []Source{{Name: "orca", HTTP: srv.Listener.Addr().String()}}, idle)
	require.ErrorContains(t, err, "404")

	broken := errors.New("broken")
	_, err = Take(context.Background(), t.TempDir(), "case", 10*time.Millisecond, []Source{{Name: "me"}}, func(context.Context) error { return broken })
	require.ErrorIs(t, err, broken)
}
