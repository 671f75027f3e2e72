// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// meanwhile runs do once, beside the first mutating call on the file of a block
// that is called op, and gives it a moment to overtake that call. Where the
// store makes do wait the moment passes, which decides nothing.
func meanwhile(ops *tiertest.Faults, id orca.BlockID, op string, do func()) (wait func()) {
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
	return func() {
		ops.Before(nil)
		<-done
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
			wait := meanwhile(ops, id, c.op, func() { c.second(s, t) })
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
