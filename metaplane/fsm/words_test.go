// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strconv"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

var writeTypes = map[string]orca.WriteType{
	"": orca.MustCache, "must": orca.MustCache, "cache": orca.CacheThrough, "async": orca.AsyncThrough, "through": orca.Through,
}

func (s *story) target(a args, i int) *metapb.Target {
	return &metapb.Target{Path: a.arg(i), Ino: uint64(a.num("ino", 0))}
}

// build makes the command that a word of a story stands for.
func (s *story) build(verb string, a args) *command.Command {
	c := &command.Command{}
	if a.has("names") {
		c.Checks = uint32(metapb.CommandCheck_CHECK_NAMES | metapb.CommandCheck_CHECK_CONTENT)
	}
	if dir, name, ok := strings.Cut(a.opts["asked"], "/"); ok {
		n, _ := strconv.ParseUint(dir, 16, 64)
		c.Absent = []*metapb.AbsentName{{Dir: n, Name: name}}
	}
	switch verb {
	case "create":
		c.Create = s.createOp(a)
	case "complete":
		c.Complete = &metapb.CompleteOp{
			Session: uint64(a.num("s", 0)), Fence: uint64(a.num("f", a.num("s", 0))), Length: a.num("len", 0),
			Fingerprint: a.opts["fp"], Keep: a.has("keep"), Workers: []uint64{7},
		}
	case "abandon":
		c.Abandon = &metapb.AbandonOp{Session: uint64(a.num("s", 0)), Fence: uint64(a.num("s", 0)), Swept: a.has("swept")}
	case "renew":
		c.Renew = &metapb.RenewOp{Sessions: []uint64{uint64(a.num("s", 0))}, Fence: uint64(a.num("f", 0)), Length: a.num("len", 0)}
	case "expire":
		c.Expire = &metapb.ExpireOp{}
	case "drop":
		c.DropSession = &metapb.DropSessionOp{Session: uint64(a.num("s", 0))}
	case "mkdir":
		c.Mkdir = &metapb.MkdirOp{Target: s.target(a, 0), Mode: uint32(a.num("mode", 0o755)), Parents: a.has("p"), ExistOk: a.has("x"), Group: uint32(a.num("group", 0))}
	case "mv":
		c.Rename = &metapb.RenameOp{Src: at(a.arg(0)), Dst: at(a.arg(1)), NoReplace: a.has("n"), Exchange: a.has("x")}
		if dir, name, ok := strings.Cut(a.opts["away"], "/"); ok {
			n, _ := strconv.ParseUint(dir, 16, 64)
			c.Rename.Dst, c.Rename.Away, c.Rename.AwayBytes = nil, &metapb.Target{Ino: n, Path: name}, a.num("bytes", 0)
		}
	case "ln":
		c.Link = &metapb.LinkOp{Src: s.target(a, 0), Dst: at(a.arg(1))}
	case "rehome":
		c.Rehome = &metapb.RehomeOp{File: uint64(a.num("ino", 0)), Dir: uint64(a.num("dir", 1)), Name: a.arg(0)}
	case "rm":
		c.Delete = &metapb.DeleteOp{Target: s.target(a, 0), Recursive: a.has("r"), CacheOnly: a.has("c"), Want: uint32(a.num("want", 0)),
			SkipTrash: a.has("skip"), Linked: a.has("linked")}
	case "chmod":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setMode, Mode: uint32(a.num("mode", 0))}
	case "chown":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setUID | setGID, Uid: uint32(a.num("uid", 0)), Gid: uint32(a.num("gid", 0))}
	case "touch":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setMtime, Mtime: a.num("t", 0), TimesNow: a.has("now")}
	case "pin":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setPinned, Pinned: !a.has("off")}
	case "copies":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setCopies, ReplicaMin: uint32(a.num("min", 0)), ReplicaLimit: uint32(a.num("max", -1) + 1), OnlyFile: !a.has("r")}
	case "xattr":
		c.Xattr = &metapb.XattrOp{
			Target: s.target(a, 0), Name: a.arg(1), Value: []byte(a.arg(2)),
			Create: a.has("create"), Replace: a.has("replace"), Remove: a.has("remove"),
		}
	default:
		return s.buildInner(verb, a, c)
	}
	return c
}

