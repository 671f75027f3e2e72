// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// holdsOf takes what holders say.
type holdsOf struct {
	metaplane.Namespace
	said chan *metapb.HoldRequest
}

func (h *holdsOf) Hold(_ context.Context, r *metapb.HoldRequest) (*metapb.Empty, error) {
	h.said <- r
	return &metapb.Empty{}, nil
}

func holding() (*Holder, chan *metapb.HoldRequest) {
	said := make(chan *metapb.HoldRequest, 100)
	fs := &FS{core: &core{meta: &holdsOf{said: said}}, caller: &metapb.Caller{}}
	return fs.NewHolder(), said
}

func (h *Holder) open(ino orca.Ino) uint64 {
	n := h.begin()
	h.opened(n, ino)
	return n
}

func TestAHolderGivesBackWhatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, said := holding()
		h.open(7)
		h.open(7)
		h.release(7)
		late := h.begin() // of 7 as well, perhaps
		h.open(8)
		n := h.open(7)
		h.release(7)
		h.release(7)
		h.release(8)
		time.Sleep(2 * holdPause)
		synctest.Wait()
		require.Empty(t, said, "an opening before is not answered yet")
		h.opened(late, 7)
		r := <-said
		require.Len(t, r.Back, 1)
		require.EqualValues(t, 8, r.Back[0].Ino)
		h.release(7)
		r = <-said
		require.Len(t, r.Back, 1)
		require.EqualValues(t, 7, r.Back[0].Ino)
		require.Equal(t, n, r.Back[0].Number)
	})
}

func TestAHolderCopiesBeforeItGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, said := holding()
		copied := make(chan orca.Ino)
		h.OnLeaving(func(ino orca.Ino) { copied <- ino })
		n := h.open(7)
		leaving := &metapb.WatchReply{Leaving: []uint64{7, 9}}
		h.heard(1, leaving)
		h.heard(1, leaving) // as who does not answer is asked again
		r := <-said         // 9 is not open
		require.EqualValues(t, 9, r.Back[0].Ino)
		synctest.Wait()
		require.Empty(t, said)
		h.open(7) // what comes meanwhile may not be in the copy
		require.EqualValues(t, 7, <-copied)
		r = <-said
		require.EqualValues(t, 7, r.Back[0].Ino)
		require.Equal(t, n, r.Back[0].Number)
		synctest.Wait()
		require.Empty(t, copied)
	})
}

func TestAHolderTellsStrangersAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, said := holding()
		n := h.open(orca.Ino(1)<<48 | 7)
		h.open(orca.Ino(2)<<48 | 7)
		h.begin()
		q := &metapb.WatchRequest{}
		h.request(1, q)
		require.Equal(t, h.id, q.Holder)
		require.Zero(t, q.Holds)
		h.heard(1, &metapb.WatchReply{Holds: 5})
		r := <-said
		require.EqualValues(t, 2, r.Whole, "the third opening is not answered yet")
		require.Len(t, r.Taken, 1)
		require.Equal(t, n, r.Taken[0].Number)
		h.request(1, q)
		require.EqualValues(t, 5, q.Holds)
		h.heard(1, &metapb.WatchReply{Holds: 5})
		synctest.Wait()
		require.Empty(t, said)
	})
}
