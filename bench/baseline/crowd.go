// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A crowd is many connections to one raw server: the least that many readers or
// writers of one worker cost. Readers use the requests of the raw pair; a writer
// sends the same 16 bytes and the data, which the server receives into a buffer
// and writes to a file of the connection, and is answered with a byte.

// CrowdServe is the serving process: it prints its port and serves connections,
// each on a thread of its own, until stdin ends. With a folder it takes writes
// into it, else it serves ranges of file.
func CrowdServe(file, folder string, stdin io.Reader, stdout io.Writer) error {
	src := -1
	if folder == "" {
		var err error
		if src, err = unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: file, Err: err}
		}
		defer unix.Close(src)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	n := 0
	return acceptRaw(1024, stdin, stdout, func(conn int) error {
		name := strconv.Itoa(n)
		n++
		wg.Go(func() {
			defer unix.Close(conn)
			err := error(nil)
			if folder == "" {
				err = serveRaw(conn, src)
			} else {
				err = sinkRaw(conn, filepath.Join(folder, name))
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "raw server:", err)
			}
		})
		return nil
	})
}

// listenRaw opens a blocking listener on a free port of the loopback.
func listenRaw(backlog int) (ln, port int, err error) {
	if ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("bind", unix.Bind(ln, &unix.SockaddrInet4{Addr: loopback}))
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(ln, backlog))
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(ln)
	}
	if err != nil {
		unix.Close(ln)
		return 0, 0, err
	}
	return ln, sa.(*unix.SockaddrInet4).Port, nil
}

// sinkRaw takes writes until the peer closes. A write at 0 begins anew.
func sinkRaw(conn int, path string) error {
	dst, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dst)
	if err := unix.SetsockoptInt(conn, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	buf := Buffer(Chunk)
	var req [requestLen]byte
	for {
		n, err := receive(conn, req[:])
		if err != nil || n < requestLen {
			return err
		}
		off, size := int64(binary.LittleEndian.Uint64(req[:])), int64(binary.LittleEndian.Uint64(req[8:]))
		if size > int64(len(buf)) {
			return errors.New("a write over the buffer")
		}
		if off == 0 {
			if err := unix.Ftruncate(dst, 0); err != nil {
				return os.NewSyscallError("ftruncate", err)
			}
		}
		if n, err := receive(conn, buf[:size]); err != nil || int64(n) < size {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if n, err := unix.Pwrite(dst, buf[:size], off); err != nil || int64(n) < size {
			return os.NewSyscallError("pwrite", errors.Join(err, io.ErrShortWrite))
		}
		if _, err := unix.Write(conn, []byte{1}); err != nil {
			return os.NewSyscallError("write", err)
		}
	}
}

// Crowd is such a server, with connections from this process. Each has one user
// at a time.
type Crowd struct {
	*Process
	conns []int
}

// StartCrowd starts a server of file, or of writes into folder, and connects.
func StartCrowd(ctx context.Context, self, file, folder string, conns int) (*Crowd, error) {
	args := []string{"crowd-serve", file}
	if folder != "" {
		args = []string{"crowd-sink", folder}
	}
	p, err := Start(ctx, self, args...)
	if err != nil {
		return nil, err
	}
	c := &Crowd{Process: p}
	line, err := p.Line()
	port := 0
	if err == nil {
		port, err = strconv.Atoi(line)
	}
	for i := 0; i < conns && err == nil; i++ {
		var fd int
		if fd, err = connectRaw(port); err == nil {
			c.conns = append(c.conns, fd)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw server: %w", err), c.Close())
	}
	return c, nil
}

func connectRaw(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrInet4{Addr: loopback, Port: port}))
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func (c *Crowd) ask(i int, off, n int64) error {
	var req [requestLen]byte
	binary.LittleEndian.PutUint64(req[:], uint64(off))
	binary.LittleEndian.PutUint64(req[8:], uint64(n))
	_, err := unix.Write(c.conns[i], req[:])
	return os.NewSyscallError("write", err)
}

// Read fills p from off over connection i.
func (c *Crowd) Read(i int, p []byte, off int64) error {
	if err := c.ask(i, off, int64(len(p))); err != nil {
		return err
	}
	if n, err := receive(c.conns[i], p); err != nil || n < len(p) {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	return nil
}

// Write writes p at off of the file of connection i.
func (c *Crowd) Write(i int, p []byte, off int64) error {
	if err := c.ask(i, off, int64(len(p))); err != nil {
		return err
	}
	for rest := p; len(rest) > 0; {
		n, err := unix.Write(c.conns[i], rest)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("write", err)
		}
		rest = rest[max(n, 0):]
	}
	var ok [1]byte
	if n, err := receive(c.conns[i], ok[:]); err != nil || n < 1 {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	return nil
}

// Close closes the connections and ends the server.
func (c *Crowd) Close() error {
	for _, fd := range c.conns {
		_ = unix.Close(fd)
	}
	return c.Process.Close()
}
