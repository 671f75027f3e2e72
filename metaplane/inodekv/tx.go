// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"

	"orca"
	"orca/metaplane/inode"
)

// Tx is an overlay over a DB: it sees its own writes, others see them after
// Commit. Writing a key twice costs one write. Make it once and reuse it.
type Tx struct {
	db    *DB
	dirty map[string]int // key -> index into items
	items []item
	slab  []byte // memory of the keys and values
	buf   []byte // of the last Get
	batch *pebble.Batch
	index [8]byte // applied, encoded
}

type item struct {
	key     string
	value   []byte
	deleted bool
}

// NewTx returns an empty overlay.
func (d *DB) NewTx() *Tx {
	return &Tx{db: d, dirty: make(map[string]int, 1024)}
}

// Get returns the value of key or nil; it is valid until the next Get.
func (t *Tx) Get(key []byte) ([]byte, error) {
	if i, ok := t.dirty[string(key)]; ok {
		if t.items[i].deleted {
			return nil, nil
		}
		return t.items[i].value, nil
	}
	v, err := t.db.Get(t.buf[:0], key)
	if v != nil {
		t.buf = v
	}
	return v, err
}

// Set stores a copy of value.
func (t *Tx) Set(key, value []byte) { t.put(key, item{value: t.hold(value)}) }

// Delete removes a key.
func (t *Tx) Delete(key []byte) { t.put(key, item{deleted: true}) }

// hold copies b into the slab.
func (t *Tx) hold(b []byte) []byte {
	if cap(t.slab)-len(t.slab) < len(b) {
		t.slab = make([]byte, 0, max(64<<10, len(b)))
	}
	off := len(t.slab)
	t.slab = append(t.slab, b...)
	return t.slab[off:len(t.slab):len(t.slab)]
}

func (t *Tx) put(key []byte, it item) {
	if i, ok := t.dirty[string(key)]; ok {
		it.key = t.items[i].key
		t.items[i] = it
		return
	}
	held := t.hold(key)
	it.key = unsafe.String(unsafe.SliceData(held), len(held)) // as long as items and dirty have it
	t.dirty[it.key] = len(t.items)
	t.items = append(t.items, it)
}

// Dirty reports whether there is something to commit.
func (t *Tx) Dirty() bool { return len(t.items) > 0 }

// Scan calls fn for the keys in [lower, upper), upper nil being the end, in
// order, own writes included, until it returns false. fn must not write.
func (t *Tx) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	own := t.ownIn(lower, upper)
	more := true
	emit := func(it item) bool {
		return it.deleted || fn([]byte(it.key), it.value)
	}
	err := t.db.Scan(lower, upper, func(key, value []byte) bool {
		for more && len(own) > 0 {
			c := strings.Compare(own[0].key, string(key))
			if c > 0 {
				break
			}
			more = emit(own[0])
			own = own[1:]
			if c == 0 {
				return more
			}
		}
		more = more && fn(key, value)
		return more
	})
	for err == nil && more && len(own) > 0 {
		more = emit(own[0])
		own = own[1:]
	}
	return err
}

// ownIn returns the own writes of a range in order of key.
func (t *Tx) ownIn(lower, upper []byte) []item {
	var own []item
	for _, it := range t.items {
		if it.key >= string(lower) && (upper == nil || it.key < string(upper)) {
			own = append(own, it)
		}
	}
	slices.SortFunc(own, func(a, b item) int { return strings.Compare(a.key, b.key) })
	return own
}

// Commit writes everything and the applied index, which stand for ops
// commands, in one atomic batch, and empties the overlay. It does not wait for
// the disk.
//
// The batch is in order: pebble looks for the place of a key in its memory from
// that of the key before on.
func (t *Tx) Commit(applied uint64, ops int) error {
	if t.batch == nil {
		t.batch = t.db.db.NewBatch()
	}
	b := t.batch
	slices.SortFunc(t.items, func(x, y item) int { return strings.Compare(x.key, y.key) })
	for i := range t.items {
		it := &t.items[i]
		if it.deleted {
			d := b.DeleteDeferred(len(it.key))
			copy(d.Key, it.key)
			_ = d.Finish()
			continue
		}
		d := b.SetDeferred(len(it.key), len(it.value))
		copy(d.Key, it.key)
		copy(d.Value, it.value)
		_ = d.Finish()
	}
	binary.BigEndian.PutUint64(t.index[:], applied)
	_ = b.Set(inode.AppliedKey, t.index[:], nil)
	if err := b.Commit(pebble.NoSync); err != nil {
		t.db.fail(err.Error())
		return orca.PathE("inodekv.Commit", "", orca.Unavailable, err)
	}
	b.Reset()
	t.db.applied.Store(applied)
	t.db.Stats.Commits.Add(1)
	t.Discard()
	if t.db.ops.Add(int64(max(ops, 1))) >= int64(t.db.cfg.FlushOps) {
		select {
		case t.db.kick <- struct{}{}:
		default:
		}
	}
	return nil
}

// Discard empties the overlay.
func (t *Tx) Discard() {
	clear(t.dirty)
	clear(t.items)
	t.items = t.items[:0]
	t.slab = t.slab[:0]
}

// Close releases memory; the DB stays open.
func (t *Tx) Close() error {
	if t.batch == nil {
		return nil
	}
	return t.batch.Close()
}

func decodeApplied(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, orca.E("inodekv.Open", orca.Corrupt, "bad applied index")
	}
	return binary.BigEndian.Uint64(b), nil
}