func (s *story) createOp(a args) *metapb.CreateOp {
	return &metapb.CreateOp{
		Target: s.target(a, 0), Mode: uint32(a.num("mode", 0o644)), Parents: a.has("p"), Exclusive: a.has("x"),
		Overwrite: a.has("o"), WriteType: uint32(writeTypes[a.opts["type"]]), Complete: a.has("done") || a.has("link"),
		Steal: a.has("steal"), Symlink: a.opts["link"], ExpectLength: a.num("expect", 0), Replicas: uint32(a.num("copies", 1)),
	}
}

func (s *story) buildInner(verb string, a args, c *command.Command) *command.Command {
	switch verb {
	case "mount":
		caps := a.opts["caps"]
		c.Mount = &metapb.MountOp{
			Mount: &metapb.Mount{Path: a.arg(0), Uri: a.arg(1), ReadOnly: a.has("ro"), SyncIntervalMs: a.num("sync", -1), TrashRetentionMs: max(-1, 1000*a.num("trash", 0)),
				Group: uint32(a.num("group", 0)), Id: uint32(a.num("id", 0)), Serial: uint64(a.num("serial", 0)), Part: a.part()},
			Parents: a.has("p"), Update: a.has("u"),
			AtomicRename: strings.Contains(caps, "r"), Directories: strings.Contains(caps, "d"), Owners: strings.Contains(caps, "o"),
			Exchange: strings.Contains(caps, "x"),
		}
	case "quota":
		c.SetQuota = &metapb.SetQuotaOp{Target: s.target(a, 0), Bytes: a.num("bytes", -1), Inodes: a.num("inodes", -1)}
	case "syncs":
		c.SetAttr = &metapb.SetAttrOp{Target: s.target(a, 0), Mask: setSync, SyncIntervalMs: a.num("ms", 0)}
	case "unmount":
		c.Unmount = &metapb.UnmountOp{Path: a.arg(0), Id: uint32(a.num("id", 0)), Empty: a.has("empty"), Serial: uint64(a.num("serial", 0))}
	case "regroup":
		c.Regroup = &metapb.RegroupOp{Group: uint32(a.num("group", 0)), Intent: uint64(a.num("i", 0)), Root: uint64(a.num("root", 0)), Cleared: uint32(a.num("cleared", 0)), Settled: uint32(a.num("settled", 0))}
		if c.Regroup.Intent == 0 {
			c.Regroup.Target = s.target(a, 0)
		}
	case "stage":
		c.Stage = stageOp(a)
	case "depart":
		c.Depart = &metapb.DepartOp{Mount: uint32(a.num("id", 0)), Part: uint32(a.num("move", 0)), Group: uint32(a.num("group", 0)), Root: uint64(a.num("root", 0)),
			Step: metapb.DepartStep(metapb.DepartStep_value["DEPART_"+strings.ToUpper(a.arg(0))])}
	case "junction":
		serial := uint64(a.num("serial", 0)) // 0: that of the row
		if row := s.m.mounts[uint32(a.num("id", 0))]; serial == 0 {
			serial = row.GetMount().GetSerial()
		}
		c.Junction = &metapb.JunctionOp{Mount: uint32(a.num("id", 0)), From: metapb.JunctionState(a.num("from", 0)), To: metapb.JunctionState(a.num("to", 0)),
			Root: uint64(a.num("root", 0)), Serial: serial, Removing: a.has("removing")}
	case "decide":
		c.Decide = &metapb.DecideOp{Intent: uint64(a.num("i", 0)), Kind: uint32(a.num("kind", 0)), Msg: a.opts["msg"], Fingerprint: a.opts["fp"], Existed: a.has("existed"), Vanished: a.has("vanished"), Early: a.has("early")}
		if a.has("back") || a.has("backlink") {
			c.Decide.Back = &metapb.TransferOp{File: inode.AppendFile(nil, a.foreign(a.opts["back"], a.opts["backlink"]))}
		}
	case "cutover":
		c.Cutover = &metapb.CutoverOp{Intent: uint64(a.num("i", 0)), File: uint64(a.num("ino", 0)), Want: a.opts["want"], Fingerprint: a.opts["fp"]}
	case "finish":
		c.FinishIntent = &metapb.FinishIntentOp{Intent: uint64(a.num("i", 0))}
	case "sync":
		c.SyncApply = s.syncOp(a)
	case "persist":
		c.Persist = &metapb.PersistOp{Target: s.target(a, 0)}
	case "prepare":
		c.PersistPrepare = &metapb.PersistPrepareOp{File: uint64(a.num("ino", 0)), Version: uint32(a.num("v", 1))}
	case "persisted":
		c.PersistCommit = &metapb.PersistCommitOp{Intent: uint64(a.num("i", 0)), Fingerprint: a.opts["fp"], Unsure: a.has("unsure")}
	case "lost":
		c.MarkLost = &metapb.MarkLostOp{Files: []uint64{uint64(a.num("ino", 0))}}
	case "sweep":
		c.SweepTrash = &metapb.SweepTrashOp{Limit: uint32(a.num("limit", 0))}
	case "undelete":
		c.RestoreTrash = &metapb.RestoreTrashOp{Ino: uint64(a.num("ino", 0)), Dst: at(a.arg(0))}
	case "purge":
		c.PurgeTrash = &metapb.PurgeTrashOp{Inos: []uint64{uint64(a.num("ino", 0))}, Expired: a.has("expired")}
	case "worker":
		c.RegisterWorker = &metapb.RegisterWorkerOp{Id: uint64(a.num("id", 0)), Node: a.arg(0)}
	case "hosted":
		c.Hosted = &metapb.HostedOp{Machine: a.arg(0), Body: []byte(a.arg(1))}
	case "hold":
		c.Hold = &metapb.HoldOp{File: uint64(a.num("ino", 0)), Version: uint32(a.num("v", 1)), Workers: []uint64{uint64(a.num("w", 9))}}
	case "transfer":
		f := a.foreign(a.opts["fp"], a.opts["link"])
		c.Transfer = &metapb.TransferOp{Tx: uint64(a.num("tx", 0)), DoneBelow: uint64(a.num("below", 0)), Dst: at(a.arg(0)), NoReplace: a.has("n"),
			Caller: &metapb.Caller{Uid: uint32(a.num("by", 0)), Gid: uint32(a.num("by", 0))}, Mount: uint32(a.num("of", 1)), Root: "file:///r", Key: "a/f",
			File: inode.AppendFile(nil, f), Abort: uint32(a.num("abort", 0)), Exchange: a.has("x"), Room: a.num("room", 1<<40)}
		if a.has("d") {
			c.Transfer.File, c.Transfer.Dir, c.Transfer.Key = nil, true, "a/d"
		}
	case "pack":
		c.Stage = a.packOp()
	case "brought":
		c.Brought = &metapb.BroughtOp{Intent: uint64(a.num("i", 0)), Root: uint64(a.num("root", 0))}
	case "fact":
		c.SetFact = &metapb.SetFactOp{Key: a.arg(0), Value: []byte(a.arg(1)), Absent: a.has("absent")}
	default:
		return nil
	}
	return c
}

