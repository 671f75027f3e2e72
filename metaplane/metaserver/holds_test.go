// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// watching has a holder watch until the test ends; told returns what it was told.
func watching(t *testing.T, h *holds, id uint64) (told chan uint64) {
	told = make(chan uint64, 100)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			wake, end := h.listen(id)
			select {
			case <-wake:
			case <-stop:
				end()
				return
			}
			for _, ino := range end() {
				told <- ino
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return told
}

// recalling begins a recall; its end comes when it is over.
func recalling(ctx context.Context, h *holds, inos ...orca.Ino) <-chan func() {
	over := make(chan func(), 1)
	go func() {
		end, _, _ := h.recall(ctx, inos)
		over <- end
	}()
	return over
}

func pending(t *testing.T, over <-chan func()) {
	t.Helper()
	synctest.Wait()
	require.Empty(t, over, "the recall is over too early")
}

func TestARecallWaitsForCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &holds{}, t.Context()
		a, b := watching(t, h, 1), watching(t, h, 2)
		require.NoError(t, h.take(ctx, 1, 1, 7))
		require.NoError(t, h.take(ctx, 2, 1, 7))
		require.NoError(t, h.take(ctx, 2, 2, 8))
		over := recalling(ctx, h, 7)
		require.EqualValues(t, 7, <-a)
		require.EqualValues(t, 7, <-b)
		h.giveBack(1, 1, 7)
		pending(t, over)
		// Told again, for the first time may have been lost.
		require.EqualValues(t, 7, <-b)
		h.giveBack(2, 1, 7)
		end := <-over

		// Who opens it now waits for the outcome; another file has nothing to do
		// with it.
		opened := make(chan error, 1)
		go func() { opened <- h.take(ctx, 1, 2, 7) }()
		require.NoError(t, h.take(ctx, 1, 3, 8))
		synctest.Wait()
		require.Empty(t, opened)
		end()
		require.NoError(t, <-opened)
		require.Len(t, h.files, 2)
	})
}

// A holder that opens the file again and again while it is recalled keeps the
// removal from ending for a while only, and an opening that was copied counts.
func TestARecallEndsThoughTheFileIsOpenedOnAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &holds{}, t.Context()
		told := watching(t, h, 1)
		require.NoError(t, h.take(ctx, 1, 1, 7))
		begin := time.Now()
		over := recalling(ctx, h, 7)
		require.EqualValues(t, 7, <-told)
		require.NoError(t, h.take(ctx, 1, 2, 7))
		h.giveBack(1, 1, 7)
		pending(t, over)
		(<-over)()
		require.Equal(t, lateWait, time.Since(begin))
	})
}

func TestARecallIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &holds{}, t.Context()
		watching(t, h, 1)
		require.NoError(t, h.take(ctx, 1, 1, 7))
		begin := time.Now()
		(<-recalling(ctx, h, 7))()
		require.Equal(t, recallWait, time.Since(begin))
	})
}

// A holder that has gone is waited for until its term is over, and forgotten with
// what it had.
func TestAHolderThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &holds{}, t.Context()
		_, end := h.listen(1)
		require.NoError(t, h.take(ctx, 1, 1, 7))
		end()
		time.Sleep(holderTerm + 1)
		begin := time.Now()
		(<-recalling(ctx, h, 7))()
		require.Zero(t, time.Since(begin))
		require.True(t, h.any())
		time.Sleep(holderKept)
		h.expire(time.Now())
		require.False(t, h.any())
		require.Empty(t, h.files)
	})
}

// Who leads anew is told of everything that is open. What was given back meanwhile
// is not taken again, and what was opened meanwhile stays.
func TestAHolderSaysAllThatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &holds{}, t.Context()
		require.NoError(t, h.take(ctx, 1, 3, 7)) // of before, closed since
		require.NoError(t, h.take(ctx, 1, 9, 8)) // its answer was not there yet
		h.set(&metapb.HoldRequest{Holder: 1, Whole: 8, Taken: []*metapb.Hold{{Ino: 9, Number: 2}}})
		require.ElementsMatch(t, []orca.Ino{8, 9}, h.held())
		h.set(&metapb.HoldRequest{Holder: 1, Back: []*metapb.Hold{{Ino: 9, Number: 2}, {Ino: 8, Number: 8}}})
		require.Equal(t, []orca.Ino{8}, h.held())
	})
}
