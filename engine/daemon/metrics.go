// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strconv"

	"orca"
	"orca/engine/fusegw"
	"orca/engine/telemetry"
	"orca/tiers/tiered"
)

// sources returns what the metrics page of this process shows.
func (r *running) sources() []telemetry.Source {
	out := []telemetry.Source{r.stores.samples}
	if m := r.meta; m != nil {
		g := m.host.Group()
		out = append(out,
			telemetry.Counters("orca_meta", "Requests to the namespace service.", &m.service.Stats),
			telemetry.Counters("orca_raft", "Journal entries and the commands in them.", &g.Stats),
			telemetry.Counters("orca_intents", "Intents that bring the stores in line.", &m.service.Exec.Stats),
			telemetry.Counters("orca_sync", "Looks at the stores below.", &m.service.Syncer.Stats),
			m.jobs.sources(), m.gauges, m.groupGauges)
		if m.server != nil {
			out = append(out, telemetry.Counters("orca_meta_transport", "Connections of the metadata RPC.", m.server.Metrics(), "Conns", "InFlight", "Handlers", "Bodies"))
		}
	}
	if r.worker != nil {
		out = append(out, r.worker.sources()...)
	}
	if r.mount != nil {
		out = append(out, telemetry.Counters("orca_fuse", "Requests of the kernel to the mount.", r.mount.m.Metrics()), r.mount.samples,
			telemetry.Counters("orca_client", "What the client of the mount did.", r.mount.fs.Stats()))
	}
	return out
}

// gauges are the sizes of the namespace.
func (m *metaRole) gauges(emit func(telemetry.Sample)) {
	c := m.host.Group().Machine().Counts()
	for name, v := range map[string]int64{
		"files": c.Files, "directories": c.Dirs, "sessions": c.Sessions, "intents": c.Intents,
		"clients": c.Clients, "mounts": c.Mounts, "trash": c.Trash, "kept": c.Kept,
		"quotas": c.Quotas, "open_files": m.service.OpenFiles(),
	} {
		emit(telemetry.Sample{Name: "orca_meta_" + name, Help: "Records of the namespace.", Value: float64(v)})
	}
	emit(telemetry.Sample{Name: "orca_meta_quota_refusals_total", Help: "Mutations refused by the quota of a directory.", Counter: true, Value: float64(c.OverQuota)})
	if m.alone() {
		return
	}
	leads := 0.0
	if m.service.Serving() == nil {
		leads = 1
	}
	_, term := m.host.Group().LeaderReplica()
	emit(telemetry.Sample{Name: "orca_meta_leads", Help: "1 while this member serves.", Value: leads})
	emit(telemetry.Sample{Name: "orca_meta_term", Help: "The term as far as this member knows.", Value: float64(term)})
}

// groupGauges are the sizes of the groups beside the first, and who leads them.
func (m *metaRole) groupGauges(emit func(telemetry.Sample)) {
	for _, g := range m.groups.all() {
		l := map[string]string{"group": strconv.Itoa(int(g.group.Number()))}
		c := g.group.Machine().Counts()
		for name, v := range map[string]int64{"files": c.Files, "directories": c.Dirs, "sessions": c.Sessions, "intents": c.Intents} {
			emit(telemetry.Sample{Name: "orca_group_" + name, Help: "Records of a group beside the first.", Labels: l, Value: float64(v)})
		}
		leads := 0.0
		if g.service.Serving() == nil {
			leads = 1
		}
		_, term := g.group.LeaderReplica()
		emit(telemetry.Sample{Name: "orca_group_leads", Help: "1 while this member serves the group.", Labels: l, Value: leads})
		emit(telemetry.Sample{Name: "orca_group_term", Help: "The group's term as far as this member knows.", Labels: l, Value: float64(term)})
		emit(telemetry.Sample{Name: "orca_group_commands_total", Help: "Commands that this member proposed to the group.", Counter: true, Labels: l, Value: float64(g.group.Stats.Commands.Load())})
		emit(telemetry.Sample{Name: "orca_group_reads_total", Help: "Reads that this member served of the group.", Counter: true, Labels: l, Value: float64(g.service.Stats.Reads.Load())})
		emit(telemetry.Sample{Name: "orca_group_followed_total", Help: "Of these, reads that this member served without leading.", Counter: true, Labels: l, Value: float64(g.service.Stats.Followed.Load())})
	}
}

