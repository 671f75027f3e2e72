# A directory's quota limits what is below it; sums are those of the tree.
> quota /nope bytes=5
not found
> mkdir /a/b -p
dir 12 0755 0:0 entries 0 nlink 2
> create /a/f -done
file 13 0644 0:0 len 0 v1 NOT_PERSISTED
> quota /a/f bytes=5
not a directory: a quota is set on a directory
> quota /a inodes=4
ok
> usage /a
bytes 0 files 1 dirs 1 whole
quota of /a: bytes 0 of 0, held 0; inodes 2 of 4, held 0
> usage /
bytes 0 files 1 dirs 2

# New names: files, links, directories, parents. What is refused is not there.
> create /a/b/c/d/e -done -p
over quota: the quota of /a is 4 files and directories, with 2 there or being made: no room for 3 more
> create /a/b/one -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED
> mkdir /a/b/two
dir 15 0755 0:0 entries 0 nlink 2
> mkdir /a/b/three
over quota: the quota of /a is 4 files and directories, with 4 there or being made: no room for 1 more
> create /a/b/four link=x
over quota: the quota of /a is 4 files and directories, with 4 there or being made: no room for 1 more
> ls /a/b
one: file 14 0644 0:0 len 0 v1 NOT_PERSISTED
two: dir 15 0755 0:0 entries 0 nlink 2
> usage /a
bytes 0 files 2 dirs 2 whole
quota of /a: bytes 0 of 0, held 0; inodes 4 of 4, held 0

# A file that is being written takes its place at once.
> rm /a/b/two
ok
> create /a/b/open
session 1 fence 1 file 16 version 1 key 
> create /a/b/more -done
over quota: the quota of /a is 4 files and directories, with 4 there or being made: no room for 1 more
> mkdir /a/b/more
over quota: the quota of /a is 4 files and directories, with 4 there or being made: no room for 1 more
> usage /a
bytes 0 files 2 dirs 1 whole
quota of /a: bytes 0 of 0, held 0; inodes 3 of 4, held 1
> complete s=1 len=3
file 16 0644 0:0 len 3 v1 NOT_PERSISTED
> usage /a
bytes 3 files 3 dirs 1 whole
quota of /a: bytes 3 of 0, held 0; inodes 4 of 4, held 0
> create /a/b/more
over quota: the quota of /a is 4 files and directories, with 4 there or being made: no room for 1 more

# Bytes are refused when the length is known: announced, or complete. The old
# version stays.
> quota /a bytes=10 inodes=0
ok
> create /a/big expect=8
over quota: the quota of /a is 10 bytes, with 3 there or being written: no room for 8 more
> create /a/big expect=7
session 2 fence 2 file 17 version 1 key 
> usage /a
bytes 3 files 3 dirs 1 whole
quota of /a: bytes 3 of 10, held 7; inodes 4 of 0, held 1
> create /a/small expect=1
over quota: the quota of /a is 10 bytes, with 10 there or being written: no room for 1 more
> complete s=2 len=7
file 17 0644 0:0 len 7 v1 NOT_PERSISTED
> create /a/b/open -o
session 3 fence 3 file 16 version 2 key 
> complete s=3 len=4
over quota: the quota of /a is 10 bytes, with 10 there or being written: no room for 1 more
> stat /a/b/open
file 16 0644 0:0 len 3 v1 NOT_PERSISTED session 3
> abandon s=3 -swept
ok
> create /a/b/open -o
session 4 fence 4 file 16 version 3 key 
> complete s=4 len=2
file 16 0644 0:0 len 2 v3 NOT_PERSISTED
> usage /a
bytes 9 files 4 dirs 1 whole
quota of /a: bytes 9 of 10, held 0; inodes 5 of 0, held 0

# The worker announces before it commits an upload: complete is not refused then.
> create /a/b/w
session 5 fence 5 file 18 version 1 key 
> renew s=5 f=5 len=2
over quota: the quota of /a is 10 bytes, with 9 there or being written: no room for 2 more
> renew s=5 f=5 len=1
ok
> usage /a
bytes 9 files 4 dirs 1 whole
quota of /a: bytes 9 of 10, held 1; inodes 5 of 0, held 1
> create /a/b/x
session 6 fence 6 file 19 version 1 key 
> complete s=6 len=1
over quota: the quota of /a is 10 bytes, with 10 there or being written: no room for 1 more
> abandon s=6 -swept
ok
> complete s=5 len=1 fp=there
file 18 0644 0:0 len 1 v1 PERSISTED fp there
> usage /a
bytes 10 files 5 dirs 1 whole
quota of /a: bytes 10 of 10, held 0; inodes 6 of 0, held 0

