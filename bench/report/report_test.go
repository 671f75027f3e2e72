// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/bench/facts"
	"orca/bench/hist"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func example() *Report {
	remote := Row{Suite: "io", Case: "remote", Metric: "read rate", Unit: "MB/s", BaselineName: "raw sendfile, 1 MiB pull"}
	lat := &hist.Summary{Count: 10, Mean: 400, P50: 390, P90: 450, P99: 1200, P999: 2500, Max: 2500000}
	remote.Fill([]Sample{
		{Value: 1800, Baseline: 2000, CPU: 0.40, BaselineCPU: 0.38, CPUUnit: "s/GB"},
		{Value: 900, Baseline: 1000, CPU: 0.41, BaselineCPU: 0.38, CPUUnit: "s/GB", Latency: lat, BaselineLatency: lat},
		{Value: 1500, Baseline: 2000, CPU: 0.42, BaselineCPU: 0.40, CPUUnit: "s/GB", Rivals: map[string]float64{"raw sendfile, long push": 1400}},
	})
	create := Row{Suite: "meta", Case: "create", Metric: "creates", Unit: "ops/s", BaselineName: "raw propose"}
	create.Fill([]Sample{{Value: 12000, Baseline: 24000}})
	cold := Row{Suite: "io", Case: "cold", Metric: "read rate", Unit: "MB/s", BaselineName: "one direct GET stream"}
	cold.Fail(errors.New("minio did not start"))
	return &Report{
		Schema: Schema,
		Machine: facts.Machine{
			Started: "2026-01-02T03:04:05Z", CPU: "Fast 9000", Cores: 2, MemoryBytes: 24 << 30, Kernel: "6.18", OS: "linux", Arch: "amd64",
			Filesystems: map[string]string{"temp": "ext4 rw", "mem tier": "tmpfs rw,huge=advise"},
			LoadAverage: [3]float64{0.5, 0.25, 0.125}, LoadEnd: [3]float64{2, 1, 0.5},
			Go: "go1.26.8", Version: "dev", Commit: "abc", Command: "orcabench run io", Config: map[string]string{"pairs": "5"},
		},
		Results: []Row{remote, create, cold},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	p := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(p, got, 0o644))
	}
	want, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run the test with -rewrite and review the diff")
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, example().WriteJSON(&b))
	golden(t, "report.json", b.Bytes())
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, example().WriteTable(&b))
	golden(t, "report.txt", b.Bytes())
}

// TestSchema pins the keys that programs rely on, apart from the golden.
func TestSchema(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, example().WriteJSON(&b))
	var doc struct {
		Schema  int
		Machine map[string]any
		Results []map[string]any
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &doc))
	require.Equal(t, 1, doc.Schema)
	require.NotEmpty(t, doc.Machine)
	for _, row := range doc.Results {
		for _, k := range []string{"suite", "case", "metric", "unit", "value", "baseline_name", "baseline_value", "ratio", "samples"} {
			require.Contains(t, row, k)
		}
		if row["error"] == nil {
			require.Len(t, row, 9, "a good row has these keys and no other")
			require.NotNil(t, row["ratio"])
		} else {
			require.Nil(t, row["ratio"], "a failed case has no figure")
			require.Nil(t, row["value"])
		}
	}
}

func TestInvalidSamplesBecomeAnError(t *testing.T) {
	r := Row{Suite: "io", Case: "x"}
	r.Fill([]Sample{{Value: 1, Baseline: 0}})
	require.NotEmpty(t, r.Error)
	require.Nil(t, r.Ratio)
	rep := Report{Results: []Row{r}}
	require.Equal(t, 1, rep.Failed())
	require.Zero(t, (&Report{}).Failed())
}
