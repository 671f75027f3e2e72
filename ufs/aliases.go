// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufs

import (
	"maps"
	"strings"
)

// aliases lead from the spellings of Alluxio and Hadoop to Orca's names of
// mount options; "" stands for one that means nothing here and may be left out.
var aliases = map[string]string{
	"alluxio.underfs.s3.endpoint":                     "s3.endpoint",
	"alluxio.underfs.s3.endpoint.region":              "s3.region",
	"alluxio.underfs.s3.region":                       "s3.region",
	"alluxio.underfs.s3.disable.dns.buckets":          "s3.path_style",
	"alluxio.underfs.s3.access.key":                   "s3.access_key",
	"alluxio.underfs.s3.secret.key":                   "s3.secret_key",
	"aws.accessKeyId":                                 "s3.access_key",
	"aws.secretKey":                                   "s3.secret_key",
	"aws.secretAccessKey":                             "s3.secret_key",
	"aws.sessionToken":                                "s3.session_token",
	"s3a.accessKeyId":                                 "s3.access_key",
	"s3a.secretKey":                                   "s3.secret_key",
	"fs.s3a.access.key":                               "s3.access_key",
	"fs.s3a.secret.key":                               "s3.secret_key",
	"fs.s3a.session.token":                            "s3.session_token",
	"fs.s3a.endpoint":                                 "s3.endpoint",
	"fs.s3a.endpoint.region":                          "s3.region",
	"fs.s3a.path.style.access":                        "s3.path_style",
	"alluxio.underfs.s3.streaming.upload.enabled":     "",
	"alluxio.underfs.s3.inherit.acl":                  "",
	"alluxio.underfs.s3.owner.id.to.username.mapping": "",
}

// Aliases returns the table, for the stores whose names begin with prefix.
func Aliases(prefix string) map[string]string {
	out := maps.Clone(aliases)
	maps.DeleteFunc(out, func(_, name string) bool { return !strings.HasPrefix(name, prefix) })
	return out
}

// Alias resolves a spelling in any case. name is "" for an option that means
// nothing here; ok is false for what is no alias.
func Alias(option string) (name string, ok bool) {
	for k, name := range aliases {
		if strings.EqualFold(k, option) {
			return name, true
		}
	}
	return "", false
}
