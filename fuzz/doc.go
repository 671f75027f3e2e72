// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package fuzz throws hostile bytes at whatever Orca decodes from the outside
// or from its own disks: frames, journal entries, records, protobuf bodies,
// paths, block names. What a decoder accepts must encode back to what it was
// made from, and nothing may panic or allocate without a bound. It has no
// product code; `make fuzz-smoke` runs every target for ten seconds. Its
// rooms: model (a namespace in a map) and sim (the seeded simulator).
package fuzz
