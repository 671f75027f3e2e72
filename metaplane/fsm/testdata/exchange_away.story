# Exchanges with a name of another group, where they begin: the name is locked, and room held for what comes back.
> mount / file:///r caps=rdox
mount 1
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/d
> sync /d f:f:abc f:big:123456 -range -loaded
created 2 changed 0 removed 0 skipped 0
> quota /d bytes=20
ok
> as 5:5
> mv -x /d/f away=2000000000012/f
permission denied
> as root
> mv -x /d away=2000000000012/d
cross-mount: a directory changes places with nothing of another group
> create /d/n type=must -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d/n
> mv -x /d/n away=2000000000012/n
cross-mount: only what its store has goes to another group: it is not persisted
> mv -x /d/no away=2000000000012/n
not found
> ln /d/big /d/big2
file 13 0644 0:0 len 6 v1 PERSISTED nlink 2 fp 123456 at file:///r/d/big
> mv -x /d/big away=2000000000012/n
cross-mount: a file with several names stays in its group
> rm /d/big2
ok
# What comes has to fit in the place of what goes.
> mv -x /d/f away=2000000000012/f bytes=15
over quota: the quota of /d is 20 bytes, with 9 there or being written: no room for 12 more
> call client=1 seq=1
> mv -x /d/f away=2000000000012/f bytes=14
intent 2 undecided transfer mount 1 source d/f want abc
> usage /d
bytes 9 files 3 dirs 0 whole
quota of /d: bytes 9 of 20, held 11; inodes 3 of 0, held 0
> create /d/x type=cache expect=1
over quota: the quota of /d is 20 bytes, with 20 there or being written: no room for 1 more
> stat /d/f
busy
> rm /d/f
busy: it is on its way to a directory of another group (intent 2)
> reopen
> usage /d
bytes 9 files 3 dirs 0 whole
quota of /d: bytes 9 of 20, held 11; inodes 3 of 0, held 0
# Refused it is as it was.
> decide i=2 kind=4 msg=taken
exists: taken
> call client=1 seq=1
> mv -x /d/f away=2000000000012/f bytes=14
exists: taken
> usage /d
bytes 9 files 3 dirs 0 whole
quota of /d: bytes 9 of 20, held 0; inodes 3 of 0, held 0
> stat /d/f
file 12 0644 0:0 len 3 v1 PERSISTED fp abc at file:///r/d/f
# Decided, in one apply, what comes back is there, with a number of this group.
> call client=1 seq=2
> mv -x /d/f away=2000000000012/f bytes=14
intent 3 undecided transfer mount 1 source d/f want abc
> decide i=3 back=backs mode=0600 -v
file 15 0600 5:0 len 5 v1 PERSISTED fp backs at file:///r/d/f
event EVENT_ENTRY ino 12 11/f
event EVENT_ENTRY ino 15 11/f
effect 1 file 12 version 0 id 0 
> call client=1 seq=2
> mv -x /d/f away=2000000000012/f bytes=14
file 15 0600 5:0 len 5 v1 PERSISTED fp backs at file:///r/d/f
> stat /d/f
file 15 0600 5:0 len 5 v1 PERSISTED fp backs at file:///r/d/f
> sync /d f:f:backs change=5
created 0 changed 0 removed 0 skipped 1
> usage /d
bytes 11 files 3 dirs 0 whole
quota of /d: bytes 11 of 20, held 0; inodes 3 of 0, held 0
> mv -x /d/f away=2000000000012/f bytes=1
intent 4 undecided transfer mount 1 source d/f want backs
> decide i=4 backlink=t
link 16 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/d/f -> t
> stat /d/f
link 16 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/d/f -> t
> mv -x /d/f away=2000000000012/f bytes=3
intent 5 undecided transfer mount 1 source d/f
> decide i=5 back=abc
file 17 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/d/f
> stat /d/f
file 17 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/d/f
> usage /d
bytes 9 files 3 dirs 0 whole
quota of /d: bytes 9 of 20, held 0; inodes 3 of 0, held 0
> mv -x /d/f away=2000000000012/f bytes=3
intent 6 undecided transfer mount 1 source d/f want abc
> decide i=6
internal: decided, but not applied: the other group has given nothing for it
> stat /d/f
file 17 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/d/f
> state
files 3 dirs 2 sessions 0 intents 0 mounts 1 trash 0
