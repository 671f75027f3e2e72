// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orca/engine/client"
)

// makeCertificate writes a CA and a certificate of it for loopback, and returns
// the flags that name them.
func makeCertificate(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "member"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, &key.PublicKey, caKey)
	check(err)
	k, err := x509.MarshalECPrivateKey(key)
	check(err)
	return []string{
		"--raft-tls-ca", write("ca.pem", "CERTIFICATE", caDER),
		"--raft-tls-cert", write("cert.pem", "CERTIFICATE", der),
		"--raft-tls-key", write("key.pem", "EC PRIVATE KEY", k),
	}
}

// TestClusterSpeaksTLS: three members with certificates lose one, which comes
// back; with a certificate of another CA, or none, it is not let in, and says
// why.
func TestClusterSpeaksTLS(t *testing.T) {
	tls := makeCertificate(t)
	c := startCluster(t, tls...)
	fs := c.fs()
	ctx := ctxFor(t, 3*time.Minute)
	mkdir := func(p string) {
		t.Helper()
		if err := patiently(ctx, func() error { _, err := fs.Mkdir(ctx, client.Path(p), 0o755); return err }); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("/a")
	dead := c.leader(fs)
	c.kill(dead)
	mkdir("/b")
	for what, tc := range map[string]struct {
		args []string
		says string
	}{
		"another CA":     {makeCertificate(t), "TLS between members failed"},
		"no certificate": {nil, "the other side speaks TLS and this member does not"},
	} {
		ready := c.launch(dead, tc.args...)
		p := c.nodes[dead]
		eventually(t, time.Minute, "with "+what+" it says why it is not let in", func() bool { return strings.Contains(p.output(), tc.says) })
		select {
		case <-ready:
			t.Errorf("with %s it takes part", what)
		default:
		}
		c.kill(dead)
	}
	c.await(dead, c.launch(dead, tls...))
	mkdir("/c")
	if _, err := fs.Stat(ctx, client.Path("/b"), client.Sync{}); err != nil {
		t.Error(err)
	}
	// What is missing is named before anything starts.
	_, stderr, code := c.nodes[dead].cli(slices.Concat([]string{"start", "--role", "meta", "--data", t.TempDir()}, tls[:2])...)
	if code != 2 || !strings.Contains(stderr, "--raft-tls-key") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
