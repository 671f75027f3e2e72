// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func mem(t *testing.T) *DB {
	d, err := Open(Config{Memory: true}, quiet())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close(true)) })
	return d
}

func scanAll(t *testing.T, scan func(lower, upper []byte, fn func(k, v []byte) bool) error, lower, upper []byte) []string {
	var got []string
	require.NoError(t, scan(lower, upper, func(k, v []byte) bool {
		got = append(got, string(k)+"="+string(v))
		return true
	}))
	return got
}

func TestTxSeesItsOwnWrites(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // TestDiskErrorIsFatalOnce leaves stores behind
	d, err := Open(Config{Memory: true}, quiet())
	require.NoError(t, err)
	tx := d.NewTx()
	for _, k := range []string{"a", "c", "e", "g"} {
		tx.Set([]byte(k), []byte("old"))
	}
	require.NoError(t, tx.Commit(1, 4))
	tx.Set([]byte("b"), []byte("new"))
	tx.Set([]byte("c"), []byte("new"))
	tx.Delete([]byte("e"))
	tx.Set([]byte("x"), []byte("1"))
	tx.Set([]byte("x"), []byte("2"))
	tx.Delete([]byte("y"))
	want := []string{"b=new", "c=new", "g=old", "x=2"}
	require.Equal(t, want, scanAll(t, tx.Scan, []byte("b"), nil))
	require.Equal(t, want[:2], scanAll(t, tx.Scan, []byte("b"), []byte("g")))
	v, err := tx.Get([]byte("e"))
	require.NoError(t, err)
	require.Nil(t, v)
	require.Equal(t, []string{"c=old", "e=old", "g=old"}, scanAll(t, d.Scan, []byte("b"), nil))
	n := 0
	require.NoError(t, tx.Scan([]byte("b"), nil, func(_, _ []byte) bool { n++; return n < 2 }))
	require.Equal(t, 2, n)

	require.NoError(t, tx.Commit(2, 5))
	require.False(t, tx.Dirty())
	require.Equal(t, want, scanAll(t, d.Scan, []byte("b"), nil))
	require.Equal(t, uint64(2), d.Applied())
	tx.Set([]byte("q"), nil)
	tx.Discard()
	v, err = tx.Get([]byte("q"))
	require.NoError(t, err)
	require.Nil(t, v)
	require.NoError(t, tx.Close())
	require.NoError(t, d.Close(true))
}

// TestTxAgainstMap compares overlays and commits with a plain map.
func TestTxAgainstMap(t *testing.T) {
	d := mem(t)
	tx := d.NewTx()
	model := map[string]string{}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		k := fmt.Sprintf("k%02d", r.IntN(60))
		switch r.IntN(8) {
		case 0, 1, 2, 3:
			v := fmt.Sprint(i)
			tx.Set([]byte(k), []byte(v))
			model[k] = v
		case 4:
			tx.Delete([]byte(k))
			delete(model, k)
		case 5:
			require.NoError(t, tx.Commit(uint64(i+1), 1))
		default:
			lo, hi := fmt.Sprintf("k%02d", r.IntN(60)), fmt.Sprintf("k%02d", r.IntN(60))
			var want []string
			for mk, mv := range model {
				if mk >= lo && mk < hi {
					want = append(want, mk+"="+mv)
				}
			}
			slices.Sort(want)
			if lo < hi {
				require.Equal(t, want, scanAll(t, tx.Scan, []byte(lo), []byte(hi)))
			}
			v, err := tx.Get([]byte(k))
			require.NoError(t, err)
			mv, ok := model[k]
			require.Equal(t, ok, v != nil)
			require.Equal(t, mv, string(v))
		}
	}
	require.NoError(t, tx.Close())
}

// TestCrashLeavesAPrefix cuts the power at many moments of a run of commits
// and flushes: each time exactly the commits up to the applied index are
// there.
func TestCrashLeavesAPrefix(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d, err := open(Config{Dir: "s", FlushEvery: time.Hour}, fs, quiet())
	require.NoError(t, err)
	tx := d.NewTx()
	r := rand.New(rand.NewPCG(7, 7))
	var clones []*vfs.MemFS
	var flushed []uint64 // index that must have survived in the clone
	var durable uint64
	for i := uint64(1); i <= 400; i++ {
		tx.Set(fmt.Appendf(nil, "k%d", i), bytes.Repeat([]byte{byte(i)}, 100))
		tx.Set([]byte("last"), fmt.Append(nil, i))
		if i > 1 {
			tx.Delete(fmt.Appendf(nil, "k%d", i-1))
		}
		require.NoError(t, tx.Commit(i, 1))
		if r.IntN(10) == 0 {
			require.NoError(t, d.Flush())
			durable = i
		}
		if r.IntN(8) == 0 {
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r}))
			flushed = append(flushed, durable)
		}
	}
	require.NoError(t, tx.Close())
	require.NoError(t, d.Close(false))
	for c, clone := range clones {
		d, err := open(Config{Dir: "s"}, clone, quiet())
		require.NoError(t, err)
		n := d.Applied()
		require.GreaterOrEqual(t, n, flushed[c])
		if n > 0 {
			want := []string{fmt.Sprintf("k%d=%s", n, bytes.Repeat([]byte{byte(n)}, 100)), fmt.Sprintf("last=%d", n)}
			require.Equal(t, want, scanAll(t, d.Scan, []byte("b"), nil))
		}
		require.NoError(t, d.Close(true))
	}
}

