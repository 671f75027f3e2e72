# Renames of directories into another group, where they are: while all below is
# brought there it is read, and who would change it waits.
> mount / file:///r caps=rdo
mount 1
> sync / d:a f:x:x -range -loaded
created 2 changed 0 removed 0 skipped 0
> sync /a d:d d:mine -range -loaded
created 2 changed 0 removed 0 skipped 0
> sync /a/d f:f:abc d:e -range -loaded
created 2 changed 0 removed 0 skipped 0
> sync /a/d/e f:g:gg -range -loaded
created 1 changed 0 removed 0 skipped 0
> mv / away=2000000000012/d
cross-mount
> mkdir /a/new
intent 1 undecided mkdir mount 1 source a/new target a/new
> chmod /a/d mode=0700
intent 2 undecided setattr mount 1 source a/d
> decide i=2 -q
ok
> as 5:5
> mv /a/d away=2000000000012/d
permission denied
> as root
> chmod /a mode=0777
intent 3 undecided setattr mount 1 source a
> decide i=3 -q
ok
> as 5:5
> mv /a/d away=2000000000012/d
permission denied
> as root
> create /a/d/e/w type=cache
session 1 fence 1 file 18 version 1 key a/d/e/w
> call client=1 seq=1
> mv /a/d away=2000000000012/d -v
intent 4 undecided transfer mount 1 source a/d
> call client=1 seq=1
> mv /a/d away=2000000000012/d -v
intent 4 undecided transfer mount 1 source a/d
# What was begun before goes on, and is waited for.
> brought i=4 root=0x2000000000020
busy: a file is open for writing there
> complete s=1 len=5 fp=W
file 18 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/d/e/w pending
> decide i=1 -q
ok
> tree /a
d: dir 13 0700 0:0 entries 2 nlink 3 at file:///r/a/d pending
  e: dir 16 0755 0:0 entries 2 nlink 2 at file:///r/a/d/e pending
    g: file 17 0644 0:0 len 2 v1 PERSISTED fp gg at file:///r/a/d/e/g pending
    w: file 18 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/d/e/w pending
  f: file 15 0644 0:0 len 3 v1 PERSISTED fp abc at file:///r/a/d/f pending
