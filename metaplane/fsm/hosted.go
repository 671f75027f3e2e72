// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// hostedTx is the keyspace of one hosted machine.
type hostedTx struct {
	m    *Machine
	name string
}

func (t *hostedTx) key(k []byte) []byte { return inode.AppendHosted(nil, t.name, k) }

func (t *hostedTx) Get(k []byte) []byte { return t.m.get(t.key(k)) }

func (t *hostedTx) Set(k, v []byte) { t.m.tx.Set(t.key(k), v) }

func (t *hostedTx) Delete(k []byte) { t.m.tx.Delete(t.key(k)) }

func (t *hostedTx) Scan(prefix, after []byte, fn func(k, v []byte) bool) {
	lower := t.key(prefix)
	upper := inode.PrefixEnd(lower)
	if after != nil {
		if from := append(t.key(after), 0); string(from) > string(lower) {
			lower = from
		}
	}
	skip := len(t.name) + 2
	if string(lower) < string(upper) {
		t.m.eachKey(lower, upper, func(k, v []byte) bool { return fn(k[skip:], v) })
	}
}

func (m *Machine) applyHosted(c *call, o *metapb.HostedOp) *refusal {
	h := m.hosted[o.Machine]
	if h == nil {
		return refuse(orca.Unsupported, o.Machine, "no such hosted machine")
	}
	c.res.Value = slices.Clone(h.Apply(&hostedTx{m: m, name: o.Machine}, o.Body, c.now))
	m.effect(Effect{Kind: EffectHosted, Name: o.Machine})
	return nil
}

func (m *Machine) reopenHosted() error {
	for _, name := range m.hnames {
		if r, ok := m.hosted[name].(Reopener); ok {
			if err := r.Reopen(&hostedTx{m: m, name: name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadHosted calls fn with the keys of a hosted machine under the read lock.
func (m *Machine) ReadHosted(name string, fn func(Store)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(&hostedTx{m: m, name: name})
}

// registerWorker gives a worker its id, or takes note of one that has its own
// from an earlier life.
func (m *Machine) registerWorker(c *call, o *metapb.RegisterWorkerOp) *refusal {
	id := o.Id
	if id == 0 {
		m.count.worker++
		id = m.count.worker
	}
	m.count.worker = max(m.count.worker, id)
	c.res.Id = id
	if w := m.workers[id]; w != nil && w.Node == o.Node {
		return nil
	}
	w := &command.Worker{Id: id, Node: o.Node, Registered: c.now}
	m.workers[id] = w
	m.putRecord(inode.AppendKey8(nil, inode.SpaceWorker, id), w)
	return nil
}

// maxFact is the longest value of a cluster fact.
const maxFact = 64 << 10

// setFact sets a cluster fact.
func (m *Machine) setFact(c *call, o *metapb.SetFactOp) *refusal {
	if o.Key == "" || len(o.Key) > 255 || len(o.Value) > maxFact {
		return refuse(orca.Invalid, o.Key, "bad fact")
	}
	key := inode.AppendFact(nil, o.Key)
	if have := m.get(key); have != nil && o.Absent {
		c.res.Value = slices.Clone(have)
		return nil
	}
	m.tx.Set(key, o.Value)
	c.res.Value = o.Value
	m.effect(Effect{Kind: EffectFact, Name: o.Key})
	return nil
}
