// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"flag"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs/wrap"
)

var (
	seedFlag  = flag.Int64("seed", -1, "run this one seed")
	seedsFlag = flag.Int("seeds", 120, "how many seeds to run")
	firstFlag = flag.Uint64("first", 1, "the first of them")
	allFlag   = flag.Bool("all", false, "go on after a failure, and tell each in a line")
	traceFlag = flag.Bool("trace", false, "with -seed: print the trace")
)

// TestSeeds runs one plan per seed; the first failure is shrunk and told.
func TestSeeds(t *testing.T) { runSeeds(t, *seedsFlag, NewPlan) }

// TestSeedsWithLinks is TestSeeds for plans with names of the same file, a third
// as many.
func TestSeedsWithLinks(t *testing.T) { runSeeds(t, (*seedsFlag+2)/3, NewLinksPlan) }

// TestSeedsWithTrash is TestSeeds for plans whose mounts keep what is deleted, a
// third as many.
func TestSeedsWithTrash(t *testing.T) { runSeeds(t, (*seedsFlag+2)/3, NewTrashPlan) }

// TestSeedsWithGroups is TestSeeds for plans with two or three groups, a third as
// many.
func TestSeedsWithGroups(t *testing.T) { runSeeds(t, (*seedsFlag+2)/3, NewGroupsPlan) }

// TestSeedsWithTransfers is TestSeeds for plans in which files go between groups,
// an eighth as many, for they take longer.
func TestSeedsWithTransfers(t *testing.T) { runSeeds(t, max(20, *seedsFlag/8), NewTransfersPlan) }

// TestSeedsWithTrees is TestSeeds for plans in which directories are renamed to
// other groups, an eighth as many.
func TestSeedsWithTrees(t *testing.T) { runSeeds(t, max(20, *seedsFlag/8), NewTreesPlan) }

// TestSeedsWithMoves is TestSeeds for plans in which directories move to other
// groups, an eighth as many.
func TestSeedsWithMoves(t *testing.T) { runSeeds(t, max(20, *seedsFlag/8), NewMovesPlan) }

// TestSeedsWithReturns is TestSeeds for plans in which directories move on to other
// groups and come home, an eighth as many.
func TestSeedsWithReturns(t *testing.T) { runSeeds(t, max(20, *seedsFlag/8), NewReturnsPlan) }

// TestSeedsWithExchanges is TestSeeds for plans in which names of different groups
// change places, an eighth as many.
func TestSeedsWithExchanges(t *testing.T) {
	runSeeds(t, max(20, *seedsFlag/8), NewExchangesPlan)
}

// TestSeedsWithFollowers is TestSeeds for plans in which members that do not lead
// answer reads, a third as many.
func TestSeedsWithFollowers(t *testing.T) { runSeeds(t, (*seedsFlag+2)/3, NewFollowersPlan) }

func runSeeds(t *testing.T, n int, plan func(uint64) *Plan) {
	first := *firstFlag
	if *seedFlag >= 0 {
		first, n = uint64(*seedFlag), 1
	}
	var sum Stats
	began, unjudged := time.Now(), 0
	for seed := first; seed < first+uint64(n); seed++ {
		r := Play(t, plan(seed), nil)
		if *traceFlag && n == 1 {
			t.Log("\n" + strings.Join(r.Trace, "\n"))
		}
		if r.Failure != nil && *allFlag {
			t.Error(r.Failure)
			continue
		}
		if r.Failure != nil {
			t.Logf("%v; looking for less", r.Failure)
			t.Fatal(Shrink(t, r.Failure, nil, 600).Report())
		}
		sum.Steps += r.Stats.Steps
		sum.Entries += r.Stats.Entries
		sum.Ops += r.Stats.Ops
		sum.Crashes += r.Stats.Crashes
		sum.Cuts += r.Stats.Cuts
		sum.Lost += r.Stats.Lost
		sum.Repeats += r.Stats.Repeats
		sum.Faults += r.Stats.Faults
		sum.Transfers += r.Stats.Transfers
		sum.Refused += r.Stats.Refused
		sum.Trees += r.Stats.Trees
		sum.Exchanges += r.Stats.Exchanges
		sum.Moves += r.Stats.Moves
		sum.Stays += r.Stats.Stays
		sum.Onward += r.Stats.Onward
		sum.Homes += r.Stats.Homes
		if r.Stats.Unjudged {
			unjudged++
		}
	}
	t.Logf("%d seeds in %v: %d steps, %d entries, %d operations, %d crashes, %d power cuts, %d messages lost, %d repeated, %d faults of stores; %d histories took too long to judge",
		n, time.Since(began).Round(time.Millisecond), sum.Steps, sum.Entries, sum.Ops, sum.Crashes, sum.Cuts, sum.Lost, sum.Repeats, sum.Faults, unjudged)
	if sum.Transfers+sum.Moves > 0 {
		t.Logf("%d files (%d for others) and %d directories were renamed to other groups, %d were refused there; %d directories moved to other groups (%d on from one, %d home), %d not after all",
			sum.Transfers-sum.Trees, sum.Exchanges, sum.Trees, sum.Refused, sum.Moves, sum.Onward, sum.Homes, sum.Stays)
	}
	if n > 20 {
		require.Positive(t, sum.Cuts)
		require.Positive(t, sum.Repeats)
		require.Positive(t, sum.Faults)
		require.Less(t, unjudged, n/10)
	}
}

