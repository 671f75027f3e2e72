// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"maps"

	"github.com/klauspost/compress/zstd"

	"orca"
)

// Stream makes the bytes of a backup, frame by frame.
type Stream struct {
	header  Header
	sources []Source // of header.Groups
	at      int      // source
	state   byte     // the kind of the next frame; 0: it has ended
	zip     *zstd.Encoder
	sum     hash.Hash
	trailer Trailer
	raw     []byte // records of the frame that is made
	out     []byte
}

// NewStream starts a backup; sources are those of h.Groups. Format of h is set.
func NewStream(h Header, sources []Source) (*Stream, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(chunkBytes))
	if err != nil {
		return nil, orca.PathE("backup.NewStream", "", orca.Internal, err)
	}
	h.Format = Format
	if len(sources) != len(h.Groups) {
		return nil, orca.E("backup.NewStream", orca.Internal, "BUG: a group without a source")
	}
	return &Stream{
		header: h, sources: sources, state: kindHeader, zip: zip, sum: sha256.New(),
		trailer: Trailer{Records: map[uint16]map[string]int64{}},
	}, nil
}

// Done returns how many records were handed out.
func (s *Stream) Done() int64 { return s.trailer.Total }

// Next returns the next bytes of the file, valid until the next call; io.EOF
// behind the last.
func (s *Stream) Next() ([]byte, error) {
	switch s.state {
	case kindHeader:
		b, err := encodeJSON(s.header)
		if err != nil {
			return nil, err
		}
		s.state = kindData
		s.out = append(append(s.out[:0], magic...), Format)
		return s.frame(kindHeader, b), nil
	case kindData:
		body, err := s.data()
		if err != nil || body != nil {
			s.out = s.out[:0]
			return s.frameIf(body, err)
		}
		fallthrough
	case kindTrailer:
		s.state = 0
		s.trailer.Digest = hex.EncodeToString(s.sum.Sum(nil))
		b, err := encodeJSON(s.trailer)
		if err != nil {
			return nil, err
		}
		s.out = s.out[:0]
		return s.frame(kindTrailer, b), nil
	}
	return nil, io.EOF
}

func (s *Stream) frameIf(body []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return s.frame(kindData, body), nil
}

// frame appends a frame to what is handed out.
func (s *Stream) frame(kind byte, body []byte) []byte {
	at := len(s.out)
	s.out = binary.BigEndian.AppendUint32(append(s.out, kind), uint32(len(body)))
	s.out = append(s.out, body...)
	s.out = binary.BigEndian.AppendUint32(s.out, crc32.Checksum(s.out[at:], castagnoli))
	s.sum.Write(s.out)
	return s.out
}

// data makes the body of the next data frame; nil: there are no more records.
func (s *Stream) data() ([]byte, error) {
	for ; s.at < len(s.sources); s.at++ {
		id := s.header.Groups[s.at].ID
		spaces := s.trailer.Records[id]
		if spaces == nil {
			spaces = map[string]int64{}
			s.trailer.Records[id] = spaces
		}
		s.raw = s.raw[:0]
		n := uint32(0)
		for len(s.raw) < chunkBytes {
			key, value, err := s.sources[s.at].Next()
			if err != nil {
				return nil, err
			}
			if key == nil {
				break
			}
			s.raw = binary.AppendUvarint(s.raw, uint64(len(key)))
			s.raw = append(s.raw, key...)
			s.raw = binary.AppendUvarint(s.raw, uint64(len(value)))
			s.raw = append(s.raw, value...)
			spaces[string(rune(key[0]))]++
			s.trailer.Bytes += int64(len(key) + len(value))
			n++
		}
		if n == 0 {
			continue
		}
		s.trailer.Total += int64(n)
		s.trailer.Frames++
		body := binary.BigEndian.AppendUint16(nil, id)
		body = binary.BigEndian.AppendUint32(body, n)
		body = binary.BigEndian.AppendUint32(body, uint32(len(s.raw)))
		return s.zip.EncodeAll(s.raw, body), nil
	}
	return nil, nil
}

// equal reports whether two trailers count the same.
func (t *Trailer) equal(o *Trailer) bool {
	return t.Total == o.Total && t.Bytes == o.Bytes && t.Frames == o.Frames && t.Digest == o.Digest &&
		maps.EqualFunc(t.Records, o.Records, maps.Equal[map[string]int64, map[string]int64])
}
