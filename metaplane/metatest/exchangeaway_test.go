// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/ufs"
	"orca/ufs/s3"
	"orca/ufs/ufstest"
	"orca/ufs/ufstest/minio"
	"orca/ufs/wrap"
)

// trade has two names change places as one request of a client, however often it is
// made.
func (p *pair) trade(group int, seq uint64, a, b string) error {
	return p.request(group, &metapb.RenameRequest{H: &metapb.Header{Client: 78, Seq: seq}, Src: at(a), Dst: at(b), Exchange: true})
}

// request renames at a group's service, which may be dead.
func (p *pair) request(group int, r *metapb.RenameRequest) error {
	ctx, cancel := p.asking()
	defer cancel()
	s := p.one
	if group == 2 {
		s = p.two
	}
	_, err := s.Rename(ctx, r)
	return err
}

// parted is a pair with a mount whose directory 1 is in the first group, and 2 in the
// second.
func parted(t *testing.T, uri string) *pair {
	p := newPairOn(t, true)
	p.divide(uri)
	return p
}

func (p *pair) divide(uri string) {
	p.t.Helper()
	p.mount("/m", uri, 0)
	_, err := p.mkdirIn("/m/2", 2)
	require.NoError(p.t, err)
	_, err = p.ns.Mkdir(p.t.Context(), &metapb.MkdirRequest{Target: at("/m/1"), Mode: 0o755})
	require.NoError(p.t, err)
}

// is what can be read of a name: the length of a file, where a link leads, "" while
// it cannot be.
func (p *pair) is(path string) string { return p.seenBy(p.ns, path) }

// isNow is is, without waiting for what is on its way.
func (p *pair) isNow(path string) string { return p.seenBy(p.hasty, path) }

func (p *pair) seenBy(ns metaplane.Namespace, path string) string {
	r, err := ns.Stat(p.t.Context(), &metapb.StatRequest{Target: at(path)})
	switch a := r.GetAttr(); {
	case err != nil:
		return ""
	case a.Target != "":
		return "-> " + a.Target
	default:
		return fmt.Sprint(a.Length)
	}
}

// quiet waits until nothing is under way, while check holds.
func (p *pair) quiet(what string, check func()) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		check()
		return len(p.host.Group().Machine().Intents())+len(p.second.Machine().Intents()) == 0
	}, time.Minute, 5*time.Millisecond, what)
}

// restart has the next leaders take over from those that are dead.
func (p *pair) restart() {
	p.cut.Store("")
	p.leave()
	p.serve()
}

var transferPoints = []string{
	"before sending", "after sending", "before transfer", "after transfer", "before receiving", "after receiving",
	"before store", "after store", "before deciding receive", "after deciding receive", "before deciding transfer", "after deciding transfer",
}

// Who leads either group dies at every point of an exchange between them, of files
// and of links, which the store has nothing of: the next one brings it to its end,
// the request has one answer, and the two have changed places once.
func TestExchangesOfGroupsSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	p := parted(t, "file://"+store)
	seq := uint64(0)
	for kinds, from := range map[string]string{"file file": "12", "file link": "1", "link file": "2", "link link": "1"} {
		for _, from := range strings.Split(from, "") {
			to := map[string]string{"1": "2", "2": "1"}[from]
			for _, point := range transferPoints {
				if kinds == "link link" && (strings.HasSuffix(point, "store") || strings.HasSuffix(point, "deciding receive")) {
					continue // the store has nothing to do
				}
				if seq++; spared(seq, uint64(len(transferPoints))) {
					continue
				}
				name := fmt.Sprintf("%s from %s %s", point, from, kinds)
				group := int(from[0] - '0')
				a, b := "/m/"+from+"/"+name, "/m/"+to+"/"+name
				for i, path := range []string{a, b} {
					if content := []string{"this one", "that"}[i]; strings.Fields(kinds)[i] == "file" {
						p.put(store, path[2:], content)
					} else {
						p.symlink(path, content)
					}
				}
				is := [2]string{p.is(a), p.is(b)}
				never := func() {
					if p.isNow(b) == is[0] {
						require.NotEqual(t, is[0], p.isNow(a), "%s: it is at two names", name)
					}
				}
				p.cut.Store(point)
				require.Error(t, p.trade(group, seq, a, b), name)
				never()
				p.restart()
				p.quiet(name, never)
				for range 2 {
					require.Eventually(t, func() bool { return p.trade(group, seq, a, b) == nil }, time.Minute, 5*time.Millisecond, name)
					require.Equal(t, is, [2]string{p.is(b), p.is(a)}, name)
				}
				for path, was := range map[string]string{a: is[1], b: is[0]} {
					got, err := os.ReadFile(filepath.Join(store, path[2:]))
					if strings.HasPrefix(was, "->") {
						require.ErrorIs(t, err, os.ErrNotExist, name)
					} else {
						require.NoError(t, err, name)
						require.Equal(t, was, fmt.Sprint(len(got)), name)
					}
					require.NoError(t, p.remove(path, false))
				}
			}
		}
	}
	p.clean()
	require.Empty(t, temporary(t, store), "what the store remembers of an exchange is forgotten")
}

