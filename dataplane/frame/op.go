// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package frame

import "fmt"

// Op is an operation; its number is the wire value. Append only. The ranges:
//
//	0x0000–0x00ff  the connection itself (transport)
//	0x0100–0x01ff  blocks (blockserver), descriptors (shortcircuit)
//	0x0200–0x02ff  the namespace (metaserver)
//	0x0300–0x03ff  jobs
type Op uint16

// Operations of the connection, handled by transport.
const (
	// OpCancel asks the server to stop working on the request of the same
	// Seq. It has no reply of its own.
	OpCancel Op = 0x0001
	// OpPing is answered with its own meta.
	OpPing Op = 0x0002
)

// Operations on blocks.
const (
	OpRead        Op = 0x0100 + iota // a range of a block; body: data, meta: grain sums
	OpCreateWrite                    // a private file
	OpWriteAt                        // body: data
	OpTruncate
	OpSync
	OpSeal
	OpAbort
	OpStatBlock
	OpDescriptors // on the descriptor socket: read-only descriptors of blocks
	OpWriteFile   // on the descriptor socket: the descriptor of a private file
	OpPresent     // a range of a block, to be read in place: no body
)

// OpMetaFirst is the first operation of the namespace; metaserver numbers its
// own from here.
const OpMetaFirst Op = 0x0200

// OpJobFirst is the first operation of jobs.
const OpJobFirst Op = 0x0300

// String names the operations of this package and formats others in hex.
func (o Op) String() string {
	switch o {
	case OpCancel:
		return "cancel"
	case OpPing:
		return "ping"
	}
	if i := int(o) - int(OpRead); i >= 0 && i < len(blockOpNames) {
		return blockOpNames[i]
	}
	return fmt.Sprintf("op %#04x", uint16(o))
}

var blockOpNames = [...]string{
	"read", "create-write", "write-at", "truncate", "sync", "seal", "abort",
	"stat-block", "descriptors", "write-file", "present",
}
