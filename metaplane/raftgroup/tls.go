// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"orca"
)

// TLS names the PEM files by which members know each other; all or none. Each
// member shows its certificate, whether it dials or is dialed: one that CA has
// signed, that names the host of the member's Raft address, and that is good
// for servers and clients. The files are read again for each connection, so
// that renewed ones need no restart.
type TLS struct{ CA, Cert, Key string }

// On reports whether there is any.
func (c TLS) On() bool { return c != TLS{} }

func (c TLS) validate() error {
	if !c.On() {
		return nil
	}
	if c.CA == "" || c.Cert == "" || c.Key == "" {
		return orca.E("raftgroup.TLS", orca.Invalid, "TLS between members needs all three: the CA, the certificate and its key")
	}
	_, err := c.load()
	return err
}

// load reads the files.
func (c TLS) load() (*tls.Config, error) {
	const op = "raftgroup.TLS"
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, orca.PathE(op, c.CA, orca.Invalid, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, &orca.Error{Op: op, Path: c.CA, Kind: orca.Invalid, Msg: "no certificate in PEM"}
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, &orca.Error{Op: op, Path: c.Cert, Kind: orca.Invalid, Msg: "not a certificate and its key", Err: err}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

// armor wraps the connections of a member in TLS, or leaves them as they are.
type armor struct {
	files TLS
	log   *slog.Logger

	mu   sync.Mutex
	good *tls.Config // the last that could be read; GUARDED_BY(mu)
}

// config reads the files, or falls back on what they were.
func (a *armor) config() *tls.Config {
	c, err := a.files.load()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil { // it could be read when the host was opened
		a.log.Warn("the certificate of this member cannot be read again; the last one is used", "err", err)
	} else {
		a.good = c
	}
	return a.good.Clone()
}

// dial is TLS as the side that has dialed target.
func (a *armor) dial(ctx context.Context, c net.Conn, target string) (net.Conn, error) {
	if !a.files.On() {
		return c, nil
	}
	cfg := a.config()
	cfg.ServerName, _, _ = net.SplitHostPort(target)
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, tlsError(target, err)
	}
	return t, nil
}

// accept is TLS as the side that was dialed.
func (a *armor) accept(ctx context.Context, c net.Conn) (net.Conn, error) {
	if !a.files.On() {
		return c, nil
	}
	t := tls.Server(c, a.config())
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, tlsError(c.RemoteAddr().String(), err)
	}
	return t, nil
}

// vouches checks that the certificate of who has dialed names the host that it
// says it is: CA may have signed others than members.
func vouches(c net.Conn, h *hello) error {
	t, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	host, _, err := net.SplitHostPort(h.Address)
	if err == nil {
		err = t.ConnectionState().PeerCertificates[0].VerifyHostname(host)
	}
	if err != nil {
		return &orca.Error{Op: "raftgroup.TLS", Path: h.Address, Kind: orca.Unauthenticated, Msg: "the certificate does not name this member", Err: err}
	}
	return nil
}

// tlsError is an error of a handshake, or of the read behind it, which is when
// who has dialed hears that its certificate is refused.
func tlsError(target string, err error) error {
	msg := "TLS between members failed"
	var plain tls.RecordHeaderError
	var remote *net.OpError
	switch {
	case errors.As(err, &plain):
		msg = "the other side does not speak TLS: give all members --raft-tls-ca, --raft-tls-cert and --raft-tls-key"
	case errors.As(err, &remote) && remote.Op == "remote error":
		msg = "the other member refuses this one's certificate"
	}
	return &orca.Error{Op: "raftgroup.TLS", Path: target, Kind: orca.Unauthenticated, Msg: msg, Err: err}
}

// refusedByPeer reports whether err is a TLS alert of the other side.
func refusedByPeer(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error"
}

// notTLS explains a hello that is a record of TLS.
func notTLS(head [4]byte) error {
	if (head[0] == 0x16 || head[0] == 0x15) && head[1] == 3 { // handshake or alert, version 3.x
		return orca.E("raftgroup.hello", orca.Unauthenticated,
			"the other side speaks TLS and this member does not: give it --raft-tls-ca, --raft-tls-cert and --raft-tls-key")
	}
	return orca.E("raftgroup.hello", orca.Corrupt, fmt.Sprintf("not a member of an Orca (it began with %x)", head))
}
