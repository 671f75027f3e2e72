// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/buildinfo"
	"orca/engine/client"
)

func (e *env) adminCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "admin", Aliases: []string{"fsadmin"},
		Short: "Look after an Orca",
		Long:  "Look after an Orca: reports, workers, tier directories, configuration, scrubbing, checks of this host, the members of the metaplane,\nits journal, backup and restore.",
		Example: `  orca admin report
  orca admin workers --json
  orca admin validate`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(e.reportCommand(), e.workersCommand(), e.getConfCommand(), e.scrubCommand(), e.tierCommand(), e.validateCommand(), e.quorumCommand(), e.groupCommand(), e.journalCommand(), e.backupCommand())
	if e.hooks.Restore != nil {
		c.AddCommand(e.restoreCommand())
	}
	return c
}

func (e *env) reportCommand() *cobra.Command {
	kinds := []string{"summary", "capacity", "ufs", "jobservice", "metrics"}
	return &cobra.Command{
		Use: "report [summary|capacity|ufs|jobservice|metrics]", Short: "Report the state of the cluster",
		Long: `Report the state of the cluster.

  summary     version, uptime, inodes, workers, capacity (the default)
  capacity    what each worker has and uses, tier by tier
  ufs         the mounted stores, and what they have still to be brought in
              line with
  jobservice  how many jobs there are in each state, and those at work
  metrics     the counters of the metaplane`,
		Example:   "  orca admin report\n  orca admin report ufs --json",
		ValidArgs: kinds,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !slices.Contains(kinds, args[0]) {
				return usagef("want one of %v", kinds)
			}
			return nil
		},
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			kind := "summary"
			if len(args) == 1 {
				kind = args[0]
			}
			if kind == "jobservice" {
				return e.reportJobs(cmd.Context(), fs)
			}
			r, err := fs.Report(cmd.Context())
			if err != nil {
				return err
			}
			switch kind {
			case "capacity":
				return e.printWorkers(r.Workers, true)
			case "ufs":
				return e.reportUFS(r)
			case "metrics":
				return e.reportMetrics(r)
			}
			return e.reportSummary(fs, r)
		}),
	}
}

// summaryJSON is `orca admin report --json`.
type summaryJSON struct {
	Cluster       string           `json:"cluster"`
	Version       string           `json:"version"`
	Address       string           `json:"address"`
	Started       time.Time        `json:"started"`
	UptimeSeconds int64            `json:"uptime_seconds"`
	Inodes        int64            `json:"inodes"`
	Directories   int64            `json:"directories"`
	WriteSessions int64            `json:"write_sessions"`
	Applied       uint64           `json:"applied"`
	Mounts        int              `json:"mounts"`
	PendingUFS    int              `json:"pending_ufs_operations"`
	LiveWorkers   int              `json:"live_workers"`
	LostWorkers   int              `json:"lost_workers"`
	CapacityBytes int64            `json:"capacity_bytes"`
	UsedBytes     int64            `json:"used_bytes"`
	Tiers         map[string]usedJ `json:"tiers"`
}

type usedJ struct {
	Capacity int64 `json:"capacity_bytes"`
	Used     int64 `json:"used_bytes"`
}

