// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/jobs/plan"
)

func whole(ids ...uint64) (out []plan.Holder) {
	for _, id := range ids {
		out = append(out, plan.Holder{Worker: id, All: true})
	}
	return out
}

// five workers on four nodes, the fuller the higher their number.
var five = []plan.Worker{
	{ID: 1, Node: "a", Free: 500, Capacity: 1000}, {ID: 2, Node: "b", Free: 400, Capacity: 1000}, {ID: 3, Node: "c", Free: 300, Capacity: 1000},
	{ID: 4, Node: "c", Free: 200, Capacity: 1000}, {ID: 5, Node: "d", Free: 100, Capacity: 1000},
}

func told(v plan.Verdict) string {
	s := fmt.Sprintf("missing %d surplus %d keep %v", v.Missing, v.Surplus, v.Keep)
	for _, c := range v.Copies {
		s += fmt.Sprintf(" +%d", c.Worker)
		if c.Item.Blocks != 0 {
			s += fmt.Sprintf("[%d..%d]", c.Item.FirstBlock, c.Item.FirstBlock+c.Item.Blocks-1)
		}
	}
	for _, c := range v.Drops {
		s += fmt.Sprintf(" -%d(%d)", c.Worker, c.Item.Others)
	}
	return s
}

func TestJudge(t *testing.T) {
	small := plan.File{Ino: 7, Version: 1, Length: 10}
	for _, c := range []struct {
		what string
		r    plan.Replica
		want string
	}{
		{"as it is to be", plan.Replica{File: small, Min: 2, Max: -1, Holders: whole(1, 2)}, "missing 0 surplus 0 keep [1 2]"},
		{"no bounds", plan.Replica{File: small, Max: -1, Holders: whole(1)}, "missing 0 surplus 0 keep []"},
		{"one is missing: another node, the emptiest", plan.Replica{File: small, Min: 2, Max: -1, Holders: whole(2)}, "missing 1 surplus 0 keep [2] +1"},
		{"of two copies each on its node", plan.Replica{File: small, Min: 4, Max: -1, Holders: whole(3)}, "missing 3 surplus 0 keep [3] +1 +2 +5"},
		{"a shared node at last", plan.Replica{File: small, Min: 5, Max: -1, Holders: whole(3)}, "missing 4 surplus 0 keep [3] +1 +2 +5 +4"},
		{"a damaged copy is made whole where it is",
			plan.Replica{File: small, Min: 2, Max: -1, Unpersisted: true, Holders: append(whole(1), plan.Holder{Worker: 5})}, "missing 1 surplus 0 keep [1 5] +5"},
		{"not where it has just failed", plan.Replica{File: small, Min: 2, Max: -1, Holders: whole(2), Avoid: []uint64{1}}, "missing 1 surplus 0 keep [2] +3"},
		{"nowhere, but in the store", plan.Replica{File: small, Min: 1, Max: -1}, "missing 1 surplus 0 keep [] +1"},
		{"nowhere at all", plan.Replica{File: small, Min: 2, Max: -1, Unpersisted: true}, "missing 2 surplus 0 keep []"},
		{"more than workers", plan.Replica{File: small, Min: 9, Max: -1, Holders: whole(1, 2, 3, 4, 5)}, "missing 4 surplus 0 keep [1 2 3 4 5]"},
		{"too many", plan.Replica{File: small, Min: 1, Max: 2, Holders: whole(1, 2, 3)}, "missing 0 surplus 1 keep [1] -3(2)"},
		{"never cached", plan.Replica{File: small, Max: 0, Holders: whole(1, 2)}, "missing 0 surplus 2 keep [] -1(0) -2(0)"},
		{"too many of what is nowhere else", plan.Replica{File: small, Max: 0, Unpersisted: true, Holders: whole(1, 2)}, "missing 0 surplus 0 keep []"},
		{"a part is not a copy to stay", plan.Replica{File: small, Min: 1, Max: 1, Holders: append([]plan.Holder{{Worker: 1}}, whole(2)...)},
			"missing 0 surplus 1 keep [2] -1(1)"},
		{"nothing is dropped before there are enough whole ones",
			plan.Replica{File: small, Max: 1, Holders: []plan.Holder{{Worker: 1}, {Worker: 2}}}, "missing 0 surplus 0 keep []"},
		{"block by block", plan.Replica{File: plan.File{Ino: 7, Length: 95, BlockSize: 10}, Min: 1, Max: -1,
			Holders: []plan.Holder{{Worker: 1, Complete: []uint32{0, 1, 2}}, {Worker: 2, Complete: []uint32{5, 9}}}}, "missing 5 surplus 0 keep [1 2] +1[3..4] +1[6..8]"},
		{"a block that fits nowhere", plan.Replica{File: plan.File{Ino: 7, Length: 600}, Min: 1, Max: -1}, "missing 1 surplus 0 keep []"},
		{"an empty file", plan.Replica{File: plan.File{Ino: 7}, Min: 2, Max: -1}, "missing 0 surplus 0 keep []"},
	} {
		require.Equal(t, c.want, told(plan.Judge(c.r, five)), c.what)
	}
}

