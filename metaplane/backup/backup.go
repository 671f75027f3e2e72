// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package backup is the file format of a backup of the metaplane: all records
// of its groups at one applied index each, in their own encoding.
// docs/format/backup.md draws the bytes; testdata/ has a golden of each format
// version, which must be readable for ever.
//
// The flow: a member makes a Stream of its store and hands out one frame after
// the other; whoever wants the backup appends them to a file. Verify and
// restore read the file with a Reader, which checks it on the way.
//
// The records are not looked into: a backup carries what this build does not
// know. It is pure but for the reader or writer that it is given, starts no
// goroutine and holds no lock; memory is bounded by one frame. It refuses, with
// Corrupt, a frame whose sum does not hold, what ends before its trailer or
// goes on behind it, and a trailer whose counts are others; with Unsupported, a
// file of a later format.
package backup

import (
	"encoding/json"
	"hash/crc32"
	"time"

	"orca"
)

const (
	// Format is the version that this build writes. A new one is a new number
	// here, a golden, and a case where the old ones are read.
	Format = 1
	// magic starts a file; the format version follows in one byte.
	magic = "orcabak"
	// MaxFrame bounds the body of a frame in bytes: what a reader holds.
	MaxFrame = 32 << 20
	// chunkBytes is how many bytes of records a data frame has, about.
	chunkBytes = 1 << 20
	// frameHead is the length of a frame's head: kind 1, length of the body 4.
	frameHead = 5
)

// Kinds of frames.
const (
	kindHeader  = 'H' // Header as JSON
	kindData    = 'D' // group 2, records 4, length of the records 4, zstd of them
	kindTrailer = 'T' // Trailer as JSON
)

// Header says what a backup is of. It is the first frame.
type Header struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"` // Host.Cluster of the metaplane
	Version string `json:"version"` // of the Orca that wrote it
	Node    string `json:"node,omitempty"`
	// Created is when the state was as it is in the backup.
	Created time.Time `json:"created"`
	Groups  []Group   `json:"groups"`
}

// Group is one Raft group of a backup.
type Group struct {
	ID uint16 `json:"id"`
	// Applied is the index of the last entry in the state.
	Applied uint64 `json:"applied"`
}

// Trailer is the last frame: a file without it is cut off.
type Trailer struct {
	// Records are the numbers of records by group and key space (the first
	// byte of a key, as a character).
	Records map[uint16]map[string]int64 `json:"records"`
	Total   int64                       `json:"total"`  // records
	Bytes   int64                       `json:"bytes"`  // of keys and values
	Frames  int64                       `json:"frames"` // of data
	// Digest is the SHA-256 of all that is before the trailer, in hex: the
	// identity of the backup.
	Digest string `json:"digest"`
}

// Source gives the records of one group in the order of their keys.
type Source interface {
	// Next returns the next record, whose memory is valid until the next call;
	// a nil key is the end.
	Next() (key, value []byte, err error)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func corrupt(msg string) error { return orca.E("backup", orca.Corrupt, msg) }

func encodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, orca.PathE("backup", "", orca.Internal, err)
	}
	return b, nil
}
