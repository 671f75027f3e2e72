// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"orca"
	"orca/bench/facts"
	"orca/bench/report"
	"orca/bench/target"
	"orca/engine/client"
)

const (
	// failoverBucket is a column of the timeline, which begins failoverLead
	// before the event and has failoverBuckets of them.
	failoverBucket  = 50 * time.Millisecond
	failoverLead    = 500 * time.Millisecond
	failoverBuckets = 50
	// failoverTimeout is how long the next write may take at all.
	failoverTimeout = time.Minute
)

// Outage is what clients saw of one change of the leader.
type Outage struct {
	Node string  `json:"node"` // that led before
	Gap  float64 `json:"gap_ms"`
	// Began is when the gap did, after the change; it may be that of another one.
	Began float64 `json:"began_ms"`
	// Terms are those that it took until a member led again, by whose count an
	// election was decided in its first round or not, however busy the machine is.
	Terms uint64 `json:"terms"`
	// Creates are those acknowledged per bucket, of all clients.
	Creates []int `json:"creates"`
}

// Failover is a run of orcabench failover.
type Failover struct {
	Machine   facts.Machine `json:"machine"`
	Clients   int           `json:"clients"`
	BucketMS  int64         `json:"bucket_ms"`
	LeadMS    int64         `json:"lead_ms"`
	Kills     []Outage      `json:"kills"`
	Transfers []Outage      `json:"transfers"`
	// Alone are as long, with nothing done to the leader: what the machine and
	// its other work make of it.
	Alone []Outage `json:"alone"`
}

// MeasureFailover has clients create files on a metaplane of three processes,
// kills its leader (-9) so many times, and as often has it hand over, and leaves
// it alone. It reports how long no client got an acknowledgement.
func MeasureFailover(ctx context.Context, opt Options, times int, command string) (*Failover, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(opt.Temp, "orcabench-failover-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if opt.Orca == "" {
		if opt.Orca, err = target.Find(ctx, opt.Self, temp, opt.Progress); err != nil {
			return nil, err
		}
	}
	root := filepath.Join(temp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	members, err := target.Three(ctx, opt.Orca, filepath.Join(temp, "data"), root)
	f := &failover{opt: &opt, members: members, begun: time.Now()}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	out := &Failover{Machine: facts.Read(time.Now(), command), Clients: opt.Clients, BucketMS: failoverBucket.Milliseconds(), LeadMS: failoverLead.Milliseconds()}
	err = f.run(ctx, out, times)
	return out, errors.Join(err, f.close())
}

type failover struct {
	opt     *Options
	members []*target.Orca
	fs      []*client.FS
	begun   time.Time

	mu   sync.Mutex
	acks []time.Duration // since begun, in order
	more chan struct{}   // closed at the next ack
}

func (f *failover) close() error {
	var errs []error
	for _, fs := range f.fs {
		errs = append(errs, fs.Close())
	}
	for _, o := range f.members {
		errs = append(errs, o.Stop())
	}
	return errors.Join(errs...)
}

func (f *failover) run(ctx context.Context, out *Failover, times int) error {
	var addrs []string
	for _, o := range f.members {
		addrs = append(addrs, o.Endpoints.Meta)
	}
	for range f.opt.Clients + 1 { // one to look with
		fs, err := client.Open(ctx, client.Config{Addresses: addrs, WriteType: orca.MustCache})
		if err != nil {
			return err
		}
		f.fs = append(f.fs, fs)
	}
	f.more = make(chan struct{})
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, f.opt.Clients)
	for i := range f.opt.Clients {
		wg.Go(func() { errs[i] = f.load(load, f.fs[i], i) })
	}
	err := f.changes(ctx, out, times)
	stop()
	wg.Wait()
	return errors.Join(err, errors.Join(errs...))
}

// load creates files in a directory of its own until ctx ends. A create that
// fails ends the run: the client is to see through every change of the leader.
func (f *failover) load(ctx context.Context, fs *client.FS, id int) error {
	dir := fmt.Sprintf("/c%d", id)
	if _, err := fs.Mkdir(ctx, client.Path(dir), 0o755); err != nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		_, err := fs.CreateEmpty(ctx, client.Path(fmt.Sprintf("%s/f%d", dir, n)), client.CreateOptions{Exclusive: true})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.acks = append(f.acks, time.Since(f.begun))
		close(f.more)
		f.more = make(chan struct{})
		f.mu.Unlock()
	}
	return nil
}

