// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"net/http"

	"orca/engine/client"
)

// handlers are the pages of a worker: where its scrubber stands, the order
// to read every block again now, and orders about its tiers. An order needs a header that a web page of
// somebody else cannot send.
func (w *workerRole) handlers() map[string]http.Handler {
	status := func(out http.ResponseWriter) {
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(w.scrub.Status()) // the caller has gone
	}
	return map[string]http.Handler{
		"POST " + client.TierPath: http.HandlerFunc(w.serveTier),
		"GET " + client.ScrubPath: http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { status(out) }),
		"POST " + client.ScrubPath: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if r.Header.Get(client.AdminHeader) == "" {
				http.Error(out, "an order needs the header "+client.AdminHeader, http.StatusForbidden)
				return
			}
			w.log.Info("scrub: asked for", "by", r.RemoteAddr)
			w.scrub.Start()
			status(out)
		}),
	}
}
