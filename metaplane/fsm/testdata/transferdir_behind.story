# Group 2: renames of directories, where they go: each number is decided once, and
# what has been staged for it gets its place, or is swept.
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1 caps=rdo
mount 2
> sync /a/p f:have:h d:full d:empty d:sticky -range -loaded
created 4 changed 0 removed 0 skipped 0
> sync /a/p/full f:f:f -range -loaded
created 1 changed 0 removed 0 skipped 0
> sync /a/p/empty -range -loaded
created 0 changed 0 removed 0 skipped 0
> quota /a/p inodes=9
ok
> transfer /a/p/d tx=5 -d
decided 5: internal what is below it is not here
> pack tx=6 self:d f:one:1 d:sub
ids [562949953421337 562949953421338]
> pack tx=6 in=0x200000000001a f:two:22
ids [562949953421339]
> pack tx=6 seal bytes=3 files=2 dirs=0
internal: {Bytes:3 Files:2 Dirs:1} has come here of {Bytes:3 Files:2 Dirs:0}
> transfer /a/p/d tx=6 -d
decided 6: internal what is below it is not here
# A number is decided once.
> pack tx=6 self:d
stale: no such directory is being moved here any more
> pack tx=7 self:d f:one:1 d:sub
ids [562949953421341 562949953421342]
> pack tx=7 in=0x200000000001e f:two:22
ids [562949953421343]
> pack tx=7 seal bytes=3 files=2 dirs=1
ok
> usage /a/p
bytes 2 files 2 dirs 3
quota of /a/p: bytes 2 of 0, held 0; inodes 5 of 9, held 0
> stat /a/p/d
missing [d] below 2000000000012, key d pending 0
> lookup ino=0x200000000001f
not found
> transfer /a/p/have tx=7 -d by=0 of=3
decided 7: cross-mount
> pack tx=8 self:d seal
ok
> transfer /a/p/have tx=8 -d
decided 8: not a directory
> pack tx=9 self:d seal
ok
> transfer /a/p/full tx=9 -d
decided 9: not empty
> pack tx=10 self:d seal
ok
> transfer /a/p/empty tx=10 -d -n
decided 10: exists
> pack tx=11 self:d seal
ok
> transfer /a/p/none/d tx=11 -d
decided 11: not found
> pack tx=12 self:d seal
ok
> transfer /a/p/d tx=12 -d by=5
decided 12: permission denied
> pack tx=13 self:d seal
ok
> transfer /a/p/sticky tx=13 -d -names
busy: it is not known yet what the UFS has in it (unknown)
> pack tx=13 -forget
ok
> pack tx=13 self:e seal
ok
> transfer /a/p/d tx=13 -d abort=12
decided 13: busy
> state
files 6 dirs 17 sessions 0 intents 0 mounts 1 trash 9
> sweep
ok
> state
files 2 dirs 6 sessions 0 intents 0 mounts 1 trash 0
# The name is locked, and the room is held, until the store has renamed it.
> pack tx=20 self:d f:one:1 d:sub
ids [562949953421352 562949953421353]
> pack tx=20 seal bytes=1 files=1 dirs=1
ok
> transfer /a/p/empty tx=20 -d
intent 562949953421313 undecided receive mount 2 target empty
> create /a/p/empty/x type=cache
busy: an earlier change is still on its way to the UFS (intent 562949953421313)
> mkdir /a/p/empty/x
busy: an earlier change is still on its way to the UFS (intent 562949953421313)
> usage /a/p
bytes 2 files 2 dirs 3
quota of /a/p: bytes 2 of 0, held 1; inodes 5 of 9, held 2
> pack tx=21 self:e f:1:1 f:2:2 f:3:3 seal bytes=3 files=3
ids [562949953421355 562949953421356 562949953421357]
> transfer /a/p/e tx=21 -d
decided 21: over quota the quota of /a/p is 9 files and directories, with 7 there or being made: no room for 4 more
> reopen
> transfer /a/p/empty tx=20 -d abort=12
intent 562949953421313 undecided receive mount 2 target empty
> stat /a/p/empty
dir 2000000000015 0755 0:0 entries 0 nlink 2 at file:///r/a/p/empty pending
> decide i=0x2000000000001 -v
dir 2000000000027 0750 5:0 entries 2 nlink 3 at file:///r/a/p/empty
decided 20: ok, as 2000000000027
event EVENT_ENTRY ino 2000000000015 2000000000012/empty
event EVENT_ENTRY ino 2000000000027 2000000000012/empty
> tree /a/p
empty: dir 2000000000027 0750 5:0 entries 2 nlink 3 at file:///r/a/p/empty
  one: file 2000000000028 0640 5:0 len 1 v3 PERSISTED fp 1 at file:///r/a/p/empty/one
  sub: dir 2000000000029 0750 5:0 entries 0 nlink 2 at file:///r/a/p/empty/sub
full: dir 2000000000014 0755 0:0 entries 1 nlink 2 at file:///r/a/p/full
  f: file 2000000000017 0644 0:0 len 1 v1 PERSISTED fp f at file:///r/a/p/full/f
have: file 2000000000013 0644 0:0 len 1 v1 PERSISTED fp h at file:///r/a/p/have
sticky: dir 2000000000016 0755 0:0 entries 0 nlink 2 at file:///r/a/p/sticky
> usage /a/p
bytes 3 files 3 dirs 4
quota of /a/p: bytes 3 of 0, held 0; inodes 7 of 9, held 0
> reopen
> transfer /a/p/empty tx=20 -d
decided 20: ok, as 2000000000027
> pack tx=20 self:d
stale: no such directory is being moved here any more
> mkdir /a/p/empty/x
intent 562949953421314 undecided mkdir mount 2 source empty/x target empty/x
> decide i=0x2000000000002 -q
ok
# What the store refuses is swept.
> pack tx=22 self:f seal
ok
> transfer /a/p/f tx=22 -d
intent 562949953421315 undecided receive mount 2 target f
> stat /a/p/f
missing [f] below 2000000000012, key f pending 562949953421315
> decide i=0x2000000000003 kind=6 msg=strange
is a directory: strange
> transfer /a/p/f tx=22 -d
decided 22: is a directory strange
> state
files 6 dirs 10 sessions 0 intents 0 mounts 1 trash 2
> sweep
ok
# What the other group has given up is swept as soon as it says so.
> pack tx=23 self:f d:x d:y f:z:z
ids [562949953421361 562949953421362 562949953421363]
> reopen
> pack tx=23 d:x d:w
ids [562949953421361 562949953421364]
> transfer / below=24
ok
> pack tx=23 self:f
stale: no such directory is being moved here any more
> sweep
ok
> state
files 3 dirs 8 sessions 0 intents 0 mounts 1 trash 0
> usage /a/p
bytes 3 files 3 dirs 5
quota of /a/p: bytes 3 of 0, held 0; inodes 8 of 9, held 0
