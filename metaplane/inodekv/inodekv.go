// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package inodekv is the store below a metaplane group, the sole user of
// pebble.
package inodekv

// DB is one store.
type DB struct{}
