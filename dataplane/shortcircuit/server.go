// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package shortcircuit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
)

// ServerMetrics counts what a Server does.
type ServerMetrics struct {
	Conns       atomic.Int64 // gauge
	Requests    atomic.Int64
	Descriptors atomic.Int64 // passed
	Denied      atomic.Int64
	Garbage     atomic.Int64 // connections closed for a packet that is no request
	Refused     atomic.Int64 // connections over MaxConns
}

// Server hands out descriptors of one worker's files.
type Server struct {
	cfg     ServerConfig
	blocks  dataplane.Blocks
	grants  *grant.Checker
	log     *slog.Logger
	metrics ServerMetrics
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	ln     *net.UnixListener
	conns  map[*net.UnixConn]struct{}
	closed bool
}

// NewServer makes a server; Listen makes it serve.
func NewServer(cfg ServerConfig, blocks dataplane.Blocks, grants *grant.Checker, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if blocks == nil || grants == nil {
		return nil, orca.E("shortcircuit.NewServer", orca.Invalid, "no blocks or no checker of grants")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, blocks: blocks, grants: grants, log: log, conns: make(map[*net.UnixConn]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Metrics returns the counters of the server.
func (s *Server) Metrics() *ServerMetrics { return &s.metrics }

// Listen serves the socket at path, once. A socket file whose server is gone
// is replaced; a live one is Busy.
func (s *Server) Listen(path string) error {
	ln, err := transport.Listen(network, path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ln != nil {
		_ = ln.Close()
		return orca.E("shortcircuit.Listen", orca.Invalid, "server is closed or listens already")
	}
	s.ln = ln.(*net.UnixListener)
	s.wg.Add(1)
	go s.accept(s.ln)
	return nil
}

// Close stops serving and waits for the requests in work. Descriptors that
// have been passed stay good.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.ln != nil {
		_ = s.ln.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

func (s *Server) accept(ln *net.UnixListener) {
	defer s.wg.Done()
	for {
		c, err := ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("descriptor socket cannot accept", "err", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // out of descriptors, most likely
			}
			continue
		}
		if !s.add(c) {
			s.metrics.Refused.Add(1)
			_ = c.Close()
		}
	}
}

func (s *Server) add(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.cfg.MaxConns {
		return false
	}
	s.conns[c] = struct{}{}
	s.metrics.Conns.Add(1)
	s.wg.Add(1)
	go s.serve(c)
	return true
}

func (s *Server) serve(c *net.UnixConn) {
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.metrics.Conns.Add(-1)
		_ = c.Close()
	}()
	who, err := peerOf(c)
	if err != nil {
		return
	}
	buf := make([]byte, maxPacket)
	for {
		_ = c.SetReadDeadline(time.Now().Add(s.cfg.IdleTimeout))
		// Without room for control data, descriptors sent to us are closed by
		// the kernel.
		n, _, flags, _, err := c.ReadMsgUnix(buf, nil)
		if err != nil || n == 0 {
			return
		}
		h, err := frame.Decode(buf[:n])
		if err != nil || flags&unix.MSG_TRUNC != 0 || h.Flags != 0 || frame.Size+h.Len() != n || h.Body != 0 {
			s.metrics.Garbage.Add(1)
			return
		}
		s.metrics.Requests.Add(1)
		if err := s.answer(c, &h, buf[frame.Size:n], who); err != nil {
			return
		}
	}
}

func peerOf(c *net.UnixConn) (p grant.Peer, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	cerr := rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if cerr != nil {
		return p, cerr
	}
	if err != nil {
		return p, err
	}
	return grant.Peer{Unix: true, UID: cred.Uid}, nil
}

// answer serves one request; an error ends the connection.
func (s *Server) answer(c *net.UnixConn, h *frame.Header, meta []byte, who grant.Peer) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.RequestTimeout)
	defer cancel()
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	var out []byte
	var err error
	switch h.Op {
	case frame.OpDescriptors:
		out, files, err = s.descriptors(ctx, meta, who)
	case frame.OpWriteFile:
		files, err = s.writeFile(ctx, meta, who)
	case frame.OpPing:
	default:
		err = orca.E("shortcircuit", orca.Unsupported, "unknown operation "+h.Op.String())
	}
	r := frame.Header{Flags: frame.FlagReply, Op: h.Op, Seq: h.Seq}
	if err != nil {
		r.Status, out = frame.StatusOf(err), frame.AppendError(nil, err)
	}
	r.Meta = uint32(len(out))
	packet := append(r.AppendTo(nil), out...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_ = c.SetWriteDeadline(time.Now().Add(s.cfg.RequestTimeout))
	_, _, err = c.WriteMsgUnix(packet, rights, nil)
	s.metrics.Descriptors.Add(int64(len(files)))
	return err
}

func (s *Server) descriptors(ctx context.Context, meta []byte, who grant.Peer) (out []byte, files []*os.File, err error) {
	var q datapb.DescriptorsRequest
	if err := q.UnmarshalVT(meta); err != nil {
		return nil, nil, orca.PathE("shortcircuit.descriptors", "", orca.Invalid, err)
	}
	if len(q.Blocks) == 0 || len(q.Blocks) > MaxBatch {
		return nil, nil, orca.E("shortcircuit.descriptors", orca.Invalid, fmt.Sprintf("%d blocks asked for, 1 to %d are served", len(q.Blocks), MaxBatch))
	}
	var a datapb.DescriptorsReply
	for _, b := range q.Blocks {
		res := &datapb.DescriptorResult{}
		a.Results = append(a.Results, res)
		f, err := s.descriptor(ctx, b, who, res)
		if err != nil {
			res.Status, res.Error = uint32(frame.StatusOf(err)), clip(err.Error())
			continue
		}
		files = append(files, f)
	}
	out, err = a.MarshalVT()
	return out, files, err
}

// clip bounds a text so that a full batch of failures fits a packet.
func clip(s string) string { return s[:min(len(s), 1024)] }

// descriptor fetches one descriptor and makes sure that it is read-only.
func (s *Server) descriptor(ctx context.Context, b *datapb.StatBlockRequest, who grant.Peer, res *datapb.DescriptorResult) (*os.File, error) {
	id, g := b.Block.ToBlock(), b.Grant.ToGrant()
	if err := s.grants.Read(&g, id, who); err != nil {
		s.metrics.Denied.Add(1)
		return nil, err
	}
	get := s.blocks.Descriptor
	if b.Partial {
		sh, ok := s.blocks.(dataplane.Sharer)
		if !ok {
			return nil, orca.PathE("shortcircuit", id.String(), orca.Unsupported, nil)
		}
		get = sh.Share
	}
	f, length, gen, err := get(ctx, id, g)
	if err != nil {
		return nil, err
	}
	res.Length, res.Generation = length, gen
	return readOnly(f)
}

// readOnly replaces a descriptor that could write by one that cannot.
func readOnly(f *os.File) (*os.File, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
		return f, nil
	}
	defer f.Close()
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, orca.PathE("shortcircuit", f.Name(), orca.Unsupported, err)
	}
	return ro, nil
}

func (s *Server) writeFile(ctx context.Context, meta []byte, who grant.Peer) ([]*os.File, error) {
	var q datapb.HandleRequest
	if err := q.UnmarshalVT(meta); err != nil {
		return nil, orca.PathE("shortcircuit.writeFile", "", orca.Invalid, err)
	}
	g := q.Grant.ToGrant()
	if err := s.grants.Handle(q.Id, &g, who); err != nil {
		s.metrics.Denied.Add(1)
		return nil, err
	}
	f, err := s.blocks.WriteFile(ctx, q.Id)
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
}
