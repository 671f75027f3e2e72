// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// relayWindow is how many bytes of one direction of a connection are on
	// their way at most: the most that Linux lets a socket send before they
	// are acknowledged (tcp_wmem, as it comes). Without it a single stream
	// over a long way would be as fast as over none, which no TCP is.
	relayWindow = 4 << 20
	relayPiece  = 64 << 10
)

// Relay forwards TCP connections to one address and delivers every byte, either
// way, a fixed time after it came. The bandwidth is that of the machine: only
// relayWindow bounds what a connection carries in a round trip. Three goroutines
// per direction of a connection; Close ends them.
type Relay struct {
	to    string
	delay time.Duration
	l     net.Listener
	wg    sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // GUARDED_BY(mu)
	closed bool                  // GUARDED_BY(mu)
}

// NewRelay listens on a free port of the loopback.
func NewRelay(to string, delay time.Duration) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{to: to, delay: delay, l: l, conns: map[net.Conn]struct{}{}}
	r.wg.Go(r.accept)
	return r, nil
}

// Addr is where it listens.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Close ends every connection and waits for its goroutines.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	err := r.l.Close()
	for c := range r.conns {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *Relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return // closed
		}
		r.wg.Go(func() { r.serve(c) })
	}
}

// own registers a connection; false when the relay is closed already.
func (r *Relay) own(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	_ = c.Close()
}

// serve carries one connection until both directions have ended.
func (r *Relay) serve(c net.Conn) {
	if !r.own(c) {
		return
	}
	defer r.drop(c)
	// The handshake takes a round trip before the first byte of the client.
	time.Sleep(2 * r.delay)
	up, err := net.Dial("tcp", r.to)
	if err != nil || !r.own(up) {
		return
	}
	defer r.drop(up)
	var wg sync.WaitGroup
	wg.Go(func() { r.pump(up, c) })
	wg.Go(func() { r.pump(c, up) })
	wg.Wait()
}

// late is a piece with the time when it arrives.
type late struct {
	p  []byte
	at time.Time
}

// pump moves one direction: what is read waits in a queue for its time, and
// counts against the window until word of its arrival could be back.
func (r *Relay) pump(dst, src net.Conn) {
	queue := make(chan late, relayWindow/relayPiece)
	free := make(chan []byte, relayWindow/relayPiece)
	for range cap(free) {
		free <- make([]byte, relayPiece)
	}
	acks := make(chan late, cap(free))
	var wg sync.WaitGroup
	wg.Go(func() {
		for l := range acks {
			time.Sleep(time.Until(l.at))
			free <- l.p
		}
	})
	wg.Go(func() {
		defer close(acks)
		failed := false
		for l := range queue {
			time.Sleep(time.Until(l.at))
			if !failed {
				_, err := dst.Write(l.p)
				failed = err != nil
			}
			if failed {
				_ = src.Close() // its reader below ends
			}
			acks <- late{l.p[:relayPiece], l.at.Add(r.delay)}
		}
		_ = dst.(*net.TCPConn).CloseWrite()
	})
	for {
		p := <-free
		n, err := src.Read(p)
		if n > 0 {
			queue <- late{p[:n], time.Now().Add(r.delay)}
		}
		if err != nil {
			break
		}
	}
	close(queue)
	wg.Wait()
}
