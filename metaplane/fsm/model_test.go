// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// TestModel compares the machine with the model, operation by operation.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, Config{CacheEntries: 1}, nil)
		f := model.New()
		path := rapid.Custom(func(t *rapid.T) string {
			return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 4).Draw(t, "p"), "/")
		})
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			p, q := path.Draw(rt, "p"), path.Draw(rt, "q")
			var c command.Command
			var want orca.Kind
			op := rapid.SampledFrom([]string{"mkdir", "create", "write", "write", "ln", "ln", "rm", "rm -r", "mv", "mv", "swap", "quota", "sweep", "reopen"}).Draw(rt, "op")
			switch op {
			case "mkdir":
				parents := rapid.Bool().Draw(rt, "parents")
				c.Mkdir = &metapb.MkdirOp{Target: at(p), Mode: 0o755, Parents: parents}
				want = f.Mkdir(p, 0, parents)
			case "write":
				writeLikeModel(rt, w, f, p)
				continue
			case "quota":
				limits := rapid.SampledFrom([]int64{0, 1, 2, 4})
				bytes, inodes := limits.Draw(rt, "bytes"), limits.Draw(rt, "inodes")
				c.SetQuota = &metapb.SetQuotaOp{Target: at(p), Bytes: bytes, Inodes: inodes}
				want = f.Limit(p, bytes, inodes)
			case "create":
				over := rapid.Bool().Draw(rt, "overwrite")
				c.Create = &metapb.CreateOp{Target: at(p), Complete: true, Overwrite: over, WriteType: uint32(orca.MustCache)}
				want = f.Put(p, model.Node{}, over)
			case "rm", "rm -r":
				c.Delete = &metapb.DeleteOp{Target: at(p), Recursive: op == "rm -r"}
				want = f.Remove(p, op == "rm -r")
			case "mv":
				c.Rename, want = &metapb.RenameOp{Src: at(p), Dst: at(q)}, f.Rename(p, q)
			case "ln":
				c.Link, want = &metapb.LinkOp{Src: at(p), Dst: at(q)}, f.Link(p, q)
			case "swap":
				c.Rename, want = &metapb.RenameOp{Src: at(p), Dst: at(q), Exchange: true}, f.Exchange(p, q)
			case "sweep":
				c.SweepTrash = &metapb.SweepTrashOp{Limit: 2}
			case "reopen":
				w.reopen()
				continue
			}
			got := orca.Kind(w.remove(&c).Kind)
			require.Equal(rt, want, got, "%s %s %s", op, p, q)
			if n := f[q]; op == "ln" && got == orca.OK {
				n.Alias = true
				f[q] = n
			}
			checkTree(rt, w, f)
			require.NoError(rt, w.m.Check())
		}
	})
}

// writeLikeModel writes a file at p in a session, which may announce its length
// when it is opened, or before its upload, or not at all.
func writeLikeModel(rt *rapid.T, w *world, f model.Tree, p string) {
	length, over := int64(rapid.IntRange(0, 9).Draw(rt, "length")), rapid.Bool().Draw(rt, "overwrite")
	announced := rapid.IntRange(0, 2).Draw(rt, "announced")
	c := &metapb.CreateOp{Target: at(p), Overwrite: over, WriteType: uint32(orca.MustCache)}
	if announced == 0 {
		c.ExpectLength = length
	}
	want := f.Put(p, model.Node{Length: length}, over)
	r := w.do(&command.Command{Create: c})
	got := orca.Kind(r.Kind)
	if s := r.Session; got == orca.OK {
		fingerprint := ""
		if announced == 1 {
			got = orca.Kind(w.do(&command.Command{Renew: &metapb.RenewOp{Sessions: []uint64{s.Id}, Fence: s.Fence, Length: length}}).Kind)
			fingerprint = "fp"
		}
		if got == orca.OK {
			got = orca.Kind(w.do(&command.Command{Complete: &metapb.CompleteOp{Session: s.Id, Fence: s.Fence, Length: length, Fingerprint: fingerprint}}).Kind)
		}
		if got != orca.OK {
			require.EqualValues(rt, orca.OK, w.do(&command.Command{Abandon: &metapb.AbandonOp{Session: s.Id, Fence: s.Fence, Swept: true}}).Kind)
		}
	}
	require.Equal(rt, want, got, "write %s %d", p, length)
	checkTree(rt, w, f)
	require.NoError(rt, w.m.Check())
}

// remove does a command; a recursive removal that has to go name by name does.
func (w *world) remove(c *command.Command) *command.Result {
	r := w.do(c)
	if !r.NeedWalk {
		return r
	}
	p := c.Delete.Target.Path
	at := func(name string) *command.Command {
		return &command.Command{Delete: &metapb.DeleteOp{Target: &metapb.Target{Path: orca.JoinPath(p, name)}, Recursive: true}}
	}
	d, err := w.m.Walk(orca.Caller{}, 0, p)
	require.NoError(w.t, err)
	kids, _, err := w.m.Children(orca.Caller{}, orca.Ino(d.Attr.Ino), "", 100)
	require.NoError(w.t, err)
	for _, k := range kids {
		w.remove(at(k.Name))
	}
	return w.do(at(""))
}

