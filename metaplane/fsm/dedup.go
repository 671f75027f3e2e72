// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"slices"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
)

// Window is how many requests of a client may be outstanding: the results of
// the last Window sequence numbers are remembered.
const Window = 1024

// client is what is remembered of one client: the results of its requests
// from floor on. A request below floor is never executed again.
type client struct {
	id      uint64
	floor   uint64
	used    int64             // now of its last command
	results map[uint64][]byte // encoded, by seq; nil: not read yet
	dirty   bool
}

const clientFormat = 1

// admit finds the client of a command, moves its window, and returns the
// remembered result if there is one. SessionExpired: the request is older
// than the window, or of a client that was forgotten.
func (m *Machine) admit(cmd *command.Command) (*client, []byte, *refusal) {
	if cmd.Seq == 0 {
		return nil, nil, refuse(orca.Invalid, "", "a client's command without a sequence number")
	}
	c := m.clients[cmd.Client]
	if c == nil {
		if cmd.AckedBelow > 1 {
			return nil, nil, refuse(orca.SessionExpired, "", "the client is not known any more: start again with a new client id")
		}
		m.evictClients()
		c = &client{id: cmd.Client, results: map[uint64][]byte{}}
		m.clients[c.id] = c
	}
	m.loadResults(c)
	m.raiseFloor(c, cmd.AckedBelow)
	c.used = max(c.used, cmd.Now)
	if !c.dirty {
		c.dirty = true
		m.batch.clients = append(m.batch.clients, c)
	}
	if cmd.Seq < c.floor {
		return nil, nil, refuse(orca.SessionExpired, "", "the request is older than the window of remembered results")
	}
	return c, c.results[cmd.Seq], nil
}

// remember keeps the result of a request; its slot in the store is reused.
func (m *Machine) remember(c *client, seq uint64, result []byte) {
	if seq >= c.floor+Window {
		m.raiseFloor(c, seq-Window+1)
	}
	var b []byte
	if n := len(m.freed); n > 0 {
		b, m.freed = m.freed[n-1], m.freed[:n-1]
	}
	c.results[seq] = append(b[:0], result...)
	v := binary.BigEndian.AppendUint64(m.batch.val[:0], seq)
	m.batch.val = append(v, result...)
	m.batch.key = inode.AppendSlot(m.batch.key[:0], c.id, uint16(seq%Window))
	m.tx.Set(m.batch.key, m.batch.val)
	if !c.dirty {
		c.dirty = true
		m.batch.clients = append(m.batch.clients, c)
	}
}

// rememberFor is remember for a request whose outcome came later.
func (m *Machine) rememberFor(id, seq uint64, result []byte) {
	c := m.clients[id]
	if c == nil {
		return
	}
	if m.loadResults(c); seq >= c.floor {
		m.remember(c, seq, result)
	}
}

func (m *Machine) raiseFloor(c *client, floor uint64) {
	if floor <= c.floor {
		return
	}
	if floor-c.floor > uint64(len(c.results)) {
		for seq := range c.results {
			if seq < floor {
				m.forget(c, seq)
			}
		}
	} else {
		for ; c.floor < floor; c.floor++ {
			m.forget(c, c.floor)
		}
	}
	c.floor = floor
}

// maxFreed bounds the memory of forgotten results that is kept, and maxFreedLen
// the length of one.
const (
	maxFreed    = 1024
	maxFreedLen = 512
)

// forget drops a remembered result; its memory is used for another.
func (m *Machine) forget(c *client, seq uint64) {
	b, ok := c.results[seq]
	if !ok {
		return
	}
	delete(c.results, seq)
	if len(m.freed) < maxFreed && cap(b) <= maxFreedLen {
		m.freed = append(m.freed, b)
	}
}

func (m *Machine) storeClient(c *client) {
	if c.dirty = false; m.clients[c.id] != c {
		return
	}
	m.batch.key = inode.AppendKey8(m.batch.key[:0], inode.SpaceClient, c.id)
	v := append(m.batch.val[:0], clientFormat)
	v = binary.BigEndian.AppendUint64(v, c.floor)
	m.batch.val = binary.BigEndian.AppendUint64(v, uint64(c.used))
	m.tx.Set(m.batch.key, m.batch.val)
}

// evictClients makes room for one more client by forgetting the sixteenth
// part that has been idle longest.
func (m *Machine) evictClients() {
	if len(m.clients) < m.cfg.MaxClients {
		return
	}
	all := make([]*client, 0, len(m.clients))
	for _, c := range m.clients {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *client) int {
		if a.used != b.used {
			return int(min(max(a.used-b.used, -1), 1))
		}
		if a.id < b.id {
			return -1
		}
		return 1
	})
	for _, c := range all[:len(all)/16+1] {
		delete(m.clients, c.id)
		lower := inode.AppendKey8(nil, inode.SpaceClient, c.id)
		m.deleteRange(lower, inode.PrefixEnd(lower))
	}
}

// deleteRange deletes the keys in [lower, upper).
func (m *Machine) deleteRange(lower, upper []byte) {
	var keys [][]byte
	err := m.tx.Scan(lower, upper, func(k, _ []byte) bool {
		keys = append(keys, slices.Clone(k))
		return true
	})
	if err != nil {
		m.fail(err)
	}
	for _, k := range keys {
		m.tx.Delete(k)
	}
}

// loadClients reads the clients, not their results.
func (m *Machine) loadClients() error {
	for lower := []byte{inode.SpaceClient}; lower != nil; {
		var next []byte
		err := m.db.Scan(lower, []byte{inode.SpaceClient + 1}, func(k, v []byte) bool {
			if len(k) == 9 && len(v) == 17 && v[0] == clientFormat {
				id := inode.Number(k)
				m.clients[id] = &client{
					id: id, floor: binary.BigEndian.Uint64(v[1:]), used: int64(binary.BigEndian.Uint64(v[9:])),
				}
			}
			next = inode.PrefixEnd(k[:min(9, len(k))])
			return false
		})
		if err != nil {
			return err
		}
		lower = next
	}
	return nil
}

// loadResults reads the remembered results of a client once.
func (m *Machine) loadResults(c *client) {
	if c.results != nil {
		return
	}
	c.results = map[uint64][]byte{}
	lower := inode.AppendKey8(nil, inode.SpaceClient, c.id)
	err := m.tx.Scan(lower, inode.PrefixEnd(lower), func(k, v []byte) bool {
		if len(k) == 11 && len(v) > 8 {
			if seq := binary.BigEndian.Uint64(v); seq >= c.floor {
				c.results[seq] = slices.Clone(v[8:])
			}
		}
		return true
	})
	if err != nil {
		m.fail(err)
	}
}
