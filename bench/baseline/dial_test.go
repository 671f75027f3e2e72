// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"encoding/binary"
	"net"
)

func dial(port string) (net.Conn, error) { return net.Dial("tcp", "127.0.0.1:"+port) }

func le(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