func TestCloseWithoutFlushForgets(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), FlushEvery: time.Hour}
	for _, flush := range []bool{false, true} {
		d, err := Open(cfg, quiet())
		require.NoError(t, err)
		require.Zero(t, d.Applied())
		tx := d.NewTx()
		tx.Set([]byte("b"), []byte("1"))
		require.NoError(t, tx.Commit(3, 1))
		require.NoError(t, tx.Close())
		require.NoError(t, d.Close(flush))
	}
	d, err := Open(cfg, quiet())
	require.NoError(t, err)
	require.Equal(t, uint64(3), d.Applied())
	require.NoError(t, d.Close(true))
}

func TestFlushesByItself(t *testing.T) {
	for name, cfg := range map[string]Config{
		"by time": {FlushEvery: 5 * time.Millisecond},
		"by ops":  {FlushEvery: time.Hour, FlushOps: 10},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Memory = true
			d, err := Open(cfg, quiet())
			require.NoError(t, err)
			tx := d.NewTx()
			for i := range uint64(10) {
				tx.Set([]byte("b"), []byte("1"))
				require.NoError(t, tx.Commit(i+1, 1))
			}
			require.Eventually(t, func() bool { return d.Stats.Flushes.Load() > 0 }, time.Minute, time.Millisecond)
			require.NoError(t, tx.Close())
			require.NoError(t, d.Close(true))
		})
	}
}

func TestStream(t *testing.T) {
	a := mem(t)
	tx := a.NewTx()
	for i := range 5000 {
		tx.Set(fmt.Appendf(nil, "b%05d", i), bytes.Repeat([]byte("v"), i%300))
	}
	require.NoError(t, tx.Commit(42, 5000))
	v := a.View()
	tx.Set([]byte("later"), []byte("1"))
	require.NoError(t, tx.Commit(43, 1))
	require.NoError(t, tx.Close())
	var buf bytes.Buffer
	require.NoError(t, v.WriteTo(&buf, nil))
	stop := make(chan struct{})
	close(stop)
	require.ErrorIs(t, v.WriteTo(io.Discard, stop), orca.Canceled)
	require.NoError(t, v.Close())

	cfg := Config{Dir: t.TempDir()}
	b, err := Open(cfg, quiet())
	require.NoError(t, err)
	require.NoError(t, b.Receive(bytes.NewReader(buf.Bytes()), nil))
	require.NoError(t, b.Close(false))
	b, err = Open(cfg, quiet())
	require.NoError(t, err)
	require.Equal(t, uint64(42), b.Applied())
	require.Len(t, scanAll(t, b.Scan, []byte("b"), nil), 5000)
	require.NoError(t, b.Close(true))

	for _, cut := range []int{0, 7, 100, buf.Len() / 2, buf.Len() - 1} {
		require.ErrorIs(t, mem(t).Receive(bytes.NewReader(buf.Bytes()[:cut]), nil), orca.Corrupt)
	}
	bad := bytes.Clone(buf.Bytes())
	bad[len(bad)/2] ^= 1
	require.ErrorIs(t, mem(t).Receive(bytes.NewReader(bad), nil), orca.Corrupt)
}

func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(Config{Dir: dir + "/a"}, quiet())
	require.NoError(t, err)
	tx := d.NewTx()
	tx.Set([]byte("b"), []byte("1"))
	require.NoError(t, tx.Commit(9, 1))
	require.NoError(t, d.Checkpoint(dir+"/copy"))
	tx.Set([]byte("b"), []byte("2"))
	require.NoError(t, tx.Commit(10, 1))
	require.NoError(t, tx.Close())
	require.NoError(t, d.Close(true))
	c, err := Open(Config{Dir: dir + "/copy"}, quiet())
	require.NoError(t, err)
	require.Equal(t, uint64(9), c.Applied())
	require.Equal(t, []string{"b=1"}, scanAll(t, c.Scan, []byte("b"), nil))
	require.NoError(t, c.Close(true))
}

// TestDiskErrorIsFatalOnce makes all writes from the nth on fail, for n = 0,
// 1, 2, ...: either the flush succeeds or OnFatal is told, once; and what was
// flushed before is still there.
func TestDiskErrorIsFatalOnce(t *testing.T) {
	failed := 0
	for n := int32(0); n < 30; n++ {
		inner := vfs.NewCrashableMem()
		d, err := open(Config{Dir: "s", FlushEvery: time.Hour}, inner, quiet())
		require.NoError(t, err)
		tx := d.NewTx()
		tx.Set([]byte("b"), []byte("1"))
		require.NoError(t, tx.Commit(1, 1))
		require.NoError(t, tx.Close())
		require.NoError(t, d.Close(true))

		var armed atomic.Bool
		var seen atomic.Int32
		inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && seen.Add(1) > n {
				return errorfs.ErrInjected
			}
			return nil
		})
		var fatal atomic.Int32
		cfg := Config{Dir: "s", FlushEvery: time.Hour, OnFatal: func(string) { fatal.Add(1) }, Die: func(string) { select {} }}
		d, err = open(cfg, errorfs.Wrap(inner, inject), quiet())
		require.NoError(t, err)
		armed.Store(true)
		tx = d.NewTx()
		tx.Set([]byte("b"), []byte("2"))
		require.NoError(t, tx.Commit(2, 1))
		require.NoError(t, tx.Close())
		err = d.Flush()
		if err != nil {
			require.Equal(t, int32(1), fatal.Load())
		}
		survivor := inner.CrashClone(vfs.CrashCloneCfg{})
		failed += int(fatal.Load())
		armed.Store(false)
		_ = d.Close(false)
		require.LessOrEqual(t, fatal.Load(), int32(1))

		d, err = open(Config{Dir: "s"}, survivor, quiet())
		require.NoError(t, err)
		require.Contains(t, []uint64{1, 2}, d.Applied())
		require.Equal(t, []string{fmt.Sprintf("b=%d", d.Applied())}, scanAll(t, d.Scan, []byte("b"), nil))
		require.NoError(t, d.Close(true))
	}
	require.Positive(t, failed)
}
