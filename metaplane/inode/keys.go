// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inode

import (
	"encoding/binary"

	"orca"
)

// The keyspaces of a group's store, by the first byte of a key; numbers in
// keys are big-endian, so that keys sort as they count. docs/format/inodekeys.md.
const (
	SpaceApplied  = 'a' // a [base]             -> index of the last applied entry; what a journal begins after
	SpaceBin      = 'b' // b ino8               -> TrashRecord of something deleted that is kept
	SpaceClient   = 'c' // c client8 [slot2]    -> window of a client; one remembered result
	SpaceDirent   = 'd' // d dir8 name          -> dentry: a file record, or a directory's id
	SpaceFact     = 'f' // f key                -> cluster fact
	SpaceHosted   = 'h' // h machine NUL key    -> of a hosted machine
	SpaceInode    = 'i' // i file8              -> parent directory and name
	SpaceName     = 'j' // j file8 dir8 name    -> a name of a file with several
	SpaceCounters = 'k' // k                    -> counters
	SpaceLinked   = 'l' // l file8              -> record of a file with several names
	SpaceMount    = 'm' // m id4                -> MountRecord
	SpaceDir      = 'n' // n dir8               -> directory record
	SpaceTransfer = 'o' // o transfer8          -> TransferRecord
	SpaceQuota    = 'q' // q dir8               -> quota of a directory
	SpaceReplicas = 'r' // r file8              -> bounds of its copies
	SpaceSession  = 's' // s session8           -> SessionRecord
	SpaceTrash    = 't' // t dir8               -> trash record of a detached directory
	SpaceIntent   = 'u' // u intent8            -> UFSIntent
	SpaceWorker   = 'w' // w id8                -> WorkerRecord
	SpaceXattr    = 'x' // x ino8 name          -> value
	SpaceRemoved  = 'z' // z dir8               -> ring of names removed lately
)

// AppliedKey and BaseKey are the keys of SpaceApplied, CountersKey is that of
// SpaceCounters.
var (
	AppliedKey  = []byte{SpaceApplied}
	BaseKey     = []byte{SpaceApplied, 'b', 'a', 's', 'e'}
	CountersKey = []byte{SpaceCounters}
)

// AppendKey8 appends space and one 8-byte number: the keys of b, d (as a
// prefix), i, j (as a prefix), l, n, o, q, r, s, t, u, w, x (as a prefix), z and c.
func AppendKey8(dst []byte, space byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, space), n)
}

// AppendDirent appends the key of a dentry.
func AppendDirent(dst []byte, dir orca.Ino, name string) []byte {
	return append(AppendKey8(dst, SpaceDirent, uint64(dir)), name...)
}

// AppendName appends the key of one name of a file with several.
func AppendName(dst []byte, file, dir orca.Ino, name string) []byte {
	dst = AppendKey8(dst, SpaceName, uint64(file))
	return append(binary.BigEndian.AppendUint64(dst, uint64(dir)), name...)
}

// DecodeName takes a key of SpaceName apart; not ok: it is none.
func DecodeName(key []byte) (file, dir orca.Ino, name string, ok bool) {
	if len(key) < 17 || key[0] != SpaceName {
		return 0, 0, "", false
	}
	return orca.Ino(Number(key)), orca.Ino(binary.BigEndian.Uint64(key[9:])), string(key[17:]), true
}

// AppendXattr appends the key of an extended attribute.
func AppendXattr(dst []byte, ino orca.Ino, name string) []byte {
	return append(AppendKey8(dst, SpaceXattr, uint64(ino)), name...)
}

// AppendSlot appends the key of a remembered result.
func AppendSlot(dst []byte, client uint64, slot uint16) []byte {
	return binary.BigEndian.AppendUint16(AppendKey8(dst, SpaceClient, client), slot)
}

// AppendMount appends the key of a mount.
func AppendMount(dst []byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, SpaceMount), id)
}

// AppendHosted appends the key that a hosted machine calls key.
func AppendHosted(dst []byte, machine string, key []byte) []byte {
	dst = append(append(dst, SpaceHosted), machine...)
	return append(append(dst, 0), key...)
}

// AppendFact appends the key of a cluster fact.
func AppendFact(dst []byte, key string) []byte {
	return append(append(dst, SpaceFact), key...)
}

// Number returns the 8-byte number after the first byte of a key, 0 if the
// key is too short.
func Number(key []byte) uint64 {
	if len(key) < 9 {
		return 0
	}
	return binary.BigEndian.Uint64(key[1:])
}

// NameOf returns the name in a dentry or xattr key.
func NameOf(key []byte) string {
	if len(key) < 9 {
		return ""
	}
	return string(key[9:])
}

// PrefixEnd returns the smallest key that sorts after all keys with the
// prefix; nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
