// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca/bench/hist"
	"orca/bench/workload"
)

// TestMain lets the raw pair start this very test binary in a role.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Role {
		if err := Main(os.Args[2:], nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestMemoryCopies(t *testing.T) {
	m, err := NewMemory(5 << 20)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	buf := Buffer(Chunk)
	require.Positive(t, m.Copy(buf))
	want := make([]byte, Chunk)
	workload.Fill(want, 1, 4<<20)
	require.True(t, bytes.Equal(want, buf), "the buffer holds the last chunk")
	require.Zero(t, uintptr(unsafe.Pointer(&buf[0]))%4096)
}

// TestRawPair moves a file whose length is no multiple of the chunk in every
// pattern, twice over the same connection.
func TestRawPair(t *testing.T) {
	const size = 3<<20 + 12345
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, WriteFile(file, 1, size))
	self, err := os.Executable()
	require.NoError(t, err)
	p, err := StartRawPair(context.Background(), self, file)
	require.NoError(t, err)
	for range 2 {
		for _, pattern := range Patterns() {
			took, err := p.Move(pattern, size)
			require.NoError(t, err, pattern)
			require.Positive(t, took)
		}
	}
	require.Len(t, p.PIDs(), 2)
	_, err = p.Move("sideways", size)
	require.ErrorContains(t, err, "unknown pattern")
	require.NoError(t, p.Close())
}

// TestRawBytes checks what the raw receiver receives, not only how much.
func TestRawBytes(t *testing.T) {
	const size = 2<<20 + 1
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, WriteFile(file, 9, size))
	self, err := os.Executable()
	require.NoError(t, err)
	send, err := Start(context.Background(), self, "raw-serve", file)
	require.NoError(t, err)
	port, err := send.Line()
	require.NoError(t, err)
	conn, err := dial(port)
	require.NoError(t, err)
	got := new(bytes.Buffer)
	_, err = conn.Write(append(le(1), le(size-1)...))
	require.NoError(t, err)
	_, err = io.CopyN(got, conn, size-1)
	require.NoError(t, err)
	want := make([]byte, size)
	workload.Fill(want, 9, 0)
	require.True(t, bytes.Equal(want[1:], got.Bytes()))
	require.NoError(t, conn.Close())
	require.NoError(t, send.Close())
}

func TestProcessThatFailsIsAnError(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	_, err = StartRawPair(context.Background(), self, filepath.Join(t.TempDir(), "missing"))
	require.Error(t, err)
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	const n, size = 7, 100 << 10
	paths, err := WriteTree(filepath.Join(dir, "d"), 40, n, size)
	require.NoError(t, err)
	require.Len(t, paths, n)
	for i, p := range paths {
		require.NoError(t, Verify(p, 40+uint64(i), size))
	}
	require.Error(t, Verify(paths[0], 41, size), "another file's bytes")

	h := hist.New()
	buf := Buffer(4096)
	took, err := OpenReadClose(paths, size, Buffer(Chunk), h)
	require.NoError(t, err)
	require.Positive(t, took)
	require.EqualValues(t, n, h.Count())
	_, err = OpenReadClose(paths, size+1, Buffer(Chunk), h)
	require.ErrorContains(t, err, "file ends")

	_, err = StatAll(paths, size, h)
	require.NoError(t, err)
	_, err = StatAll(paths, size+1, h)
	require.Error(t, err, "a wrong size is no result")

	_, err = ListLong(filepath.Join(dir, "d"), n)
	require.NoError(t, err)
	_, err = ListLong(filepath.Join(dir, "d"), n+1)
	require.ErrorContains(t, err, "7 entries")

	fd, err := OpenRead(paths[0])
	require.NoError(t, err)
	_, err = ReadOffsets(fd, []int64{4096, 0}, buf, h)
	require.NoError(t, err)
	want := make([]byte, 4096)
	workload.Fill(want, 40, 0)
	require.True(t, bytes.Equal(want, buf))
	_, err = ReadOffsets(fd, []int64{size}, buf, h)
	require.Error(t, err, "a read past the end is no result")
}

func TestCachedPages(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	require.NoError(t, WriteFile(p, 1, 1<<20))
	fd, err := OpenRead(p)
	require.NoError(t, err)
	_, err = ReadAll(fd, 1<<20, Buffer(Chunk))
	require.NoError(t, err)
	n, err := CachedPages(fd)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no cachestat")
	}
	require.NoError(t, err)
	require.EqualValues(t, (1<<20)/os.Getpagesize(), n)
	require.NoError(t, unix.Close(fd))
	_, err = CachedPages(fd)
	require.Error(t, err)
}

// TestListLongMany has more entries than one getdents buffer holds.
func TestListLongMany(t *testing.T) {
	dir := t.TempDir()
	_, err := WriteTree(dir, 1, 2000, 0)
	require.NoError(t, err)
	_, err = ListLong(dir, 2000)
	require.NoError(t, err)
}

func TestFdatasync(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer f.Close()
	h := hist.New()
	took, err := Fdatasync(f, make([]byte, 4096), 3, h)
	require.NoError(t, err)
	require.Positive(t, took)
	require.EqualValues(t, 3, h.Count())
}

// TestPresign holds the signature against the example of the S3 reference.
func TestPresign(t *testing.T) {
	s := S3{Endpoint: "https://examplebucket.s3.amazonaws.com", Region: "us-east-1", AccessKey: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	got, err := s.Presign("o", time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	require.Contains(t, got, "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request")
	require.Contains(t, got, "X-Amz-Date=20130524T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=")
}

func TestGet(t *testing.T) {
	body := strings.Repeat("x", 3<<20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		bw := bufio.NewWriter(w)
		bw.WriteString(body)
		bw.Flush()
	}))
	defer srv.Close()
	c := NewHTTPClient()
	defer c.CloseIdleConnections()
	ctx := context.Background()
	took, err := Get(ctx, c, srv.URL, 3<<20, Buffer(Chunk))
	require.NoError(t, err)
	require.Positive(t, took)
	_, err = Get(ctx, c, srv.URL, 1, Buffer(Chunk))
	require.ErrorContains(t, err, "want 1")
	_, err = Get(ctx, c, srv.URL+"/missing", 1, Buffer(Chunk))
	require.ErrorContains(t, err, "404")
}