func (e *env) reportSummary(fs *client.FS, r *client.Report) error {
	started := time.Unix(0, r.Started)
	s := summaryJSON{
		Cluster: r.Cluster, Version: r.Version, Address: fs.MetaAddress(), Started: started,
		UptimeSeconds: int64(time.Since(started).Seconds()), Inodes: r.Inodes, Directories: r.Directories,
		WriteSessions: r.Sessions, Applied: r.Applied, Mounts: len(r.Mounts), PendingUFS: len(r.Intents), Tiers: map[string]usedJ{},
	}
	for _, w := range r.Workers {
		if !w.Live {
			s.LostWorkers++
			continue
		}
		s.LiveWorkers++
		for _, t := range w.Tiers {
			n := orca.Tier(t.Tier).String()
			u := s.Tiers[n]
			u.Capacity += t.Capacity
			u.Used += t.Used
			s.Tiers[n] = u
			s.CapacityBytes += t.Capacity
			s.UsedBytes += t.Used
		}
	}
	if e.json {
		return e.emit(s)
	}
	t := e.table()
	line := func(k string, v ...any) { _ = t.row(k+":", fmt.Sprint(v...)) } // flush reports what matters
	line("cluster", s.Cluster)
	line("version", s.Version)
	line("address", s.Address)
	line("started", stamp(started), " (", time.Since(started).Round(time.Second), " ago)")
	line("inodes", s.Inodes, " (", s.Directories, " directories)")
	line("write sessions", s.WriteSessions)
	line("mounts", s.Mounts)
	line("pending ufs operations", s.PendingUFS)
	line("workers", s.LiveWorkers, " live, ", s.LostWorkers, " lost")
	line("capacity", size(s.CapacityBytes, true), ", ", size(s.UsedBytes, true), " used")
	for _, n := range slices.Sorted(maps.Keys(s.Tiers)) {
		line("  "+n, size(s.Tiers[n].Capacity, true), ", ", size(s.Tiers[n].Used, true), " used")
	}
	return t.flush()
}

// intentJSON is one pending operation in `orca admin report ufs --json`.
type intentJSON struct {
	ID       uint64    `json:"id"`
	Op       string    `json:"op"`
	Source   string    `json:"source,omitempty"`
	Target   string    `json:"target,omitempty"`
	Created  time.Time `json:"created"`
	Attempts int64     `json:"attempts"`
	Error    string    `json:"error,omitempty"`
	MountID  uint32    `json:"mount_id"`
}

func (e *env) reportUFS(r *client.Report) error {
	if e.json {
		ms, is := []mountJSON{}, []intentJSON{}
		for _, m := range r.Mounts {
			ms = append(ms, mountOf(m))
		}
		for _, i := range r.Intents {
			is = append(is, intentJSON{i.Id, i.Op, i.Source, i.Target, time.Unix(0, i.Created), i.Attempts, i.Error, i.MountId})
		}
		return e.emit(map[string]any{"mounts": ms, "pending": is})
	}
	t := e.table("MOUNT", "URI", "PENDING")
	for _, m := range r.Mounts {
		n := 0
		for _, i := range r.Intents {
			if i.MountId == m.Id {
				n++
			}
		}
		if err := t.row(m.Path, m.Uri, n); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil || len(r.Intents) == 0 {
		return err
	}
	fmt.Fprintln(e.Out)
	t = e.table("PENDING", "SOURCE", "TARGET", "SINCE", "ATTEMPTS", "LAST ERROR")
	for _, i := range r.Intents {
		if err := t.row(i.Op, i.Source, i.Target, stamp(time.Unix(0, i.Created)), i.Attempts, i.Error); err != nil {
			return err
		}
	}
	return t.flush()
}

func (e *env) reportMetrics(r *client.Report) error {
	if e.json {
		return e.emit(r.Counters)
	}
	t := e.table("COUNTER", "VALUE")
	for _, k := range slices.Sorted(maps.Keys(r.Counters)) {
		if err := t.row(k, r.Counters[k]); err != nil {
			return err
		}
	}
	return t.flush()
}

// workerJSON is what --json says about one worker.
type workerJSON struct {
	ID       uint64     `json:"id"`
	Node     string     `json:"node"`
	Rack     string     `json:"rack,omitempty"`
	Address  string     `json:"address"`
	Socket   string     `json:"socket,omitempty"`
	Domain   string     `json:"domain_socket,omitempty"`
	HTTP     string     `json:"http,omitempty"`
	Live     bool       `json:"live"`
	Version  string     `json:"version,omitempty"`
	LastSeen time.Time  `json:"last_seen"`
	Tiers    []tierJSON `json:"tiers"`
}

type tierJSON struct {
	Tier     string `json:"tier"`
	Dir      string `json:"dir"`
	Capacity int64  `json:"capacity_bytes"`
	Used     int64  `json:"used_bytes"`
	Blocks   int64  `json:"blocks"`
	Healthy  bool   `json:"healthy"`
}

func (e *env) workersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "workers", Short: "List the workers",
		Long:    "List the workers that the metaplane knows, live and lost.",
		Example: "  orca admin workers",
		Args:    noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			ws, err := fs.Workers(cmd.Context())
			if err != nil {
				return err
			}
			return e.printWorkers(ws, false)
		}),
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// printWorkers prints a line per worker, or per tier directory.
func (e *env) printWorkers(ws []*client.Worker, tiers bool) error {
	t := e.table("WORKER", "NODE", "ADDRESS", "STATE", "CAPACITY", "USED", "SEEN")
	if tiers {
		t = e.table("WORKER", "NODE", "TIER", "CAPACITY", "USED", "BLOCKS", "STATE", "DIRECTORY")
	}
	for _, w := range ws {
		j := workerJSON{ID: w.Id, Node: w.Node, Rack: w.Rack, Address: w.Addr, Socket: w.Socket, Domain: w.Domain, HTTP: w.Http, Live: w.Live, Version: w.Version,
			LastSeen: time.Unix(0, w.LastSeen), Tiers: []tierJSON{}}
		state := "live"
		if !w.Live {
			state = "lost"
		}
		var total, used int64
		for _, u := range w.Tiers {
			j.Tiers = append(j.Tiers, tierJSON{orca.Tier(u.Tier).String(), u.Dir, u.Capacity, u.Used, u.Blocks, u.Healthy})
			total += u.Capacity
			used += u.Used
			health := state
			if !u.Healthy {
				health = "failed"
			}
			if tiers && !e.json {
				if err := t.row(w.Id, w.Node, orca.Tier(u.Tier), size(u.Capacity, true), size(u.Used, true), u.Blocks, health, u.Dir); err != nil {
					return err
				}
			}
		}
		var err error
		switch {
		case e.json:
			err = e.emit(j)
		case !tiers:
			err = t.row(w.Id, w.Node, w.Addr, state, size(total, true), size(used, true), stamp(j.LastSeen))
		}
		if err != nil {
			return err
		}
	}
	return t.flush()
}

