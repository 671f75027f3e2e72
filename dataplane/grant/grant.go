// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package grant makes and checks the right to read or write one version of one
// file. The metaplane makes a grant at open, after it has checked mode and
// ACL; every request to a worker carries it; the worker checks it with the
// cluster's key and needs to ask nobody.
//
//	metaserver.Open ─ Make ─► client ─ request ─► blockserver, shortcircuit ─ Checker
//
// A grant is a bearer token with an expiry: who has it has the right. Over a
// Unix socket it is bound to the uid of the peer, too. It refuses to renew or
// to revoke: an expired grant is Stale, and the client opens again.
package grant

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
)

// KeyLen is the length of a cluster's grant key in bytes.
const KeyLen = 32

// domain separates these MACs from any other use of the key; its last byte is
// the version of the encoding.
const domain = "orca-grant\x00\x01"

const bodyLen = len(domain) + 8 + 4 + 4 + 1 + 8

// encode lays out what the MAC is over: domain, file, version, uid, write,
// expiry in unix nanoseconds, big endian.
func encode(g *dataplane.Grant) (b [bodyLen]byte) {
	n := copy(b[:], domain)
	be := binary.BigEndian
	be.PutUint64(b[n:], uint64(g.File))
	be.PutUint32(b[n+8:], g.Version)
	be.PutUint32(b[n+12:], g.UID)
	if g.Write {
		b[n+16] = 1
	}
	be.PutUint64(b[n+17:], uint64(g.Expiry.UnixNano()))
	return b
}

// Make returns g with its token: HMAC-SHA256 (RFC 2104) under key. The expiry
// is kept to the nanosecond.
func Make(key []byte, g dataplane.Grant) dataplane.Grant {
	b := encode(&g)
	m := hmac.New(sha256.New, key)
	m.Write(b[:])
	g.Token = m.Sum(nil)
	return g
}

// Verify reports whether g was made under key and has not expired at now:
// Permission, or Stale when it is only too old. It takes the same time for
// every wrong token.
func Verify(key []byte, g *dataplane.Grant, now time.Time) error {
	return verify(hmac.New(sha256.New, key), g, now)
}

var (
	errToken    = orca.E("grant.Verify", orca.Permission, "grant does not hold")
	errExpired  = orca.E("grant.Verify", orca.Stale, "grant has expired: open again")
	errScope    = orca.E("grant.Verify", orca.Permission, "grant is for another file, version or right")
	errPeer     = orca.E("grant.Verify", orca.Permission, "grant is for another user")
	errNoKey    = orca.E("grant.Verify", orca.Unavailable, "worker has no grant key yet")
	errNoHandle = orca.E("grant.Verify", orca.NotFound, "no such write handle")
	errHandle   = orca.E("grant.Verify", orca.Permission, "write handle belongs to another file")
)

func verify(m hash.Hash, g *dataplane.Grant, now time.Time) error {
	b := encode(g)
	m.Write(b[:])
	var sum [sha256.Size]byte
	if !hmac.Equal(m.Sum(sum[:0]), g.Token) {
		return errToken
	}
	return expired(g, now)
}

func expired(g *dataplane.Grant, now time.Time) error {
	if !now.Before(g.Expiry) {
		return errExpired
	}
	return nil
}

// Peer is who presents a grant: over a Unix socket the uid of the process.
type Peer struct {
	Unix bool
	UID  uint32
}

// Checker checks the grants of requests to one worker. It is safe for
// concurrent use; blockserver and shortcircuit of a worker share one, because
// a write handle made through the one may be used through the other.
type Checker struct {
	key func() []byte
	uid uint32 // of this process
	now func() time.Time

	macs atomic.Pointer[macPool]

	mu      sync.RWMutex
	handles map[uint64]handle
}

// macPool keeps MACs of one key, because making one costs more than using it,
// and which grants have held under it, because a reader shows one many times.
type macPool struct {
	key  string
	pool sync.Pool // of hash.Hash
	seed maphash.Seed
	held [heldGrants]atomic.Pointer[held]
}

// heldGrants is how many grants are remembered at most, each in the place that
// what it says has: one that holds takes the place of another.
const heldGrants = 1024

// held is a grant that has held, and does until it expires.
type held struct {
	body  [bodyLen]byte
	token [sha256.Size]byte
}

