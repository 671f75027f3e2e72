// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

func (w *world) must(c *command.Command) *command.Result {
	w.t.Helper()
	r := w.do(c)
	require.Zero(w.t, r.Kind, "%s %s", r.Path, r.Msg)
	return r
}

func mkdirs(path string) *command.Command {
	return &command.Command{Mkdir: &metapb.MkdirOp{Target: at(path), Mode: 0o755, Parents: true}}
}

func touchFile(path string) *command.Command {
	return &command.Command{Create: &metapb.CreateOp{
		Target: at(path), Mode: 0o644, Complete: true, WriteType: uint32(orca.MustCache),
	}}
}

func mountOp(path, uri string, opts map[string]string) *command.Command {
	return &command.Command{Mount: &metapb.MountOp{Mount: &metapb.Mount{Path: path, Uri: uri, SyncIntervalMs: -1, Options: opts}}}
}

func TestReads(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	w.must(mkdirs("/a/b"))
	f := w.must(touchFile("/a/b/f"))
	ino := orca.Ino(f.Attr.Ino)

	p, err := w.m.Path(ino)
	require.NoError(t, err)
	require.Equal(t, "/a/b/f", p)
	p, err = w.m.Path(orca.Ino(f.Parent))
	require.NoError(t, err)
	require.Equal(t, "/a/b", p)
	v, err := w.m.Lookup(ino)
	require.NoError(t, err)
	require.Equal(t, "f", v.Name)
	require.Equal(t, w.index, v.Change)

	walked, err := w.m.Walk(orca.Caller{}, orca.Ino(f.Parent), "f")
	require.NoError(t, err)
	require.True(t, walked.Found)
	require.Equal(t, f.Parent, walked.Dir.Attr.Ino)
	walked, err = w.m.Walk(orca.Caller{}, ino, "")
	require.NoError(t, err)
	require.Equal(t, f.Attr.Ino, walked.Attr.Ino)
	_, err = w.m.Walk(orca.Caller{}, ino, "x")
	require.ErrorIs(t, err, orca.NotDir)
	_, err = w.m.Walk(orca.Caller{}, 999, "x")
	require.ErrorIs(t, err, orca.NotFound)
	_, err = w.m.Walk(orca.Caller{}, 0, "/"+strings.Repeat("n", 256))
	require.ErrorIs(t, err, orca.NameTooLong)
	_, _, err = w.m.Children(orca.Caller{}, ino, "", 10)
	require.ErrorIs(t, err, orca.NotDir)

	require.NoError(t, w.m.Access(orca.Caller{UID: 5}, ino, mayRead))
	require.ErrorIs(t, w.m.Access(orca.Caller{UID: 5}, ino, mayWrite), orca.Permission)
	require.ErrorIs(t, w.m.Access(orca.Caller{}, ino, mayExec), orca.Permission, "nobody may execute it")

	w.must(&command.Command{Xattr: &metapb.XattrOp{Target: at("/a/b/f"), Name: "user.k", Value: []byte("v")}})
	w.must(&command.Command{Xattr: &metapb.XattrOp{Target: at("/a/b/f"), Name: "trusted.k", Value: []byte("v")}})
	val, err := w.m.Xattr(orca.Caller{UID: 5}, ino, "user.k")
	require.NoError(t, err)
	require.Equal(t, "v", string(val))
	_, err = w.m.Xattr(orca.Caller{UID: 5}, ino, "trusted.k")
	require.ErrorIs(t, err, orca.Permission)
	_, err = w.m.Xattr(orca.Caller{}, ino, "user.none")
	require.ErrorIs(t, err, orca.NoData)
	names, err := w.m.Xattrs(orca.Caller{}, ino)
	require.NoError(t, err)
	require.Equal(t, []string{"trusted.k", "user.k"}, names)
	names, err = w.m.Xattrs(orca.Caller{UID: 5}, ino)
	require.NoError(t, err)
	require.Equal(t, []string{"user.k"}, names)

	w.must(&command.Command{Delete: &metapb.DeleteOp{Target: at("/a"), Recursive: true}})
	for _, gone := range []orca.Ino{ino, orca.Ino(f.Parent)} {
		_, err = w.m.Lookup(gone)
		require.ErrorIs(t, err, orca.NotFound, "what is in the trash is gone")
		_, err = w.m.Path(gone)
		require.ErrorIs(t, err, orca.NotFound)
	}
	w.must(&command.Command{SweepTrash: &metapb.SweepTrashOp{}})
	require.Zero(t, w.m.Counts().Files)
	require.NoError(t, w.m.Check())
	require.NoError(t, w.m.scan(inode.SpaceXattr, func(k, _ []byte) bool {
		require.Fail(t, "an attribute outlives its file", "%q", k)
		return true
	}))
}

