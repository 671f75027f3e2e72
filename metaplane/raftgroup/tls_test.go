// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
)

// authority is a CA of a test.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a.cert = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, a.key)
	return a
}

func (a *authority) sign(name string, c, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	a.write(name+".pem", "CERTIFICATE", der)
	k, err := x509.MarshalECPrivateKey(key)
	require.NoError(a.t, err)
	a.write(name+".key", "EC PRIVATE KEY", k)
	out, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return out
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(a.t, os.WriteFile(filepath.Join(a.dir, name), b, 0o600))
}

// member makes a certificate for an IP address.
func (a *authority) member(name, ip string) TLS {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	a.sign(name, &x509.Certificate{
		IPAddresses: []net.IP{net.ParseIP(ip)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key)
	at := func(n string) string { return filepath.Join(a.dir, n) }
	return TLS{CA: at("ca.pem"), Cert: at(name + ".pem"), Key: at(name + ".key")}
}

// logBook keeps what is logged.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

// TestMembersSpeakTLS: with certificates of one CA they decide together, and
// send a snapshot; renewed files are used without a restart.
func TestMembersSpeakTLS(t *testing.T) {
	ca := newAuthority(t)
	n := 0
	c := newTrio(t, func(cfg *Config) {
		n++
		cfg.TLS, cfg.SnapshotEntries = ca.member(fmt.Sprint("m", n), "127.0.0.1"), 40
	})
	proposeUntil(t, c.leader().group, "/a")
	away := c.follower()
	c.close(away)
	for i := range 300 {
		proposeUntil(t, c.leader().group, fmt.Sprintf("/f%d", i))
	}
	// The CA is another one from now on; each connection reads the files.
	ca2 := newAuthority(t)
	for id, cfg := range c.cfgs {
		fresh := ca2.member(fmt.Sprint("n", id), "127.0.0.1")
		for from, to := range map[string]string{fresh.CA: cfg.TLS.CA, fresh.Cert: cfg.TLS.Cert, fresh.Key: cfg.TLS.Key} {
			b, err := os.ReadFile(from)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(to, b, 0o600))
		}
	}
	applied(t, c.open(away), "/f299")
}

// TestStrangersAreRefused: without a certificate that will do nobody takes
// part, and both sides say why.
func TestStrangersAreRefused(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	for _, tc := range []struct {
		name         string
		tls          TLS
		here, theirs string // what is logged
	}{
		{"of another CA", other.member("m", "127.0.0.1"), "TLS between members failed", "not let in"},
		{"of another host", ca.member("elsewhere", "127.0.0.2"), "does not name this member", "does not name this member"},
		{"without", TLS{}, "speaks TLS and this member does not", "does not speak TLS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var books [3]logBook
			n := 0
			members := map[uint64]string{}
			for i, a := range freeAddrs(t, 3) {
				members[uint64(i+1)] = a
			}
			var hosts []*Host
			for id := uint64(1); id <= 3; id++ {
				cfg := Config{Dir: t.TempDir(), Address: members[id], Members: members, TLS: ca.member("m", "127.0.0.1")}
				if id == 3 {
					cfg.TLS = tc.tls
				}
				h, err := Open(cfg, slog.New(slog.NewTextHandler(&books[n], nil)))
				if id == 3 && err != nil {
					require.ErrorContains(t, err, tc.here)
					return // it did not get that far
				}
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, h.Close()) })
				hosts = append(hosts, h)
				n++
			}
			require.Eventually(t, func() bool { l, _ := hosts[0].group.LeaderReplica(); return l != 0 }, time.Minute, 5*time.Millisecond)
			require.Eventually(t, func() bool { return books[0].has(tc.theirs) || books[1].has(tc.theirs) }, time.Minute, 5*time.Millisecond)
			require.Eventually(t, func() bool { return books[2].has(tc.here) }, time.Minute, 5*time.Millisecond)
			l, _ := hosts[2].group.LeaderReplica()
			require.Zero(t, l, "the stranger knows who leads")
		})
	}
}

func TestTLSNeedsAllFiles(t *testing.T) {
	ca := newAuthority(t)
	good := ca.member("m", "127.0.0.1")
	for name, tls := range map[string]TLS{
		"needs all three":           {CA: good.CA, Cert: good.Cert},
		"no certificate in PEM":     {CA: good.Key, Cert: good.Cert, Key: good.Key},
		"a certificate and its key": {CA: good.CA, Cert: good.Cert, Key: good.CA},
		"no such file":              {CA: "/nowhere", Cert: good.Cert, Key: good.Key},
		"has no Raft port":          good,
	} {
		_, err := Open(Config{Dir: t.TempDir(), TLS: tls}, quiet())
		require.ErrorIs(t, err, orca.Invalid, name)
		require.ErrorContains(t, err, name)
	}
}
