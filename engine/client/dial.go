// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/transport"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

// dialMeta connects to the metaplane and waits for a first answer, so that a
// wrong address fails in Open and not in the first call.
func dialMeta(ctx context.Context, cfg *Config) (*metaclient.Client, error) {
	var addrs []string
	for _, a := range cfg.Addresses {
		switch a = strings.TrimSpace(a); {
		case a == "":
			continue
		case strings.HasPrefix(a, "/"):
			a = "unix:" + a
		case !strings.Contains(a, ":"):
			return nil, &orca.Error{Op: "client.Open", Path: a, Kind: orca.Invalid, Msg: "address is neither host:port nor the path of a socket"}
		}
		addrs = append(addrs, a)
	}
	me := callerPB(*cfg.Caller)
	m, err := metaclient.New(metaclient.Config{Addrs: addrs, ReadFrom: cfg.ReadFrom, Session: metaclient.SessionConfig{Caller: me}}, cfg.Logger)
	if err != nil {
		return nil, err
	}
	wait, stop := context.WithTimeout(ctx, cfg.FirstAnswer)
	defer stop()
	_, err = m.ListMounts(wait, &metapb.ListMountsRequest{H: &metapb.Header{Caller: me}})
	if err == nil {
		return m, nil
	}
	_ = m.Close() // nothing was asked of it
	if ctx.Err() != nil {
		return nil, ctxError("client.Open", ctx)
	}
	if wait.Err() != nil {
		return nil, &orca.Error{Op: "client.Open", Path: strings.Join(addrs, ","), Kind: orca.Unavailable, Msg: "no Orca answers here", Err: err}
	}
	return nil, err
}

// defaultDialer reaches workers over TCP, and those of this node over their
// sockets as well.
func defaultDialer(c *core) Dialer {
	d := Dialing{Node: c.cfg.Node, ShortCircuit: c.cfg.ShortCircuit, OnDomain: func(n int) {
		c.stats.DomainReads.Add(1)
		c.stats.DomainBytes.Add(int64(n))
	}}
	return func(_ context.Context, w *Worker) (dataplane.Access, error) {
		return DialWorker(w, d, c.cfg.Logger)
	}
}

// Dialing says who dials a worker.
type Dialing struct {
	Node         string // of the client
	ShortCircuit ShortCircuit
	OnDomain     func(n int) // blockclient.Config.OnDomain
}

// DialWorker is the default Dialer's way to one worker. It connects when first
// used. The sockets of a worker on the same node are used when they are there to
// see: a container may not share them.
func DialWorker(w *Worker, d Dialing, log *slog.Logger) (dataplane.Access, error) {
	c := blockclient.Config{Transport: transport.ClientConfig{Addr: w.Addr}, OnDomain: d.OnDomain}
	if w.Node == d.Node {
		if d.ShortCircuit == PassDescriptors {
			c.Descriptors = visible(w.Socket)
		}
		if d.ShortCircuit != NoShortCircuit {
			c.Domain = visible(w.Domain)
		}
	}
	return blockclient.New(c, log)
}

// visible returns path when something is there.
func visible(path string) string {
	if path == "" {
		return ""
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
