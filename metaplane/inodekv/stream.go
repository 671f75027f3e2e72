// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"orca"
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
