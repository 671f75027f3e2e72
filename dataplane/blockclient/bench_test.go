// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/datatest"
	"orca/dataplane/transport"
)

const (
	benchBlock = 64 << 20
	benchPull  = 1 << 20
)

// rawServer answers (offset, length) requests by sendfile from blocking
// sockets, one thread per connection: the least that a server can do.
func rawServer(tb testing.TB, file *os.File) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go rawServe(c.(*net.TCPConn), int(file.Fd()))
		}
	}()
	tb.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// blocking takes the socket out of c, in blocking mode.
func blocking(c *net.TCPConn) int {
	f, _ := c.File()
	defer f.Close()
	defer c.Close()
	fd, _ := unix.Dup(int(f.Fd()))
	_ = unix.SetNonblock(fd, false)
	return fd
}

func rawServe(c *net.TCPConn, file int) {
	fd := blocking(c)
	defer unix.Close(fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var req [16]byte
	for {
		if n, _, err := unix.Recvfrom(fd, req[:], unix.MSG_WAITALL); err != nil || n < len(req) {
			return
		}
		off, left := int64(binary.BigEndian.Uint64(req[:])), int(binary.BigEndian.Uint64(req[8:]))
		for left > 0 {
			n, err := unix.Sendfile(fd, file, &off, left)
			if err != nil {
				return
			}
			left -= n
		}
	}
}

// rawRead pulls the block once over a blocking socket, depth requests ahead.
// With await it sleeps until half of a range is there, as transport.Stream
// does.
func rawRead(tb testing.TB, fd int, p []byte, depth int, await bool) {
	next := 0
	ask := func() {
		var req [16]byte
		binary.BigEndian.PutUint64(req[:], uint64(next))
		binary.BigEndian.PutUint64(req[8:], benchPull)
		_, err := unix.Write(fd, req[:])
		require.NoError(tb, err)
		next += benchPull
	}
	for range depth {
		ask()
	}
	for off := 0; off < benchBlock; off += benchPull {
		if next < benchBlock {
			ask()
		}
		if await {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, benchPull/2)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 2)
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
		}
		for rest := p[off%len(p):][:benchPull]; len(rest) > 0; {
			n, _, err := unix.Recvfrom(fd, rest, unix.MSG_WAITALL)
			if err != nil || n == 0 {
				tb.Fatal("raw receive", n, err)
			}
			rest = rest[n:]
		}
	}
}

// BenchmarkRemoteRead pulls a warm 64 MiB block over loopback in 1 MiB ranges:
// by raw system calls, and by this package with and without verification, as
// one read per range and as reads of 8 MiB. The variants take turns, round by
// round, so that all see the same load; reported are the median MB/s of each
// and the median of its ratio to raw in the same round.
func BenchmarkRemoteRead(b *testing.B) {
	w := newWorker(b)
	id := orca.BlockID{File: 1, Version: 1}
	w.Put(b, id, datatest.Data(1, benchBlock))
	file, err := os.Open(blockFile(b, w, id))
	require.NoError(b, err)
	b.Cleanup(func() { _ = file.Close() })
	nc, err := net.Dial("tcp", rawServer(b, file))
	require.NoError(b, err)
	fd := blocking(nc.(*net.TCPConn))
	b.Cleanup(func() { _ = unix.Close(fd) })
	p := make([]byte, 8<<20)
	req := dataplane.ReadRequest{ID: id, Grant: makeGrant(1, 1, false)}

	type variant struct {
		name string
		run  func()
		mbps []float64
	}
	variants := []*variant{
		{name: "raw", run: func() { rawRead(b, fd, p, 1, false) }},
		{name: "raw-depth2", run: func() { rawRead(b, fd, p, 2, false) }},
		{name: "raw-await", run: func() { rawRead(b, fd, p, 1, true) }},
	}
	for _, read := range []int{1 << 20, 8 << 20} {
		for _, verify := range []bool{false, true} {
			c := w.client(b, blockclient.Config{NoVerify: !verify, Transport: transport.ClientConfig{Addr: w.addr}})
			name := fmt.Sprintf("%dMiB", read>>20)
			if verify {
				name += "-verify"
			}
			variants = append(variants, &variant{name: name, run: func() {
				for off := 0; off < benchBlock; off += read {
					req.Off = int64(off)
					if _, err := c.ReadAt(b.Context(), req, p[off%len(p):][:read]); err != nil {
						b.Fatal(err)
					}
				}
			}})
		}
	}
	b.ResetTimer()
	for b.Loop() {
		for _, v := range variants {
			start := time.Now()
			v.run()
			v.mbps = append(v.mbps, benchBlock/time.Since(start).Seconds()/1e6)
		}
	}
	for _, v := range variants {
		ratio := make([]float64, len(v.mbps))
		for i := range ratio {
			ratio[i] = v.mbps[i] / variants[0].mbps[i]
		}
		b.ReportMetric(median(v.mbps), "MB/s:"+v.name)
		b.ReportMetric(median(ratio), "x-raw:"+v.name)
	}
}

func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

// blockFile names the file of a block.
func blockFile(tb testing.TB, w *worker, id orca.BlockID) string {
	f, _, _, err := w.Descriptor(tb.Context(), id, dataplane.Grant{})
	require.NoError(tb, err)
	defer f.Close()
	return f.Name()
}
