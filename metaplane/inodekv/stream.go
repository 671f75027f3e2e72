// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"orca"
	"orca/metaplane/inode"
)

// streamMagic starts a stream; its last byte is the format version.
const streamMagic = "orcakv\x00\x01"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// View is the store at one moment, for streaming while commits go on.
type View struct{ snap *pebble.Snapshot }

// View takes a view; Close it.
func (d *DB) View() *View { return &View{d.db.NewSnapshot()} }

// Close releases the view.
func (v *View) Close() error { return v.snap.Close() }

// WriteTo streams every key and value: magic, then {uvarint key length, key,
// uvarint value length, value}, then a zero length, the count and a CRC32C.
// stop, if not nil, aborts with Canceled when closed.
func (v *View) WriteTo(w io.Writer, stop <-chan struct{}) error {
	const op = "inodekv.WriteTo"
	it, err := v.snap.NewIter(nil)
	if err != nil {
		return orca.PathE(op, "", orca.Unavailable, err)
	}
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	_, _ = out.WriteString(streamMagic)
	var count uint64
	var scratch []byte
	for ok := it.First(); ok; ok = it.Next() {
		if count%1024 == 0 && stopped(stop) {
			return errors.Join(orca.E(op, orca.Canceled, "stopped"), it.Close())
		}
		scratch = binary.AppendUvarint(scratch[:0], uint64(len(it.Key())))
		scratch = append(scratch, it.Key()...)
		scratch = binary.AppendUvarint(scratch, uint64(len(it.Value())))
		_, _ = out.Write(scratch)
		if _, err := out.Write(it.Value()); err != nil {
			return errors.Join(orca.PathE(op, "", orca.Unavailable, err), it.Close())
		}
		count++
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return orca.PathE(op, "", orca.Unavailable, err)
	}
	_, _ = out.Write(binary.BigEndian.AppendUint64([]byte{0}, count))
	if err := out.Flush(); err != nil {
		return orca.PathE(op, "", orca.Unavailable, err)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return orca.PathE(op, "", orca.Unavailable, err)
	}
	return nil
}

// Cursor walks the records of a store as they are at one moment, while commits
// go on. It is for one goroutine, but for Close.
type Cursor struct {
	db *DB
	// Applied is the index of the last commit that it sees, Estimate about how
	// many records there are.
	Applied  uint64
	Estimate int64

	mu   sync.Mutex
	snap *pebble.Snapshot // nil: closed
	it   *pebble.Iterator
	past bool // the first record was handed out
	buf  []byte
}

// Cursor starts a walk; Close it. A store that is closed ends its walks.
func (d *DB) Cursor() (*Cursor, error) {
	const op = "inodekv.Cursor"
	d.curs.Lock()
	defer d.curs.Unlock()
	if d.curs.closed {
		return nil, orca.E(op, orca.Unavailable, "the store is closed")
	}
	c := &Cursor{db: d, snap: d.db.NewSnapshot()}
	v, closer, err := c.snap.Get(inode.AppliedKey)
	if err == nil {
		c.Applied, err = decodeApplied(v)
		err = errors.Join(err, closer.Close())
	} else if errors.Is(err, pebble.ErrNotFound) {
		err = nil
	}
	if err == nil {
		c.it, err = c.snap.NewIter(nil)
	}
	if err != nil {
		return nil, errors.Join(orca.PathE(op, "", orca.Unavailable, err), c.snap.Close())
	}
	c.Estimate = d.records()
	if d.curs.open == nil {
		d.curs.open = map[*Cursor]struct{}{}
	}
	d.curs.open[c] = struct{}{}
	return c, nil
}

// records is about how many records the store has: those of its tables, with
// what was overwritten or removed since counted too often.
func (d *DB) records() int64 {
	var n uint64
	levels, err := d.db.SSTables(pebble.WithProperties())
	if err != nil {
		return 0
	}
	for _, tables := range levels {
		for i := range tables {
			if p := tables[i].Properties; p != nil {
				n += p.NumEntries - min(p.NumEntries, 2*p.NumDeletions)
			}
		}
	}
	return int64(n)
}

// Next returns the next record, whose memory is valid until the next call; a
// nil key is the end.
func (c *Cursor) Next() (key, value []byte, err error) {
	const op = "inodekv.Cursor"
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.snap == nil {
		return nil, nil, orca.E(op, orca.Unavailable, "the store was closed, or replaced")
	}
	more := false
	if c.past {
		more = c.it.Next()
	} else {
		more, c.past = c.it.First(), true
	}
	if !more {
		if err := c.it.Error(); err != nil {
			return nil, nil, orca.PathE(op, "", orca.Unavailable, err)
		}
		return nil, nil, nil
	}
	value, err = c.it.ValueAndErr()
	if err != nil {
		return nil, nil, orca.PathE(op, "", orca.Unavailable, err)
	}
	// A copy: the store may be closed, and its memory gone, before it is used.
	n := len(c.it.Key())
	c.buf = append(append(c.buf[:0], c.it.Key()...), value...)
	return c.buf[:n], c.buf[n:], nil
}

