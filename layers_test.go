// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// below lists, for each room, the rooms that its product code may import
// besides itself and the vocabulary. DO NOT CHANGE THIS TABLE TO FIX A BUILD:
// a rule changes only with an ADR.
var below = map[string][]string{
	"":          {},
	"dataplane": {},
	"ufs":       {},
	"tiers":     {"dataplane", "ufs"},
	"metaplane": {"dataplane", "ufs"},
	"jobs":      {"metaplane", "tiers", "dataplane", "ufs"},
	"engine":    {"jobs", "metaplane", "tiers", "dataplane", "ufs"},
	"bench":     {"engine", "jobs", "metaplane", "tiers", "dataplane", "ufs", "perf"},
	"perf":      {},
	"fuzz":      {"bench", "engine", "jobs", "metaplane", "tiers", "dataplane", "ufs"},
}

// owners gives each third-party engine its only importers.
var owners = map[string][]string{
	"github.com/cloudwego/netpoll":        {"dataplane/transport", "bench/baseline"}, // ADR 0005
	"github.com/valyala/bytebufferpool":   {"dataplane/transport"},
	"github.com/lni/dragonboat":           {"metaplane/raftgroup"},
	"github.com/lni/vfs":                  {"metaplane/raftgroup"}, // dragonboat's disk
	"github.com/cockroachdb/pebble/v2":    {"metaplane/inodekv"},
	"github.com/cockroachdb/pebble":       nil, // the pin is dragonboat's alone
	"github.com/hanwen/go-fuse":           {"engine/fusegw"},
	"github.com/google/pprof":             {"perf/capture"},
	"github.com/aws/aws-sdk-go-v2":        {"ufs/s3"},
	"github.com/spf13/cobra":              {"engine/cli", "bench/cmd/orcabench"},
	"github.com/prometheus/client_golang": {"engine/telemetry"},
	"github.com/HdrHistogram/":            {"bench/hist"},
	"github.com/vbauerster/mpb":           {"engine/cli"},
	"github.com/lmittmann/tint":           {"engine/telemetry"},
	"github.com/colinmarc/hdfs":           {"bench/target"}, // ADR 0005
	"github.com/anishathalye/porcupine":   {"fuzz/sim"},
	"github.com/stretchr/testify":         nil, // tests only
	"pgregory.net/rapid":                  nil,
	"go.uber.org/goleak":                  nil,
	"github.com/rogpeppe/go-internal":     nil,
	"google.golang.org/protobuf/reflect":  nil,                // generated code only
	"google.golang.org/grpc":              {"bench/baseline"}, // ADR 0008
	"github.com/planetscale/vtprotobuf":   nil,
}

// goFile is one parsed source file of the module.
type goFile struct {
	path string // slash separated, relative to the module
	pkg  string // folder, "" for the root
	test bool
	gen  bool
	fset *token.FileSet
	ast  *ast.File
}

func sources(t *testing.T, mode parser.Mode) []goFile {
	t.Helper()
	var out []goFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, mode|parser.ParseComments)
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(p)
		dir := path.Dir(slash)
		if dir == "." {
			dir = ""
		}
		out = append(out, goFile{
			path: slash, pkg: dir, fset: fset, ast: f,
			test: strings.HasSuffix(p, "_test.go"),
			gen:  strings.HasSuffix(p, ".pb.go"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("found only %d files: the walk is broken", len(out))
	}
	return out
}

func room(pkg string) string {
	r, _, _ := strings.Cut(pkg, "/")
	return r
}

func within(importPath, prefix string) bool {
	rest, ok := strings.CutPrefix(importPath, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}

// violations returns what is wrong with one import, "" if nothing.
func violation(pkg, imp string) string {
	if imp == "orca" || strings.HasPrefix(imp, "orca/") {
		target := room(strings.TrimPrefix(strings.TrimPrefix(imp, "orca"), "/"))
		if target == "" || target == room(pkg) || slices.Contains(below[room(pkg)], target) {
			return ""
		}
		return "imports up or sideways"
	}
	longest, allowed, found := "", []string(nil), false
	for prefix, pkgs := range owners {
		if within(imp, prefix) && len(prefix) > len(longest) {
			longest, allowed, found = prefix, pkgs, true
		}
	}
	if found && !slices.Contains(allowed, pkg) {
		return "is not the owner"
	}
	return ""
}

// TestLayers holds the imports of product code against the two tables.
func TestLayers(t *testing.T) {
	for _, f := range sources(t, parser.ImportsOnly) {
		if f.test || f.gen {
			continue
		}
		if _, known := below[room(f.pkg)]; !known {
			t.Errorf("%s: room %q is not in the table", f.path, room(f.pkg))
			continue
		}
		for _, spec := range f.ast.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if strings.Contains(f.pkg, "test") && len(owners[imp]) == 0 && !strings.HasPrefix(imp, "orca") {
				continue // conformance suites use the test libraries
			}
			if why := violation(f.pkg, imp); why != "" {
				t.Errorf("%s: %s %s", f.path, why, imp)
			}
		}
	}
}

// TestLayersCatchPlanted proves that the law can fail.
func TestLayersCatchPlanted(t *testing.T) {
	for _, c := range [][2]string{
		{"ufs/local", "orca/tiers"},
		{"tiers/tiered", "orca/metaplane/fsm"},
		{"dataplane", "orca/ufs"},
		{"metaplane/fsm", "github.com/lni/dragonboat/v4"},
		{"metaplane/raftgroup", "github.com/cockroachdb/pebble/vfs"},
		{"engine/client", "github.com/hanwen/go-fuse/v2/fuse"},
		{"engine/client", "orca/bench/hist"},
	} {
		if violation(c[0], c[1]) == "" {
			t.Errorf("%s importing %s was not caught", c[0], c[1])
		}
	}
	for _, c := range [][2]string{
		{"tiers/tiered", "orca/dataplane"},
		{"metaplane/inodekv", "github.com/cockroachdb/pebble/v2/vfs"},
		{"metaplane/raftgroup", "github.com/lni/dragonboat/v4/config"},
	} {
		if why := violation(c[0], c[1]); why != "" {
			t.Errorf("%s importing %s: %s", c[0], c[1], why)
		}
	}
}