// changes has the leader change in both ways, and not at all.
func (f *failover) changes(ctx context.Context, out *Failover, times int) error {
	for i := range times {
		fmt.Fprintf(f.opt.Progress, "kill %d of %d\n", i+1, times)
		o, err := f.change(ctx, func(ctx context.Context, leader *target.Orca) error { return leader.Kill() })
		if err != nil {
			return err
		}
		out.Kills = append(out.Kills, *o)
	}
	for range times {
		o, err := f.change(ctx, func(ctx context.Context, _ *target.Orca) error {
			_, err := f.fs[len(f.fs)-1].TransferLeader(ctx, 0)
			return err
		})
		if err != nil {
			return err
		}
		out.Transfers = append(out.Transfers, *o)
	}
	for range times {
		o, err := f.change(ctx, func(context.Context, *target.Orca) error { return nil })
		if err != nil {
			return err
		}
		out.Alone = append(out.Alone, *o)
	}
	return nil
}

func (f *failover) change(ctx context.Context, do func(ctx context.Context, leader *target.Orca) error) (*Outage, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*failoverTimeout)
	defer cancel()
	if err := f.quiet(ctx, time.Since(f.begun)+failoverLead); err != nil {
		return nil, err
	}
	q, err := f.fs[len(f.fs)-1].Quorum(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(q.Members, func(m *client.Member) bool { return m.Leader })
	if at < 0 {
		return nil, errors.New("no member leads")
	}
	node := q.Members[at].Node
	mine := slices.IndexFunc(f.members, func(o *target.Orca) bool { return o.Endpoints.Node == node })
	if mine < 0 {
		return nil, fmt.Errorf("%s leads, and is none of ours", node)
	}
	when := time.Since(f.begun)
	if err := do(ctx, f.members[mine]); err != nil {
		return nil, err
	}
	if err := f.quiet(ctx, when+failoverBuckets*failoverBucket-failoverLead); err != nil {
		return nil, err
	}
	o := f.outage(node, when)
	before := q.Term
	if q, err = f.fs[len(f.fs)-1].Quorum(ctx); err != nil {
		return nil, err
	}
	o.Terms = q.Term - before
	if f.members[mine].Alive() == nil {
		return o, nil
	}
	again, err := f.members[mine].Again(ctx)
	if err != nil {
		return nil, err
	}
	f.members[mine] = again
	return o, nil
}

// quiet waits for an acknowledgement at or after a time since the start.
func (f *failover) quiet(ctx context.Context, until time.Duration) error {
	for {
		f.mu.Lock()
		more := f.more
		done := len(f.acks) > 0 && f.acks[len(f.acks)-1] >= until
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("no create is acknowledged: %w", ctx.Err())
		}
	}
}

// outage is what the acknowledgements say of a change of the leader at when.
func (f *failover) outage(node string, when time.Duration) *Outage {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &Outage{Node: node, Creates: make([]int, failoverBuckets)}
	last := when - failoverLead
	for _, at := range f.acks {
		if at < when-failoverLead {
			continue
		}
		if gap := float64((at - last).Microseconds()) / 1000; at >= when && gap > o.Gap {
			o.Gap, o.Began = gap, float64((last-when).Microseconds())/1000
		}
		last = at
		if b := int((at - when + failoverLead) / failoverBucket); b < len(o.Creates) {
			o.Creates[b]++
		}
	}
	return o
}

// WriteJSON writes all of it.
func (r *Failover) WriteJSON(w io.Writer) error { return report.EncodeJSON(w, r) }

// WriteTable writes the gaps, and the mean timeline as a plot.
func (r *Failover) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "LEADER\tTIMES\tSHORTEST\tMEDIAN\tSLOWEST\tBEGAN\tTERMS\t")
	row := func(what string, os []Outage) {
		by := slices.SortedFunc(slices.Values(os), func(a, b Outage) int { return cmp.Compare(a.Gap, b.Gap) })
		if n := len(by); n > 0 {
			terms := uint64(0)
			for _, o := range os {
				terms += o.Terms
			}
			fmt.Fprintf(tw, "%s\t%d\t%.0f ms\t%.0f ms\t%.0f ms\t%+.0f ms\t%d\t\n", what, n, by[0].Gap, by[n/2].Gap, by[n-1].Gap, by[n-1].Began, terms)
		}
	}
	row("killed", r.Kills)
	row("handed over", r.Transfers)
	row("left alone", r.Alone)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ncreates per %d ms, mean; the leader goes at 0\n", r.BucketMS)
	for _, part := range []struct {
		name string
		os   []Outage
	}{{"killed", r.Kills}, {"handed over", r.Transfers}} {
		fmt.Fprintf(w, "%s\n", part.name)
		plot(w, part.os, r)
	}
	return nil
}

// plot draws a bar a bucket.
func plot(w io.Writer, os []Outage, r *Failover) {
	if len(os) == 0 {
		return
	}
	mean, top := make([]float64, failoverBuckets), 1.0
	for i := range mean {
		for _, o := range os {
			mean[i] += float64(o.Creates[i]) / float64(len(os))
		}
		top = max(top, mean[i])
	}
	for i, n := range mean {
		fmt.Fprintf(w, "%6d ms %7.1f %s\n", int64(i)*r.BucketMS-r.LeadMS, n, strings.Repeat("#", int(n/top*60)))
	}
}
