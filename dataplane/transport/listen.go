// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"orca"
)

// listener gives netpoll accepted sockets that are close-on-exec and
// non-blocking from birth. netpoll's own listener closes its descriptor twice,
// which under load closes somebody else's; this one has a single owner.
type listener struct {
	ln net.Listener // *net.TCPListener or *net.UnixListener
	fd int

	mu     sync.RWMutex // held for reading across accept, so that fd stays ours
	closed bool
}

// Listen opens a listening socket, "tcp", "unix" or "unixpacket". The error of a taken port
// (Busy) names the port and, where /proc shows it, the process that holds it.
// The file of a Unix socket that nobody listens on any more is replaced.
func Listen(network, addr string) (net.Listener, error) {
	const op = "transport.Listen"
	if strings.HasPrefix(network, "unix") {
		if err := clearStaleSocket(network, addr); err != nil {
			return nil, err
		}
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), network, addr)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &orca.Error{Op: op, Path: network + " " + addr, Kind: orca.Busy, Msg: "address is taken" + holder(network, addr)}
	case errors.Is(err, os.ErrPermission):
		return nil, orca.PathE(op, network+" "+addr, orca.Permission, err)
	}
	return nil, orca.PathE(op, network+" "+addr, orca.Invalid, err)
}

// clearStaleSocket removes the file of a socket whose server is gone.
func clearStaleSocket(network, path string) error {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil // absent, or a file that bind will complain about
	}
	c, err := net.Dial(network, path)
	if err == nil {
		_ = c.Close()
		return &orca.Error{Op: "transport.Listen", Path: "unix " + path, Kind: orca.Busy, Msg: "address is taken" + holder("unix", path)}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil // in use in another way: bind will complain
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return orca.PathE("transport.Listen", path, orca.Permission, err)
	}
	return nil
}

func newListener(ln net.Listener) (*listener, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, orca.E("transport.Serve", orca.Unsupported, "listener has no descriptor")
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, orca.PathE("transport.Serve", ln.Addr().String(), orca.Internal, err)
	}
	l := &listener{ln: ln}
	if err := rc.Control(func(fd uintptr) { l.fd = int(fd) }); err != nil {
		return nil, orca.PathE("transport.Serve", ln.Addr().String(), orca.Internal, err)
	}
	return l, nil
}

// Accept returns nil, nil when nobody waits, as netpoll wants it.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, nil
	}
	fd, sa, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		if err == unix.EMFILE || err == unix.ENFILE {
			return nil, err // netpoll pauses accepting
		}
		return nil, nil // EAGAIN, or a peer that left before it was accepted
	}
	c := &acceptedConn{fd: fd, local: l.ln.Addr(), remote: l.ln.Addr()}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		c.remote = &net.TCPAddr{IP: append(net.IP(nil), a.Addr[:]...), Port: a.Port}
	case *unix.SockaddrInet6:
		c.remote = &net.TCPAddr{IP: append(net.IP(nil), a.Addr[:]...), Port: a.Port}
	case *unix.SockaddrUnix:
		c.remote = &net.UnixAddr{Name: a.Name, Net: "unix"}
		return c, nil
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10)
	return c, nil
}

// Fd returns the descriptor for netpoll's poller.
func (l *listener) Fd() int { return l.fd }

// Addr returns the address listened on.
func (l *listener) Addr() net.Addr { return l.ln.Addr() }

// Close stops listening and removes a Unix socket's file.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.ln.Close()
}

// acceptedConn carries a descriptor to netpoll, which reads and closes it; the
// methods of net.Conn are never called.
type acceptedConn struct {
	net.Conn
	fd            int
	local, remote net.Addr
}

func (c *acceptedConn) Fd() int              { return c.fd }
func (c *acceptedConn) LocalAddr() net.Addr  { return c.local }
func (c *acceptedConn) RemoteAddr() net.Addr { return c.remote }

// stopAccepting refuses new connections from now on and makes netpoll's poller
// let go of the descriptor, which ends EventLoop.Serve; only then may Close be
// called. After Close the number may be somebody else's.
func (l *listener) stopAccepting() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.closed {
		// The poller sees a hang-up.
		_ = unix.Shutdown(l.fd, unix.SHUT_RD)
	}
}
