// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import "orca"

// ShortCircuit says how blocks of workers on the client's node are read.
type ShortCircuit uint8

const (
	// PassDescriptors reads by descriptors that the worker passes; what has none
	// (partial blocks) as with StreamDomain.
	PassDescriptors ShortCircuit = iota
	// StreamDomain takes no descriptors: reads go over the Unix socket of the
	// worker's block server, for clients that may not hold descriptors of its
	// files; over the network where that socket cannot be seen or used.
	StreamDomain
	// NoShortCircuit treats workers on this node as those elsewhere.
	NoShortCircuit
)

var shortCircuits = [...]string{PassDescriptors: "fd", StreamDomain: "stream", NoShortCircuit: "off"}

// ParseShortCircuit reads what String writes: fd, stream, off. Invalid.
func ParseShortCircuit(s string) (ShortCircuit, error) {
	for i, name := range shortCircuits {
		if s == name {
			return ShortCircuit(i), nil
		}
	}
	return 0, &orca.Error{Op: "client.ParseShortCircuit", Path: s, Kind: orca.Invalid, Msg: "want fd, stream or off"}
}

// String returns the name.
func (s ShortCircuit) String() string {
	if int(s) < len(shortCircuits) {
		return shortCircuits[s]
	}
	return "unknown"
}
