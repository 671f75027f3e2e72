// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package shortcircuit passes descriptors of block files to readers, and of
// private files to writers, on the same host, by SCM_RIGHTS over a Unix socket
// of packets (SOCK_SEQPACKET: one packet is one message, framing cannot be
// lost).
//
//	Client.ReadAt ─ cache of descriptors ─ pread
//	     miss │  packet: header, meta (up to MaxBatch blocks, each with its grant)
//	          ▼
//	Server ─ grant.Checker ─ Blocks.Descriptor ─ packet: header, meta, descriptors
//
// A descriptor is of a complete, sealed block, read-only, and stays good when
// the block is evicted, because blocks are unlinked and never changed. What a
// descriptor costs is the space of an unlinked block: the client therefore
// gives up descriptors after their lease.
//
// Goroutines: one per connection of the server; one timer of the client while
// it caches anything. Locks: Client.mu guards the cache and is not held across
// I/O. It refuses blocks that are not complete (Unsupported: read ranges
// instead), and any descriptor before its grant has been checked.
package shortcircuit

import (
	"time"

	"orca"
)

const (
	// MaxBatch is how many descriptors go with one message.
	MaxBatch = 32
	// maxPacket bounds a message in bytes.
	maxPacket = 64 << 10
	// network is what package net calls SOCK_SEQPACKET.
	network = "unixpacket"
)

// ServerConfig bounds a Server. The zero value means the defaults.
type ServerConfig struct {
	// MaxConns is how many clients are connected; more are refused. Default
	// 1024.
	MaxConns int
	// IdleTimeout closes a connection without requests. Default 15 min.
	IdleTimeout time.Duration
	// RequestTimeout bounds the work on one request. Default 30 s.
	RequestTimeout time.Duration
}

// Validate fills in the defaults: Invalid for a negative value.
func (c *ServerConfig) Validate() error {
	if c.MaxConns < 0 || c.IdleTimeout < 0 || c.RequestTimeout < 0 {
		return orca.E("shortcircuit.ServerConfig", orca.Invalid, "a limit is negative")
	}
	setDefault(&c.MaxConns, 1024)
	setDefault(&c.IdleTimeout, 15*time.Minute)
	setDefault(&c.RequestTimeout, 30*time.Second)
	return nil
}

// ClientConfig bounds a Client. Only Path has no default.
type ClientConfig struct {
	// Path of the worker's descriptor socket.
	Path string
	// MaxOpen is how many descriptors are cached. Default 1024.
	MaxOpen int
	// MaxAge is how long a descriptor is cached at most; the expiry of its
	// grant ends it, too. Default 5 min.
	MaxAge time.Duration
	// RetryPartial is how long a block that the worker has no descriptor for
	// is not asked for again. Default 500 ms.
	RetryPartial time.Duration
	// Conns is how many requests are outstanding. Default 4.
	Conns int
	// Timeout bounds one request. Default 30 s.
	Timeout time.Duration
}

// Validate fills in the defaults: Invalid for a wrong value.
func (c *ClientConfig) Validate() error {
	if c.Path == "" || c.MaxOpen < 0 || c.MaxAge < 0 || c.RetryPartial < 0 || c.Conns < 0 || c.Timeout < 0 {
		return orca.E("shortcircuit.ClientConfig", orca.Invalid, "no path, or a negative limit")
	}
	setDefault(&c.MaxOpen, 1024)
	setDefault(&c.MaxAge, 5*time.Minute)
	setDefault(&c.RetryPartial, 500*time.Millisecond)
	setDefault(&c.Conns, 4)
	setDefault(&c.Timeout, 30*time.Second)
	return nil
}

func setDefault[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}
