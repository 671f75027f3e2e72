// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package cryptfile encrypts the files of a tier directory, grain by grain
// (docs/format/blockfile.md, ADR 0021). It knows keys and bytes: what is
// written where, package dir decides.
//
//	grain i ─ AES-256-GCM ─► as many bytes, at the place of the grain
//	                      └► entry i: nonce, tag            in the trailer
//	key file ─ HKDF ─ salt of the file ─► its key           in the trailer
//
// A file has a key of its own, derived from that of its directory and a random
// salt, and each grain a random nonce each time that it is written: nothing is
// ever encrypted twice under the same pair. The tag covers the number of the
// grain, the head of the trailer the name and the length of the block: a grain,
// or a file, that was put in another's place is refused like one with a flipped
// bit.
//
// It starts no goroutines and takes no locks; a Box may be used by many
// goroutines at once. It refuses key files that others may read.
package cryptfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"orca"
	"orca/tiers/blockfile"
)

const (
	// KeyLen is the length of a key file in bytes.
	KeyLen = 32
	// TagLen is how many bytes more than a grain its encryption needs while it
	// is made or undone.
	TagLen = 16
	// HeadLen is the length of the head of a trailer.
	HeadLen = 128
	// EntryLen is the length of the entry of a grain.
	EntryLen = 32

	saltLen  = 32
	nonceLen = 12
	macLen   = sha256.Size
	align    = 4096
	magic    = "ORCACRY1"
)

// Key is the key of a directory.
type Key struct{ master []byte }

// Load reads a key file: 32 random bytes that only the owner may read or write,
// who is this process's user or root. NotFound, Permission, Invalid.
func Load(path string) (*Key, error) {
	const op = "cryptfile.Load"
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.NotFound, Msg: "the key file is not there", Err: err}
	case err != nil:
		return nil, orca.PathE(op, path, orca.Permission, err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, orca.PathE(op, path, orca.Permission, err)
	case !st.Mode().IsRegular():
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Invalid, Msg: "the key file is no regular file"}
	case st.Mode().Perm()&0o077 != 0:
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Permission, Msg: "the key file may be read or written by others: chmod 600"}
	}
	b, err := io.ReadAll(io.LimitReader(f, KeyLen+1))
	switch {
	case err != nil:
		return nil, orca.PathE(op, path, orca.Permission, err)
	case len(b) != KeyLen:
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Invalid, Msg: "a key file holds 32 bytes, as of: head -c 32 /dev/urandom"}
	case bytes.Count(b, b[:1]) == KeyLen:
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Invalid, Msg: "the key file holds one byte 32 times: no key"}
	}
	return &Key{master: b}, nil
}

// derive makes a further key.
func (k *Key) derive(salt []byte, of string) []byte {
	b, err := hkdf.Key(sha256.New, k.master, salt, of, 32)
	if err != nil {
		panic("BUG: " + err.Error()) // of lengths, which are constant
	}
	return b
}

// Mark makes what a directory keeps to know its key again by.
func (k *Key) Mark() []byte {
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // never fails
	return append(append([]byte(magic), salt...), k.derive(salt, "orca tier directory")...)
}

// Fits checks the key by a mark: Corrupt when it is none, Permission when it is
// that of another key.
func (k *Key) Fits(mark []byte) error {
	const op = "cryptfile.Fits"
	if len(mark) != len(magic)+saltLen+KeyLen || string(mark[:len(magic)]) != magic {
		return orca.E(op, orca.Corrupt, "the mark of the key does not parse")
	}
	salt, want := mark[len(magic):len(magic)+saltLen], mark[len(magic)+saltLen:]
	if !hmac.Equal(want, k.derive(salt, "orca tier directory")) {
		return orca.E(op, orca.Permission, "the directory was encrypted with another key")
	}
	return nil
}

// TrailerOff returns where the trailer of a file with n bytes of content is.
func TrailerOff(n int64) int64 { return (n + align - 1) / align * align }

// EntryOff returns where the entry of a grain is.
func EntryOff(n int64, grain int) int64 { return TrailerOff(n) + HeadLen + int64(grain)*EntryLen }

