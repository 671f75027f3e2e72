// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/metaplane"
	"orca/metaplane/metapb"
)

// agreeable is a namespace in which every deletion succeeds.
type agreeable struct {
	metaplane.Namespace
	reply metapb.Empty
}

func (a *agreeable) Delete(context.Context, *metapb.DeleteRequest) (*metapb.Empty, error) {
	return &a.reply, nil
}

// To number a mutation costs one allocation, its header.
func TestNumberingAllocatesOnce(t *testing.T) {
	s := NewSession(&agreeable{}, SessionConfig{})
	ctx, q := t.Context(), &metapb.DeleteRequest{}
	n := testing.AllocsPerRun(100, func() {
		if _, err := s.Delete(ctx, q); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, n, 1.0)
}