// temporary lists the temporary files in a store.
func temporary(t *testing.T, dir string) (out []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && ufs.IsTemp(d.Name()) {
			out = append(out, path)
		}
		return err
	}))
	return out
}

func (p *pair) symlink(path, to string) {
	p.t.Helper()
	_, err := p.ns.Create(p.t.Context(), &metapb.CreateRequest{Target: at(path), Complete: true, Symlink: to})
	require.NoError(p.t, err)
}

// clean checks both machines, and that nothing is kept of what is over.
func (p *pair) clean() {
	p.t.Helper()
	require.NoError(p.t, p.host.Group().Machine().Check())
	require.NoError(p.t, p.second.Machine().Check())
	require.Eventually(p.t, func() bool { // what is not asked for again is not kept
		return p.host.Group().Machine().Counts().Transfers+p.second.Machine().Counts().Transfers == 0
	}, time.Minute, 10*time.Millisecond)
}

// Two directories of one group change places also for who does not know yet that
// they are in it, and asks the first.
func TestDirectoriesChangePlacesWhereverOneAsksFirst(t *testing.T) {
	store := t.TempDir()
	p := parted(t, "file://"+store)
	for _, dir := range []string{"/m/2/a", "/m/2/a/x", "/m/2/b"} {
		_, err := p.ns.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at(dir), Mode: 0o755})
		require.NoError(t, err)
	}
	q := &metapb.RenameRequest{Src: at("/m/2/a"), Dst: at("/m/2/b"), Exchange: true}
	require.ErrorIs(t, p.request(1, q), orca.Referral)
	_, err := p.clientFor(time.Minute).Rename(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, p.names("/m/2/b"))
	require.Empty(t, p.names("/m/2/a"))
	require.DirExists(t, filepath.Join(store, "2/b/x"))
	// A directory of another group stays there, and what is not there is not found.
	_, err = p.clientFor(time.Minute).Rename(t.Context(), &metapb.RenameRequest{Src: at("/m/1"), Dst: at("/m/2/b"), Exchange: true})
	require.ErrorIs(t, err, orca.CrossMount)
	_, err = p.clientFor(time.Minute).Rename(t.Context(), &metapb.RenameRequest{Src: at("/m/2/a"), Dst: at("/m/2/none"), Exchange: true})
	require.ErrorIs(t, err, orca.NotFound)
	p.clean()
}

// bucket is a mount of a real object store, and a way to it behind Orca's back.
type bucket struct {
	*pair
	fs ufs.FS
	// around, if set, is called before and after each call of a store by Orca.
	mu     sync.Mutex
	around func(c wrap.Call, after bool) // GUARDED_BY(mu)
}

func newBucket(t *testing.T) *bucket {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"bucket"}})
	open := func(ctx context.Context, prefix string) (ufs.FS, error) {
		cfg := srv.Config("bucket", prefix)
		cfg.PartSize = s3.MinPart
		return s3.Open(ctx, cfg, slog.New(slog.DiscardHandler))
	}
	b := &bucket{}
	var err error
	b.fs, err = open(t.Context(), "root")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.fs.Close()) })
	b.pair = newPairWith(t, func(p *pair) {
		p.slow = true
		p.remote = func(ctx context.Context, uri string) (ufs.FS, error) {
			fs, err := open(ctx, strings.TrimPrefix(strings.TrimPrefix(uri, "s3://bucket"), "/"))
			if err != nil {
				return nil, err
			}
			return wrap.Intercept(fs, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
				b.tell(c, false)
				err := do(ctx)
				b.tell(c, true)
				return err
			}), nil
		}
	})
	b.divide("s3://bucket/root")
	return b
}

func (b *bucket) tell(c wrap.Call, after bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.around != nil {
		b.around(c, after)
	}
}

