# A part comes home to the first group: what is brought here is nowhere until it
# takes the place of the junction, in one apply, and nothing above has changed.
> mount / file:///r caps=rdox
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> decide i=1 -q
ok
> mkdir /a/p group=2 mode=0750
intent 2 undecided mkdir mount 1 source a/p target a/p
> decide i=2 -q
ok
> junction id=2 from=1 to=2 root=0x2000000000012
mount 2
> stage tx=3 -self
stale: no such directory is being moved here any more
> regroup /a/p group=1
intent 3 undecided regroup mount 1 source a/p
> regroup /a/p group=0
intent 3 undecided regroup mount 1 source a/p
> regroup /a/p group=3
exists: it is on its way to group 1
> rm /a/p
busy: it is on its way to group 1 (intent 3)
> unmount /a/p
busy: it is on its way to group 1 (intent 3)
> stage tx=3 f:f:F
stale: nothing of this directory is here
> stage tx=3 -self mode=0700
ok
> stage tx=3 f:f:FF d:d
ids [20 21]
> stage tx=3 f:f:FF
ids [20]
> stage tx=3 -seal files=2
internal: {Bytes:2 Files:1 Dirs:1} has come here of {Bytes:0 Files:2 Dirs:0}
> regroup i=3 root=1
stale: it is not all here
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> stat /a/p
referral
> usage /a
bytes 0 files 0 dirs 1
# Given up, it is swept here, and lives where it was.
> regroup i=3
ok
> regroup i=3
not found: no such move: it was given up, or has ended
> stage tx=3 d:late
stale: no such directory is being moved here any more
> stage tx=3 -self
stale: no such directory is being moved here any more
> state
files 1 dirs 5 sessions 0 intents 0 mounts 2 trash 1
> sweep
ok
> state
files 0 dirs 3 sessions 0 intents 0 mounts 2 trash 0
> stat /a/p
referral
> regroup settled=3
ok
# Again, to the end.
> regroup /a/p group=1
intent 4 undecided regroup mount 1 source a/p
> stage tx=4 -self mode=0700
ok
> stage tx=4 f:f:FF d:d
ids [23 24]
> stage tx=4 -seal bytes=2 files=1 dirs=1
ok
> stage tx=4 -seal bytes=2 files=1 dirs=1
ok
> stage tx=4 d:late
stale: all of it is here already
> reopen
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> regroup i=4 root=1 -v
mount 2
event EVENT_ENTRY ino 2000000000012 11/p
event EVENT_ENTRY ino 16 11/p
event EVENT_MOUNT ino 16 11/p
effect 9 file 0 version 0 id 0 
> regroup i=4 root=1
not found: no such move: it was given up, or has ended
> stage tx=4 d:late
stale: no such directory is being moved here any more
> stage tx=4 -self
stale: no such directory is being moved here any more
> tree /a
p: dir 16 0700 0:0 entries 2 nlink 3 at file:///r/a/p
  d: dir 18 0755 0:0 entries 0 nlink 2 at file:///r/a/p/d
  f: file 17 0644 0:0 len 2 v3 PERSISTED fp FF at file:///r/a/p/f
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> usage /a
bytes 2 files 1 dirs 2 whole
> quota /a inodes=10
ok
> state
files 1 dirs 4 sessions 0 intents 0 mounts 1 trash 0
> reopen
> tree /a
p: dir 16 0700 0:0 entries 2 nlink 3 at file:///r/a/p
  d: dir 18 0755 0:0 entries 0 nlink 2 at file:///r/a/p/d
  f: file 17 0644 0:0 len 2 v3 PERSISTED fp FF at file:///r/a/p/f
> usage /a
bytes 2 files 1 dirs 2 whole
quota of /a: bytes 2 of 0, held 0; inodes 3 of 10, held 0
# A look at the store from before the move changes nothing.
> sync /a d:p change=9 -range
created 0 changed 0 removed 0 skipped 1
> sync /a change=9 -range
created 0 changed 0 removed 0 skipped 1
> mv /a/p /a/q
intent 5 undecided rename mount 1 source a/p target a/q
> decide i=5 -q
ok
> regroup /a/q group=1
ok