func checkTree(t require.TestingT, w *world, f model.Tree) {
	require.True(t, f.Homes(func(p string) bool {
		got, err := w.m.Walk(orca.Caller{}, 0, p)
		require.NoError(t, err)
		n, name, _ := w.m.place(orca.Ino(got.Attr.Ino))
		return orca.JoinPath(n.path(), name) == p
	}), "which names are homes")
	for p, n := range f {
		dir := n.Dir
		got, err := w.m.Walk(orca.Caller{}, 0, p)
		require.NoError(t, err)
		require.True(t, got.Found, p)
		require.Equal(t, dir, got.Attr.Type == uint32(orca.TypeDir), p)
		if !dir {
			require.EqualValues(t, max(n.Names, 1), got.Attr.Nlink, p)
			if n.Peer != "" {
				first, err := w.m.Walk(orca.Caller{}, 0, n.Peer)
				require.NoError(t, err)
				require.Equal(t, got.Attr.Ino, first.Attr.Ino, p)
			}
			continue
		}
		u, err := w.m.Usage(orca.Ino(got.Attr.Ino))
		require.NoError(t, err)
		bytes, inodes := f.Below(p)
		require.Equal(t, bytes, u.Bytes, p)
		require.Equal(t, inodes, u.Inodes(), p)
		var names []string
		for after := ""; ; {
			cs, more, err := w.m.Children(orca.Caller{}, orca.Ino(got.Attr.Ino), after, 2)
			require.NoError(t, err)
			for _, c := range cs {
				names = append(names, c.Name)
				after = c.Name
			}
			if !more {
				break
			}
		}
		require.Equal(t, f.Children(p), names, p)
	}
}

// dump is the whole store as text.
func (w *world) dump() string {
	var b strings.Builder
	require.NoError(w.t, w.db.Scan(nil, nil, func(k, v []byte) bool {
		fmt.Fprintf(&b, "%q %s\n", k, hex.EncodeToString(v))
		return true
	}))
	return b.String()
}

