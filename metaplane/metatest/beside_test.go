// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// twoBeside has a mount with two directories, /m/1 and /m/2, that live in the second
// group, each by itself.
func twoBeside(t *testing.T) (p *pair, store string) {
	p = newPairOn(t, true)
	store = t.TempDir()
	p.mount("/m", "file://"+store, 0)
	for _, dir := range []string{"/m/1", "/m/2"} {
		_, err := p.mkdirIn(dir, 2)
		require.NoError(t, err)
	}
	return p, store
}

// What is renamed between two directories that live in the same group, each by
// itself, arrives as it would in another group.
func TestARenameBetweenDirectoriesOfOneGroup(t *testing.T) {
	t.Parallel()
	p, store := twoBeside(t)
	ctx := t.Context()
	p.put(store, "1/f", "content")
	p.put(store, "2/have", "replaced")
	rename := func(src, dst string, exclusive bool) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: at(src), Dst: at(dst), NoReplace: exclusive})
		return err
	}
	require.ErrorIs(t, rename("/m/1/f", "/m/2/have", true), orca.Exists)
	require.ErrorIs(t, rename("/m/1/none", "/m/2/x", false), orca.NotFound)
	require.ErrorIs(t, rename("/m/1/f", "/m/2/none/f", false), orca.NotFound)
	require.NoError(t, rename("/m/1/f", "/m/2/have", false))
	require.Equal(t, "7", p.is("/m/2/have"))
	require.Empty(t, p.names("/m/1"))
	got, err := os.ReadFile(filepath.Join(store, "2/have"))
	require.NoError(t, err)
	require.Equal(t, "content", string(got))
	// By the number of its directory, into one that was never listed.
	dir, err := p.stat("/m/2")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(store, "1/never/listed"), 0o755))
	_, err = p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m/1")})
	require.NoError(t, err)
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: &metapb.Target{Ino: dir.Ino, Path: "have"}, Dst: at("/m/1/never/listed/f")})
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(store, "1/never/listed/f"))
	require.NoError(t, rename("/m/1/never/listed/f", "/m/1/f", false), "within one of them it is a rename like any other")
	// Two of them change places; so do a file and a link.
	p.put(store, "2/long", "another one")
	p.symlink("/m/2/l", "f")
	trade := func(a, b string) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: at(a), Dst: at(b), Exchange: true})
		return err
	}
	require.NoError(t, trade("/m/1/f", "/m/2/long"))
	require.Equal(t, [2]string{"11", "7"}, [2]string{p.is("/m/1/f"), p.is("/m/2/long")})
	require.NoError(t, trade("/m/1/f", "/m/2/l"))
	require.Equal(t, [2]string{"-> f", "11"}, [2]string{p.is("/m/1/f"), p.is("/m/2/l")})
	// A directory with all that is below it.
	p.furnish(store, "/m/1/d")
	want, stored := p.seenAs("/m/1/d", "/m/2/d"), inStore(t, store, "/m/1/d")
	require.NoError(t, rename("/m/1/d", "/m/2/d", false))
	require.Equal(t, want, p.seenAs("/m/2/d", "/m/2/d"))
	require.Equal(t, stored, inStore(t, store, "/m/2/d"))
	require.NoDirExists(t, filepath.Join(store, "1/d"))
	p.mkdir("/m/1/stays")
	p.cached("/m/1/stays/f")
	require.ErrorIs(t, rename("/m/1/stays", "/m/2/stays", false), orca.CrossMount, "a file in it is not in the store")
	p.check()
	require.Empty(t, p.second.Machine().Staged())
	require.ErrorIs(t, rename("/m/1", "/m/2/d/1", false), orca.CrossMount, "each of them stays")
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	p.forgotten()
}

// Who leads the group dies at every point of such a rename: the next one brings it to
// its end, and the request that began it has one answer.
func TestRenamesBetweenDirectoriesOfOneGroupSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p, store := twoBeside(t)
	points := []string{"sending", "self", "staging self", "staging pages", "staging seal", "pages", "seal", "bringing", "transfer", "receiving", "store", "deciding receive", "deciding transfer"}
	seq := uint64(0)
	for i := range 4 * len(points) {
		point, tree, over := []string{"before ", "after "}[i%2]+points[i/4], i/2%2 == 0, (i+i/4)%2 == 1
		ofTrees := i/4 > 0 && i/4 < 8
		if seq++; spared(seq, 4) || ofTrees && !tree {
			continue
		}
		name := fmt.Sprintf("%s %v %v", point, tree, over)
		src, dst := "/m/1/"+name, "/m/2/"+name
		if tree {
			p.furnish(store, src)
		} else {
			p.put(store, src[2:], "content")
		}
		want, stored := p.seenAs(src, dst), inStore(t, store, src)
		var old uint64
		if over {
			if tree {
				p.mkdir(dst)
			} else {
				p.put(store, dst[2:], "replaced")
			}
			a, err := p.stat(dst)
			require.NoError(t, err)
			old = a.Ino
		}
		p.cut.Store(point)
		require.Error(t, p.asOne(2, seq, src, dst), name)
		require.Eventually(t, func() bool { return p.dead[2].Load() }, time.Minute, time.Millisecond, name)
		p.notTwice(src, dst, old)
		p.restart()
		p.quiet(name, func() { p.notTwice(src, dst, old) })
		for range 2 {
			require.Eventually(t, func() bool { return p.asOne(2, seq, src, dst) == nil }, time.Minute, 5*time.Millisecond, name)
			_, err := p.stat(src)
			require.ErrorIs(t, err, orca.NotFound, name)
			if tree {
				require.Equal(t, want, p.seenAs(dst, dst), name)
			}
			require.Equal(t, stored, inStore(t, store, dst), name)
			require.NoFileExists(t, filepath.Join(store, src[2:]))
		}
		p.check()
		require.NoError(t, p.remove(dst, true))
	}
	p.forgotten()
}