// FileLen returns the length of a file with n bytes of content.
func FileLen(n int64) int64 { return EntryOff(n, blockfile.Grains(n)) }

// Box encrypts and decrypts the grains of one file.
type Box struct {
	aead cipher.AEAD
	mac  []byte // key of the head
	salt [saltLen]byte
}

// NewBox makes the box of a new file.
func (k *Key) NewBox() *Box {
	b := &Box{}
	_, _ = rand.Read(b.salt[:]) // never fails
	k.fill(b)
	return b
}

func (k *Key) fill(b *Box) {
	block, err := aes.NewCipher(k.derive(b.salt[:], "orca block data"))
	if err == nil {
		b.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic("BUG: " + err.Error()) // of lengths, which are constant
	}
	b.mac = k.derive(b.salt[:], "orca block head")
}

// Head returns the head of the trailer of a block's file.
func (b *Box) Head(id orca.BlockID, length int64) []byte {
	h := make([]byte, 0, HeadLen)
	h = append(append(h, magic...), b.salt[:]...)
	h = append(h, b.bind(id, length)...)
	return h[:HeadLen]
}

func (b *Box) bind(id orca.BlockID, length int64) []byte {
	var m [24]byte
	binary.BigEndian.PutUint64(m[:], uint64(id.File))
	binary.BigEndian.PutUint32(m[8:], id.Version)
	binary.BigEndian.PutUint32(m[12:], id.Index)
	binary.BigEndian.PutUint64(m[16:], uint64(length))
	h := hmac.New(sha256.New, b.mac)
	h.Write(m[:])
	return h.Sum(nil)
}

// Open makes the box of a file by its head: Corrupt when it is not that of this
// block, this length and this key.
func (k *Key) Open(head []byte, id orca.BlockID, length int64) (*Box, error) {
	bad := &orca.Error{Op: "cryptfile.Open", Path: id.String(), Kind: orca.Corrupt, Msg: "the file is not an encrypted one of this block"}
	if len(head) != HeadLen || string(head[:len(magic)]) != magic {
		return nil, bad
	}
	b := &Box{}
	copy(b.salt[:], head[len(magic):])
	k.fill(b)
	if !hmac.Equal(head[len(magic)+saltLen:][:macLen], b.bind(id, length)) {
		return nil, bad
	}
	return b, nil
}

// Seal encrypts whole grains from number first on (the last may be short) from
// src into dst, which has TagLen bytes more, and fills in their entries.
func (b *Box) Seal(dst, src []byte, first int, entries []byte) {
	var num [8]byte // the tag covers it
	for g := 0; len(src) > 0; g++ {
		n := min(len(src), orca.GrainSize)
		e := entries[g*EntryLen : (g+1)*EntryLen]
		clear(e)
		_, _ = rand.Read(e[:nonceLen]) // never fails
		out := b.aead.Seal(dst[:0:n+TagLen], e[:nonceLen], src[:n], binary.BigEndian.AppendUint64(num[:0], uint64(first+g)))
		copy(e[nonceLen:], out[n:]) // the next grain takes its place
		dst, src = dst[n:], src[n:]
	}
}

// Unseal decrypts whole grains in place: p has TagLen bytes of capacity behind
// its length. It returns the grains that are not what was written, which are
// zero then.
func (b *Box) Unseal(p []byte, first int, entries []byte) (bad []int) {
	var kept [TagLen]byte
	var num [8]byte
	for g := 0; g*orca.GrainSize < len(p); g++ {
		at := g * orca.GrainSize
		n := min(len(p)-at, orca.GrainSize)
		e := entries[g*EntryLen : (g+1)*EntryLen]
		ct := p[at : at+n+TagLen : at+n+TagLen]
		copy(kept[:], ct[n:])
		copy(ct[n:], e[nonceLen:nonceLen+TagLen])
		if _, err := b.aead.Open(ct[:0], e[:nonceLen], ct, binary.BigEndian.AppendUint64(num[:0], uint64(first+g))); err != nil {
			clear(ct[:n])
			bad = append(bad, first+g)
		}
		copy(ct[n:], kept[:])
	}
	return bad
}
