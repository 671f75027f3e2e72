// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
	"orca/metaplane/raftgroup"
)

// createPayload encodes the command of one create of this suite, as the server
// proposes it.
func createPayload() ([]byte, error) {
	now := time.Now().UnixNano()
	return command.Append(nil, &command.Command{
		Client: math.MaxUint64, Seq: 1 << 20, AckedBelow: 1 << 20, Now: now, Caller: &metapb.Caller{},
		Create: &metapb.CreateOp{
			Target: &metapb.Target{Path: createPath(0, 1, 1)}, Mode: 0o644,
			WriteType: uint32(orca.MustCache), BlockSize: orca.DefaultBlockSize, WholeMax: orca.MaxWholeBlock,
			Replicas: 1, Complete: true, Ttl: int64(15 * time.Second),
		},
	})
}

// echoOp is a number that no server but the echo uses.
const echoOp frame.Op = 0x02ff

// echoRole is the process that answers every request with REPLY bytes, on the
// transport that Orca's servers use, without leaving the connection's parser:
// the least that any RPC on this transport costs.
const echoRole = "echo"

// Roles are the baseline processes of this package, for baseline.Main.
func Roles() map[string]func(args []string) error {
	return map[string]func(args []string) error{echoRole: echo, restartRole: restart, decodeRole: decode, growRole: grow}
}

// echo is "echo NETWORK ADDRESS REPLY".
func echo(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: echo NETWORK ADDRESS REPLY")
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	reply := make([]byte, size)
	srv, err := transport.NewServer(transport.ServerConfig{},
		func(context.Context, *transport.Request) transport.Reply { return transport.Reply{Meta: reply} },
		func(frame.Op) bool { return true }, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	addr, err := srv.Listen(args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println(addr)
	_, err = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(ctx))
}

// statSizes returns the request of a stat as Orca's client sends it, and the
// length of the answer.
func (c *crowd) statSizes(ctx context.Context, path string) (request []byte, reply int, err error) {
	addr := c.orca.Endpoints.Meta
	if c.s.opt.Network == "unix" {
		addr = "unix:" + c.orca.Endpoints.MetaSocket
	}
	mc, err := metaclient.New(metaclient.Config{Addrs: []string{addr}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, mc.Close()) }()
	q := &metapb.StatRequest{H: &metapb.Header{Caller: &metapb.Caller{}}, Target: &metapb.Target{Path: path}}
	p, err := mc.Stat(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	request, err = metawire.Marshal(q)
	return request, p.SizeVT(), err
}

// echoSide starts the echo process and makes one connection per client to it,
// as the clients of Orca do.
func (s *stage) echoSide(ctx context.Context, request []byte, reply int) (side, func() error, error) {
	return s.echoOf(ctx, s.opt.Clients, request, reply)
}

// echoOf is echoSide with so many clients.
func (s *stage) echoOf(ctx context.Context, conns int, request []byte, reply int) (side, func() error, error) {
	addr := "127.0.0.1:0"
	if s.opt.Network == "unix" {
		dir, err := s.dir("echo")
		if err != nil {
			return side{}, nil, err
		}
		addr = dir + "/sock"
	}
	p, err := baseline.Start(ctx, s.opt.Self, echoRole, s.opt.Network, addr, strconv.Itoa(reply))
	if err != nil {
		return side{}, nil, err
	}
	if addr, err = p.Line(); err != nil {
		return side{}, nil, errors.Join(fmt.Errorf("echo server: %w", err), p.Close())
	}
	var clients []*transport.Client
	closeAll := func() error {
		var errs []error
		for _, t := range clients {
			errs = append(errs, t.Close())
		}
		return errors.Join(append(errs, p.Close())...)
	}
	for range conns {
		t, err := transport.NewClient(transport.ClientConfig{Network: s.opt.Network, Addr: addr}, slog.New(slog.DiscardHandler))
		if err != nil {
			return side{}, nil, errors.Join(err, closeAll())
		}
		clients = append(clients, t)
	}
	s.facts.Config["echo"] = fmt.Sprintf("request %d bytes, reply %d bytes", len(request), reply)
	return side{name: echoName, pids: []int{p.PID()}, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, conns*s.opt.Pipeline, s.opt.Sample, func(ctx context.Context, lane, _ int) error {
			r, err := clients[lane%len(clients)].Call(ctx, echoOp, request, nil)
			if err != nil {
				return err
			}
			if len(r.Meta) != reply {
				return fmt.Errorf("echo: %d bytes, want %d", len(r.Meta), reply)
			}
			r.Release()
			return nil
		})
	}}, closeAll, nil
}

// scanSide fills a store of the metaplane's kind with one record per name and
// scans them, looking at every key and value.
func (s *stage) scanSide(names []string) (side, func() error, error) {
	dir, err := s.dir("scan")
	if err != nil {
		return side{}, nil, err
	}
	db, err := inodekv.Open(inodekv.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return side{}, nil, err
	}
	const parent = orca.RootIno
	tx := db.NewTx()
	now := time.Now().UnixNano()
	for i, name := range names {
		tx.Set(inode.AppendDirent(nil, parent, name), inode.AppendFile(nil, &inode.File{
			Ino: orca.NewIno(1, uint64(i)), Type: orca.TypeFile, Mode: 0o644, BlockSize: orca.MaxWholeBlock, Version: 1, LastVersion: 1,
			Runs: []orca.Run{{Version: 1}}, Mtime: now, Ctime: now, Atime: now, WriteType: orca.MustCache, Replicas: 1, Change: uint64(i),
		}))
	}
	if err := errors.Join(tx.Commit(1, len(names)), tx.Close(), db.Flush()); err != nil {
		return side{}, nil, errors.Join(err, db.Close(false))
	}
	lower := inode.AppendDirent(nil, parent, "")
	upper := inode.AppendDirent(nil, parent+1, "")
	return side{name: scanName, run: func(context.Context) (measure, error) {
		return perEntry(len(names), func() (seen int, err error) {
			bytes := 0
			err = db.Scan(lower, upper, func(k, v []byte) bool {
				seen++
				bytes += len(k) + len(v)
				return true
			})
			if err == nil && bytes == 0 {
				err = errors.New("nothing was scanned")
			}
			return seen, err
		})
	}}, func() error { return errors.Join(db.Close(false), os.RemoveAll(dir)) }, nil
}

// proposeSide proposes payload from as many proposers as the system has
// requests outstanding, on the engine and journal that Orca ships.
func (s *stage) proposeSide(proposers int, payload []byte) (side, func() error, error) {
	dir, err := s.dir("raw")
	if err != nil {
		return side{}, nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return side{}, nil, err
	}
	raw, err := raftgroup.OpenRaw(raftgroup.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return side{}, nil, err
	}
	return side{name: proposeName, run: func(ctx context.Context) (measure, error) {
		ctx, cancel := context.WithTimeout(ctx, s.opt.Sample+time.Minute)
		defer cancel()
		return timed(ctx, proposers, s.opt.Sample, func(ctx context.Context, _, _ int) error {
			return raw.Propose(ctx, payload)
		})
	}}, func() error { return errors.Join(raw.Close(), os.RemoveAll(dir)) }, nil
}
