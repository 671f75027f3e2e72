// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseStress(t *testing.T) {
	parse := func(s string) (measure, error) { return parseStress(strings.NewReader(s)) }
	m, err := parse(`12:00:01 WARN of the logger
{"parameters": {"mThreads": 16}, "statistics": {"mNumSuccesses": 3000, "mMaxTimeMs": [1.5]}, "durationMs": 1500,
 "throughput": 2000.0, "nodeResults": {"a": {"errors": [], "durationMs": 0}}}
`)
	require.NoError(t, err)
	require.Equal(t, 3000.0, m.work)
	require.Equal(t, 1500*time.Millisecond, m.took)
	for text, want := range map[string]string{
		"no such class": "printed no result",
		`{"statistics": {"mNumSuccesses": 0}, "durationMs": 10}`:                                                            "counted nothing",
		`{"statistics": {"mNumSuccesses": 5}, "durationMs": 10, "nodeResults": {"a": {"errors": ["NoSuchFile", "again"]}}}`: "2 errors, such as NoSuchFile",
		`{"statistics": `: "result of the stress bench",
	} {
		_, err := parse(text)
		require.ErrorContains(t, err, want)
	}
}

// TestGiven: without a peer there is nothing to compare with.
func TestGiven(t *testing.T) {
	all, err := Select("peers", nil)
	require.NoError(t, err)
	require.Empty(t, (&Options{}).Given(all))
	hdfs := (&Options{HDFS: "127.0.0.1:8020"}).Given(all)
	require.NotEmpty(t, hdfs)
	require.Less(t, len(hdfs), len(all))
	for _, c := range hdfs {
		require.True(t, strings.HasPrefix(c.Name, "hdfs-"), c.Name)
	}
	require.Len(t, (&Options{HDFS: "x", Alluxio: []string{"y"}}).Given(all), len(all))
}
