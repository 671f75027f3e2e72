// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufstest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/ufs/ufstest/minio"
)

// StartMinIO runs a server for the life of a test; cfg.Dir is chosen when
// empty.
func StartMinIO(t testing.TB, cfg minio.Config) *minio.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	s, err := minio.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}
