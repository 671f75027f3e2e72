// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"strconv"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/ufs"
)

// exchangeToken is what a store knows an exchange by.
func exchangeToken(in *command.Intent) string { return "exchange" + strconv.FormatUint(in.Id, 16) }

// exchange has source and target change places, once however often it is tried.
func exchange(ctx context.Context, store ufs.FS, in *command.Intent) error {
	x, ok := store.(ufs.Exchanger)
	if !ok {
		return orca.E("ufsexec.exchange", orca.Unsupported, "the store cannot exchange two names")
	}
	return x.Exchange(ctx, in.Source, in.Target, exchangeToken(in))
}

// forgetExchange lets the store forget an exchange, if it is decided: until then
// whoever comes next has to know whether it was made. What stays for want of an
// answer is a temporary file of a few bytes.
func (e *Executor) forgetExchange(ctx context.Context, in *command.Intent) {
	if _, err := e.group.Machine().Intent(in.Id); err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	var store ufs.FS
	var err error
	if trades(in) {
		store, in, err = e.receiving(ctx, in)
	} else {
		store, err = e.stores.FS(ctx, in.MountId)
	}
	if err == nil {
		err = store.Sweep(ctx, in.Source, exchangeToken(in))
	}
	if err != nil {
		e.log.Warn("what a store remembers of an exchange stays", "mount", in.MountId, "intent", in.Id, "err", err)
	}
}

// parentsFor makes the directories above the key that the content of a file
// with several names is moved to: they may be in the namespace alone as yet.
func parentsFor(ctx context.Context, store ufs.FS, in *command.Intent) error {
	mode := uint32(0o755)
	switch {
	case in.Command.GetDelete() != nil:
		mode = 0o700 // the trash: who may look at what was deleted is not asked there
	case in.Command.GetRehome() == nil:
		return nil
	}
	for at := 0; ; at++ {
		n := strings.IndexByte(in.Target[at:], '/')
		if n < 0 {
			return nil
		}
		at += n
		if err := store.Mkdir(ctx, in.Target[:at], mode); err != nil && orca.KindOf(err) != orca.Exists {
			return err
		}
	}
}
