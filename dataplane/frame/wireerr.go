// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package frame

import (
	"context"
	"encoding/binary"
	"errors"
	"os"

	"orca"
)

// maxErrText bounds each text of an error on the wire, in bytes.
const maxErrText = 8 << 10

// StatusOf returns the status that says err on the wire. Errors of package
// context that no edge has translated become Canceled and Timeout.
func StatusOf(err error) orca.Kind {
	k := orca.KindOf(err)
	if k != orca.Internal {
		return k
	}
	switch {
	case errors.Is(err, context.Canceled):
		return orca.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return orca.Timeout
	}
	return orca.Internal
}

// AppendError appends the meta of a reply that carries err: operation, path
// and message, each as a big-endian uint16 length and bytes (texts over 8 KiB
// are cut). The Kind travels in Header.Status.
func AppendError(dst []byte, err error) []byte {
	op, path, msg := "", "", err.Error()
	// The outermost error only: one that is wrapped keeps its whole text.
	if e, ok := err.(*orca.Error); ok { //nolint:errorlint // as the line above says
		op, path, msg = e.Op, e.Path, e.Msg
		if e.Err != nil {
			if msg == "" {
				msg = e.Kind.String()
			}
			msg += ": " + e.Err.Error()
		}
	}
	for _, s := range [...]string{op, path, msg} {
		s = s[:min(len(s), maxErrText)]
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// DecodeError rebuilds the error of a reply from its status and meta; nil for
// OK. A meta that does not parse keeps the Kind and loses the texts.
func DecodeError(status orca.Kind, meta []byte) error {
	if status == orca.OK {
		return nil
	}
	var s [3]string
	for i := range s {
		if len(meta) < 2 {
			break
		}
		n := int(binary.BigEndian.Uint16(meta))
		if meta = meta[2:]; n > len(meta) {
			break
		}
		s[i], meta = string(meta[:n]), meta[n:]
	}
	return &orca.Error{Op: s[0], Path: s[1], Kind: status, Msg: s[2]}
}
