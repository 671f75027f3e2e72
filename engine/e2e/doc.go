// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests that run Orca as its users do: the real binary
// in processes of its own, on a real local folder and a real MinIO, through
// the command line, the Go client and real FUSE mounts, and that kill it where
// it hurts. It has no product code.
package e2e
