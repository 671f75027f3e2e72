# A file with several names counts once, at the one that its store has.
> mkdir /a
dir 11 0755 0:0 entries 0 nlink 2
> mkdir /b
dir 12 0755 0:0 entries 0 nlink 2
> quota /b bytes=10 inodes=2
ok
> create /a/f
session 1 fence 1 file 13 version 1 key 
> complete s=1 len=8
file 13 0644 0:0 len 8 v1 NOT_PERSISTED
> ln /a/f /b/g
file 13 0644 0:0 len 8 v1 NOT_PERSISTED nlink 2
> ln /a/f /b/h
file 13 0644 0:0 len 8 v1 NOT_PERSISTED nlink 3
> usage /a
bytes 8 files 1 dirs 0 whole
> usage /b
bytes 0 files 0 dirs 0 whole
quota of /b: bytes 0 of 10, held 0; inodes 0 of 2, held 0
# Nor does it count when it is written by another name.
> create /b/g -o
session 2 fence 2 file 13 version 2 key 
> complete s=2 len=9
file 13 0644 0:0 len 9 v2 NOT_PERSISTED nlink 3
> usage /a
bytes 9 files 1 dirs 0 whole
> usage /b
bytes 0 files 0 dirs 0 whole
quota of /b: bytes 0 of 10, held 0; inodes 0 of 2, held 0
# A name is taken along for nothing, and makes no room.
> mv /b/g /a/g
file 13 0644 0:0 len 9 v2 NOT_PERSISTED nlink 3
> mv /a/g /b/g
file 13 0644 0:0 len 9 v2 NOT_PERSISTED nlink 3
> create /b/x -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED
> create /b/y -done
file 15 0644 0:0 len 0 v1 NOT_PERSISTED
> mv /b/x /b/h
file 14 0644 0:0 len 0 v1 NOT_PERSISTED
> usage /b
bytes 0 files 2 dirs 0 whole
quota of /b: bytes 0 of 10, held 0; inodes 2 of 2, held 0
> mv /b/y /b/h2
file 15 0644 0:0 len 0 v1 NOT_PERSISTED
> mkdir /b/z
over quota: the quota of /b is 2 files and directories, with 2 there or being made: no room for 1 more
# Where the home goes, the file counts where it goes on, and is never refused.
> rm /a/f
ok
> usage /a
bytes 0 files 0 dirs 0 whole
> usage /b
bytes 9 files 3 dirs 0 whole
quota of /b: bytes 9 of 10, held 0; inodes 3 of 2, held 0
> rm /b/h2
ok
> mv /b/h /a/h
file 14 0644 0:0 len 0 v1 NOT_PERSISTED
> create /b/new expect=2
over quota: the quota of /b is 10 bytes, with 9 there or being written: no room for 2 more
> mv /b/g /a/f
file 13 0644 0:0 len 9 v2 NOT_PERSISTED
> usage /a
bytes 9 files 2 dirs 0 whole
> usage /b
bytes 0 files 0 dirs 0 whole
quota of /b: bytes 0 of 10, held 0; inodes 0 of 2, held 0
# Two that change places count where they come to, unless there is no room.
> create /b/one
session 3 fence 3 file 16 version 1 key 
> complete s=3 len=6
file 16 0644 0:0 len 6 v1 NOT_PERSISTED
> create /a/big
session 4 fence 4 file 17 version 1 key 
> complete s=4 len=11
file 17 0644 0:0 len 11 v1 NOT_PERSISTED
> mv /b/one /a/big -x
over quota: the quota of /b is 10 bytes, with 6 there or being written: no room for 5 more
> mv /b/one /a/f -x
file 16 0644 0:0 len 6 v1 NOT_PERSISTED
> usage /a
bytes 17 files 3 dirs 0 whole
> usage /b
bytes 9 files 1 dirs 0 whole
quota of /b: bytes 9 of 10, held 0; inodes 1 of 2, held 0
> ln /b/one /a/alias
file 13 0644 0:0 len 9 v2 NOT_PERSISTED nlink 2
> mv /a/alias /b/one -x
ok
> mv /a/alias /a/g -x
not found
> mkdir /a/d/e/f -p
dir 1a 0755 0:0 entries 0 nlink 2
> mv /a/d /a/alias -x
dir 18 0755 0:0 entries 1 nlink 3
> mv /a/alias /b/one -x
over quota: the quota of /b is 2 files and directories, with 1 there or being made: no room for 2 more
> mv /a/d /b/one -x
ok
> mv /b/one /a/d -x
ok
# Sums are the same when they are made anew.
> ln /a/big /b/big
file 17 0644 0:0 len 11 v1 NOT_PERSISTED nlink 2
> usage /a
bytes 17 files 3 dirs 3 whole
> usage /b
bytes 9 files 1 dirs 0 whole
quota of /b: bytes 9 of 10, held 0; inodes 1 of 2, held 0
> reopen
> usage /a
bytes 17 files 3 dirs 3 whole
> usage /b
bytes 9 files 1 dirs 0 whole
quota of /b: bytes 9 of 10, held 0; inodes 1 of 2, held 0
# What a store is asked for is held on both sides.
> mount /l file:///r caps=rdox -p
mount 1
> mkdir /l/p
intent 1 undecided mkdir mount 1 source p target p
> decide i=1 -q
ok
> mkdir /l/q
intent 2 undecided mkdir mount 1 source q target q
> decide i=2 -q
ok
> quota /l/p bytes=10 inodes=3
ok
> quota /l/q bytes=10 inodes=3
ok
> mkdir /l/p/d
intent 3 undecided mkdir mount 1 source p/d target p/d
> decide i=3 -q
ok
> create /l/p/d/x type=through -done
intent 4 undecided put_empty mount 1 target p/d/x
> decide i=4 fp=X -q
ok
> create /l/q/f type=through
session 5 fence 5 file 20 version 1 key q/f
> complete s=5 len=7 fp=F
file 20 0644 0:0 len 7 v1 PERSISTED fp F at file:///r/q/f
> mv /l/p/d /l/q/f -x
intent 5 undecided exchange mount 1 source p/d target q/f
> usage /l/p
bytes 0 files 1 dirs 1 whole
quota of /l/p: bytes 0 of 10, held 7; inodes 2 of 3, held 0
> usage /l/q
bytes 7 files 1 dirs 0 whole
quota of /l/q: bytes 7 of 10, held 0; inodes 1 of 3, held 1
> reopen
> usage /l/q
bytes 7 files 1 dirs 0 whole
quota of /l/q: bytes 7 of 10, held 0; inodes 1 of 3, held 1
> create /l/p/no expect=5
over quota: the quota of /l/p is 10 bytes, with 7 there or being written: no room for 5 more
> mkdir /l/q/n1 -p
intent 6 undecided mkdir mount 1 source q/n1 target q/n1
> decide i=5
dir 1e 0755 0:0 entries 1 nlink 2 at file:///r/q/f
> usage /l/p
bytes 7 files 1 dirs 0 whole
quota of /l/p: bytes 7 of 10, held 0; inodes 1 of 3, held 0
> usage /l/q
bytes 0 files 1 dirs 1 whole
quota of /l/q: bytes 0 of 10, held 0; inodes 2 of 3, held 1
# What a store has no more goes with all its names, wherever they are.
> mkdir /s
dir 21 0755 0:0 entries 0 nlink 2
> mount /s/o s3://b -p
mount 2
> mkdir /s/o/d
intent 7 undecided mkdir mount 2 source d target d
> decide i=7 -q
ok
> create /s/o/a type=cache -done
intent 8 undecided put_empty mount 2 target a
> decide i=8 fp=F1 -q
ok
> ln /s/o/a /s/o/b
file 24 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at s3://b/a
> ln /s/o/a /s/o/c
file 24 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at s3://b/a
> ln /s/o/a /s/o/d/e
file 24 0644 0:0 len 0 v1 PERSISTED nlink 4 fp F1 at s3://b/a
> usage /s/o
bytes 0 files 1 dirs 1
> sync /s/o -range
created 0 changed 0 removed 2 skipped 0
> tree /s
o: dir 22 0755 0:0 entries 0 nlink 2 at s3://b mount
> usage /s/o
bytes 0 files 0 dirs 0