// verify is Verify under the pool's key. Which place is looked at, and what is
// compared there first, is no secret; the token is compared in constant time.
func (p *macPool) verify(g *dataplane.Grant, now time.Time) error {
	b := encode(g)
	place := &p.held[maphash.Bytes(p.seed, b[:])%heldGrants]
	if h := place.Load(); h != nil && h.body == b && hmac.Equal(h.token[:], g.Token) {
		return expired(g, now)
	}
	m := p.pool.Get().(hash.Hash)
	err := verify(m, g, now)
	m.Reset()
	p.pool.Put(m)
	if err == nil {
		place.Store(&held{b, [sha256.Size]byte(g.Token)})
	}
	return err
}

// handle is what a write handle was made for.
type handle struct {
	file    orca.Ino
	version uint32
	expiry  time.Time
}

// maxHandles bounds the table of write handles; beyond it those whose grant
// has expired are forgotten, then any.
const maxHandles = 1 << 16

// NewChecker makes a checker. key returns the cluster's key (a worker learns
// it when it registers); while it returns nothing every request is
// Unavailable. A nil key turns checking off, for tests and benchmarks. uid is
// the worker's own: processes of that user and of root may use any grant.
func NewChecker(key func() []byte, uid uint32) *Checker {
	return &Checker{key: key, uid: uid, now: time.Now, handles: make(map[uint64]handle)}
}

// Read checks a request to read a block.
func (c *Checker) Read(g *dataplane.Grant, id orca.BlockID, p Peer) error {
	if c.key == nil {
		return nil
	}
	if g.File != id.File || g.Version != id.Version {
		return errScope
	}
	return c.check(g, p)
}

// Write checks a request to create or seal a private file.
func (c *Checker) Write(t *dataplane.WriteTarget, p Peer) error {
	if c.key == nil {
		return nil
	}
	if g := &t.Grant; g.File != t.File || g.Version != t.Version || !g.Write {
		return errScope
	}
	return c.check(&t.Grant, p)
}

// Opened notes what a new write handle is for.
func (c *Checker) Opened(id uint64, t *dataplane.WriteTarget) {
	if c.key == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.handles) >= maxHandles {
		c.shrinkLocked()
	}
	c.handles[id] = handle{t.File, t.Version, t.Grant.Expiry}
}

func (c *Checker) shrinkLocked() {
	now := c.now()
	for id, h := range c.handles {
		if now.After(h.expiry) {
			delete(c.handles, id)
		}
	}
	for id := range c.handles {
		if len(c.handles) < maxHandles {
			return
		}
		delete(c.handles, id)
	}
}

// Handle checks a request about a write handle.
func (c *Checker) Handle(id uint64, g *dataplane.Grant, p Peer) error {
	if c.key == nil {
		return nil
	}
	c.mu.RLock()
	h, ok := c.handles[id]
	c.mu.RUnlock()
	switch {
	case !ok:
		return errNoHandle
	case h.file != g.File || h.version != g.Version || !g.Write:
		return errHandle
	}
	return c.check(g, p)
}

// Closed forgets a write handle.
func (c *Checker) Closed(id uint64) {
	c.mu.Lock()
	delete(c.handles, id)
	c.mu.Unlock()
}

func (c *Checker) check(g *dataplane.Grant, who Peer) error {
	if who.Unix && who.UID != 0 && who.UID != c.uid && who.UID != g.UID {
		return errPeer
	}
	key := c.key()
	if len(key) == 0 {
		return errNoKey
	}
	p := c.macs.Load()
	if p == nil || p.key != string(key) {
		p = &macPool{key: string(key), seed: maphash.MakeSeed()}
		p.pool.New = func() any { return hmac.New(sha256.New, []byte(p.key)) }
		c.macs.Store(p)
	}
	return p.verify(g, c.now())
}

// Reseal checks that a target, which Write has passed, is for the file of the
// write handle, and binds the handle to the target's version from now on: a
// handle that is kept after a seal goes on under the next version.
func (c *Checker) Reseal(id uint64, t *dataplane.WriteTarget) error {
	if c.key == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.handles[id]
	if !ok {
		return errNoHandle
	}
	if h.file != t.File {
		return errHandle
	}
	c.handles[id] = handle{t.File, t.Version, t.Grant.Expiry}
	return nil
}
