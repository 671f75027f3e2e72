// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"orca"
)

// A directory that a rename takes to another group has another number there, and
// so has all below it: who renamed it goes on at the new name at once, with what
// the kernel has looked up before, and so does who works in it.
func TestARenamedDirectoryHasAnotherNumber(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) { renumbers(t, silent) })
	}
}

func renumbers(t *testing.T, silent bool) {
	fs := newMemFS(t)
	fs.silent = silent // the kernel is told nothing, so that it goes by what it has
	for _, name := range []string{inGroup2, "1"} {
		if _, err := fs.Mkdir(context.Background(), orca.Caller{}, orca.RootIno, name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, dir := mounted(t, fs, nil)
	ready(t, m)
	at := []string{filepath.Join(dir, "1", "d"), filepath.Join(dir, inGroup2, "e")}
	if err := os.MkdirAll(filepath.Join(at[0], "sub", "er"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := []string{"a", "sub/b", "sub/er/c"}
	for _, f := range files {
		write(t, filepath.Join(at[0], f), "content of "+f)
	}
	inside, err := os.Open(at[0])
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	for i := range 6 {
		from, to := at[i%2], at[1-i%2]
		for _, f := range files { // the kernel knows all of it
			if got := read(t, filepath.Join(from, f)); got != "content of "+f {
				t.Fatalf("%s: %q", f, got)
			}
		}
		if _, err := os.ReadDir(filepath.Join(from, "sub")); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(from); !os.IsNotExist(err) {
			t.Fatalf("it is still there: %v", err)
		}
		switch i % 3 {
		case 0:
			names(t, to, "a", "sub")
			names(t, filepath.Join(to, "sub"), "b", "er")
		case 1:
			write(t, filepath.Join(to, "sub", "er", fmt.Sprint("new", i)), "x")
		case 2:
			eventually(t, "the kernel looks up again what is below", func() bool { // mkdir(2) does not by itself
				err := os.Mkdir(filepath.Join(to, "sub", "made"), 0o755)
				if err != nil && !errors.Is(err, syscall.ESTALE) {
					t.Fatal(err)
				}
				return err == nil
			})
			if err := os.Remove(filepath.Join(to, "sub", "made")); err != nil {
				t.Fatal(err)
			}
		}
		after, err := os.Stat(to)
		if err != nil || os.SameFile(before, after) {
			t.Fatalf("it has the number that it had: %v", err)
		}
		// Who works in it.
		if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/at%d", inside.Fd(), i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(to, fmt.Sprint("at", i))); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(to, fmt.Sprint("at", i))); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if got := read(t, filepath.Join(to, f)); got != "content of "+f {
				t.Fatalf("%s: %q", f, got)
			}
		}
	}
}

func names(t *testing.T, dir string, want ...string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range es {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("in %s: %v", dir, got)
	}
}
