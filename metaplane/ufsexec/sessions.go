// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"strconv"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
)

// Token is what a session's upload is called in the UFS: ufs.FS.Create and
// Sweep take it.
func Token(session uint64) string { return strconv.FormatUint(session, 16) }

// TakeoverToken is that of the upload by a worker that took over from one that
// failed in the middle of it.
func TakeoverToken(session uint64) string { return Token(session) + "t" }

// grantTerms prolongs every open session by a full term: their clients could
// not reach a leader for a while.
func (e *Executor) grantTerms(g *reign) error {
	var ids []uint64
	for _, s := range e.group.Machine().Sessions() {
		if s.State == metapb.SessionState_SESSION_OPEN {
			ids = append(ids, s.Id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(g.ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(),
		Renew: &metapb.RenewOp{Sessions: ids, Ttl: int64(e.cfg.SessionTTL)}})
	return err
}

// expireSessions proposes the expiry of what is over, and sweeps up after
// sessions that ended without a complete.
func (e *Executor) expireSessions(g *reign, now int64) {
	due := false
	for _, s := range e.group.Machine().Sessions() {
		switch s.State {
		case metapb.SessionState_SESSION_OPEN:
			due = due || s.Expires <= now
		case metapb.SessionState_SESSION_EXPIRED:
			e.sweepSession(g, s)
		case metapb.SessionState_SESSION_STOLEN:
			// Its writer hears of it when it next renews, at the latest when its
			// term would have ended: until then it may begin to upload. It holds
			// no name, so nobody waits for the sweep.
			if s.Expires <= now {
				e.sweepSession(g, s)
			}
		}
	}
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.group.Propose(ctx, &command.Command{Now: now, Expire: &metapb.ExpireOp{}})
	if err != nil {
		e.log.Warn("sessions did not expire", "err", err)
		return
	}
	e.Wake()
}

// sweepSession begins to clean up after one session, unless that is going on.
func (e *Executor) sweepSession(g *reign, s *command.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.sessions[s.Id] || len(e.sessions) >= maxSweeps {
		return
	}
	e.sessions[s.Id] = true
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		err := e.sweep(g.ctx, s)
		switch {
		case err == nil || g.ctx.Err() != nil:
		case orca.KindOf(err) == orca.Busy: // another writer has the file: when that is done
			e.pause(g)
		default:
			e.log.Warn("remains of a write session", "ino", s.File, "session", s.Id, "err", err)
			e.pause(g)
		}
		e.mu.Lock()
		delete(e.sessions, s.Id)
		e.mu.Unlock()
	}()
}

// strayFor is for how long what a session uploaded is offered to the namespace.
const strayFor = time.Hour

// maxSweeps caps sessions that are being swept at one time.
const maxSweeps = 32

func (e *Executor) pause(g *reign) { e.again(&run{reign: g}, orca.Unavailable, 5) }

// sweep removes the remains of an upload, and imports what its key holds if a
// commit had made it: the file is then the new one, else still the old one.
func (e *Executor) sweep(ctx context.Context, s *command.Session) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	wt := orca.WriteType(s.WriteType)
	if s.MountId != 0 && s.UfsKey != "" && (wt == orca.CacheThrough || wt == orca.Through || wt == orca.AsyncThrough) {
		store, err := e.stores.FS(ctx, s.MountId)
		if err != nil && orca.KindOf(err) != orca.NotFound {
			return err
		}
		if err == nil {
			for _, token := range []string{Token(s.Id), TakeoverToken(s.Id)} {
				if err := store.Sweep(ctx, s.UfsKey, token); err != nil {
					return err
				}
			}
			at := ufssync.Place{Mount: s.MountId, Key: s.UfsKey, Dir: orca.Ino(s.Dir), Name: s.Name, Session: s.Id, Must: true}
			_, err := e.sync.Name(ctx, at)
			if orca.KindOf(err) == orca.Busy && e.cfg.Now().UnixNano()-s.Expires > int64(strayFor) {
				e.log.Warn("what a dead write session uploaded is left to the next sync", "mount", s.MountId, "key", s.UfsKey, "session", s.Id)
				err = nil
			}
			if absent(err) != nil {
				return err
			}
		}
	}
	_, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(),
		DropSession: &metapb.DropSessionOp{Session: s.Id}})
	if absent(err) == nil {
		e.Stats.Sessions.Add(1)
	}
	return absent(err)
}