// TestSecretsStayInTheTable: a remembered result holds no mount options.
func TestSecretsStayInTheTable(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	r := w.must(mountOp("/s", "s3://b", map[string]string{"s3.secret_key": "hush", "a": "1", "b": "2"}))
	require.Empty(t, r.Mount.Mount.Options)
	for range 2 {
		mt, err := w.m.Mount(r.Mount.Mount.Id)
		require.NoError(t, err)
		require.Equal(t, "hush", mt.Mount.Options["s3.secret_key"])
		w.reopen()
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 2, MaxIntents: 2, MaxClients: 16}, nil)
	w.must(mountOp("/", "s3://b", nil))
	open := func(name string) *command.Command {
		return &command.Command{Create: &metapb.CreateOp{Target: at(name), WriteType: uint32(orca.MustCache)}}
	}
	w.must(open("/s1"))
	w.must(open("/s2"))
	require.Equal(t, uint32(orca.Busy), w.do(open("/s3")).Kind)
	w.must(mkdirs("/d1"))
	w.must(mkdirs("/d2"))
	require.Equal(t, uint32(orca.Busy), w.do(mkdirs("/d3")).Kind)

	long := "/" + strings.Repeat(strings.Repeat("p", 250)+"/", 15) + strings.Repeat("q", 255)
	require.Equal(t, uint32(orca.NameTooLong), w.do(mkdirs(long+strings.Repeat("x", 200))).Kind)

	for client := range uint64(40) {
		c := touchFile(fmt.Sprintf("/f%d", client))
		c.Client, c.Seq = client+100, 1
		w.must(c)
	}
	require.LessOrEqual(t, w.m.Counts().Clients, int64(16))
	old, fresh := touchFile("/f0"), touchFile("/f39")
	old.Client, old.Seq, old.AckedBelow = 100, 2, 2
	require.Equal(t, uint32(orca.SessionExpired), w.do(old).Kind, "a forgotten client is told so")
	fresh.Client, fresh.Seq = 139, 1
	require.Zero(t, w.do(fresh).Kind, "a remembered one gets its result")
	before := w.dump()
	w.reopen()
	require.Equal(t, int64(len(w.m.clients)), w.m.Counts().Clients)
	require.Equal(t, before, w.dump())
}

func TestMalformedCommandsAreRefused(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	require.Equal(t, uint32(orca.Invalid), w.do(&command.Command{}).Kind)
	var e command.Entry
	e.Add([]byte{1, 0xff})
	e.Add([]byte{9})
	for _, data := range [][]byte{e.Bytes(), {0xC0, 200}, {7}} {
		w.index++
		outs, err := w.m.Apply([]Entry{{Index: w.index, Data: data}})
		require.NoError(t, err)
		require.NoError(t, command.Split(outs[0].Results, func(_ int, b []byte) error {
			var r command.Result
			require.NoError(t, command.DecodeResult(b, &r))
			require.Equal(t, uint32(orca.Corrupt), r.Kind)
			return nil
		}))
	}
	_, err := w.m.Apply([]Entry{{Index: w.index, Data: e.Bytes()}})
	require.Error(t, err, "an entry twice")
}

// TestDeepAndWideTrash sweeps a deep chain and a wide directory in small steps.
func TestDeepAndWideTrash(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	deep := "/t" + strings.Repeat("/d", 900)
	w.must(mkdirs(deep))
	w.must(touchFile(deep + "/f"))
	for i := range 300 {
		w.must(mkdirs(fmt.Sprintf("/t/w%d", i)))
		w.must(touchFile(fmt.Sprintf("/t/f%d", i)))
	}
	w.must(&command.Command{Delete: &metapb.DeleteOp{Target: at("/t"), Recursive: true}})
	steps := 0
	for more := true; more; steps++ {
		more = w.must(&command.Command{SweepTrash: &metapb.SweepTrashOp{Limit: 100}}).More
		if steps%5 == 0 {
			w.reopen()
		}
	}
	require.Greater(t, steps, 10)
	c := w.m.Counts()
	require.Zero(t, c.Files)
	require.Equal(t, int64(1), c.Dirs)
	require.NoError(t, w.m.Check())
}

