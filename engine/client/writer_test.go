// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// clean checks that nothing is left of a writer.
func clean(t *testing.T, o *memorca.Orca) {
	t.Helper()
	require.Zero(t, o.Sessions(), "a session is left")
	for _, w := range o.Workers() {
		require.Zero(t, w.Private(), "a private file is left")
	}
}

func gone(t *testing.T, fs *client.FS, path string) {
	t.Helper()
	_, err := fs.Stat(t.Context(), client.Path(path), client.Sync{})
	require.ErrorIs(t, err, orca.NotFound)
}

func TestWriteTypes(t *testing.T) {
	for node, w := range map[string]int{"a": 1, "far": 0} {
		fs, o := open(t, node, "a")
		for _, wt := range []orca.WriteType{orca.WriteDefault, orca.MustCache, orca.CacheThrough, orca.AsyncThrough, orca.Through} {
			want := noise(byte(wt), 3<<20+17)
			put(t, fs, "/f", want, client.CreateOptions{WriteType: wt})
			require.True(t, bytes.Equal(want, get(t, fs, "/f")), wt.String())
			i, err := fs.Stat(t.Context(), client.Path("/f"), client.Sync{})
			require.NoError(t, err)
			switch wt {
			case orca.MustCache:
				require.Equal(t, orca.NotPersisted, i.Persist)
			case orca.AsyncThrough:
				require.Equal(t, orca.ToBePersisted, i.Persist)
			default:
				require.Equal(t, orca.Persisted, i.Persist)
			}
		}
		clean(t, o)
		require.Equal(t, w*5, o.Workers()[0].Calls("WriteFile"))
	}
}

func TestPublish(t *testing.T) {
	for _, node := range []string{"a", "far"} {
		fs, o := open(t, node, "a")
		w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{})
		require.NoError(t, err)
		_, err = w.Write([]byte("one"))
		require.NoError(t, err)
		gone(t, fs, "/f")
		i, err := w.Publish(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 3, i.Length)
		require.Equal(t, "one", string(get(t, fs, "/f")))
		_, err = w.Publish(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, o.Workers()[0].Calls("Seal"), "nothing changed, nothing published")
		_, err = w.Write([]byte("two"))
		require.NoError(t, err)
		require.Equal(t, "one", string(get(t, fs, "/f")))
		_, err = w.Publish(t.Context())
		require.NoError(t, err)
		require.Equal(t, "onetwo", string(get(t, fs, "/f")))
		require.NoError(t, w.Close())
		require.Equal(t, 2, o.Workers()[0].Calls("Seal"))
		require.Equal(t, "onetwo", string(get(t, fs, "/f")))
		clean(t, o)
	}
}

// What the kernel writes through the descriptor counts as written.
func TestPublishSeesDescriptorWrites(t *testing.T) {
	fs, o := open(t, "a", "a")
	w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{})
	require.NoError(t, err)
	_, err = w.Publish(t.Context())
	require.NoError(t, err)
	_, err = w.Local().WriteAt([]byte("behind"), 0)
	require.NoError(t, err)
	require.EqualValues(t, 6, w.Info().Length)
	require.NoError(t, w.Close())
	require.Equal(t, "behind", string(get(t, fs, "/f")))
	clean(t, o)
}

func TestAbort(t *testing.T) {
	for _, node := range []string{"a", "far"} {
		fs, o := open(t, node, "a")
		put(t, fs, "/old", []byte("old"), client.CreateOptions{})
		for _, p := range []string{"/new", "/old"} {
			w, err := fs.Create(t.Context(), client.Path(p), client.CreateOptions{Overwrite: true})
			require.NoError(t, err)
			_, err = w.Write(noise(1, 2<<20))
			require.NoError(t, err)
			require.NoError(t, w.Abort())
			require.NoError(t, w.Abort())
			require.ErrorIs(t, w.Close(), os.ErrClosed)
			_, err = w.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrClosed)
		}
		gone(t, fs, "/new")
		require.Equal(t, "old", string(get(t, fs, "/old")))
		clean(t, o)
	}
}

