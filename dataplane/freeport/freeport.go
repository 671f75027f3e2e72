// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package freeport finds loopback addresses for servers that tests and benches
// have to name before they start, and start again after a kill.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

// first is the lowest port that is given; what is below belongs to services
// with ports of their own.
const first = 11000

// given are the ports that this process has had: a server need not have bound
// one when the next call comes.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// Addrs returns n loopback addresses that nobody listens at and that no earlier
// call returned. They lie below the ports that the kernel gives to connections
// and to listeners that ask for any port, so nobody comes to one by chance
// between this call and the server's start, or while the server is dead.
func Addrs(n int) ([]string, error) {
	low, err := ephemeral()
	if err != nil {
		return nil, err
	}
	if low <= first {
		return nil, fmt.Errorf("freeport: the kernel gives the ports from %d, which leaves none", low)
	}
	given.Lock()
	defer given.Unlock()
	var out []string
	for range 1000 + n {
		if len(out) == n {
			return out, nil
		}
		port := first + rand.IntN(low-first)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("freeport: %w", err)
		}
		given.ports[port] = true
		out = append(out, addr)
	}
	return nil, fmt.Errorf("freeport: only %d of %d addresses are free", len(out), n)
}

// ephemeral is the lowest port that the kernel gives by itself.
func ephemeral() (int, error) {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("freeport: %w", err)
	}
	var low, high int
	if _, err := fmt.Sscan(string(data), &low, &high); err != nil {
		return 0, fmt.Errorf("freeport: %s: %w", file, err)
	}
	return min(low, 32768), nil
}
