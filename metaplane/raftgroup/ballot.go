// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"cmp"
	"slices"
	"sync"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	// turnFor is for how long a member that said yes to one, or asks itself, says
	// it to no other one: the one whose turn it is has stood for election by then,
	// or is gone, too.
	turnFor = 100 * time.Millisecond
	// putAgain is how often a question that was not answered is put to the engine
	// again, and openFor for how long: by then who asked does so anew.
	putAgain = 2 * clusterTick * time.Millisecond
	openFor  = 2 * clusterElection * clusterTick * time.Millisecond
)

// ballot keeps members that miss their leader at about the same time out of each
// other's way. Left to itself the engine loses an election time, 250 to 490 ms,
//
//   - when one asks whether it would be elected (pre-vote) a little before the
//     other one is ready to follow anybody else: it gets no answer;
//   - when both ask at once: each says yes, both stand, each votes for itself.
//
// So a question that was not answered is put to the engine again for a while, and
// a yes goes to one member at a time. That is what a network may do as well: it
// repeats messages and loses them. What is answered is for the engine to say, by
// its rules at that moment, and a pre-vote binds nobody.
type ballot struct {
	mu   sync.Mutex
	turn ask                  // whose it is; GUARDED_BY(mu)
	open map[uint64]*question // by who has asked last, for openFor; GUARDED_BY(mu)
}

// ask is a request for pre-votes.
type ask struct {
	replica, term     uint64
	logTerm, logIndex uint64
	at                time.Time
}

func askOf(m *pb.Message) ask {
	return ask{replica: m.From, term: m.Term, logTerm: m.LogTerm, logIndex: m.LogIndex, at: time.Now()}
}

// before reports whether a goes before b when both ask at once: who has more of
// the journal, for the other one cannot win, then the higher number.
func (a ask) before(b ask) bool {
	return cmp.Or(cmp.Compare(a.logTerm, b.logTerm), cmp.Compare(a.logIndex, b.logIndex), cmp.Compare(a.replica, b.replica)) > 0
}

// question is one that another member has asked.
type question struct {
	ask
	m        pb.Message
	answered bool
	putting  bool // somebody puts it again
}

// asks notes that this member asks.
func (b *ballot) asks(m *pb.Message) {
	mine := askOf(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.takenLocked(mine) {
		b.turn = mine
	}
}

// takenLocked reports whether it is another one's turn than the asker's.
func (b *ballot) takenLocked(a ask) bool {
	return b.turn.term == a.term && b.turn.replica != a.replica && a.at.Sub(b.turn.at) < turnFor
}

// asked notes a question of another member; first says that nobody puts it again
// so far.
func (b *ballot) asked(m *pb.Message) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		b.open = map[uint64]*question{}
	}
	q := b.open[m.From]
	if q == nil {
		q = &question{}
		b.open[m.From] = q
	}
	q.ask, q.m, q.answered = askOf(m), *m, false
	first = !q.putting
	q.putting = true
	return first
}

// again returns the question of a member if it is to be put once more. False: it
// is settled, so that nobody puts it any more.
func (b *ballot) again(replica, term uint64) (pb.Message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.open[replica]
	if q.answered || q.term <= term || time.Since(q.at) >= openFor {
		q.putting = false
		return pb.Message{}, false
	}
	return q.m, true
}

// answers reports whether an answer of this member is to be sent. A yes is not
// while it is another one's turn; a no always is.
func (b *ballot) answers(m *pb.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	theirs := ask{replica: m.To, term: m.Term, at: time.Now()}
	q := b.open[m.To]
	if q != nil && q.term == m.Term {
		theirs.logTerm, theirs.logIndex = q.logTerm, q.logIndex
	}
	if !m.Reject {
		// This member yields to who goes before it; who was told yes keeps its turn.
		if b.takenLocked(theirs) && (b.turn.replica != m.From || b.turn.before(theirs)) {
			return false
		}
		b.turn = theirs
	}
	if q != nil {
		q.answered = true
	}
	return true
}

// asked takes note of the questions of a batch before the engine gets it, and sees
// to it that those that it does not answer are put to it again.
func (t *transport) asked(b *pb.MessageBatch) {
	for i := range b.Requests {
		m := &b.Requests[i]
		if m.Type != pb.RequestPreVote {
			continue
		}
		g := t.h.find(m.ShardID)
		if g == nil || !g.ballot.asked(m) {
			continue
		}
		from := m.From
		envelope := pb.MessageBatch{DeploymentId: b.DeploymentId, SourceAddress: b.SourceAddress, BinVer: b.BinVer}
		t.wg.Go(func() {
			tick := time.NewTicker(putAgain)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-g.quit:
					return
				}
				_, term := g.LeaderReplica()
				m, ok := g.ballot.again(from, term)
				if !ok {
					return
				}
				g.Stats.PreVotesAgain.Add(1)
				envelope.Requests = []pb.Message{m}
				t.msgs(envelope)
			}
		})
	}
}

// due are the messages of a batch that are to be sent.
func (t *transport) due(msgs []pb.Message) []pb.Message {
	held := func(m *pb.Message) bool {
		if m.Type != pb.RequestPreVote && m.Type != pb.RequestPreVoteResp {
			return false
		}
		g := t.h.find(m.ShardID)
		switch {
		case g == nil:
		case m.Type == pb.RequestPreVote:
			g.Stats.PreVotes.Add(1)
			g.ballot.asks(m)
		case !g.ballot.answers(m):
			g.Stats.PreVotesHeld.Add(1)
			return true
		}
		return false
	}
	for i := range msgs {
		if held(&msgs[i]) {
			rest := slices.Clone(msgs[:i]) // the engine uses its own again
			for j := i + 1; j < len(msgs); j++ {
				if !held(&msgs[j]) {
					rest = append(rest, msgs[j])
				}
			}
			return rest
		}
	}
	return msgs
}
