// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package client is the Go API of Orca. The command line, every gateway (FUSE,
// S3, HDFS, REST) and every benchmark are thin translations of it.
//
//	fs, err := client.Open(ctx, client.Config{Addresses: []string{"127.0.0.1:18998"}})
//	f, err := fs.Open(ctx, client.Path("/data/train-00001.tar"), client.ReadOptions{})
//	n, err := f.ReadAt(buf, 0)
//
// # The flow it sits in
//
//	names   FS ─► metaplane.Namespace (the service in this process, or metaclient)
//	reads   File.ReadAt ─► local descriptor: pread into the caller's buffer (or copy from a mapping)
//	                    └► Peer (block service of a worker): ranges, read ahead
//	        File.Slice  ─► the mapping itself, lent until Release; else a buffer filled by ReadAt
//	writes  Writer ─► private file on a worker (pwrite, or pipelined WriteAt)
//	        Close  ─► worker Seal ─► metaplane Complete: only then visible
//
// A File reads one version of one file for its whole life. If that version
// cannot be had any more (the store below changed it before it was cached, or
// its grant ran out after it was replaced) reads fail with orca.Stale; bytes of
// two versions are never mixed. Open again to see the new one.
//
// # Naming
//
// Calls take a Target: Path("/a/b"), At(dirIno, "name") or ByIno(ino). Paths
// are cleaned here; names are checked by the metaplane.
//
// # Errors
//
// Every error has an orca.Kind (orca.KindOf); errors.Is works with Kinds and
// with the sentinels of io/fs. Doors translate with engine/errmap.
//
// # Goroutines and locks
//
// An FS runs one goroutine while write sessions are open (it renews them) and
// one per Watch call. A File runs at most Config.Prefetch/1 MiB goroutines
// while it is read in sequence, and one while a slow read is asked of a second
// worker. Locks, outermost first: Writer.mu, File.ra.mu, core.mu (workers),
// sessions.mu, descriptors.mu, maps.mu, leases.mu, views.mu; none is held over a
// call to another process but Writer.mu.
//
// # What it refuses
//
// It caches no names (the metaplane's answers carry how long a gateway may),
// retries no mutation (metaclient does, exactly once), and reads no
// environment or configuration file.
package client

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/engine/placement"
	"orca/metaplane"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

// DefaultAddress is where a metaplane member listens for clients.
const DefaultAddress = "127.0.0.1:18998"

// Worker is a block worker as the metaplane knows it.
type Worker = metapb.Worker

// Dialer returns the way to a worker: blockclient.Local for one in this
// process, a blockclient.Client otherwise. It is called once per worker
// and boot; the result is kept and shared by all callers. With the default
// dialer it is closed with the FS; what an own Dialer returns is its owner's.
type Dialer func(ctx context.Context, w *Worker) (dataplane.Access, error)

// Config says how to reach an Orca. The zero value is a client of
// DefaultAddress as the calling process's own user.
type Config struct {
	// Meta is the namespace when it is in this process: a
	// metaclient.NewSession over the service, which numbers mutations and
	// repeats them. It stays its owner's. Nil: Addresses.
	Meta metaplane.Namespace
	// Addresses of metaplane members: host:port, or the path of a Unix
	// socket. Default: DefaultAddress.
	Addresses []string
	// ReadFrom says which members are asked for names and attributes.
	// Default: the leader.
	ReadFrom metaclient.ReadFrom
	// Node is what counts as local: descriptors are asked only of workers on
	// this node. Default: the host name.
	Node string
	// Rack is what Node stands in; workers of one rack are nearer than others.
	// Default: none.
	Rack string
	// ReadPolicy says which worker fetches what none holds; one that holds it
	// is always preferred, the nearest first. WritePolicy says which worker
	// takes a new file. Default: placement.LocalFirst.
	ReadPolicy, WritePolicy placement.Policy
	// Caller is the identity of the returned FS; see FS.As. Nil: the
	// process's effective user and groups.
	Caller *orca.Caller
	// WriteType is used where CreateOptions leave it open. Default: the
	// metaplane's (CACHE_THROUGH).
	WriteType orca.WriteType
	// ReadType is used where ReadOptions leave it open. Default: CACHE.
	ReadType orca.ReadType
	// ShortCircuit says how blocks of workers on this node are read. Default:
	// PassDescriptors.
	ShortCircuit ShortCircuit
	// Dial finds block services. Default: blockclient over TCP, and over the
	// worker's Unix socket (with descriptor passing) when it is local.
	// ShortCircuit is for the default one.
	Dial Dialer
	// Attempt is how long a worker may take to answer a read while another
	// one could be asked; the last one is waited for as long as a connection
	// may stall (30 s). A second more for each MiB of the read. Default 10 s.
	Attempt time.Duration
	// Hedge is the share of reads that may be sent to a second worker when the
	// first takes longer than 95 of 100 do. Only blocks that two workers hold
	// are. Default 0.05; negative: none.
	Hedge float64
	// Prefetch is how far a sequential reader of a remote block is read
	// ahead, in bytes. Default 4 MiB; negative: not at all.
	Prefetch int64
	// Descriptors bounds the cache of local block descriptors. Default 4096.
	Descriptors int
	// Mappings bounds the local blocks that are mapped into this process, for
	// views and for hot reads; the least recently used give way. Default 4096.
	Mappings int
	// Lease is how long a local descriptor is used without asking its worker
	// whether the block still has that file. Default 1 min.
	Lease time.Duration
	// FirstAnswer is how long Open waits for the namespace, when its context
	// has no earlier deadline. Default 5 s.
	FirstAnswer time.Duration
	// WorkersTTL is how long the list of live workers is believed. Default 2 s.
	WorkersTTL time.Duration
	// Logger gets degraded service only (failovers, lost watches). Default:
	// none.
	Logger *slog.Logger
}

