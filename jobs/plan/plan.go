// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package plan cuts a listing into bounded tasks, and says where a listing
// that was cut off goes on. It is pure: the job master lists, this decides.
package plan

import (
	"strings"

	"orca"
	"orca/jobs/jobpb"
)

// Limits bound one task. Zero fields have the stated defaults.
type Limits struct {
	// Files of one task; default 64.
	Files int
	// Bytes of one task; default 256 MiB. A single block may be larger.
	Bytes int64
}

func (l Limits) filled() Limits {
	if l.Files <= 0 {
		l.Files = 64
	}
	if l.Bytes <= 0 {
		l.Bytes = 256 << 20
	}
	return l
}

// File is one listed file.
type File struct {
	Ino       orca.Ino
	Version   uint32
	Path      string
	Length    int64
	BlockSize int64 // of a file of one block: any size not under its length
}

// Tasks groups files in their order: many small ones into one task, the blocks
// of a large one into several, so that each is within the limits.
func Tasks(files []File, l Limits) []*jobpb.Task {
	l = l.filled()
	var out []*jobpb.Task
	var t *jobpb.Task
	var bytes int64
	add := func(i *jobpb.Item) {
		if t == nil || len(t.Items) >= l.Files || bytes+i.Bytes > l.Bytes {
			t, bytes = &jobpb.Task{}, 0
			out = append(out, t)
		}
		t.Items = append(t.Items, i)
		bytes += i.Bytes
	}
	for _, f := range files {
		if f.BlockSize <= 0 || f.Length <= f.BlockSize {
			add(&jobpb.Item{File: uint64(f.Ino), Version: f.Version, Path: f.Path, Bytes: f.Length})
			continue
		}
		step := max(1, l.Bytes/f.BlockSize)
		blocks := (f.Length + f.BlockSize - 1) / f.BlockSize
		for b := int64(0); b < blocks; b += step {
			n := min(step, blocks-b)
			add(&jobpb.Item{
				File: uint64(f.Ino), Version: f.Version, Path: f.Path, FirstBlock: uint32(b), Blocks: uint32(n),
				Bytes: min(n*f.BlockSize, f.Length-b*f.BlockSize),
			})
		}
	}
	return out
}

// Level is a directory whose entries after After are still to be visited.
type Level struct {
	Dir   string
	After string
}

// Resume returns the directories that a walk of root has still to visit when
// it has come to cursor (""), deepest last: a walk visits entries in order,
// and goes into a directory before its next sibling. A cursor elsewhere than
// below root starts anew.
func Resume(root, cursor string) []Level {
	rel, ok := orca.Under(root, cursor)
	if !ok || rel == "" {
		return []Level{{Dir: root}}
	}
	names := strings.Split(rel, "/")
	out := make([]Level, 0, len(names))
	dir := root
	for _, n := range names {
		out = append(out, Level{Dir: dir, After: n})
		dir = orca.JoinPath(dir, n)
	}
	return out
}
