# A store that cannot rename in one call has what goes to another group copied, if it is short; then what is left goes.
> mount / s3://b/r
mount 1
> sync / f:f:abc f:g:x -range -loaded
created 2 changed 0 removed 0 skipped 0
> create /long type=cache
session 1 fence 1 file 13 version 1 key long
> complete s=1 len=268435457 fp=long
file 13 0644 0:0 len 268435457 v1 PERSISTED fp long at s3://b/r/long
> mv /long away=2000000000012/long
cross-mount: its store cannot rename in one call, and copies no more than 256 MiB to another group
> create /most type=cache
session 2 fence 2 file 14 version 1 key most
> complete s=2 len=268435456 fp=most
file 14 0644 0:0 len 268435456 v1 PERSISTED fp most at s3://b/r/most
> mv /most away=2000000000012/most
intent 1 undecided transfer mount 1 source most want most
> decide i=1 kind=12 msg=x
busy: x
> mv /f away=2000000000012/f
intent 2 undecided transfer mount 1 source f want abc
> decide i=2 -v
event EVENT_ENTRY ino 11 1/f
effect 6 file 0 version 0 id 3 
effect 1 file 11 version 0 id 0 
# The key is not anybody's until the object is gone, and no sync takes it up.
> stat /f
missing [f] below 1, key f pending 3
> state
files 3 dirs 1 sessions 0 intents 1 mounts 1 trash 0
intent 3 deferred left mount 1 source f want abc
> create /f type=cache
busy: an earlier change is still on its way to the UFS (intent 3)
> sync / f:f:abc change=8
created 0 changed 0 removed 0 skipped 1
> ls /
g: file 12 0644 0:0 len 1 v1 PERSISTED fp x at s3://b/r/g
long: file 13 0644 0:0 len 268435457 v1 PERSISTED fp long at s3://b/r/long
most: file 14 0644 0:0 len 268435456 v1 PERSISTED fp most at s3://b/r/most
> reopen
> state
files 3 dirs 1 sessions 0 intents 1 mounts 1 trash 0
intent 3 deferred left mount 1 source f want abc
> finish i=3
ok
> sync / f:f:abc change=8
created 0 changed 0 removed 0 skipped 1
> ls /
g: file 12 0644 0:0 len 1 v1 PERSISTED fp x at s3://b/r/g
long: file 13 0644 0:0 len 268435457 v1 PERSISTED fp long at s3://b/r/long
most: file 14 0644 0:0 len 268435456 v1 PERSISTED fp most at s3://b/r/most
> create /f type=cache
session 3 fence 3 file 15 version 1 key f
> abandon s=3 -swept
ok
# An exchange with a link goes; with an object it would take more than one call.
> mv -x /g away=2000000000012/l bytes=1
intent 4 undecided transfer mount 1 source g want x
> decide i=4 backlink=t -v
link 16 0644 5:0 len 1 v1 NOT_PERSISTED at s3://b/r/g pending -> t
event EVENT_ENTRY ino 12 1/g
event EVENT_ENTRY ino 16 1/g
effect 6 file 0 version 0 id 5 
effect 1 file 12 version 0 id 0 
> stat /g
link 16 0644 5:0 len 1 v1 NOT_PERSISTED at s3://b/r/g pending -> t
> rm /g
busy: an earlier change is still on its way to the UFS (intent 5)
> finish i=5
ok
> rm /g
ok
> state
files 2 dirs 1 sessions 0 intents 0 mounts 1 trash 0
