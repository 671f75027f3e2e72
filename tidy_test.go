// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const (
	maxFileLines = 800
	maxFuncLines = 120
	maxBlob      = 1 << 20
	licenseLine  = "SPDX-License-Identifier: Apache-2.0"
)

// drains are package names that say nothing, each with what to do instead.
var drains = map[string]string{
	"util": "name the thing", "utils": "name the thing", "common": "name the thing",
	"base": "name the thing", "misc": "name the thing", "helper": "inline it",
	"helpers": "inline it", "core": "name the job", "manager": "name the job",
	"impl": "drop the layer", "types": "put them with their contract",
}

// bannedCalls are selector expressions with the reason.
var bannedCalls = map[string]string{
	"fs.ToErrno":    "engine/errmap is the one table",
	"fuse.ToStatus": "engine/errmap is the one table",
}

// pureRooms may not read the clock or chance.
var pureRooms = []string{"metaplane/fsm", "metaplane/inode", "metaplane/command", "tiers/evict", "tiers/alloc", "jobs/plan", "jobs/machine", "dataplane/frame"}

// TestTidy enforces the house rules on every source file.
func TestTidy(t *testing.T) {
	docs := map[string]bool{}
	names := map[string]string{}
	for _, f := range sources(t, parser.SkipObjectResolution) {
		if f.gen {
			continue
		}
		checkFile(t, f)
		if f.test {
			continue
		}
		docs[f.pkg] = docs[f.pkg] || f.ast.Doc != nil
		if name := f.ast.Name.Name; name != "main" {
			if other, ok := names[name]; ok && other != f.pkg {
				t.Errorf("package name %s is used by %s and %s", name, other, f.pkg)
			}
			names[name] = f.pkg
		}
		if better, bad := drains[path.Base(f.pkg)]; bad {
			t.Errorf("%s: package name says nothing: %s", f.pkg, better)
		}
	}
	for pkg, ok := range docs {
		if !ok && !strings.HasSuffix(pkg, "pb") {
			t.Errorf("package %q has no package documentation", pkg)
		}
	}
}

func checkFile(t *testing.T, f goFile) {
	t.Helper()
	src, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(src, []byte("\n")); n > maxFileLines {
		t.Errorf("%s: %d lines, over %d: split it", f.path, n, maxFileLines)
	}
	if first, _, _ := strings.Cut(string(src), "\n"); !strings.Contains(first, licenseLine) && !strings.Contains(first, "generated") {
		t.Errorf("%s: first line lacks the licence", f.path)
	}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line
		if lines > maxFuncLines {
			t.Errorf("%s: %s has %d lines, over %d", f.path, fn.Name.Name, lines, maxFuncLines)
		}
		if fn.Name.Name == "init" && fn.Recv == nil && !f.test {
			t.Errorf("%s: func init hides an input: pass it", f.path)
		}
	}
	if !f.test {
		checkCalls(t, f)
	}
}

func checkCalls(t *testing.T, f goFile) {
	t.Helper()
	pure := false
	for _, p := range pureRooms {
		pure = pure || f.pkg == p
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		name := x.Name + "." + sel.Sel.Name
		at := f.fset.Position(sel.Pos())
		if why, bad := bannedCalls[name]; bad {
			t.Errorf("%s: %s: %s", at, name, why)
		}
		if pure && (name == "time.Now" || name == "time.Since" || x.Name == "rand") {
			t.Errorf("%s: %s in a pure package", at, name)
		}
		if name == "os.Exit" && !strings.Contains(f.pkg, "cmd/") {
			t.Errorf("%s: os.Exit belongs in main", at)
		}
		if name == "os.Getenv" && !strings.HasPrefix(f.pkg, "engine/cli") && !strings.Contains(f.pkg, "cmd/") {
			t.Errorf("%s: the environment is read in engine/cli alone", at)
		}
		return true
	})
}

// TestNoStrayBlobs keeps binaries and large files out of the repository.
func TestNoStrayBlobs(t *testing.T) {
	out, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		st, err := os.Lstat(name)
		if err != nil {
			continue // deleted in the work tree
		}
		if st.Size() > maxBlob {
			t.Errorf("%s: %d bytes, over %d", name, st.Size(), maxBlob)
		}
	}
}

// TestPebblePin guards the one version of the log's pebble that builds.
func TestPebblePin(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "github.com/cockroachdb/pebble").Output()
	if err != nil {
		t.Fatal(err)
	}
	const want = "github.com/cockroachdb/pebble v0.0.0-20221207173255-0f086d933dac"
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("pebble for the Raft log is %q, want %q", got, want)
	}
}
