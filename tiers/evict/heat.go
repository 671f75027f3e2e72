// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

import "math"

// Heat is how often a block was used lately: the number of its uses, each
// halved with every 10,000 later uses of any block (DefaultLambda), as a
// logarithm of base 2 that grows with the clock instead of decaying. So heats
// of blocks in different directories, under whatever policy, compare as long
// as their clock is one. The zero Heat is one use when the clock began.
type Heat float64

// Warm is the heat of a block that is used for the first time.
func Warm(now uint64) Heat { return Heat(DefaultLambda * float64(now)) }

// Used returns the heat after one more use.
func (h Heat) Used(now uint64) Heat {
	at := DefaultLambda * float64(now)
	return Heat(at + math.Log2(1+math.Exp2(float64(h)-at)))
}

// Uses returns how many uses it is worth now.
func (h Heat) Uses(now uint64) float64 { return math.Exp2(float64(h) - DefaultLambda*float64(now)) }

// Times returns the heat of n times the uses; n > 0.
func (h Heat) Times(n float64) Heat { return h + Heat(math.Log2(n)) }