func (c *Config) setDefaults() error {
	if c.Node == "" {
		h, err := os.Hostname()
		if err != nil {
			return orca.PathE("client.Open", "", orca.Internal, err)
		}
		c.Node = h
	}
	if len(c.Addresses) == 0 {
		c.Addresses = []string{DefaultAddress}
	}
	if c.Caller == nil {
		me := Self()
		c.Caller = &me
	}
	if c.Attempt <= 0 {
		c.Attempt = 10 * time.Second
	}
	if c.Hedge == 0 {
		c.Hedge = 0.05
	}
	if c.Prefetch == 0 {
		c.Prefetch = 4 << 20
	}
	if c.Descriptors <= 0 {
		c.Descriptors = 4096
	}
	if c.Mappings <= 0 {
		c.Mappings = 4096
	}
	if c.Lease <= 0 {
		c.Lease = time.Minute
	}
	if c.FirstAnswer <= 0 {
		c.FirstAnswer = 5 * time.Second
	}
	if c.WorkersTTL <= 0 {
		c.WorkersTTL = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Self is the identity of this process.
func Self() orca.Caller {
	c := orca.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	gs, err := os.Getgroups()
	if err != nil {
		return c // a caller without supplementary groups is a safe answer
	}
	for _, g := range gs {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

// core is what all views of one FS share.
type core struct {
	cfg      Config
	meta     metaplane.Namespace
	own      *metaclient.Client // meta, if Open dialled it
	peers    peers
	descs    *descriptors
	views    views
	sessions sessions
	stats    Stats
	hedges   hedges
	turn     atomic.Uint64 // of policies that take turns
	log      *slog.Logger
	closing  sync.Once
}

// FS is an Orca seen by one caller. It is safe for concurrent use; views made
// by As share everything but the identity.
type FS struct {
	*core
	caller *metapb.Caller
}

// Open connects to an Orca. It returns when the namespace is known to answer
// or ctx ends. Unavailable when no address answers.
func Open(ctx context.Context, cfg Config) (*FS, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := &core{cfg: cfg, meta: cfg.Meta, log: cfg.Logger, hedges: newHedges(cfg.Hedge)}
	if c.meta == nil {
		m, err := dialMeta(ctx, &cfg)
		if err != nil {
			return nil, err
		}
		c.meta, c.own = m, m
	}
	c.descs = newDescriptors(cfg.Descriptors, cfg.Mappings, cfg.Lease)
	c.peers.init(c)
	c.sessions.init(c)
	return &FS{core: c, caller: callerPB(*cfg.Caller)}, nil
}

// As returns a view of the same FS with another identity. The metaplane
// believes it only as far as the connection allows (in process and from root:
// anybody).
func (fs *FS) As(c orca.Caller) *FS {
	return &FS{core: fs.core, caller: callerPB(c)}
}

// Caller returns the identity of this view.
func (fs *FS) Caller() orca.Caller {
	return orca.Caller{UID: fs.caller.Uid, GID: fs.caller.Gid, Groups: fs.caller.Groups}
}

// Node returns what counts as local.
func (fs *FS) Node() string { return fs.cfg.Node }

// MetaAddress is the metaplane member that answered last; "in-process" when
// there is no connection.
func (fs *FS) MetaAddress() string {
	if fs.own == nil {
		return "in-process"
	}
	return fs.own.Addr()
}

// Close ends renewals, closes cached descriptors and the connections that Open
// made. Files and Writers still open fail from then on. It closes the whole
// FS, whichever view it is called on.
func (fs *FS) Close() error {
	var err error
	fs.closing.Do(func() {
		fs.sessions.close()
		fs.descs.close()
		err = fs.peers.close()
		if fs.own != nil {
			if e := fs.own.Close(); err == nil {
				err = e
			}
		}
	})
	return err
}

// header starts a request of this caller.
func (fs *FS) header() *metapb.Header { return &metapb.Header{Caller: fs.caller} }
