# A directory moves to another group: who would change what is below it waits, and
# it becomes a part in one apply, or stays as it was.
> mount / file:///r caps=rdox
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> decide i=1 -q
ok
> mkdir /a/p mode=0750
intent 2 undecided mkdir mount 1 source a/p target a/p
> decide i=2 -q
ok
> create /a/p/f type=cache -done
intent 3 undecided put_empty mount 1 target a/p/f
> decide i=3 fp=F -q
ok
> ln /a/p/f /a/p/g
file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F at file:///r/a/p/f
> xattr /a/p user.a v
ok
> quota /a/p inodes=9
ok
> usage /a
bytes 0 files 1 dirs 1 whole
> as 5:5
> regroup /a/p group=2
permission denied: only root puts directories into groups
> as 0:0
> regroup /a/p group=1
ok
> regroup /a/none group=2
not found
> regroup /a/p/f group=2
not a directory
> regroup / group=2
unsupported: a mount stays in its group: only a directory of one is moved
> quota /a inodes=10
ok
> regroup /a/p group=2
unsupported: the quota of /a could not count what is in another group: take it away, or leave the directory in its group
> quota /a inodes=0
ok
# What is under way goes on; nothing new begins.
> create /a/p/w type=cache -o
session 1 fence 1 file 14 version 1 key a/p/w
> mkdir /a/p/d
intent 4 undecided mkdir mount 1 source a/p/d target a/p/d
> regroup /a/p group=2
intent 5 undecided regroup mount 1 source a/p
> regroup /a/p group=2
intent 5 undecided regroup mount 1 source a/p
> regroup /a/p group=3
exists: it is on its way to group 2
> regroup /a group=2
busy: a directory below it is on its way to group 2 (intent 5)
> decide i=4 -q
ok
> regroup i=5 root=0x2000000000012
busy: a file is open for writing there
> complete s=1 len=5 fp=W
file 14 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/p/w pending
> ls /a/p
d: dir 15 0755 0:0 entries 0 nlink 2 at file:///r/a/p/d pending
f: file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F at file:///r/a/p/f pending
g: file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F at file:///r/a/p/f pending
w: file 14 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/p/w pending
> create /a/p/x type=cache -o
busy: an earlier change is still on its way to the UFS (intent 5)
> mkdir /a/p/e
busy: an earlier change is still on its way to the UFS (intent 5)
> rm /a/p/f
busy: an earlier change is still on its way to the UFS (intent 5)
> rm /a -r
busy: names of files with several are removed from it first (walk)
> mv /a /b
busy: an earlier change is still on its way to the UFS (intent 5)
> mv /a/p/f /f
busy: an earlier change is still on its way to the UFS (intent 5)
> ln /a/p/f /l
busy: an earlier change is still on its way to the UFS (intent 5)
> pin /a/p/f
busy: it is on its way to group 2 (intent 5)
> xattr /a/p/f user.b v
busy: it is on its way to group 2 (intent 5)
> quota /a/p inodes=10
busy: a directory at or below it is on its way to group 2
> quota / inodes=10
busy: a directory at or below it is on its way to group 2
> sync /a/p f:new:N gone:w -range
created 0 changed 0 removed 0 skipped 6
> mount / file:///r -u trash=10
busy: a directory of it is on its way to another group
> decide i=5
not found: no undecided intent of that id
> finish i=5
invalid: the intent is to be decided, not finished
> reopen
> mkdir /a/p/e
busy: an earlier change is still on its way to the UFS (intent 5)
> regroup i=5
ok
> regroup i=5 root=0x2000000000012
not found: no such move: it was given up, or has ended
> tree /a
p: dir 12 0750 0:0 entries 4 nlink 3 at file:///r/a/p
  d: dir 15 0755 0:0 entries 0 nlink 2 at file:///r/a/p/d
  f: file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F at file:///r/a/p/f
  g: file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F at file:///r/a/p/f
  w: file 14 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/p/w
> mkdir /a/p/e
intent 6 undecided mkdir mount 1 source a/p/e target a/p/e
> decide i=6 -q
ok
# Again, to its end: what it held is swept, and what is above sees what it was.
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> regroup /a/p group=2
intent 7 undecided regroup mount 1 source a/p
> regroup i=7 root=0x2000000000012 -v
mount 3
event EVENT_ENTRY ino 12 11/p
event EVENT_ENTRY ino 2000000000012 11/p
event EVENT_MOUNT ino 17 11/p
effect 8 file 0 version 0 id 0 
effect 9 file 0 version 0 id 0 
> stat /a/p/f
referral
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> ls /a
p: dir 2000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> usage /a
bytes 0 files 0 dirs 1
> regroup /a/p group=2
mount 3
> junction id=3 from=1 to=2 root=0x2000000000012
mount 3
> state
files 2 dirs 6 sessions 0 intents 0 mounts 2 trash 1
> sweep
ok
> state
files 2 dirs 6 sessions 0 intents 0 mounts 2 trash 1
> tick s=601
> sweep
ok
> reopen
> state
files 0 dirs 3 sessions 0 intents 0 mounts 2 trash 0
> ls /a
p: dir 2000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> unmount /a/p
mount 3
> junction id=3 from=3 to=0
mount 3
> ls /a
p: dir 17 0750 0:0 entries 0 nlink 2 at file:///r/a/p
> stat /a/p/f
missing [f] below 17, key a/p/f pending 0