# Moving into it, out of it, and within.
> mkdir /o/p -p
dir 1b 0755 0:0 entries 0 nlink 2
> create /o/p/q expect=3
session 7 fence 7 file 1c version 1 key 
> complete s=7 len=3
file 1c 0644 0:0 len 3 v1 NOT_PERSISTED
> mv /o /a/o
over quota: the quota of /a is 10 bytes, with 10 there or being written: no room for 3 more
> mv /a/big /big
file 17 0644 0:0 len 7 v1 NOT_PERSISTED
> mv /a/o /a/b/o
not found
> mv /o /a/o
dir 1a 0755 0:0 entries 1 nlink 3
> mv /a/o /a/b/o
dir 1a 0755 0:0 entries 1 nlink 3
> usage /a
bytes 6 files 5 dirs 3 whole
quota of /a: bytes 6 of 10, held 0; inodes 8 of 0, held 0
> quota /a bytes=6
ok
> mv /a/b/o /a/o
dir 1a 0755 0:0 entries 1 nlink 3
> mv /a/o /a/b/o
dir 1a 0755 0:0 entries 1 nlink 3
> quota /a bytes=10
ok
> usage /a/b
bytes 6 files 4 dirs 2 whole
quota of /a: bytes 6 of 10, held 0; inodes 8 of 0, held 0
> mv /big /a/big
over quota: the quota of /a is 10 bytes, with 6 there or being written: no room for 7 more
> mv /big /a/small
over quota: the quota of /a is 10 bytes, with 6 there or being written: no room for 7 more

# A limit below what is there refuses only more.
> quota /a bytes=2
ok
> create /a/b/x -o -done
file 1d 0644 0:0 len 0 v1 NOT_PERSISTED
> create /a/b/w -o
session 8 fence 8 file 18 version 2 key 
> complete s=8 len=5
over quota: the quota of /a is 2 bytes, with 6 there or being written: no room for 4 more
> abandon s=8 -swept
ok
> rm /a/b -r
ok
> usage /a
bytes 0 files 1 dirs 0 whole
quota of /a: bytes 0 of 2, held 0; inodes 1 of 0, held 0
> sweep
ok
> usage /
bytes 7 files 2 dirs 1
> quota /a bytes=0
ok
> usage /a
bytes 0 files 1 dirs 0 whole

# Root alone sets quotas; it goes with its directory.
> as 5:5
> quota /a bytes=1
permission denied: only root sets quotas
> as root
> quota / inodes=3 bytes=100
ok
> create /z -done
over quota: the quota of / is 3 files and directories, with 3 there or being made: no room for 1 more
> create /zz -done
over quota: the quota of / is 3 files and directories, with 3 there or being made: no room for 1 more
> quota /a bytes=-2
invalid: a limit is -1 (as it is), 0 (none) or above
> quota /a bytes=7
ok
> reopen
> usage /a
bytes 0 files 1 dirs 0 whole
quota of /a: bytes 0 of 7, held 0; inodes 1 of 0, held 0
quota of /: bytes 7 of 100, held 0; inodes 3 of 3, held 0
> rm /a -r
ok
> usage /
bytes 7 files 1 dirs 0
quota of /: bytes 7 of 100, held 0; inodes 1 of 3, held 0
> create /zz -done
file 1e 0644 0:0 len 0 v1 NOT_PERSISTED

# Below a mount: what is undecided takes its place, until it is decided.
> mount /m file:///r caps=rdo -p
mount 1
> mount /m file:///r caps=rdo -p
exists: already a mount point, of file:///r
> quota / inodes=0
ok
> mount /m file:///r caps=rdo -p
exists: already a mount point, of file:///r
> quota /m inodes=2
ok
> mkdir /m/d
intent 1 undecided mkdir mount 1 source d target d
> create /m/e -done type=cache
intent 2 undecided put_empty mount 1 target e
> create /m/f -done type=cache
over quota: the quota of /m is 2 files and directories, with 2 there or being made: no room for 1 more
> usage /m
bytes 0 files 0 dirs 0
quota of /m: bytes 0 of 0, held 0; inodes 0 of 2, held 2
quota of /: bytes 7 of 100, held 0; inodes 3 of 0, held 2
> decide i=1
dir 20 0755 0:0 entries 0 nlink 2 at file:///r/d
> decide i=2 kind=25
ufs failure
> usage /m
bytes 0 files 0 dirs 1
quota of /m: bytes 0 of 0, held 0; inodes 1 of 2, held 0
quota of /: bytes 7 of 100, held 0; inodes 4 of 0, held 0

# What a store has is counted, and never refused.
> sync /m d:d f:a:xxxx f:b:yy -range -loaded
created 2 changed 0 removed 0 skipped 0
> usage /m
bytes 6 files 2 dirs 1 whole
quota of /m: bytes 6 of 0, held 0; inodes 3 of 2, held 0
quota of /: bytes 13 of 100, held 0; inodes 6 of 0, held 0
> sync /m/d -range -loaded
created 0 changed 0 removed 0 skipped 0
> usage /m
bytes 6 files 2 dirs 1 whole
quota of /m: bytes 6 of 0, held 0; inodes 3 of 2, held 0
quota of /: bytes 13 of 100, held 0; inodes 6 of 0, held 0
> create /m/g type=cache
over quota: the quota of /m is 2 files and directories, with 3 there or being made: no room for 1 more
> mkdir /out
dir 23 0755 0:0 entries 0 nlink 2
> mkdir /m/d/x
over quota: the quota of /m is 2 files and directories, with 3 there or being made: no room for 1 more
> usage /
bytes 13 files 4 dirs 3
quota of /: bytes 13 of 100, held 0; inodes 7 of 0, held 0
