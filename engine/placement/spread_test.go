// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// places makes workers 1, 2 … on the nodes named; shown is their order.
func places(nodes string) (ws []Worker) {
	for i, n := range strings.Fields(nodes) {
		ws = append(ws, Worker{ID: uint64(i + 1), Place: Place{Node: n}})
	}
	return ws
}

func shown(ws []Worker) string {
	var out []string
	for _, w := range ws {
		out = append(out, fmt.Sprintf("%s%d", w.Node, w.ID))
	}
	return strings.Join(out, " ")
}

// Copies beside one on node a: a node that has none comes before one that has,
// nobody is lost, and among equals the policy's order stays.
func TestSpread(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"", ""},
		{"a", "a1"},
		{"a b", "b2 a1"},
		{"b c d", "b1 c2 d3"},
		{"d c b", "d1 c2 b3"},
		{"b b c", "b1 c3 b2"},
		{"a a b b c", "b3 c5 a1 b4 a2"},
		{"b b b a", "b1 b2 a4 b3"},
		{"a a a", "a1 a2 a3"},
	} {
		ws := places(c.in)
		Spread(ws, Place{Node: "a"})
		require.Equal(t, c.out, shown(ws), "of %q", c.in)
	}
}
