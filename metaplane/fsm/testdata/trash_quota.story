# What is in the trash is charged to the quotas of where it was.
> mount / file:///r caps=rdox trash=60
mount 1
> mkdir /q/d -p
intent 1 undecided mkdir mount 1 source q target q/d
> decide i=1
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/q/d
> quota /q bytes=10 inodes=6
ok
> quota /q/d bytes=8
ok
> create /q/d/f
session 1 fence 1 file 13 version 1 key q/d/f
> complete s=1 len=5
file 13 0644 0:0 len 5 v1 NOT_PERSISTED at file:///r/q/d/f
> rm /q/d/f
ok
> usage /q/d
bytes 0 files 0 dirs 0 whole
quota of /q/d: bytes 0 of 8, held 5; inodes 0 of 0, held 1
quota of /q: bytes 0 of 10, held 5; inodes 1 of 6, held 1
> usage /
bytes 5 files 1 dirs 2
> create /q/d/g expect=4
over quota: the quota of /q/d is 8 bytes, with 5 there or being written: no room for 4 more
> create /q/d/g expect=3
session 2 fence 2 file 15 version 1 key q/d/g
> complete s=2 len=3
file 15 0644 0:0 len 3 v1 NOT_PERSISTED at file:///r/q/d/g

# A restore takes the place that was held for it.
> undelete /q/d/f ino=0x13
file 13 0644 0:0 len 5 v1 NOT_PERSISTED at file:///r/q/d/f
> usage /q/d
bytes 8 files 2 dirs 0 whole
quota of /q/d: bytes 8 of 8, held 0; inodes 2 of 0, held 0
quota of /q: bytes 8 of 10, held 0; inodes 3 of 6, held 0
> rm /q/d/f
ok
> quota /q bytes=8
ok
> undelete /q/f ino=0x13
file 13 0644 0:0 len 5 v1 NOT_PERSISTED at file:///r/q/f
> usage /q
bytes 8 files 2 dirs 1 whole
quota of /q: bytes 8 of 8, held 0; inodes 3 of 6, held 0
> mv /q/f /q/d/f
file 13 0644 0:0 len 5 v1 NOT_PERSISTED at file:///r/q/d/f
> rm /q/d/f
ok

# A directory that moves takes what it is charged for along; in the trash, too.
> mkdir /o
intent 2 undecided mkdir mount 1 source o target o
> decide i=2
dir 16 0755 0:0 entries 0 nlink 2 at file:///r/o
> mv /q/d /o/d
intent 3 undecided rename mount 1 source q/d target o/d
> decide i=3
dir 12 0755 0:0 entries 1 nlink 2 at file:///r/o/d
> usage /q
bytes 0 files 0 dirs 0 whole
quota of /q: bytes 0 of 8, held 0; inodes 0 of 6, held 0
> usage /o/d
bytes 3 files 1 dirs 0 whole
quota of /o/d: bytes 3 of 8, held 5; inodes 1 of 0, held 1
> mv /o/d /q/d
intent 4 undecided rename mount 1 source o/d target q/d
> decide i=4
dir 12 0755 0:0 entries 1 nlink 2 at file:///r/q/d
> usage /q
bytes 3 files 1 dirs 1 whole
quota of /q: bytes 3 of 8, held 5; inodes 2 of 6, held 1
> rm /q/d -r
intent 5 undecided rename mount 1 source q/d target .~orca.trash/12.b0wzaio
> decide i=5
ok
> usage /q
bytes 0 files 0 dirs 0 whole
quota of /q: bytes 0 of 8, held 8; inodes 0 of 6, held 3
> create /q/n expect=1
over quota: the quota of /q is 8 bytes, with 8 there or being written: no room for 1 more
> trash
13 /q/d/f by 0, 9 s old, 51 s to go: 5 bytes, 1 inodes
12 /q/d by 0, 1 s old, 59 s to go: 3 bytes, 2 inodes, a directory
> reopen
> usage /q
bytes 0 files 0 dirs 0 whole
quota of /q: bytes 0 of 8, held 8; inodes 0 of 6, held 3
> purge ino=0x13
ids [19]
> usage /q
bytes 0 files 0 dirs 0 whole
quota of /q: bytes 0 of 8, held 3; inodes 0 of 6, held 2
> create /q/n expect=1
session 3 fence 3 file 17 version 1 key q/n
> abandon s=3 -swept
ok
> undelete /o/d ino=0x12
intent 6 undecided rename mount 1 source .~orca.trash/12.b0wzaio target o/d
> decide i=6
dir 12 0755 0:0 entries 1 nlink 2 at file:///r/o/d
> usage /q
bytes 0 files 0 dirs 0 whole
quota of /q: bytes 0 of 8, held 0; inodes 0 of 6, held 0
> usage /o/d
bytes 3 files 1 dirs 0 whole
quota of /o/d: bytes 3 of 8, held 0; inodes 1 of 0, held 0
> quota /o bytes=100
ok
> rm /o/d -r
intent 7 undecided rename mount 1 source o/d target .~orca.trash/12.f5rciyo
> decide i=7
ok
> purge ino=0x12
ids [18]
> sweep
ok
> usage /o
bytes 0 files 0 dirs 0 whole
quota of /o: bytes 0 of 100, held 0; inodes 0 of 0, held 0