// randomCommand draws any command; ids come from what w has open.
func randomCommand(r *rand.Rand, w *world) *command.Command {
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	path := func() string {
		p := ""
		for range 1 + r.IntN(3) {
			p += "/" + pick("a", "b", "c", "m")
		}
		return p
	}
	st := &story{world: w}
	var line string
	var sessions, intents []uint64
	for _, s := range w.m.Sessions() {
		sessions = append(sessions, s.Id)
	}
	for _, it := range w.m.Intents() {
		intents = append(intents, it.Id)
	}
	one := func(ids []uint64) uint64 {
		if len(ids) == 0 {
			return 1
		}
		return ids[r.IntN(len(ids))]
	}
	fp := fmt.Sprintf("fp%d", r.IntN(4))
	ino := 17 + r.IntN(60)
	switch r.IntN(36) {
	case 0, 1, 2:
		line = fmt.Sprintf("mkdir %s %s", path(), pick("", "-p", "-x"))
	case 3, 4, 5:
		line = fmt.Sprintf("create %s type=%s %s %s %s", path(), pick("must", "cache", "async", "through"), pick("", "-done", "copies=2"), pick("", "-o"), pick("", "-p", "-steal"))
	case 6, 7:
		line = fmt.Sprintf("complete s=%d len=%d %s %s", one(sessions), r.IntN(9), pick("", "fp="+fp), pick("", "-keep"))
	case 8:
		line = fmt.Sprintf("abandon s=%d %s", one(sessions), pick("", "-swept"))
	case 9:
		line = pick("expire", fmt.Sprintf("drop s=%d", one(sessions)), fmt.Sprintf("renew s=%d", one(sessions)))
	case 10, 11, 12:
		line = fmt.Sprintf("mv %s %s", path(), path())
	case 13, 14:
		line = fmt.Sprintf("rm %s %s %s", path(), pick("", "-r"), pick("", "", "-c"))
	case 15, 16, 17, 18:
		line = fmt.Sprintf("decide i=%d fp=%s %s", one(intents), fp, pick("", "", "kind=13", "-existed"))
	case 19:
		line = fmt.Sprintf("cutover i=%d ino=%d want=%s fp=%s", one(intents), ino, fp, fp)
	case 20:
		line = fmt.Sprintf("finish i=%d", one(intents))
	case 21:
		line = pick("sync / f:a:x d:b -range -loaded", "sync / f:c:xx gone:a", "sync / d:a d:b d:c change=3", "sync / f:a:y f:b:y f:c:yy change=9 -range")
	case 22:
		line = pick(fmt.Sprintf("prepare ino=%d v=%d", ino, 1+r.IntN(3)), fmt.Sprintf("persisted i=%d fp=%s", one(intents), fp), "persist "+path(), fmt.Sprintf("lost ino=%d", ino), fmt.Sprintf("hold ino=%d w=%d", ino, r.IntN(3)))
	case 23:
		line = pick("sweep limit=3", "hosted jobs x", "worker n"+pick("1", "2"), "fact k v")
	case 24:
		line = pick("mount /m s3://b caps=", "mount / file:///r caps=rdox", "mount / s3://r caps=", "unmount /m", "mount /m/c s3://c",
			"mount / file:///r caps=rdox trash=30", "mount / s3://r trash=30", "mount /m s3://b trash=9", "mount / file:///r caps=rdox -u trash=-1", "mount / file:///r caps=rdox trash=20 -u")
	case 26, 27:
		line = fmt.Sprintf("ln %s %s", path(), path())
	case 28:
		line = fmt.Sprintf("mv %s %s -x", path(), path())
	case 29:
		line = fmt.Sprintf("rehome ino=%d", ino)
		if v, err := w.m.Lookup(orca.Ino(ino)); err == nil {
			line += fmt.Sprintf(" dir=%d %s", v.Parent, v.Name)
		}
	case 30:
		line = fmt.Sprintf("quota %s %s %s", pick("/", path(), path()), pick("", "bytes=0", "bytes=9", "bytes=20"), pick("", "inodes=0", "inodes=6", "inodes=12"))
	case 32, 33:
		line = fmt.Sprintf("rm %s -r %s", path(), pick("", "", "", "-skip"))
	case 34, 35:
		line = pick(fmt.Sprintf("undelete %s ino=%d", path(), ino), fmt.Sprintf("purge ino=%d", ino))
		if es := w.m.Trash(orca.Caller{}, "", nil, 100); len(es) > 0 {
			e := es[r.IntN(len(es))]
			line = pick(fmt.Sprintf("undelete %s ino=%d", pick(e.Path, path()), e.Ino), fmt.Sprintf("undelete %s ino=%d", path(), e.Ino), fmt.Sprintf("purge ino=%d -expired", e.Ino), fmt.Sprintf("purge ino=%d", e.Ino))
		}
	case 31:
		if line = fmt.Sprintf("renew s=%[1]d f=%[1]d len=%[2]d", one(sessions), r.IntN(9)); r.IntN(3) == 0 {
			line = fmt.Sprintf("create %s expect=%d %s", path(), r.IntN(9), pick("", "-o", "-o -steal"))
		}
	case 25:
		line = fmt.Sprintf("%s %s", pick("syncs ms=0", "syncs ms=-1", "chmod mode=0755", "touch t=9", "pin", "chown uid=5 gid=5", "copies min=2", "copies max=3", "copies"), path())
		if r.IntN(3) == 0 {
			line = fmt.Sprintf("xattr %s user.a %s", path(), pick("v", "-remove"))
		}
	}
	a := parseArgs(line)
	verb := a.arg(0)
	a.plain = a.plain[1:]
	c := st.build(verb, a)
	if r.IntN(2) == 0 {
		c.Client, c.Seq = uint64(1+r.IntN(3)), uint64(1+r.IntN(40))
	}
	if r.IntN(4) == 0 {
		c.Caller = &metapb.Caller{Uid: 5, Gid: 5}
	}
	return c
}

// TestReplay applies random histories to one machine command by command, and
// to another in batches and with reopening in between: same results, same
// store, and the invariants hold.
func TestReplay(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			a := newWorld(t, Config{}, map[string]Hosted{"jobs": &journal{}})
			b := newWorld(t, Config{CacheEntries: 1}, a.hosted)
			var want [][]byte
			var history []Entry
			for i := range 400 {
				c := randomCommand(r, a)
				if a.do(c); i%8 == 0 {
					require.NoError(t, a.m.Check())
				}
				want = append(want, a.out.Results)
				raw, err := command.Append(nil, c)
				require.NoError(t, err)
				var e command.Entry
				e.Add(raw)
				history = append(history, Entry{Index: a.index, Data: e.Bytes()})
			}
			require.NoError(t, a.m.Check())
			for i := 0; i < len(history); {
				n := min(1+r.IntN(20), len(history)-i)
				outs, err := b.m.Apply(history[i : i+n])
				require.NoError(t, err)
				for j, out := range outs {
					require.Equal(t, want[i+j], out.Results, "result %d", i+j)
				}
				if i += n; r.IntN(3) == 0 {
					b.reopen()
				}
			}
			require.NoError(t, b.m.Check())
			require.Equal(t, a.dump(), b.dump())
		})
	}
}
