// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// meanwhile runs do once, beside the first mutating call on the file of a block
// that is called op, and gives it a moment to overtake that call. Where the
// store makes do wait the moment passes, which decides nothing. wait waits for
// do, and for that call if it is made in the background.
func meanwhile(t *testing.T, ops *tiertest.Faults, id orca.BlockID, op string, do func()) (began func() bool, wait func()) {
	var begun atomic.Bool
	done := make(chan struct{})
	ops.Before(func(_ int, o, path string) {
		if o != op || !strings.Contains(filepath.Base(path), id.String()) || begun.Swap(true) {
			return
		}
		go func() {
			defer close(done)
			do()
		}()
		select {
		case <-done:
		case <-time.After(200 * time.Millisecond):
		}
	})
	return begun.Load, func() {
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("no call of " + op)
		}
		ops.Before(nil)
	}
}

// TestOneFileForOneName lets two come for the name of one block at once, each in
// the middle of the file operation of the other: what is listed afterwards is
// what is in the file.
func TestOneFileForOneName(t *testing.T) {
	id := tiertest.ID(7)
	content := tiertest.Bytes(7, 300_000)
	for _, c := range []struct {
		name, op      string
		first, second func(s *storeT, t *testing.T)
	}{
		{"fill beside adoption", "rename", (*storeT).adopt, (*storeT).fill},
		{"adoption beside fill", "open", (*storeT).fill, (*storeT).adopt},
		{"fill beside a fill of a removed block", "open", (*storeT).fill, (*storeT).refill},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := &tiertest.Faults{}
			s := &storeT{Store: openWith(t, tiertest.Options{Root: t.TempDir(), SSD: 16 << 20}, ops), id: id, content: content}
			defer s.Close()
			_, wait := meanwhile(t, ops, id, c.op, func() { c.second(s, t) })
			c.first(s, t)
			wait()
			require.NoError(t, tiertest.TryFill(s, id, content))
			got, err := tiertest.ReadAll(s, id, int64(len(content)))
			require.NoError(t, err)
			require.Equal(t, content, got)
			require.NoError(t, s.Remove(id))
			tiertest.Eventually(t, "the quota is given back", func() bool { return s.Usage()[0].Used == 0 })
			require.NoError(t, tiertest.TryFill(s, id, content))
			got, err = tiertest.ReadAll(s, id, int64(len(content)))
			require.NoError(t, err)
			require.Equal(t, content, got)
		})
	}
}

// storeT is a store and one block of it.
type storeT struct {
	*tiered.Store
	id      orca.BlockID
	content []byte
}

// fill stores one grain of the block.
func (s *storeT) fill(t *testing.T) {
	w, err := s.Begin(t.Context(), s.id, int64(len(s.content)))
	if s.may(t, err); err != nil {
		return
	}
	s.may(t, w.WriteGrains(t.Context(), s.content[:orca.GrainSize], 0))
	s.may(t, w.Close())
}

func (s *storeT) adopt(t *testing.T) { s.may(t, tiertest.Adopt(s, s.id, s.content, false)) }

func (s *storeT) refill(t *testing.T) {
	s.may(t, s.Remove(s.id))
	s.may(t, tiertest.TryFill(s, s.id, s.content))
}

// may accepts what losing a race looks like.
func (s *storeT) may(t *testing.T, err error) {
	if err != nil && orca.KindOf(err) != orca.NotFound && orca.KindOf(err) != orca.Exists {
		t.Error(err)
	}
}

// TestOneFileForOneNameMoving lets others come for the name of a block, and
// take it away, in the middle of each file operation of its promotion: what is
// listed afterwards is what is in the file, in one directory, and the quota of
// both is right.
func TestOneFileForOneNameMoving(t *testing.T) {
	const n = 8
	for _, op := range []string{"open", "truncate", "write", "remove"} {
		for name, second := range map[string]func(s *storeT, t *testing.T){
			"adoption": (*storeT).readopt, "fill": (*storeT).refill, "removal": (*storeT).drop,
		} {
			t.Run(name+" beside "+op, func(t *testing.T) {
				ops := &tiertest.Faults{}
				s := &storeT{Store: filled(t, "lru", ops, n)}
				hot := below(t, s.Store, n)
				s.id, s.content = tiertest.ID(hot), tiertest.Bytes(hot, moved)
				began, wait := meanwhile(t, ops, s.id, op, func() { second(s, t) })
				tiertest.Eventually(t, "it moves", func() bool {
					if got, err := tiertest.ReadAll(s, s.id, moved); err == nil {
						require.True(t, bytes.Equal(s.content, got))
					} else {
						require.ErrorIs(t, err, orca.NotFound) // removed meanwhile
					}
					return began()
				})
				wait()
				tiertest.Eventually(t, "what is there is whole", func() bool {
					require.NoError(t, tiertest.TryFill(s, s.id, s.content))
					got, err := tiertest.ReadAll(s, s.id, moved)
					return err == nil && bytes.Equal(s.content, got)
				})
				s.RemoveFile(s.id.File, 0)
				for i := range uint64(n) {
					s.RemoveFile(tiertest.ID(i).File, 0)
				}
				tiertest.Eventually(t, "the quota is given back", func() bool {
					return s.Usage()[0].Used == 0 && s.Usage()[1].Used == 0
				})
			})
		}
	}
}

// drop removes the block.
func (s *storeT) drop(t *testing.T) { s.may(t, s.Remove(s.id)) }

// readopt removes the block and adopts it anew.
func (s *storeT) readopt(t *testing.T) {
	s.may(t, s.Remove(s.id))
	s.adopt(t)
}

// TestSweepLeavesANewcomerAlone brings a block while the sweep is about to remove
// the file that a crash has left under its name: it is not the new file that goes.
func TestSweepLeavesANewcomerAlone(t *testing.T) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir()}
	id, p := tiertest.ID(1), tiertest.Bytes(1, 100_000)
	s := openWith(t, o, nil)
	tiertest.Fill(t, s, id, p)
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(o.Root, "ssd", blockfile.IndexName)))
	ops := &tiertest.Faults{}
	opened := make(chan *tiered.Store, 1)
	_, wait := meanwhile(t, ops, id, "remove", func() {
		s := <-opened
		if err := tiertest.Adopt(s, id, p, true); err != nil {
			t.Error(err)
		}
	})
	s = openWith(t, o, ops)
	opened <- s
	wait()
	tiertest.Eventually(t, "the orphan goes", func() bool { return s.Metrics.OrphansRemoved.Load() > 0 })
	require.NoError(t, s.Close())
	s = openWith(t, o, nil)
	defer s.Close()
	got, err := tiertest.ReadAll(s, id, int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
}
