// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/bench/baseline"
	"orca/bench/suite"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// TestMain lets run start this very test binary as a baseline process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == baseline.Role {
		if err := baseline.Main(os.Args[2:], suite.Roles()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func orcabench(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	root := newRoot(&o, &e)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(p, []byte(got), 0o644))
	}
	want, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run the test with -rewrite and review the diff")
}

// TestList pins the names, which programs rely on.
func TestList(t *testing.T) {
	out, _, err := orcabench(t, "list")
	require.NoError(t, err)
	golden(t, "list.txt", out)
}

func TestHelp(t *testing.T) {
	out, _, err := orcabench(t, "run", "--help")
	require.NoError(t, err)
	golden(t, "run-help.txt", out)
	out, _, err = orcabench(t, "--help")
	require.NoError(t, err)
	require.Contains(t, out, "list")
	require.NotContains(t, out, baseline.Role, "an inner role is no command for people")
}

func TestVersion(t *testing.T) {
	out, _, err := orcabench(t, "version")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(out, "orcabench "), out)
}

func TestBadUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run"}, "arg"},
		{[]string{"run", "nope"}, "invalid argument"},
		{[]string{"run", "env", "io"}, "accepts 1 arg"},
		{[]string{"run", "env", "--case", "nope"}, "no case"},
		{[]string{"run", "env", "--samples", "3"}, "at least 5"},
		{[]string{"run", "env", "--size", "many"}, "not a size"},
		{[]string{"run", "env", "--size", "1MiB"}, "over 64 MiB"},
		{[]string{"frobnicate"}, "unknown command"},
	} {
		_, _, err := orcabench(t, c.args...)
		require.ErrorContains(t, err, c.want, "%v", c.args)
	}
}

// TestRunJSON runs two real cases and reads the JSON as a program would.
func TestRunJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	out, progress, err := orcabench(t, "run", "env", "--case", "memcpy,fdatasync", "--json", file, "--tiny", "--size", "2MiB", "--samples", "2")
	require.NoError(t, err)
	require.Contains(t, out, "memcpy")
	require.Contains(t, progress, "env/fdatasync")
	var doc struct {
		Schema  int
		Machine map[string]any
		Results []struct {
			Suite, Case, Metric, Unit string
			Baseline                  string `json:"baseline_name"`
			Value, Ratio              *float64
			BaselineValue             *float64 `json:"baseline_value"`
			Samples                   []struct{ Value, Baseline, Ratio float64 }
		}
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &doc))
	require.Equal(t, 1, doc.Schema)
	require.NotEmpty(t, doc.Machine["kernel"])
	require.Len(t, doc.Results, 2)
	for i, name := range []string{"memcpy", "fdatasync"} {
		r := doc.Results[i]
		require.Equal(t, name, r.Case)
		require.Equal(t, "env", r.Suite)
		require.Positive(t, *r.Ratio)
		require.Positive(t, *r.Value)
		require.Positive(t, *r.BaselineValue)
		require.NotEmpty(t, r.Baseline)
		require.Len(t, r.Samples, 2)
	}

	stdout, table, err := orcabench(t, "run", "env", "--case", "memcpy", "--json", "-", "--tiny", "--size", "2MiB", "--samples", "1")
	require.NoError(t, err)
	require.True(t, json.Valid([]byte(stdout)), "with --json - nothing else is on stdout")
	require.Contains(t, table, "RATIO")
}

// TestFailedCase: a case that cannot run is an error row, and the command
// fails after having written what there is.
func TestFailedCase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	out, _, err := orcabench(t, "run", "io", "--case", "shortcircuit", "--orca", "/nonexistent/orca", "--json", file, "--tiny", "--size", "1MiB", "--samples", "1")
	require.ErrorIs(t, err, errCases)
	require.Contains(t, out, "FAILED")
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(b), `"ratio": null`)
	require.Contains(t, string(b), "/nonexistent/orca")
}