mine: dir 14 0755 0:0 entries 0 nlink 2 at file:///r/a/mine
new: dir 19 0755 0:0 entries 0 nlink 2 at file:///r/a/new
> ls /a/d/never
not found
# Nothing new begins, at it, below it or above it.
> create /a/d/n type=cache
busy: an earlier change is still on its way to the UFS (intent 4)
> create /a/d/f type=cache -o
busy: an earlier change is still on its way to the UFS (intent 4)
> mkdir /a/d/e/n
busy: an earlier change is still on its way to the UFS (intent 4)
> rm /a/d/f
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /a/d/f /f
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /x /a/d/x
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /a/d /d
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /a /b
busy: an earlier change is still on its way to the UFS (intent 4)
> rm /a -r
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /a/d/e away=2000000000012/e
busy: an earlier change is still on its way to the UFS (intent 4)
> mv /a away=2000000000012/a
busy: it is on its way to a directory of another group (intent 4)
> mv /a/d away=2000000000012/again
busy: an earlier change is still on its way to the UFS (intent 4)
> regroup /a group=2
busy: it is on its way to a directory of another group (intent 4)
> regroup /a/d/e group=2
busy: an earlier change is still on its way to the UFS (intent 4)
> chmod /a/d/f mode=0600
busy: it is on its way to a directory of another group (intent 4)
> pin /a/d/f
busy: it is on its way to a directory of another group (intent 4)
> xattr /a/d user.x y
busy: it is on its way to a directory of another group (intent 4)
> quota /a/d/e inodes=3
busy: it is on its way to a directory of another group (intent 4)
> sync /a gone:d -loaded
created 0 changed 0 removed 0 skipped 1
> sync /a/d gone:f f:h:h -loaded
created 0 changed 0 removed 0 skipped 2
> mkdir /a/beside
intent 5 undecided mkdir mount 1 source a/beside target a/beside
> decide i=5 -q
ok
# It cannot be decided, for nobody was asked; it can be given up.
> decide i=4
busy: the move is further, or not as far
> decide i=4 kind=4 msg=taken
busy: the move is further, or not as far
> decide i=4 -early
invalid: the other group has not been asked yet
> reopen
> decide i=4 -early kind=12 msg=restless
busy: restless
> call client=1 seq=1
> mv /a/d away=2000000000012/d
intent 6 undecided transfer mount 1 source a/d
> decide i=6 -early kind=11 msg=outside
cross-mount: outside
> call client=1 seq=1
> mv /a/d away=2000000000012/d
cross-mount: outside
> xattr /a/d user.x y
ok
# A directory of another group that was being made there comes in between.
> mkdir /a/d/p group=2
intent 7 undecided mkdir mount 1 source a/d/p target a/d/p
> mv /a/d away=2000000000012/d
intent 8 undecided transfer mount 1 source a/d
> decide i=7 -q
ok
> brought i=8 root=0x2000000000020
cross-mount: /a/d/p lives in group 2
> decide i=8 -early kind=11 msg=part
cross-mount: part
> unmount /a/d/p
mount 2
> junction id=2 from=3 to=0
mount 2
> rm /a/d/p
intent 9 undecided remove mount 1 source a/d/p
> decide i=9 -q
ok
# Once the other group is asked, only what that says ends it, and nobody reads it.
> call client=1 seq=2
> mv /a/d away=2000000000012/d
intent 10 undecided transfer mount 1 source a/d
> brought i=10
invalid: it has no number there
> brought i=10 root=0x2000000000020
ok
> brought i=10 root=0x2000000000020
ok
> reopen
> decide i=10 -early kind=12
busy: the move is further, or not as far
> stat /a/d
busy
> stat /a/d/f
busy
> stat /a/d/none
busy
> stat f ino=0x13
busy
> lookup ino=0x15
busy
> ls /a/d
busy
> stat /a/mine
dir 14 0755 0:0 entries 0 nlink 2 at file:///r/a/mine
> rm /a/d/f
busy: an earlier change is still on its way to the UFS (intent 10)
> sync /a gone:d -loaded
created 0 changed 0 removed 0 skipped 1
> decide i=10 kind=16 msg=full
conflict: full
> stat /a/d/e/g
file 17 0644 0:0 len 2 v1 PERSISTED fp gg at file:///r/a/d/e/g
> call client=1 seq=3
> mv /a/d away=2000000000012/d
intent 11 undecided transfer mount 1 source a/d
> brought i=11 root=0x2000000000020
ok
> decide i=11 -v
event EVENT_ENTRY ino 13 11/d
effect 8 file 0 version 0 id 0 
> call client=1 seq=3
> mv /a/d away=2000000000012/d
ok
> stat /a/d
missing [d] below 11, key a/d pending 0
> lookup ino=0x15
not found
> state
files 4 dirs 7 sessions 0 intents 0 mounts 1 trash 1
> usage /a
bytes 0 files 0 dirs 3
> sync /a d:d d:mine d:new d:beside change=9 -range
created 0 changed 0 removed 0 skipped 3
> ls /a
beside: dir 1a 0755 0:0 entries 0 nlink 2 at file:///r/a/beside
mine: dir 14 0755 0:0 entries 0 nlink 2 at file:///r/a/mine
new: dir 19 0755 0:0 entries 0 nlink 2 at file:///r/a/new
> sweep
ok
> state
files 4 dirs 7 sessions 0 intents 0 mounts 1 trash 1
> tick s=601
> sweep
ok
> state
files 1 dirs 5 sessions 0 intents 0 mounts 1 trash 0
# What stays: a directory that only the namespace has, and one above a mount.
> mount /a/beside/m mem://x -p
mount 3
> mv /a away=2000000000012/b
cross-mount: there is a mount point below it
> mv /a/beside/m away=2000000000012/b
cross-mount: a mount, or a directory that lives in a group of its own, stays where it is
> mount /r mem://b -p caps=d
mount 4
> sync /r d:d
created 1 changed 0 removed 0 skipped 0
> mv /r/d away=2000000000012/b
cross-mount: its store cannot rename a directory in one call
> mount /ro file:///ro ro=1 -p caps=rdo
mount 5
> sync /ro d:d
created 1 changed 0 removed 0 skipped 0
> mv /ro/d away=2000000000012/b
read-only
> usage /
bytes 1 files 1 dirs 9