// TestReproducible: the same seed gives the same run, line by line.
func TestReproducible(t *testing.T) {
	for name, plan := range map[string]func(uint64) *Plan{"": NewPlan, "groups": NewGroupsPlan, "transfers": NewTransfersPlan, "trees": NewTreesPlan, "moves": NewMovesPlan, "returns": NewReturnsPlan, "exchanges": NewExchangesPlan, "followers": NewFollowersPlan} {
		for seed := uint64(1); seed <= 12; seed++ {
			a, b := Play(t, plan(seed), nil), Play(t, plan(seed), nil)
			for i := range min(len(a.Trace), len(b.Trace)) {
				if a.Trace[i] != b.Trace[i] {
					t.Fatalf("%s seed %d: line %d of the trace differs:\n%s\nbefore:\n%s\n%s", name, seed, i, strings.Join(a.Trace[max(0, i-10):i], "\n"), a.Trace[i], b.Trace[i])
				}
			}
			require.Len(t, b.Trace, len(a.Trace), "%s seed %d", name, seed)
		}
	}
}

// TestStopsWhenBroken: a run in which something is broken ends, also when a client
// is just at what it does until it succeeds.
func TestStopsWhenBroken(t *testing.T) {
	for _, at := range []wrap.Op{wrap.Sweep, wrap.Abort} {
		synctest.Test(t, func(t *testing.T) {
			var w *world
			w = newWorld(NewPlan(2), &Bug{Call: func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
				switch {
				case c.Op == at:
					w.broken("planted", "%s", at)
					return orca.E("sim", orca.Unavailable, "planted")
				case c.Op == wrap.Create && at == wrap.Sweep, c.Op == wrap.Commit && at == wrap.Abort:
					return orca.E("sim", orca.Unavailable, "planted")
				}
				return do(ctx)
			}})
			w.run()
			require.NotNil(t, w.failure)
			require.Equal(t, "planted", w.failure.Rule)
		})
	}
}

