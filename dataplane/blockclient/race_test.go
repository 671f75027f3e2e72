// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

//go:build race

package blockclient_test

const raceDetector = true
