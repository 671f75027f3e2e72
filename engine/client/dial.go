// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"orca"
	"orca/dataplane"
	"orca/metaplane"
)

func dialMeta(_ context.Context, cfg *Config) (metaplane.Namespace, func() error, error) {
	return nil, nil, orca.PathE("client.Open", cfg.Addresses[0], orca.Unsupported, nil)
}

func defaultDialer(*Config) Dialer {
	return func(_ context.Context, w *Worker) (dataplane.Blocks, error) {
		return nil, orca.PathE("client.dial", w.Addr, orca.Unsupported, nil)
	}
}