// TestJudgeConverges: done as told, nothing is left to be done, unless there
// are too few workers; no copy of what is nowhere else goes, and of the rest
// never more than are too many.
func TestJudgeConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := plan.Replica{
			File: plan.File{Ino: 7, Version: 1, Length: rapid.Int64Range(1, 100).Draw(t, "len"), BlockSize: rapid.Int64Range(20, 200).Draw(t, "block")},
			Min:  rapid.IntRange(0, 6).Draw(t, "min"), Max: -1, Unpersisted: rapid.Bool().Draw(t, "unpersisted"),
		}
		if rapid.Bool().Draw(t, "bounded") {
			r.Max = r.Min + rapid.IntRange(0, 3).Draw(t, "more")
		}
		blocks := uint32((r.Length + r.BlockSize - 1) / r.BlockSize)
		for id := uint64(1); id <= 5; id++ {
			switch rapid.IntRange(0, 2).Draw(t, "has") {
			case 0:
				r.Holders = append(r.Holders, plan.Holder{Worker: id, All: true})
			case 1:
				r.Holders = append(r.Holders, plan.Holder{Worker: id, Complete: []uint32{uint32(rapid.IntRange(0, int(blocks)-1).Draw(t, "part"))}})
			}
		}
		for round := 0; ; round++ {
			require.Less(t, round, 4, "it does not come to rest")
			v := plan.Judge(r, five)
			if r.Unpersisted {
				require.Empty(t, v.Drops)
			}
			for _, c := range v.Copies {
				at := slices.IndexFunc(r.Holders, func(h plan.Holder) bool { return h.Worker == c.Worker })
				if at < 0 {
					r.Holders = append(r.Holders, plan.Holder{Worker: c.Worker})
					at = len(r.Holders) - 1
				}
				h := &r.Holders[at]
				first, n := c.Item.FirstBlock, c.Item.Blocks
				if n == 0 {
					first, n = 0, blocks
				}
				for b := first; b < first+n; b++ {
					require.False(t, h.All || slices.Contains(h.Complete, b), "it was there already")
					h.Complete = append(h.Complete, b)
				}
				h.All = uint32(len(h.Complete)) == blocks
			}
			for _, d := range v.Drops {
				r.Holders = slices.DeleteFunc(r.Holders, func(h plan.Holder) bool { return h.Worker == d.Worker })
			}
			if len(v.Copies)+len(v.Drops) == 0 {
				require.True(t, v.Missing == 0 || r.Min > len(five) || r.Unpersisted)
				break
			}
		}
		n := 0
		for _, h := range r.Holders {
			if h.All {
				n++
			}
		}
		if !r.Unpersisted && r.Max >= 0 && n >= r.Max {
			require.Len(t, r.Holders, r.Max)
		}
	})
}

func TestByWorker(t *testing.T) {
	var cs []plan.Copy
	for i := range 5 {
		r := plan.Replica{File: plan.File{Ino: orca.Ino(i + 1), Length: 10}, Min: 2, Max: -1, Holders: whole(1)}
		cs = append(cs, plan.Judge(r, five).Copies...)
	}
	got := ""
	for _, task := range plan.ByWorker(cs, plan.Limits{Files: 2, Bytes: 100}) {
		got += fmt.Sprintf("%d:%d ", task.Worker, len(task.Items))
	}
	require.Equal(t, "2:2 2:2 2:1 ", got)
}