// TestFoundSeeds runs the seeds that have shown a defect of the metaplane.
func TestFoundSeeds(t *testing.T) {
	for seed, why := range map[uint64]string{
		67:   "a removal whose answer was lost was not remembered, and a late listing brought the name back",
		141:  "a first listing during a move of the directory was empty",
		257:  "the upload of a dead session lay below an unpersisted version and outlived its removal",
		280:  "a rename replaced a directory that was never listed, and an object store merged the two",
		568:  "who led after a crash took a removed name from a late listing",
		648:  "a listing of a directory that is moved took a file that was cut over back to its old content",
		687:  "a directory that went while it was listed was said to be what a rename did not find",
		718:  "a coordinator that ended within a second of an empty put left its upload for ever",
		725:  "a persist whose commit had lost its answer left an object that a removal did not know of",
		745:  "what was asked before a directory arrived was taken for an answer about what is in it",
		830:  "failed before what 718 needed was mended, and passes since",
		851:  "what a dead session had uploaded was let go while another writer had the name",
		880:  "the answer to a decision was lost, and the operation was reported as not found",
		956:  "a move copied a file again while the cutover to its first copy was on its way",
		1192: "a move took a directory that had left from a late listing, and made it anew",
		1706: "a listing from before the end of a move came after it, and brought the source back",
		2102: "what somebody had put at the source of a rename got the length of what had been there",
		2324: "what somebody had put under a change of attributes got the length of what had been there",
		2442: "a listing of a directory was applied after the directory had moved, and emptied it",
		2714: "as 1192, when the question whether the directory was there failed",
		3536: "bounds of copies were refused before the request was looked up, and its repetition came to something else",
		5486: "as 3536, of a file that had been renamed since the first answer",
		6377: "a stolen session was swept before its writer began to upload",
		7881: "a mkdir with parents that was given up in the middle left those in the store, where the namespace knew nothing of them",
	} {
		p := NewPlan(seed)
		p.Group = 0 // as they were found
		if r := Play(t, p, nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithLinks is TestFoundSeeds of the plans with links.
func TestFoundSeedsWithLinks(t *testing.T) {
	for seed, why := range map[uint64]string{
		1947:  "what was asked while an exchange moved the directory was taken for an answer about it at its new place",
		3819:  "a repeated create was given a write session whose remains had been swept, and its upload stayed",
		6430:  "not the metaplane: who persisted the rest at the end came again and again with numbers that had been used",
		10030: "a change of mode that met an object just before a writer replaced it was lost at the next sync",
	} {
		if r := Play(t, NewLinksPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithGroups is TestFoundSeeds of the plans with groups, as they
// were when these were found: no files went between groups.
func TestFoundSeedsWithGroups(t *testing.T) {
	for seed, why := range map[uint64]string{
		8:    "a remount gave the row of a part that was being made a new number, and its mkdir came to stale",
		123:  "a rename of a part to a name in another part of the same group was invalid, not across mounts",
		136:  "two removed the same part, and both were told that they had",
		159:  "a part was given back after its content was removed, and a late listing brought that back",
		222:  "as 159, and a coordinator ended in between",
		238:  "a part was given back while it was made, and its mkdir came to stale",
		422:  "as 159, by a recursive delete that was repeated",
		590:  "a directory was moved while a part in it was removed, and the part went under its new name",
		2575: "a part was given back while its group was listing it, and it was said that there is none",
		2591: "a recursive delete that came twice found nothing at the number that its first coming had had forgotten",
		2851: "an unmount that came twice found its last step done, and failed",
	} {
		if r := Play(t, apartPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
	for seed, why := range map[uint64]string{
		2653: "a group that had refused to forget a mount forgot it late, when the first group had gone back",
		2868: "a part came to its group while that asked where the part's own name leads, and a rename to itself was across mounts",
	} {
		if r := Play(t, NewGroupsPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithTransfers is TestFoundSeeds of the plans in which files go
// between groups.
func TestFoundSeedsWithTransfers(t *testing.T) {
	for seed, why := range map[uint64]string{
		21:  "a directory was said to have come to another group without its store having moved it",
		39:  "as 21",
		127: "the directory of a rename's target came to another group meanwhile, and the rename was refused for good",
		344: "as 127",
		437: "as 127",
	} {
		if r := Play(t, NewTransfersPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithTrees is TestFoundSeeds of the plans in which directories are
// renamed to other groups.
func TestFoundSeedsWithTrees(t *testing.T) {
	for seed, why := range map[uint64]string{
		2661: "a group kept decisions about what another had under way when who leads that changed, until that changed again",
		2890: "the removal of what was copied to another group had no answer, and a late listing brought the name back",
		1200: "the directory that another was brought to had left its group, and it was said that there is none",
	} {
		if r := Play(t, NewTreesPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithMoves is TestFoundSeeds of the plans in which directories move
// to other groups.
func TestFoundSeedsWithMoves(t *testing.T) {
	for seed, why := range map[uint64]string{
		46:   "as 1023, and its part was just being removed",
		1023: "a directory switched to another group while it was listed, and was said not to be there",
		1139: "who had been referred to an earlier part of the path was let into a sealed directory before its switch",
		1186: "a part that was to be removed before its group had its options, and stayed, never got them",
	} {
		if r := Play(t, NewMovesPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithReturns is TestFoundSeeds of the plans in which directories move
// on to other groups and come home.
func TestFoundSeedsWithReturns(t *testing.T) {
	for seed, why := range map[uint64]string{
		84:   "a directory was not brought to another one of its group after all, and what had been stayed staged",
		2911: "a directory moved between the steps of its removal, and who repeated that was told that there is none",
	} {
		if r := Play(t, NewReturnsPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}

// TestFoundSeedsWithExchanges is TestFoundSeeds of the plans in which names of
// different groups change places.
func TestFoundSeedsWithExchanges(t *testing.T) {
	for seed, why := range map[uint64]string{
		323:  "an exchange within another group was across mounts for who asked the first one",
		1198: "as 323",
	} {
		if r := Play(t, NewExchangesPlan(seed), nil); r.Failure != nil {
			t.Errorf("%s:\n%s", why, r.Failure.Report())
		}
	}
}
