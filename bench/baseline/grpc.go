// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// The gRPC pair moves a file as a Go program does that has no transport of its
// own: one server stream, messages of Chunk bytes. It is spared what a program
// need not pay: protobuf (messages are plain bytes, lent from a mapping of the
// file), window updates that stop the sender (windows of grpcWindow), and TLS.

const (
	grpcMethod = "/orcabench.Bulk/Read"
	grpcWindow = 16 << 20
	grpcBuffer = 256 << 10
)

// bytesCodec lends the bytes that are sent and copies those that arrive.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "bytes" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// grpcMessage is where an arriving message goes.
type grpcMessage struct {
	buf []byte
	n   int
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*grpcMessage)
	if !ok || data.Len() > len(m.buf) {
		return fmt.Errorf("a message of %d bytes does not fit into %T", data.Len(), v)
	}
	m.n = data.CopyTo(m.buf)
	return nil
}

// GRPCServe is the sending process: it prints its port as one line and serves
// file until stdin ends.
func GRPCServe(file string, stdin io.Reader, stdout io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(data)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.InitialWindowSize(grpcWindow), grpc.InitialConnWindowSize(grpcWindow),
		grpc.WriteBufferSize(grpcBuffer), grpc.ReadBufferSize(grpcBuffer))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "orcabench.Bulk", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Read", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return sendGRPC(s, data) },
	}}}, nil)
	fmt.Fprintln(stdout, ln.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // until its owner is gone
		srv.Stop()
	}()
	return srv.Serve(ln)
}

// sendGRPC sends the first bytes of data, as many as the request says.
func sendGRPC(s grpc.ServerStream, data []byte) error {
	m := grpcMessage{buf: make([]byte, 8)}
	if err := s.RecvMsg(&m); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(m.buf)
	if m.n != 8 || size > uint64(len(data)) {
		return errors.New("request past the end of the file")
	}
	for data = data[:size]; len(data) > 0; {
		n := min(len(data), Chunk)
		if err := s.SendMsg(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// GRPC is a server process and a client of it in this process.
type GRPC struct {
	p    *Process
	conn *grpc.ClientConn
}

// StartGRPC serves file from a process of its own.
func StartGRPC(ctx context.Context, self, file string) (*GRPC, error) {
	p, err := Start(ctx, self, "grpc-serve", file)
	if err != nil {
		return nil, err
	}
	port, err := p.Line()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(grpcWindow), grpc.WithInitialConnWindowSize(grpcWindow),
		grpc.WithWriteBufferSize(grpcBuffer), grpc.WithReadBufferSize(grpcBuffer))
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &GRPC{p: p, conn: conn}, nil
}

// PIDs returns the process of the server.
func (g *GRPC) PIDs() []int { return []int{g.p.PID()} }

// Close ends both sides.
func (g *GRPC) Close() error { return errors.Join(g.conn.Close(), g.p.Close()) }

// Read receives the first size bytes of the file into buf, again and again;
// each, if not nil, sees every message.
func (g *GRPC) Read(ctx context.Context, size int64, buf []byte, each func(off int64, p []byte) error) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	s, err := g.conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Read", ServerStreams: true}, grpcMethod,
		grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(len(buf)))
	if err != nil {
		return 0, err
	}
	if err := s.SendMsg(binary.LittleEndian.AppendUint64(nil, uint64(size))); err != nil {
		return 0, err
	}
	if err := s.CloseSend(); err != nil {
		return 0, err
	}
	m := grpcMessage{buf: buf}
	got := int64(0)
	for {
		err := s.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && each != nil {
			err = each(got, buf[:m.n])
		}
		if err != nil {
			return 0, err
		}
		got += int64(m.n)
	}
	if got != size {
		return 0, fmt.Errorf("%d of %d bytes", got, size)
	}
	return time.Since(start), nil
}
