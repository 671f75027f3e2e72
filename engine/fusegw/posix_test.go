// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A behaviour runs on a fresh directory and returns what it saw. It must see
// the same on a native file system and on the mount.
type behaviour struct {
	name string
	run  func(d string, names int) string
}

// say records results.
type say struct{ strings.Builder }

func (s *say) f(format string, a ...any) { fmt.Fprintf(&s.Builder, format+"\n", a...) }

// err records an error by its errno, so that messages do not matter.
func (s *say) err(what string, err error) {
	var e syscall.Errno
	switch {
	case err == nil:
		s.f("%s: ok", what)
	case errors.As(err, &e):
		s.f("%s: %s", what, unix.ErrnoName(e))
	default:
		s.f("%s: %v", what, err)
	}
}

func (s *say) content(p string) {
	b, err := os.ReadFile(p)
	s.err("read", err)
	if len(b) > 64 {
		s.f("%d bytes %x", len(b), sha256.Sum256(b))
	} else {
		s.f("%q", b)
	}
}

func (s *say) stat(p string) {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	s.err("stat", err)
	if err == nil {
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		s.f("mode %o size %d", st.Mode, size)
	}
}

// behaviours lists them all. names is how many names large directories get.
func behaviours() []behaviour {
	return []behaviour{
		{"create and read back", behaveCreateAndReadBack},
		{"empty file", behaveEmptyFile},
		{"append", behaveAppend},
		{"random write in place", behaveRandomWriteInPlace},
		{"truncate", behaveTruncate},
		{"odd opens", behaveOddOpens},
		{"rename", behaveRename},
		{"rename while open", behaveRenameWhileOpen},
		{"unlink while open", behaveUnlinkWhileOpen},
		{"removed after its creator has gone", behaveRemovedAfterItsCreatorHasGone},
		{"exclusive create", behaveExclusiveCreate},
		{"directories", behaveDirectories},
		{"cwd in a new directory", behaveCwdInANewDirectory},
		{"many names", behaveManyNames},
		{"removing while listing", behaveRemovingWhileListing},
		{"times", behaveTimes},
		{"modes and owners", behaveModesAndOwners},
		{"permission", behavePermission},
		{"symbolic links", behaveSymbolicLinks},
		{"hard links", behaveHardLinks},
		{"exchange", behaveExchange},
		{"sticky", behaveSticky},
		{"extended attributes", behaveExtendedAttributes},
		{"mmap", behaveMmap},
		{"sparse", behaveSparse},
		{"readers see what a writer has written", behaveReadersSeeWhatAWriterHasWritten},
		{"duplicated descriptors", behaveDuplicatedDescriptors},
		{"refusals", behaveRefusals},
		{"locks", behaveLocks},
		{"replaced under readers", behaveReplacedUnderReaders},
		{"concurrent opens of one file", behaveConcurrentOpensOfOneFile},
	}
}

// variants are the ways in which a worker can hold content.
var variants = []struct {
	name   string
	config func(*memFS, *Config)
}{
	{"passthrough", func(*memFS, *Config) {}},
	{"through the daemon", func(_ *memFS, c *Config) { c.NoPassthrough = true }},
	{"partly cached", func(m *memFS, _ *Config) { m.noBacking = true }},
	{"remote worker", func(m *memFS, _ *Config) { m.noBacking, m.noLocal = true, true }},
	{"no kernel cache", func(m *memFS, _ *Config) { m.ttl = 0 }},
	{"no watch stream", func(m *memFS, _ *Config) { m.down = true }},
}

// childRun makes the test binary run one behaviour: what faults on a mapped
// page of the mount must not be the process that serves it, since a collection
// there would wait for that fault, and the fault for the collection.
const childRun = "FUSEGW_TEST_RUN"

func TestBehaviourChild(t *testing.T) {
	name := os.Getenv(childRun)
	if name == "" {
		return // only a helper of the tests below
	}
	names, err := strconv.Atoi(os.Getenv(childRun + "_NAMES"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range behaviours() {
		if b.name == name {
			fmt.Print("<<<" + b.run(os.Getenv(childRun+"_DIR"), names) + ">>>")
			return
		}
	}
	t.Fatal("no such behaviour")
}

func inChild(t *testing.T, name string, names int, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestBehaviourChild$")
	cmd.Env = append(os.Environ(), childRun+"="+name, childRun+"_DIR="+dir, fmt.Sprintf("%s_NAMES=%d", childRun, names))
	out, err := cmd.CombinedOutput()
	_, rest, _ := strings.Cut(string(out), "<<<")
	said, _, ok := strings.Cut(rest, ">>>")
	if err != nil || !ok {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return said
}

func TestBehavesAsANativeFileSystem(t *testing.T) {
	native := map[string]string{}
	run := func(t *testing.T, names int, b behaviour, d string) {
		key := fmt.Sprint(names, b.name)
		if _, ok := native[key]; !ok {
			native[key] = inChild(t, b.name, names, fastDir(t))
		}
		if got := inChild(t, b.name, names, d); got != native[key] {
			t.Errorf("got\n%s\nnative\n%s", got, native[key])
		}
	}
	for i, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			names := 200
			if i == 0 {
				names = 5000
			}
			fs := newMemFS(t)
			var cfg Config
			v.config(fs, &cfg)
			m, dir := mounted(t, fs, func(c *Config) { c.NoPassthrough = cfg.NoPassthrough })
			if !fs.down {
				eventually(t, "the watch stream is up", m.Metrics().WatchUp.Load)
			}
			for i, b := range behaviours() {
				t.Run(b.name, func(t *testing.T) {
					d := filepath.Join(dir, fmt.Sprint(i))
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Fatal(err)
					}
					run(t, names, b, d)
				})
			}
		})
	}
}
