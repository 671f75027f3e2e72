// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// TestCursorSeesOneMoment: what is committed while a walk goes on is not in it,
// and its applied index is that of what is.
func TestCursorSeesOneMoment(t *testing.T) {
	d, err := Open(Config{Memory: true}, quiet())
	require.NoError(t, err)
	tx := d.NewTx()
	for i := range 1000 {
		tx.Set(fmt.Appendf(nil, "d%04d", i), []byte("old"))
	}
	require.NoError(t, tx.Commit(7, 1))
	require.NoError(t, d.Flush())
	c, err := d.Cursor()
	require.NoError(t, err)
	require.EqualValues(t, 7, c.Applied)
	require.InDelta(t, 1001, c.Estimate, 100)
	n := 0
	for {
		k, v, err := c.Next()
		require.NoError(t, err)
		if k == nil {
			break
		}
		if k[0] == 'd' {
			require.Equal(t, "old", string(v))
			n++
		}
		if n == 10 {
			tx.Set([]byte("d0500"), []byte("new"))
			tx.Set([]byte("d9999"), []byte("new"))
			require.NoError(t, tx.Commit(8, 1))
			require.NoError(t, d.Flush())
		}
	}
	require.Equal(t, 1000, n)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "twice is once")
	_, _, err = c.Next()
	require.ErrorIs(t, err, orca.Unavailable)
	require.NoError(t, tx.Close())
	require.NoError(t, d.Close(true))
	_, err = d.Cursor()
	require.ErrorIs(t, err, orca.Unavailable)
}

// TestCloseEndsWalks: a store that is closed, or replaced by a snapshot, does not
// wait for walks, and none of them reads what is gone.
func TestCloseEndsWalks(t *testing.T) {
	d, err := Open(Config{Memory: true}, quiet())
	require.NoError(t, err)
	tx := d.NewTx()
	for i := range 5000 {
		tx.Set(fmt.Appendf(nil, "d%04d", i), []byte("value"))
	}
	require.NoError(t, tx.Commit(1, 1))
	require.NoError(t, tx.Close())
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		c, err := d.Cursor()
		require.NoError(t, err)
		wg.Go(func() {
			for i := 0; ; i++ {
				k, v, err := c.Next()
				if i == 10 {
					started <- struct{}{}
				}
				if err != nil || k == nil {
					if err != nil && orca.KindOf(err) != orca.Unavailable {
						t.Error(err)
					}
					if err := c.Close(); err != nil {
						t.Error(err)
					}
					return
				}
				if k[0] == 'd' && string(v) != "value" {
					t.Errorf("%s: %q", k, v)
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	require.NoError(t, d.Close(false))
	wg.Wait()
}

// TestFillKeepsABase: what is filled in goes on from the index that it was at,
// and a stream to another store takes that along.
func TestFillKeepsABase(t *testing.T) {
	disk := NewDisk()
	d, err := Open(Config{Disk: disk}, quiet())
	require.NoError(t, err)
	recs := []string{"d1", "n1", "~unknown"}
	require.NoError(t, d.Fill(1000, func() ([]byte, []byte, error) {
		if len(recs) == 0 {
			return nil, nil, nil
		}
		k := recs[0]
		recs = recs[1:]
		return []byte(k), []byte("v" + k), nil
	}))
	require.NoError(t, d.Close(false), "as a crash leaves it")
	d, err = Open(Config{Disk: disk}, quiet())
	require.NoError(t, err)
	require.EqualValues(t, 1000, d.Applied())
	require.EqualValues(t, 1000, d.Base())
	v, err := d.Get(nil, []byte("~unknown"))
	require.NoError(t, err)
	require.Equal(t, "v~unknown", string(v))
	require.NoError(t, d.Close(true))
}