// Close ends the walk; twice is once.
func (c *Cursor) Close() error {
	err := c.end() // before it is forgotten: a store that closes waits for those it knows
	c.db.curs.Lock()
	delete(c.db.curs.open, c)
	c.db.curs.Unlock()
	return err
}

func (c *Cursor) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.snap == nil {
		return nil
	}
	err := errors.Join(c.it.Close(), c.snap.Close())
	c.snap, c.it = nil, nil
	return err
}

// endCursors ends all walks, for the store closes.
func (d *DB) endCursors() error {
	d.curs.Lock()
	d.curs.closed = true
	open := d.curs.open
	d.curs.open = nil
	d.curs.Unlock()
	var errs []error
	for c := range open {
		errs = append(errs, c.end())
	}
	return errors.Join(errs...)
}

// Fill puts records into an empty store until next returns a nil key, and makes
// them durable with the applied index, which becomes the store's base, too. Of
// SpaceApplied there must be none among them.
func (d *DB) Fill(applied uint64, next func() (key, value []byte, err error)) error {
	const op = "inodekv.Fill"
	b := d.db.NewBatch()
	defer func() { _ = b.Close() }()
	for {
		key, value, err := next()
		if err != nil {
			return err
		}
		if key == nil {
			break
		}
		_ = b.Set(key, value, nil)
		if b.Len() > 4<<20 {
			if err := b.Commit(pebble.NoSync); err != nil {
				return orca.PathE(op, d.cfg.Dir, orca.Unavailable, err)
			}
			b.Reset()
		}
	}
	index := binary.BigEndian.AppendUint64(nil, applied)
	_ = b.Set(inode.AppliedKey, index, nil)
	_ = b.Set(inode.BaseKey, index, nil)
	if err := b.Commit(pebble.NoSync); err != nil {
		return orca.PathE(op, d.cfg.Dir, orca.Unavailable, err)
	}
	d.applied.Store(applied)
	d.base = applied
	return d.Flush()
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// summed hashes what is read through it.
type summed struct {
	r   *bufio.Reader
	sum uint32
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum = crc32.Update(s.sum, castagnoli, []byte{b})
	}
	return b, err
}

// Receive fills an empty store from a stream and makes it durable. Corrupt:
// the stream does not hold; the store must then be thrown away.
func (d *DB) Receive(r io.Reader, stop <-chan struct{}) error {
	s := &summed{r: bufio.NewReaderSize(r, 256<<10)}
	magic := make([]byte, len(streamMagic))
	if _, err := io.ReadFull(s, magic); err != nil || string(magic) != streamMagic {
		return corruptStream(err)
	}
	b := d.db.NewBatch()
	defer func() { _ = b.Close() }()
	var count uint64
	for {
		key, err := readChunk(s)
		if err != nil {
			return err
		}
		if len(key) == 0 {
			break
		}
		value, err := readChunk(s)
		if err != nil {
			return err
		}
		_ = b.Set(key, value, nil)
		if count++; b.Len() > 4<<20 {
			if stopped(stop) {
				return orca.E("inodekv.Receive", orca.Canceled, "stopped")
			}
			if err := b.Commit(pebble.NoSync); err != nil {
				return orca.PathE("inodekv.Receive", d.cfg.Dir, orca.Unavailable, err)
			}
			b.Reset()
		}
	}
	if err := checkTrailer(s, count); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return orca.PathE("inodekv.Receive", d.cfg.Dir, orca.Unavailable, err)
	}
	return d.Flush()
}

func checkTrailer(s *summed, count uint64) error {
	var n [8]byte
	if _, err := io.ReadFull(s, n[:]); err != nil {
		return corruptStream(err)
	}
	want := s.sum
	var crc [4]byte
	if _, err := io.ReadFull(s.r, crc[:]); err != nil {
		return corruptStream(err)
	}
	if binary.BigEndian.Uint64(n[:]) != count || binary.BigEndian.Uint32(crc[:]) != want {
		return corruptStream(nil)
	}
	return nil
}

func readChunk(s *summed) ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil || n > 64<<20 {
		return nil, corruptStream(err)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(s, p); err != nil {
		return nil, corruptStream(err)
	}
	return p, nil
}

func corruptStream(err error) error {
	return orca.PathE("inodekv.Receive", "", orca.Corrupt, err)
}