// samples are the requests of the kernel by kind, and the opens that were not
// passed through by reason.
func (m *mountRole) samples(emit func(telemetry.Sample)) {
	mm := m.m.Metrics()
	for _, op := range fusegw.Ops() {
		emit(telemetry.Sample{Name: "orca_fuse_ops_total", Help: "Requests by kind.", Counter: true,
			Labels: map[string]string{"op": op.String()}, Value: float64(mm.Ops[op].Load())})
	}
	for _, f := range fusegw.Fallbacks() {
		emit(telemetry.Sample{Name: "orca_fuse_fallbacks_total", Help: "Opens that were not passed through.", Counter: true,
			Labels: map[string]string{"reason": f.String()}, Value: float64(mm.Fallbacks[f].Load())})
	}
}

// tierGauges are capacity and use of each tier.
func (w *workerRole) tierGauges(emit func(telemetry.Sample)) {
	var capacity, used, blocks [3]int64
	for _, u := range w.store.Usage() {
		capacity[u.Tier] += u.Capacity
		used[u.Tier] += u.Used
		blocks[u.Tier] += u.Blocks
	}
	m := &w.store.Metrics
	for t := orca.MEM; t <= orca.HDD; t++ {
		if capacity[t] == 0 {
			continue
		}
		l := map[string]string{"tier": t.String()}
		emit(telemetry.Sample{Name: "orca_tier_capacity_bytes", Help: "Quota of the tier.", Labels: l, Value: float64(capacity[t])})
		emit(telemetry.Sample{Name: "orca_tier_used_bytes", Help: "Bytes of blocks and private files.", Labels: l, Value: float64(used[t])})
		emit(telemetry.Sample{Name: "orca_tier_blocks", Help: "Blocks held.", Labels: l, Value: float64(blocks[t])})
		for r := range tiered.Reasons {
			emit(telemetry.Sample{Name: "orca_block_evictions_total", Help: "Blocks evicted, by reason.", Counter: true,
				Labels: map[string]string{"tier": t.String(), "reason": r.String()}, Value: float64(m.Evictions[t][r].Load())})
		}
		for k := range tiered.Kinds {
			emit(telemetry.Sample{Name: "orca_worker_tier_hits_total", Help: "Reads served from the tier, by what was given out.", Counter: true,
				Labels: map[string]string{"tier": t.String(), "kind": k.String()}, Value: float64(m.Hits[t][k].Load())})
		}
		emit(telemetry.Sample{Name: "orca_worker_tier_hit_bytes_total", Help: "Bytes served from the tier.", Counter: true, Labels: l, Value: float64(m.HitBytes[t].Load())})
	}
}

// bytesRead are the bytes of reads by the path that they took.
func (w *workerRole) bytesRead(emit func(telemetry.Sample)) {
	m := &w.blocks.Read.Metrics
	for path, n := range map[string]int64{
		"cache": m.CacheBytes.Load(), "peer": m.PeerBytes.Load(), "ufs": m.UFSBytes.Load(), "pass": m.PassBytes.Load(),
	} {
		emit(telemetry.Sample{Name: "orca_worker_bytes_total", Counter: true, Labels: map[string]string{"path": path}, Value: float64(n),
			Help: "Bytes of reads: handed out from the tiers at once, fetched from another worker, fetched from the store below, and passed on uncached."})
	}
}

// queues are what waits in the worker at this moment.
func (w *workerRole) queues(emit func(telemetry.Sample)) {
	q := w.store.Queues()
	for queue, n := range map[string]int64{
		"unlink": int64(q.Reap), "held": int64(q.Held), "move": int64(q.Moves), "room": int64(q.Room),
		"streams": w.blocks.Read.Metrics.Streams.Load(), "fills": w.blocks.Read.Metrics.Active.Load(),
		"writers": w.blocks.Write.Metrics.Open.Load(),
	} {
		emit(telemetry.Sample{Name: "orca_worker_queue_depth", Help: "What waits or is under way.", Labels: map[string]string{"queue": queue}, Value: float64(n)})
	}
}
