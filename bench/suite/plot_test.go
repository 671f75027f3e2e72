// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The timeline of failovers is drawn with a bar a bucket: the mean of all, the
// leader going at 0, where there is a hole.
func TestFailoverIsPlotted(t *testing.T) {
	r := &Failover{BucketMS: 100, LeadMS: 200}
	for range 2 {
		o := Outage{Creates: make([]int, failoverBuckets)}
		for i := range o.Creates {
			if o.Creates[i] = 30; i == 2 {
				o.Creates[i] = 0
			}
		}
		r.Kills = append(r.Kills, o)
	}
	r.Kills[0].Creates[3], r.Kills[1].Creates[3] = 20, 10
	var out strings.Builder
	require.NoError(t, r.WriteTable(&out))
	_, text, _ := strings.Cut(out.String(), "killed\n")
	lines := strings.Split(text, "\n")
	full := strings.Repeat("#", 60)
	require.Equal(t, []string{
		"  -200 ms    30.0 " + full, "  -100 ms    30.0 " + full, "     0 ms     0.0 ", "   100 ms    15.0 " + full[:30], "   200 ms    30.0 " + full,
	}, lines[:5])
}