// Whatever call of a worker or the metaplane fails during a write, the error
// reaches the writer, the file is as it was, and nothing is left behind.
func TestFailedWriteLeavesNothing(t *testing.T) {
	for _, node := range []string{"a", "far"} {
		for _, op := range []string{"Create", "CreateWrite", "WriteAt", "Seal", "Complete"} {
			if node == "a" && op == "WriteAt" {
				continue
			}
			t.Run(node+op, func(t *testing.T) {
				fs, o := open(t, node, "a")
				put(t, fs, "/f", []byte("old"), client.CreateOptions{})
				fail := func(x string) error {
					if x == op {
						return orca.E(op, orca.NoSpace, "")
					}
					return nil
				}
				o.Fail(fail)
				o.Workers()[0].Fail(fail)
				w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{Overwrite: true})
				if err == nil {
					_, err = w.Write(noise(1, 3<<20))
					if cerr := w.Close(); err == nil {
						err = cerr
					}
					require.ErrorIs(t, w.Close(), orca.NoSpace, "a second Close repeats the error")
				}
				require.ErrorIs(t, err, orca.NoSpace)
				o.Fail(nil)
				o.Workers()[0].Fail(nil)
				require.Equal(t, "old", string(get(t, fs, "/f")))
				clean(t, o)
			})
		}
	}
}

func TestCanceledCloseLeavesNothing(t *testing.T) {
	fs, o := open(t, "far", "a")
	w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{})
	require.NoError(t, err)
	_, err = w.Write(noise(1, 100))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cancel()
	require.ErrorIs(t, w.CloseContext(ctx), orca.Canceled)
	gone(t, fs, "/f")
	clean(t, o)
}

func TestSecondWriter(t *testing.T) {
	fs, o := open(t, "a", "a")
	put(t, fs, "/f", []byte("old"), client.CreateOptions{})
	one, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{Overwrite: true})
	require.NoError(t, err)
	_, err = fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{Overwrite: true})
	require.ErrorIs(t, err, orca.Busy)
	two, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{Overwrite: true, Steal: true})
	require.NoError(t, err)
	_, err = one.Write([]byte("one"))
	require.NoError(t, err)
	_, err = two.Write([]byte("two"))
	require.NoError(t, err)
	require.NoError(t, two.Close())
	require.ErrorIs(t, one.Close(), orca.Stale)
	require.Equal(t, "two", string(get(t, fs, "/f")))
	clean(t, o)
}

func TestSessionsAreRenewedAndExpire(t *testing.T) {
	fs, o := open(t, "a", "a")
	w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{}) // renewed every 200 ms
	require.NoError(t, err)
	o.ExpireSessions()
	require.Eventually(t, func() bool {
		_, err = w.Write([]byte("x"))
		return err != nil
	}, time.Minute, 10*time.Millisecond)
	require.ErrorIs(t, err, orca.SessionExpired)
	require.ErrorIs(t, w.Close(), orca.SessionExpired)
	gone(t, fs, "/f")
	clean(t, o)
	require.EqualValues(t, 1, fs.Stats().SessionsExpired.Load())
}

func TestPlacementGoesOnToTheNextWorker(t *testing.T) {
	fs, o := open(t, "a", "a", "b")
	o.Workers()[0].Fail(func(op string) error {
		if op == "CreateWrite" {
			return orca.E(op, orca.NoSpace, "")
		}
		return nil
	})
	put(t, fs, "/f", []byte("x"), client.CreateOptions{})
	require.Equal(t, 1, o.Workers()[1].Calls("Seal"))
	require.Equal(t, "x", string(get(t, fs, "/f")))
	clean(t, o)
}

func TestCreateEmptyIsOneRequest(t *testing.T) {
	fs, o := open(t, "a", "a")
	i, err := fs.CreateEmpty(t.Context(), client.Path("/d/e"), client.CreateOptions{Parents: true, Mode: 0o600})
	require.NoError(t, err)
	require.EqualValues(t, 0o600, i.Mode)
	require.Zero(t, o.Workers()[0].Calls("CreateWrite"))
	require.Empty(t, get(t, fs, "/d/e"))
	_, err = fs.CreateEmpty(t.Context(), client.Path("/d/e"), client.CreateOptions{Exclusive: true})
	require.ErrorIs(t, err, orca.Exists)
}

func TestExistingContent(t *testing.T) {
	for _, node := range []string{"a", "far"} {
		fs, o := open(t, node, "a")
		want := noise(9, memorca.WholeMax+100_000)
		put(t, fs, "/f", want, client.CreateOptions{})
		w, err := fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{Existing: true})
		require.NoError(t, err)
		require.EqualValues(t, len(want), w.Info().Length)
		_, err = w.WriteAt([]byte("middle"), 5<<20)
		require.NoError(t, err)
		require.NoError(t, w.Truncate(t.Context(), 6<<20))
		if node == "a" {
			p := make([]byte, 6)
			_, err = w.ReadAt(p, 5<<20)
			require.NoError(t, err)
			require.Equal(t, "middle", string(p))
		}
		require.NoError(t, w.Close())
		copy(want[5<<20:], "middle")
		require.True(t, bytes.Equal(want[:6<<20], get(t, fs, "/f")))
		clean(t, o)
	}
}