// TestNamesAreForgottenOverTheCap runs create and delete with the presence
// hashes being dropped at any time.
func TestNamesAreForgottenOverTheCap(t *testing.T) {
	w := newWorld(t, Config{CacheEntries: 1}, nil)
	w.must(mkdirs("/d"))
	for i := range 200 {
		w.must(touchFile(fmt.Sprintf("/d/%d", i)))
		if i%7 == 0 {
			w.m.forgetNames()
		}
		require.Equal(t, uint32(orca.Exists), w.do(touchFile(fmt.Sprintf("/d/%d", i/2))).Kind)
		if i%3 == 0 {
			w.must(&command.Command{Delete: &metapb.DeleteOp{Target: at(fmt.Sprintf("/d/%d", i))}})
			w.must(touchFile(fmt.Sprintf("/d/%d", i)))
		}
	}
	require.NoError(t, w.m.Check())
	require.Positive(t, w.m.Counts().PresenceHit)
}

// TestReadersBesideApply is for the race detector.
func TestReadersBesideApply(t *testing.T) {
	w := newWorld(t, Config{CacheEntries: 64}, map[string]Hosted{"jobs": &journal{}})
	w.must(mountOp("/", "file:///r", nil))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if cs, _, err := w.m.Children(orca.Caller{}, orca.RootIno, "", 50); err == nil {
					for _, c := range cs {
						_, _ = w.m.Path(orca.Ino(c.Attr.Ino))
						_, _ = w.m.Lookup(orca.Ino(c.Attr.Ino))
					}
				}
				for _, s := range w.m.Sessions() {
					_ = s.State
				}
				for _, mt := range w.m.Mounts() {
					_ = mt.Unpersisted
				}
				_ = w.m.Intents()
				_ = w.m.Counts()
				w.m.ReadHosted("jobs", func(s Store) { _ = s.Get([]byte("log")) })
			}
		})
	}
	for i := range 300 {
		c := touchFile(fmt.Sprintf("/f%d", i%50))
		c.Create.Overwrite, c.Create.WriteType = true, uint32(orca.AsyncThrough)
		w.do(c)
		w.do(&command.Command{Create: &metapb.CreateOp{Target: at(fmt.Sprintf("/s%d", i)), WriteType: uint32(orca.MustCache)}})
		w.do(&command.Command{Renew: &metapb.RenewOp{Sessions: []uint64{uint64(i)}}})
		w.do(&command.Command{Hosted: &metapb.HostedOp{Machine: "jobs", Body: []byte("x")}})
	}
	close(done)
	wg.Wait()
}

// BenchmarkApply is create, 64 commands in an entry.
func BenchmarkApply(b *testing.B) {
	w := newWorld(b, Config{}, nil)
	w.must(mkdirs("/some/dir/deep"))
	b.ReportAllocs()
	b.ResetTimer()
	var e command.Entry
	for i := 0; i < b.N; {
		e.Reset(true)
		for ; e.Len() < 64; i++ {
			c := touchFile(fmt.Sprintf("/some/dir/deep/%d", i))
			c.Client, c.Seq, c.AckedBelow, c.Now = 1, uint64(i+1), uint64(max(i-64, 1)), int64(i)
			raw, _ := command.Append(nil, c)
			e.Add(raw)
		}
		w.index++
		if _, err := w.m.Apply([]Entry{{Index: w.index, Data: e.Bytes()}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWalk is a stat of a file four names deep.
func BenchmarkWalk(b *testing.B) {
	w := newWorld(b, Config{}, nil)
	w.must(mkdirs("/some/dir/deep"))
	w.must(mountOp("/some/dir/deep/m", "s3://b", nil))
	w.must(touchFile("/some/dir/deep/m/f"))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := w.m.Walk(orca.Caller{}, 0, "/some/dir/deep/m/f"); err != nil {
			b.Fatal(err)
		}
	}
}