func (b *bucket) when(fn func(c wrap.Call, after bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.around = fn
}

// write puts an object behind Orca's back.
func (b *bucket) write(path, data string) {
	_, err := ufstest.Put(b.t.Context(), b.fs, strings.TrimPrefix(path, "/m/"), []byte(data))
	require.NoError(b.t, err)
}

// seen is write, and has the namespace look.
func (b *bucket) seen(path, data string) {
	b.t.Helper()
	b.write(path, data)
	b.look()
}

func (b *bucket) look() {
	b.t.Helper()
	_, err := b.ns.Sync(b.t.Context(), &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(b.t, err)
}

// object is what the store has at a path; "": nothing.
func (b *bucket) object(path string) string {
	r, err := b.fs.Open(b.t.Context(), strings.TrimPrefix(path, "/m/"), 0, -1, "")
	if orca.KindOf(err) == orca.NotFound {
		return ""
	}
	require.NoError(b.t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	require.NoError(b.t, err)
	return string(data)
}

// agrees checks that the namespace says of a path what the store has there.
func (b *bucket) agrees(path string) {
	b.t.Helper()
	a, err := b.stat(path)
	require.NoError(b.t, err)
	i, err := b.fs.Stat(b.t.Context(), strings.TrimPrefix(path, "/m/"))
	require.NoError(b.t, err)
	require.Equal(b.t, i.Fingerprint, a.Fingerprint, path)
	require.Equal(b.t, i.Size, a.Length, path)
}

// Who leads either group dies at every point of a rename between them in an object
// store, and of an exchange with a link, which is the same: the next one brings it to
// its end, once, with the object at one key.
func TestTransfersOfObjectsSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	seq := uint64(0)
	points := append([]string{"before leaving", "after leaving", "before finishing", "after finishing"}, transferPoints...)
	for kind, from := range map[string]string{"new": "12", "over": "1", "object link": "2", "link object": "1"} {
		for _, from := range strings.Split(from, "") {
			to := map[string]string{"1": "2", "2": "1"}[from]
			for _, point := range points {
				if seq++; spared(seq, uint64(len(points))) {
					continue
				}
				name := fmt.Sprintf("%s from %s %s", point, from, kind)
				group := int(from[0] - '0')
				src, dst := "/m/"+from+"/"+name, "/m/"+to+"/"+name
				ask := func() error { return b.asOne(group, seq, src, dst) }
				was, now := src, dst // of the object
				switch kind {
				case "new":
					b.seen(src, "content")
				case "over":
					b.write(dst, "replaced")
					b.seen(src, "content")
				case "object link":
					b.seen(src, "content")
					b.symlink(dst, "target")
				default:
					b.seen(dst, "content")
					b.symlink(src, "target")
					was, now = dst, src
				}
				if strings.Contains(kind, "link") {
					ask = func() error { return b.trade(group, seq, src, dst) }
				}
				never := func() { // once it has arrived it has left
					require.False(t, b.isNow(now) == "7" && b.isNow(was) == "7", "%s: it is at two names", name)
				}
				b.cut.Store(point)
				if err := ask(); err == nil { // what is left goes behind
					require.True(t, strings.HasSuffix(point, "leaving") || strings.HasSuffix(point, "finishing"), name)
					require.Eventually(t, func() bool { return b.dead[1].Load() || b.dead[2].Load() }, time.Minute, time.Millisecond, name)
				}
				never()
				b.restart()
				b.quiet(name, never)
				for range 2 {
					require.Eventually(t, func() bool { return ask() == nil }, time.Minute, 5*time.Millisecond, name)
					b.quiet(name, never)
					require.Equal(t, "7", b.is(now), name)
					require.Equal(t, "content", b.object(now), name)
					b.agrees(now)
					require.Empty(t, b.object(was), name)
					if strings.Contains(kind, "link") {
						require.Equal(t, "-> target", b.is(was), name)
					} else {
						require.Empty(t, b.is(was), name)
					}
				}
				for _, path := range []string{src, dst} {
					if err := b.remove(path, false); err != nil {
						require.ErrorIs(t, err, orca.NotFound)
					}
				}
			}
		}
	}
	b.clean()
}

// Somebody else writes to the object that goes to another group, at any moment: what
// he has written is there in the end, and the namespace says so once it has looked.
func TestAForeignWriterMeetsATransferOfObjects(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	for i, tc := range []struct {
		name         string
		op           wrap.Op
		after, moved bool // moved is what was known; else what was written
	}{
		{"before the copy", wrap.Copy, false, false},
		{"after the copy", wrap.Copy, true, true},
		{"before what is left goes", wrap.Remove, false, true},
		{"after what is left has gone", wrap.Remove, true, true},
	} {
		src, dst := fmt.Sprintf("/m/1/f%d", i), fmt.Sprintf("/m/2/f%d", i)
		b.seen(src, "known")
		wrote := false
		b.when(func(c wrap.Call, after bool) {
			if c.Op == tc.op && after == tc.after && !wrote {
				wrote = true
				b.write(src, "foreign")
			}
		})
		require.NoError(t, b.rename(src, dst), tc.name)
		b.quiet(tc.name, func() {})
		b.when(nil)
		require.True(t, wrote, tc.name)
		b.look()
		if tc.moved {
			require.Equal(t, []string{"foreign", "known"}, []string{b.object(src), b.object(dst)}, tc.name)
			b.agrees(src)
		} else {
			require.Equal(t, []string{"", "foreign"}, []string{b.object(src), b.object(dst)}, tc.name)
			_, err := b.stat(src)
			require.ErrorIs(t, err, orca.NotFound, tc.name)
		}
		b.agrees(dst)
	}
	// He removes it: then there is nothing to rename, and the name goes.
	b.seen("/m/1/gone", "known")
	require.NoError(t, b.fs.Remove(t.Context(), "1/gone"))
	require.ErrorIs(t, b.rename("/m/1/gone", "/m/2/gone"), orca.NotFound)
	require.Empty(t, b.is("/m/2/gone"))
	// He writes when the copy is made and not yet on record: it stays the one that was
	// copied.
	b.seen("/m/1/late", "known")
	b.cut.Store("before deciding receive")
	ask := func() error { return b.asOne(1, 1, "/m/1/late", "/m/2/late") }
	require.Error(t, ask())
	b.write("/m/1/late", "foreign")
	b.restart()
	require.Eventually(t, func() bool { return ask() == nil }, time.Minute, 5*time.Millisecond)
	b.quiet("late", func() {})
	b.look()
	require.Equal(t, []string{"foreign", "known"}, []string{b.object("/m/1/late"), b.object("/m/2/late")})
	b.agrees("/m/1/late")
	b.agrees("/m/2/late")
	// Of an exchange with a link the object may be the other group's.
	b.seen("/m/2/other", "known")
	b.symlink("/m/1/link", "target")
	b.write("/m/2/other", "foreign")
	_, err := b.ns.Rename(t.Context(), &metapb.RenameRequest{Src: at("/m/1/link"), Dst: at("/m/2/other"), Exchange: true})
	require.NoError(t, err)
	b.quiet("exchange", func() {})
	require.Equal(t, "foreign", b.object("/m/1/link"))
	b.agrees("/m/1/link")
	require.Equal(t, "-> target", b.is("/m/2/other"))
	b.clean()
}

// What an object store does not do between groups.
func TestWhatObjectsDoNotDoBetweenGroups(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.seen("/m/1/a", "a")
	b.seen("/m/2/b", "b")
	_, err := b.ns.Rename(t.Context(), &metapb.RenameRequest{Src: at("/m/1/a"), Dst: at("/m/2/b"), Exchange: true})
	require.ErrorIs(t, err, orca.Unsupported)
	require.Equal(t, []string{"a", "b"}, []string{b.object("/m/1/a"), b.object("/m/2/b")})
	_, err = b.ns.Link(t.Context(), &metapb.LinkRequest{Src: at("/m/1/a"), Dst: at("/m/2/l")})
	require.ErrorIs(t, err, orca.CrossMount)
	require.NoError(t, b.rename("/m/1/a", "/m/2/b"))
	b.quiet("rename", func() {})
	require.Equal(t, []string{"", "a"}, []string{b.object("/m/1/a"), b.object("/m/2/b")})
	// What was uploaded in parts has another fingerprint once it is copied.
	long := strings.Repeat("x", s3.MinPart+1)
	b.seen("/m/1/parts", long)
	require.NoError(t, b.rename("/m/1/parts", "/m/2/parts"))
	b.quiet("parts", func() {})
	require.True(t, b.object("/m/2/parts") == long)
	b.agrees("/m/2/parts")
	require.Empty(t, b.object("/m/1/parts"))
	b.clean()
}

// What an exchange between groups answers, other than that it is done.
func TestWhatDoesNotChangePlacesBetweenGroups(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	p := parted(t, "file://"+store)
	ctx := t.Context()
	for _, dir := range []string{"/m/1/d", "/m/2/d"} {
		_, err := p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at(dir), Mode: 0o777})
		require.NoError(t, err)
	}
	p.put(store, "1/f", "one")
	p.put(store, "2/g", "two and more")
	trade := func(uid uint32, a, b string) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: uid, Gid: uid}}, Src: at(a), Dst: at(b), Exchange: true})
		return err
	}
	require.ErrorIs(t, trade(0, "/m/1/none", "/m/2/g"), orca.NotFound)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2/none"), orca.NotFound)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2/none/g"), orca.NotFound)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2/d"), orca.CrossMount)
	require.ErrorIs(t, trade(0, "/m/1/d", "/m/2/g"), orca.CrossMount)
	require.ErrorIs(t, trade(0, "/m/1/d", "/m/2/d"), orca.CrossMount)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2"), orca.CrossMount)
	require.ErrorIs(t, trade(7, "/m/1/f", "/m/2/g"), orca.Permission)
	_, err := p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/2/g"), Dst: at("/m/2/h")})
	require.NoError(t, err)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2/g"), orca.CrossMount, "it has two names")
	require.ErrorIs(t, trade(0, "/m/2/g", "/m/1/f"), orca.CrossMount)
	require.NoError(t, p.remove("/m/2/h", false))
	w, err := p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/2/cached"), Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	_, err = p.ns.Complete(ctx, &metapb.CompleteRequest{Session: w.Session.Id, Fence: w.Session.Fence, Length: 1, Workers: []uint64{1}})
	require.NoError(t, err)
	require.ErrorIs(t, trade(0, "/m/1/f", "/m/2/cached"), orca.CrossMount)
	// There must be room on both sides.
	for dir, bytes := range map[string]int64{"/m/1/d": 3, "/m/2/d": 3} {
		_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(dir), Bytes: bytes, Inodes: -1})
		require.NoError(t, err)
	}
	require.NoError(t, p.rename("/m/1/f", "/m/1/d/f"))
	require.ErrorIs(t, trade(0, "/m/1/d/f", "/m/2/g"), orca.OverQuota)
	require.ErrorIs(t, trade(0, "/m/2/g", "/m/1/d/f"), orca.OverQuota)
	p.put(store, "2/small", "now")
	require.NoError(t, trade(0, "/m/1/d/f", "/m/2/small"), "it has room for what it replaces")
	// By directory and name, and what is being written is Busy.
	one, err := p.stat("/m/1/d")
	require.NoError(t, err)
	two, err := p.stat("/m/2")
	require.NoError(t, err)
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: &metapb.Target{Ino: two.Ino, Path: "small"}, Dst: &metapb.Target{Ino: one.Ino, Path: "f"}, Exchange: true})
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(store, "2/small"))
	require.NoError(t, err)
	require.Equal(t, "now", string(got))
	_, err = p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/2/small"), Mode: 0o644, Overwrite: true})
	require.NoError(t, err)
	require.ErrorIs(t, trade(0, "/m/1/d/f", "/m/2/small"), orca.Busy)
	require.ErrorIs(t, trade(0, "/m/2/small", "/m/1/d/f"), orca.Busy)
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// Renames that want each other's names, and exchanges of the same two, all at once:
// each comes to its end, nothing is lost, and no name stays Busy.
func TestOppositeTransfersAtOnce(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	p := parted(t, "file://"+store)
	ctx := t.Context()
	names := [2][]string{{"/m/1/a", "/m/1/b"}, {"/m/2/a", "/m/2/b"}}
	all := map[string]bool{}
	for _, side := range names {
		for _, path := range side {
			p.put(store, path[2:], strings.Repeat("x", 1+len(all)))
			all[fmt.Sprint(1+len(all))] = true
		}
	}
	var g errgroup.Group
	for k := range 4 {
		g.Go(func() error {
			for i := range 12 {
				from, to := names[k%2][i%2], names[1-k%2][(i/2)%2]
				r := &metapb.RenameRequest{Src: at(from), Dst: at(to), Exchange: k < 2 || i%3 != 0, NoReplace: k >= 2 && i%3 == 0}
				_, err := p.ns.Rename(ctx, r)
				switch orca.KindOf(err) {
				case orca.OK, orca.Exists, orca.NotFound, orca.Busy:
				default:
					return fmt.Errorf("%v: %w", r, err)
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	p.quiet("all of them", func() {})
	found := map[string]bool{}
	for _, side := range names {
		for _, path := range side {
			a, err := p.stat(path)
			if orca.KindOf(err) == orca.NotFound {
				continue
			}
			require.NoError(t, err)
			found[fmt.Sprint(a.Length)] = true
			i, err := os.Stat(filepath.Join(store, path[2:]))
			require.NoError(t, err)
			require.Equal(t, i.Size(), a.Length)
		}
	}
	require.Equal(t, all, found)
	p.clean()
}
