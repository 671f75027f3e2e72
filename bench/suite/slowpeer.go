// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/engine/client"
)

const (
	// stalledConns receivers ask for stalledEach ranges of 1 MiB each, and read
	// nothing.
	stalledConns = 32
	stalledEach  = 32
	// stalledHeap bounds what the worker's own memory may grow by for each of
	// them, and frame.MaxBody what waits for it in the kernel. Whoever copied
	// the answers would hold 32 MiB.
	stalledHeap = 1 << 20
	// stalledWait bounds the wait until nothing moves any more.
	stalledWait = 30 * time.Second

	besideName = "the same reader alone"
)

// The slowpeer suite has receivers that stop reading.
func slowpeerCases() []Case {
	return []Case{{Suite: "slowpeer", Name: "beside", Metric: "read rate", Unit: unitMBs, Baseline: besideName,
		About: "File.ReadAt from a worker of another node, verified, while 32 receivers have asked the worker for 32 MiB each and read nothing, against the same alone", open: openSlowPeer}}
}

func openSlowPeer(ctx context.Context, s *stage) (*trial, error) {
	fs, f, o, err := s.remoteFile(ctx, true)
	if err != nil {
		return nil, err
	}
	st := &stalled{s: s, pid: o.PID(), size: f.Size()}
	if err := s.askedFor(ctx, o.Endpoints.Meta, st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	buf := baseline.Buffer(baseline.Chunk)
	remote := func(local, _ int64) error {
		if local != 0 {
			return fmt.Errorf("%d bytes were read by descriptor, not over the network", local)
		}
		return nil
	}
	alone := fileSide(besideName, fs, f, buf, o, remote)
	beside := fileSide("remote read beside stalled receivers", fs, f, buf, o, remote)
	if _, err := alone.run(ctx); err != nil { // the worker has what a reader needs
		return nil, errors.Join(err, f.Close())
	}
	if st.before, err = facts.AnonMemory(st.pid); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	alone.before = st.release
	beside.before = st.stall
	read := beside.run
	beside.run = func(ctx context.Context) (measure, error) {
		m, err := read(ctx)
		if err == nil && st.queued() == 0 {
			err = errors.New("the receivers were not stalled any more")
		}
		return m, err
	}
	return &trial{system: beside, baselines: []side{alone}, close: func() error { return errors.Join(st.release(context.WithoutCancel(ctx)), f.Close()) }}, nil
}

// stalled are receivers that have asked a worker for much and read nothing.
type stalled struct {
	s      *stage
	pid    int
	addr   string // of the worker's data server
	size   int64  // of the file
	asked  dataplane.ReadRequest
	before int64 // the worker's own memory without them
	most   int64 // and the most with them
	conns  []net.Conn
}

// askedFor finds out, by reading a byte as any client does, what a request for
// the file looks like: the block, and the grant that the metaplane gave.
func (s *stage) askedFor(ctx context.Context, meta string, st *stalled) error {
	fs, err := client.Open(ctx, client.Config{Addresses: []string{meta}, Node: remoteNode, Dial: func(_ context.Context, w *client.Worker) (dataplane.Access, error) {
		c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: w.Addr}}, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		st.addr = w.Addr
		s.atEnd(c.Close)
		return &listener{Access: c, asked: &st.asked}, nil
	}})
	if err != nil {
		return err
	}
	f, err := fs.Open(ctx, client.Path(bulkPath), client.ReadOptions{})
	if err != nil {
		return errors.Join(err, fs.Close())
	}
	_, err = f.ReadAtContext(ctx, make([]byte, 1), 0)
	if err == nil && len(st.asked.Grant.Token) == 0 {
		err = errors.New("no request with a grant was seen")
	}
	return errors.Join(err, f.Close(), fs.Close())
}

// listener remembers the last request that passed.
type listener struct {
	dataplane.Access
	asked *dataplane.ReadRequest
}

func (l *listener) ReadAt(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	*l.asked = req
	return l.Access.ReadAt(ctx, req, p)
}