// stageOp reads words like f:name:fp and d:name, which are of the root of what is
// staged; with -self that comes, too, and with -seal the sums.
func stageOp(a args) *metapb.StageOp {
	o := &metapb.StageOp{Tx: uint64(a.num("tx", 0)), Mount: uint32(a.num("id", 0)), Forget: a.has("forget")}
	dir := &inode.Dir{Ino: 99, Mode: uint32(a.num("mode", 0o755)), Mtime: 1, Ctime: 2, Atime: 3, Flags: inode.Persisted | inode.Loaded}
	if a.has("self") {
		o.Self = &metapb.StagedEntry{Name: "p", Dir: inode.AppendDir(nil, dir)}
	}
	if a.has("seal") {
		o.Seal = &metapb.StagedSums{Bytes: a.num("bytes", 0), Files: a.num("files", 0), Dirs: a.num("dirs", 0)}
	}
	page := &metapb.StagedPage{}
	for _, p := range a.plain {
		f := strings.Split(p, ":")
		e := &metapb.StagedEntry{Name: f[1]}
		if f[0] == "d" {
			e.Dir = inode.AppendDir(nil, dir)
		} else {
			e.File = inode.AppendFile(nil, &inode.File{Ino: 98, Type: orca.TypeFile, Mode: 0o644, Length: int64(len(f[2])), Persist: orca.Persisted,
				Fingerprint: f[2], Version: 3, LastVersion: 3, Runs: wholeRuns(3)})
		}
		page.Entries = append(page.Entries, e)
	}
	if len(page.Entries) > 0 {
		o.Pages = []*metapb.StagedPage{page}
	}
	return o
}

