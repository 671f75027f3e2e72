// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/jobs/plan"
)

// TestTasksCoverOnce: every block of every file is in exactly one task, in
// order, and no task is over its limits but for a single block.
func TestTasksCoverOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := plan.Limits{Files: rapid.IntRange(1, 5).Draw(t, "files"), Bytes: rapid.Int64Range(1, 1000).Draw(t, "bytes")}
		var files []plan.File
		for i := range rapid.IntRange(0, 20).Draw(t, "n") {
			files = append(files, plan.File{
				Ino: orca.Ino(i + 1), Version: 1, Length: rapid.Int64Range(0, 3000).Draw(t, "len"), BlockSize: rapid.Int64Range(0, 500).Draw(t, "block"),
			})
		}
		next := map[uint64]uint32{} // block to come, by file
		bytes := map[uint64]int64{}
		last := uint64(0)
		for _, task := range plan.Tasks(files, l) {
			require.NotEmpty(t, task.Items)
			require.LessOrEqual(t, len(task.Items), l.Files)
			sum := int64(0)
			for _, i := range task.Items {
				require.GreaterOrEqual(t, i.File, last)
				last = i.File
				require.Equal(t, next[i.File], i.FirstBlock)
				next[i.File] += i.Blocks
				bytes[i.File] += i.Bytes
				sum += i.Bytes
			}
			if sum > l.Bytes {
				require.Len(t, task.Items, 1)
				i := task.Items[0]
				require.LessOrEqual(t, i.Blocks, uint32(1), "over the limit with more than one block")
			}
		}
		for _, f := range files {
			require.Equal(t, f.Length, bytes[uint64(f.Ino)])
		}
	})
}

func TestResume(t *testing.T) {
	for _, c := range []struct{ root, cursor, want string }{
		{"/", "", "[{/ }]"},
		{"/a", "", "[{/a }]"},
		{"/a", "/a", "[{/a }]"},
		{"/a", "/b/c", "[{/a }]"},
		{"/a", "/a/f", "[{/a f}]"},
		{"/", "/a/b/f", "[{/ a} {/a b} {/a/b f}]"},
		{"/a", "/a/b/f", "[{/a b} {/a/b f}]"},
	} {
		require.Equal(t, c.want, fmt.Sprint(plan.Resume(c.root, c.cursor)), "%s from %s", c.root, c.cursor)
	}
}