// request is one that asks for a MiB of the file.
func (st *stalled) request(seq uint64) ([]byte, error) {
	off := int64(seq) << 20 % st.size
	q := datapb.ReadRequest{Block: datapb.FromBlock(st.asked.ID), Off: off, N: min(1<<20, st.size-off), Grant: datapb.FromGrant(&st.asked.Grant)}
	meta, err := q.MarshalVT()
	if err != nil {
		return nil, err
	}
	h := frame.Header{Op: frame.OpRead, Seq: seq, Meta: uint32(len(meta))}
	return append(h.AppendTo(nil), meta...), nil
}

// stall sees to it that the receivers are there, that as much is on its way to
// them as will ever be, and that this costs the worker no more than it may.
func (st *stalled) stall(ctx context.Context) error {
	if len(st.conns) > 0 && st.queued() > 0 {
		return nil
	}
	if err := st.release(ctx); err != nil { // the worker has hung up on them
		return err
	}
	for range stalledConns {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", st.addr)
		if err != nil {
			return err
		}
		st.conns = append(st.conns, c)
		for seq := range uint64(stalledEach) {
			b, err := st.request(seq + 1)
			if err != nil {
				return err
			}
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	last, same := int64(-1), 0
	if err := st.until(ctx, "the queues still grow", func() bool {
		if q := st.queued(); q != last || q == 0 {
			last, same = q, 0
		} else {
			same++
		}
		return same == 5
	}); err != nil {
		return err
	}
	now, err := facts.AnonMemory(st.pid)
	if err != nil {
		return err
	}
	st.most = max(st.most, now-st.before)
	st.s.facts.Config["slowpeer.last"] = fmt.Sprintf("%d receivers asked for %d MiB each and read nothing: the worker's own memory grew by %d bytes for each at most, and %d bytes wait in its socket",
		stalledConns, stalledEach, max(st.most, 0)/stalledConns, last/stalledConns)
	if st.most > stalledConns*stalledHeap || last > stalledConns*frame.MaxBody {
		return fmt.Errorf("a receiver that stops reading is to cost at most %d bytes of memory and %d in its socket: %s", stalledHeap, frame.MaxBody, st.s.facts.Config["slowpeer.last"])
	}
	return nil
}

// release hangs up, and waits until the worker has noticed.
func (st *stalled) release(ctx context.Context) error {
	if len(st.conns) == 0 {
		return nil
	}
	var errs []error
	for _, c := range st.conns {
		errs = append(errs, c.Close())
	}
	errs = append(errs, st.until(ctx, "the worker still sends to receivers that hung up", func() bool { return st.queued() == 0 }))
	st.conns = nil
	return errors.Join(errs...)
}

func (st *stalled) until(ctx context.Context, not string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, stalledWait)
	defer cancel()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", not, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// queued returns how many bytes wait in the worker's sockets for the
// receivers; 0 when that cannot be told.
func (st *stalled) queued() (sum int64) {
	_, server, err := net.SplitHostPort(st.addr)
	if err != nil {
		return 0
	}
	ports := map[string]bool{}
	for _, c := range st.conns {
		_, port, _ := net.SplitHostPort(c.LocalAddr().String())
		ports[port] = true
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		sum += queuedIn(string(b), server, ports)
	}
	return sum
}

// queuedIn sums the send queues from a port of this host to some others, in
// the table of /proc/net/tcp.
func queuedIn(table, from string, to map[string]bool) (sum int64) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line) // sl local remote st tx:rx …
		if len(f) < 5 || portOf(f[1]) != from || !to[portOf(f[2])] {
			continue
		}
		tx, _, _ := strings.Cut(f[4], ":")
		n, err := strconv.ParseInt(tx, 16, 64)
		if err == nil {
			sum += n
		}
	}
	return sum
}

// portOf turns 0100007F:4682 into 18050.
func portOf(addr string) string {
	n, err := strconv.ParseUint(addr[strings.LastIndexByte(addr, ':')+1:], 16, 16)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(n, 10)
}