// packOp is what a renamed directory is staged by. It reads words like self:d, f:name:fp, d:name and seal.
func (a args) packOp() *metapb.StageOp {
	o := &metapb.StageOp{Tx: uint64(a.num("tx", 0)), Forget: a.has("forget")}
	page := &metapb.StagedPage{Dir: uint64(a.num("in", 0))}
	for _, p := range a.plain {
		f := strings.Split(p, ":")
		switch f[0] {
		case "self", "d":
			d := inode.Dir{Ino: 98, Name: f[1], Mode: 0o750, UID: 5, Flags: inode.Persisted | inode.Loaded, Mtime: 9, Ctime: 9, Atime: 9}
			e := &metapb.StagedEntry{Name: f[1], Dir: inode.AppendDir(nil, &d)}
			if f[0] == "self" {
				o.Self = e
				continue
			}
			page.Entries = append(page.Entries, e)
		case "f":
			page.Entries = append(page.Entries, &metapb.StagedEntry{Name: f[1], File: inode.AppendFile(nil, &inode.File{Ino: 99, Type: orca.TypeFile, Mode: 0o640,
				UID: 5, Length: int64(len(f[2])), Persist: orca.Persisted, Fingerprint: f[2], Version: 3, LastVersion: 3, Runs: wholeRuns(3)})})
		case "seal":
			o.Seal = &metapb.StagedSums{Bytes: a.num("bytes", 0), Files: a.num("files", 0), Dirs: a.num("dirs", 0)}
		}
	}
	if len(page.Entries) > 0 {
		o.Pages = []*metapb.StagedPage{page}
	}
	return o
}

// foreign is a file of another group.
func (a args) foreign(fp, link string) *inode.File {
	f := &inode.File{Ino: 99, Type: orca.TypeFile, Mode: uint32(a.num("mode", 0o644)), UID: 5, Length: a.num("len", int64(len(fp))), Persist: orca.Persisted,
		Fingerprint: fp, Version: 3, LastVersion: 3, Runs: wholeRuns(3)}
	if link != "" {
		f.Type, f.Target, f.Length, f.Persist = orca.TypeSymlink, link, int64(len(link)), orca.NotPersisted
	}
	return f
}

// part is what "part=1" says a mount is a part of.
func (a args) part() *metapb.Part {
	if !a.has("part") && a.opts["part"] == "" {
		return nil
	}
	return &metapb.Part{Mount: uint32(a.num("part", 0)), Mode: uint32(a.num("mode", 0o755)), Uid: uint32(a.num("uid", 0))}
}

// syncOp reads words like f:name:fp (as many bytes as its fingerprint has
// letters), f:name:fp:mode, d:name and gone:name.
func (s *story) syncOp(a args) *metapb.SyncApplyOp {
	w, err := s.m.Walk(orca.Caller{}, 0, a.arg(0))
	if err != nil || !w.Found {
		s.t.Fatalf("no directory %s", a.arg(0))
	}
	o := &metapb.SyncApplyOp{
		Dir: w.Attr.Ino, Change: uint64(a.num("change", int64(s.index))), Range: a.has("range"), Loaded: a.has("loaded"),
		After: a.opts["after"], Upto: a.opts["upto"], Intent: uint64(a.num("intent", 0)), Session: uint64(a.num("s", 0)),
	}
	for _, p := range a.plain[1:] {
		f := strings.Split(p, ":")
		switch f[0] {
		case "d":
			o.Entries = append(o.Entries, &metapb.SyncEntry{Name: f[1], Dir: true})
		case "f":
			e := &metapb.SyncEntry{Name: f[1], Length: int64(len(f[2])), Fingerprint: f[2], Mtime: 5}
			if len(f) > 3 {
				mode, _ := strconv.ParseUint(f[3], 8, 32)
				e.Owners, e.Mode = true, uint32(mode)
			}
			o.Entries = append(o.Entries, e)
		case "gone":
			o.Missing = append(o.Missing, f[1])
		}
	}
	return o
}
