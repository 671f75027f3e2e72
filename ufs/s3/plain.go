// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	// plainIdle bounds the connections that are kept between GETs.
	plainIdle = 64
	// plainHead bounds the head of an answer.
	plainHead = 1 << 20
	// emptyHash is the SHA-256 of no bytes: the body of a GET.
	emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// plain sends the GETs of objects past the SDK and past net/http's client: the
// caller's goroutine writes the request, reads the head and then the body, so
// that a first byte does not wait for the goroutines of a connection to be
// scheduled one after the other. It knows one answer, the bytes that were asked
// for. Whatever else happens, the SDK asks again and finds the words for it.
//
// It is used with an explicit endpoint only: where Amazon's are is for the SDK
// to know.
type plain struct {
	base    url.URL                 // of the bucket, without a slash at its end
	prefix  string                  // escaped path of base
	creds   aws.CredentialsProvider // nil: anonymous
	region  string
	signer  *v4.Signer
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	tls     *tls.Config // nil: http
	idleFor time.Duration

	mu     sync.Mutex
	idle   []*plainConn // longest idle first; GUARDED_BY(mu)
	timer  *time.Timer  // runs while there are idle ones; GUARDED_BY(mu)
	closed bool         // GUARDED_BY(mu)
}

// plainConn is a connection for one GET at a time.
type plainConn struct {
	net.Conn
	br    *bufio.Reader
	out   []byte // of the request
	left  int64  // bytes that may still be read
	used  bool   // an answer came over it
	since time.Time
}

var errLongHead = errors.New("the head of the answer is too long")

// Read implements io.Reader for br.
func (c *plainConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHead
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// newPlain returns nil where the SDK has to do it.
func newPlain(cfg *Config, endpoint string, ac *aws.Config, t *http.Transport) *plain {
	base, err := url.Parse(endpoint)
	if err != nil || base.RawQuery != "" || base.User != nil || base.Scheme != "http" && base.Scheme != "https" {
		return nil
	}
	if t.Proxy != nil {
		if via, err := t.Proxy(&http.Request{URL: base}); via != nil || err != nil {
			return nil
		}
	}
	p := &plain{region: ac.Region, signer: v4.NewSigner(), dial: t.DialContext, idleFor: cfg.IdleTimeout}
	if !cfg.Anonymous {
		p.creds = ac.Credentials
	}
	path := strings.TrimSuffix(base.Path, "/")
	host := base.Host
	if cfg.PathStyle {
		path += "/" + cfg.Bucket
	} else {
		host = cfg.Bucket + "." + host
	}
	p.base = url.URL{Scheme: base.Scheme, Host: host, Path: path}
	p.prefix = escaped(path)
	if base.Scheme == "https" {
		p.tls = &tls.Config{}
		if t.TLSClientConfig != nil {
			p.tls = t.TLSClientConfig.Clone()
		}
		p.tls.NextProtos = nil
		if p.tls.ServerName == "" {
			p.tls.ServerName = p.base.Hostname()
		}
	}
	return p
}

// escaped is a path as S3 signs it: all but unreserved characters and slashes
// in hexadecimal.
func escaped(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(path) + 16)
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// get asks for an object; span is the value of a Range header, or "". nil: the
// SDK is to be asked, unless ctx has ended.
func (p *plain) get(ctx context.Context, object, span, want string) *plainBody {
	if strings.ContainsAny(want, "\r\n") {
		return nil
	}
	req, err := p.request(ctx, object, span, want)
	if err != nil {
		return nil
	}
	code := http.StatusOK
	if span != "" {
		code = http.StatusPartialContent
	}
	for {
		c, err := p.conn(ctx)
		if err != nil {
			return nil
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		resp, err := c.exchange(req)
		if err == nil && resp.StatusCode == code {
			return &plainBody{p: p, c: c, stop: stop, resp: resp}
		}
		stop()
		_ = c.Close()
		if err == nil || !c.used || ctx.Err() != nil {
			return nil
		}
		p.closeIdle() // the server has closed this one, and the others by now
	}
}

// request makes a signed request.
func (p *plain) request(ctx context.Context, object, span, want string) (*http.Request, error) {
	u := p.base
	u.Path += "/" + object
	u.RawPath = p.prefix + "/" + escaped(object)
	h := make(http.Header, 8)
	if span != "" {
		h["Range"] = []string{span}
	}
	if want != "" {
		h["If-Match"] = []string{*quoted(want)}
	}
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if p.creds == nil {
		return req, nil
	}
	creds, err := p.creds.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	h["X-Amz-Content-Sha256"] = []string{emptyHash}
	return req, p.signer.SignHTTP(ctx, creds, req, emptyHash, "s3", p.region, time.Now(), pathAsIs)
}

func pathAsIs(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

// exchange sends a request and reads the head of its answer.
func (c *plainConn) exchange(req *http.Request) (*http.Response, error) {
	b := append(c.out[:0], "GET "...)
	b = append(b, req.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, req.Host...)
	b = append(b, "\r\nAccept-Encoding: identity\r\n"...)
	for k, v := range req.Header {
		b = append(append(append(append(b, k...), ": "...), v[0]...), "\r\n"...)
	}
	c.out = append(b, "\r\n"...)
	if _, err := c.Write(c.out); err != nil {
		return nil, err
	}
	c.left = plainHead
	for {
		resp, err := http.ReadResponse(c.br, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= http.StatusOK {
			c.left = math.MaxInt64
			return resp, nil
		}
	}
}

// conn returns a connection: the one that was used last, or a new one.
func (p *plain) conn(ctx context.Context) (*plainConn, error) {
	if c := p.take(); c != nil {
		return c, nil
	}
	addr := p.base.Host
	if p.base.Port() == "" {
		addr = net.JoinHostPort(p.base.Hostname(), p.base.Scheme) // package net knows the ports by name
	}
	nc, err := p.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if p.tls != nil {
		tctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		tc := tls.Client(nc, p.tls)
		if err := tc.HandshakeContext(tctx); err != nil {
			_ = nc.Close()
			return nil, err
		}
		nc = tc
	}
	c := &plainConn{Conn: nc}
	c.br = bufio.NewReaderSize(c, readBuffer)
	return c, nil
}

func (p *plain) take() *plainConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	c := p.idle[n]
	p.idle = p.idle[:n]
	return c
}

// put keeps a connection on which nothing is outstanding.
func (p *plain) put(c *plainConn) {
	c.used, c.since = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= plainIdle || c.br.Buffered() > 0 {
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.idleFor, p.prune)
	}
}

// prune closes what has been idle for too long.
func (p *plain) prune() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].since) >= p.idleFor {
		_ = p.idle[n].Close()
		n++
	}
	p.idle = append(p.idle[:0], p.idle[n:]...)
	if len(p.idle) > 0 {
		p.timer = time.AfterFunc(p.idleFor-time.Since(p.idle[0].since), p.prune)
	}
}

func (p *plain) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.idle = nil
}

// close ends the idle connections, for good; those in use end with their body.
func (p *plain) close() {
	p.closeIdle()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// plainBody is the body of an answer. Its connection is kept when all of it
// was read.
type plainBody struct {
	p      *plain
	c      *plainConn
	stop   func() bool // ends the watch over the context
	resp   *http.Response
	ended  atomic.Bool
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *plainBody) Read(p []byte) (int, error) {
	n, err := b.resp.Body.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// Close implements io.Closer.
func (b *plainBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if !b.stop() || !b.ended.Load() || b.resp.Close {
		_ = b.c.Close() // the end of the context has done so, perhaps
		return nil
	}
	b.p.put(b.c)
	return nil
}
