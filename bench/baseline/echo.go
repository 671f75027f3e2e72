// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"

	"github.com/cloudwego/netpoll"
)

// An echo is the least that a request of a size costs on netpoll: a frame of
// echoHead bytes and as many as asked comes back as it is.
const echoHead = 16

// EchoServe is the serving process: it prints its port and answers until stdin
// ends.
func EchoServe(size int, stdin io.Reader, stdout io.Writer) error {
	if err := netpoll.Configure(netpoll.Config{PollerNum: runtime.GOMAXPROCS(0)}); err != nil {
		return err
	}
	ln, err := netpoll.CreateListener("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	frame := echoHead + size
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		for c.Reader().Len() >= frame {
			in, err := c.Reader().Next(frame)
			if err != nil {
				return err
			}
			out, err := c.Writer().Malloc(frame)
			if err != nil {
				return err
			}
			copy(out, in)
			if err := errors.Join(c.Reader().Release(), c.Writer().Flush()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, ln.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = loop.Shutdown(now) // the process ends: nobody waits for the rest
	}()
	return loop.Serve(ln)
}

// Echo is an echo server in a process of its own, and connections to it.
type Echo struct {
	*Process
	conns []net.Conn
	bufs  [][]byte
}

// StartEcho starts the server and connects.
func StartEcho(ctx context.Context, self string, size, conns int) (*Echo, error) {
	p, err := Start(ctx, self, "echo-serve", strconv.Itoa(size))
	if err != nil {
		return nil, err
	}
	e := &Echo{Process: p}
	port, err := p.Line()
	for i := 0; i < conns && err == nil; i++ {
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port); err == nil {
			e.conns = append(e.conns, c)
			e.bufs = append(e.bufs, make([]byte, echoHead+size))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("echo: %w", err), e.Close())
	}
	return e, nil
}

// Call makes one round trip on connection i, which has one user at a time.
func (e *Echo) Call(i int) error {
	if _, err := e.conns[i].Write(e.bufs[i]); err != nil {
		return err
	}
	_, err := io.ReadFull(e.conns[i], e.bufs[i])
	return err
}

// Close closes the connections and ends the server.
func (e *Echo) Close() error {
	for _, c := range e.conns {
		_ = c.Close()
	}
	return e.Process.Close()
}
