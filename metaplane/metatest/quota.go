// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"

	"orca"
	"orca/metaplane/metapb"
)

func (e *Env) limit(p string, bytes, inodes int64) (*metapb.Quota, error) {
	r, err := e.NS.SetQuota(e.ctx(), &metapb.SetQuotaRequest{H: e.h(), Target: at(p), Bytes: bytes, Inodes: inodes})
	return r.GetQuota(), err
}

func (e *Env) usage(p string) *metapb.UsageReply {
	e.Helper()
	r, err := e.NS.Usage(e.ctx(), &metapb.UsageRequest{H: e.h(), Target: at(p)})
	e.ok(err)
	return r
}

// show writes the usage of a directory, and its quotas, from a path on down.
func (e *Env) showUsage(p string) string {
	r := e.usage(p)
	s := fmt.Sprintf("%d bytes %d files %d dirs", r.Usage.Bytes, r.Usage.Files, r.Usage.Dirs)
	for _, q := range r.Quotas {
		s += fmt.Sprintf(", %d+%d of %d, %d+%d of %d", q.Usage.Bytes, q.HeldBytes, q.Bytes,
			q.Usage.Files+q.Usage.Dirs, q.HeldInodes, q.Inodes)
	}
	return s
}

func quotas(e *Env, dir string) {
	top := dir + "/top"
	e.mkdir(top + "/sub")
	_, err := e.limit(top+"/nope", 1, 1)
	e.want(orca.NotFound, err)
	_, err = e.limit(top, -2, 1)
	e.want(orca.Invalid, err)
	_, err = e.As(1000, 1000).limit(top, 1, 1)
	e.want(orca.Permission, err)
	q, err := e.limit(top, 10, 3)
	e.ok(err)
	e.equal(top, q.Path)
	e.equal("0 bytes 0 files 1 dirs, 0+0 of 10, 1+0 of 3", e.showUsage(top))

	// The worker asks before it commits: what is refused is never in the store.
	r, err := e.create(top+"/sub/f", orca.CacheThrough)
	e.ok(err)
	hold := &metapb.RenewRequest{H: e.h(), Sessions: []uint64{r.Session.Id}, Fence: r.Session.Fence, Length: 11}
	_, err = e.NS.Renew(e.ctx(), hold)
	e.want(orca.OverQuota, err)
	hold.Length = 8
	_, err = e.NS.Renew(e.ctx(), hold)
	e.ok(err)
	e.equal("0 bytes 0 files 1 dirs, 0+8 of 10, 1+1 of 3", e.showUsage(top))
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(top + "/g"), ExpectLength: 3})
	e.want(orca.OverQuota, err)
	i, err := e.upload(r.Session, "8 bytes.")
	e.ok(err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 8, Fingerprint: i.Fingerprint})
	e.ok(err)
	e.equal("8 bytes 1 files 1 dirs, 8+0 of 10, 2+0 of 3", e.showUsage(top))
	e.equal("8 bytes 1 files 0 dirs, 8+0 of 10, 2+0 of 3", e.showUsage(top+"/sub"))
	e.equal("8 bytes 1 files 0 dirs, 8+0 of 10, 2+0 of 3", e.showUsage(top+"/sub/f"))

	// What is in no store is refused when it is complete.
	r, err = e.create(top+"/m", orca.MustCache)
	e.ok(err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 3, Workers: []uint64{7}})
	e.want(orca.OverQuota, err)
	e.absent(top+"/m", nil)
	_, err = e.NS.Abandon(e.ctx(), &metapb.AbandonRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence})
	e.ok(err)
	e.write(top+"/m", orca.CacheThrough, "2b")
	e.equal("10 bytes 2 files 1 dirs, 10+0 of 10, 3+0 of 3", e.showUsage(top))

	// No name more, made here or moved here; within is fine.
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(top + "/d")})
	e.want(orca.OverQuota, err)
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(top + "/d"), Complete: true})
	e.want(orca.OverQuota, err)
	e.write(dir+"/o", orca.CacheThrough, "")
	e.want(orca.OverQuota, e.rename(dir+"/o", top+"/o"))
	e.ok(e.rename(top+"/m", top+"/sub/m"))
	e.ok(e.rename(top+"/sub", dir+"/sub"))
	e.equal("0 bytes 0 files 0 dirs, 0+0 of 10, 0+0 of 3", e.showUsage(top))
	e.drained()
	e.ok(e.rename(dir+"/sub", top+"/sub"))
	e.equal("10 bytes 2 files 1 dirs, 10+0 of 10, 3+0 of 3", e.showUsage(top))

	e.listed(top)
	q, err = e.limit(top, 0, 0)
	e.ok(err)
	e.equal(0, q.Bytes)
	e.ok(e.rename(dir+"/o", top+"/o"))
	e.ok(e.delete(top, true))
	_, err = e.NS.Usage(e.ctx(), &metapb.UsageRequest{H: e.h(), Target: at(top)})
	e.want(orca.NotFound, err)
}

// listed looks for a quota among all.
func (e *Env) listed(p string) {
	e.Helper()
	all, err := e.NS.Quotas(e.ctx(), &metapb.QuotasRequest{H: e.h()})
	e.ok(err)
	for _, q := range all.Quotas {
		if q.Path == p {
			return
		}
	}
	e.Fatalf("the quota of %s is not listed: %v", p, all)
}