func (e *env) getConfCommand() *cobra.Command {
	var source bool
	c := &cobra.Command{
		Use: "getConf [KEY]", Aliases: []string{"get-conf"},
		Short:   "Show the effective configuration of the metaplane",
		Long:    "Show the effective configuration of the metaplane: all keys, or the value of one.",
		Example: "  orca getConf\n  orca getConf --source block.whole_max",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("want at most one key")
			}
			return nil
		},
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			r, err := fs.Conf(cmd.Context())
			if err != nil {
				return err
			}
			t := e.table("KEY", "VALUE", "SOURCE")
			found := false
			for _, v := range r.Values {
				if len(args) == 1 && v.Key != args[0] {
					continue
				}
				found = true
				cells := []any{v.Key, v.Value}
				if len(args) == 1 {
					cells = []any{v.Value}
				}
				if source {
					cells = append(cells, v.Source)
				}
				if e.json {
					err = e.emit(map[string]string{"key": v.Key, "value": v.Value, "source": v.Source})
				} else {
					err = t.row(cells...)
				}
				if err != nil {
					return err
				}
			}
			if len(args) == 1 && !found {
				return orca.PathE("cli.getConf", args[0], orca.NotFound, nil)
			}
			return t.flush()
		}),
	}
	c.Flags().BoolVar(&source, "source", false, "show where each value comes from")
	return c
}

func (e *env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program",
		Long:    "Print the version, the commit and the tool chain of this program.",
		Example: "  orca version --json",
		Args:    noArgs,
		RunE: e.run(func(*cobra.Command, []string) error {
			i := buildinfo.Read()
			if e.json {
				return e.emit(i)
			}
			_, err := fmt.Fprintf(e.Out, "orca %s (commit %s, %s, %s/%s)\n", i.Version, orDash(i.Commit), i.Go, i.OS, i.Arch)
			return err
		}),
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
