// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"orca"
)

func TestCleanPath(t *testing.T) {
	for _, c := range []struct {
		in, want string
		kind     orca.Kind
	}{
		{"/", "/", orca.OK},
		{"/a/b", "/a/b", orca.OK},
		{"//a//b/", "/a/b", orca.OK},
		{"/a/./b/../c", "/a/c", orca.OK},
		{"/../..", "/", orca.OK},
		{"/a?b\\c%", "/a?b\\c%", orca.OK},
		{"", "", orca.Invalid},
		{"a/b", "", orca.Invalid},
		{"/a\x00b", "", orca.Invalid},
		{"/" + strings.Repeat("n", orca.MaxName), "/" + strings.Repeat("n", orca.MaxName), orca.OK},
		{"/" + strings.Repeat("n", orca.MaxName+1), "", orca.NameTooLong},
		{strings.Repeat("/d", orca.MaxPath), "", orca.NameTooLong},
	} {
		got, err := orca.CleanPath(c.in)
		if got != c.want || orca.KindOf(err) != c.kind {
			t.Errorf("CleanPath(%.40q) = %.40q, %v; want %.40q, kind %v", c.in, got, err, c.want, c.kind)
		}
	}
	if n := testing.AllocsPerRun(100, func() { orca.CleanPath("/a/clean/path") }); n != 0 {
		t.Errorf("a clean path costs %v allocations", n)
	}
}

func TestUnder(t *testing.T) {
	for _, c := range []struct {
		dir, p, rel string
		ok          bool
	}{
		{"/", "/a/b", "a/b", true}, {"/a", "/a/b", "b", true}, {"/a", "/a", "", true},
		{"/a", "/ab", "", false}, {"/a/b", "/a", "", false},
	} {
		if rel, ok := orca.Under(c.dir, c.p); rel != c.rel || ok != c.ok {
			t.Errorf("Under(%q, %q) = %q, %v", c.dir, c.p, rel, ok)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("wrapped: %w", orca.PathE("pkg.Op", "/p", orca.NotFound, cause))
	if !errors.Is(err, orca.NotFound) || !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, cause) || errors.Is(err, orca.Exists) {
		t.Errorf("%v does not match what it is", err)
	}
	if orca.KindOf(err) != orca.NotFound || orca.KindOf(nil) != orca.OK || orca.KindOf(cause) != orca.Internal {
		t.Error("KindOf")
	}
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if orca.EndKind(gone.Err()) != orca.Canceled || orca.EndKind(late.Err()) != orca.Timeout {
		t.Error("EndKind")
	}
	if !orca.Busy.Retryable() || orca.Corrupt.Retryable() {
		t.Error("Retryable")
	}
}

func TestBlocksOfAFile(t *testing.T) {
	a := orca.Attr{Ino: 9, Length: 150, BlockSize: 100, Version: 3, Runs: []orca.Run{{First: 0, Version: 2}, {First: 1, Version: 3}}}
	if id := a.BlockID(99); id != (orca.BlockID{File: 9, Version: 2, Index: 0}) {
		t.Error(id)
	}
	if id := a.BlockID(100); id != (orca.BlockID{File: 9, Version: 3, Index: 1}) {
		t.Error(id)
	}
	if a.BlockLength(0) != 100 || a.BlockLength(1) != 50 {
		t.Error(a.BlockLength(0), a.BlockLength(1))
	}
	id := orca.BlockID{File: orca.NewIno(3, 7), Version: 1, Index: 2}
	if back, err := orca.ParseBlockID(id.String()); err != nil || back != id {
		t.Error(back, err)
	}
	if id.File.Group() != 3 {
		t.Error(id.File.Group())
	}
}
