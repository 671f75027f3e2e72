# Bounds of the copies of a file: set by hand, or by writing it with copies.
# They stay with the file through renames and rewrites, and go with it.
> mount / s3://b caps=
mount 1
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at s3://b/d
> create /f type=must
session 1 fence 1 file 12 version 1 key f
> complete s=1 len=3
file 12 0644 0:0 len 3 v1 NOT_PERSISTED at s3://b/f
> copies /f min=2 max=3 -v
file 12 0644 0:0 len 3 v1 NOT_PERSISTED at s3://b/f copies 2..3
event EVENT_ATTR ino 12 1/f
effect 80 file 12 version 1 id 0 
> mv /f /d/g
file 12 0644 0:0 len 3 v1 NOT_PERSISTED at s3://b/d/g copies 2..3
> stat /d/g
file 12 0644 0:0 len 3 v1 NOT_PERSISTED at s3://b/d/g copies 2..3
> create /d/g type=must -o
session 2 fence 2 file 12 version 2 key d/g copies 2
> complete s=2 len=4
file 12 0644 0:0 len 4 v2 NOT_PERSISTED at s3://b/d/g copies 2..3
> stat /d/g
file 12 0644 0:0 len 4 v2 NOT_PERSISTED at s3://b/d/g copies 2..3
# Fewer at most than at least, more than a cluster has, of a link; of a
# directory nothing is kept.
> copies /d/g min=3 max=2
invalid: the most copies are fewer than the least
> copies /d/g min=2000
invalid: more copies than any cluster has workers
> create /l link=f
link 13 0644 0:0 len 1 v1 NOT_PERSISTED at s3://b/l -> f
> copies /l min=1
invalid: only files have copies
> copies /d min=1
is a directory: only files have copies: ask for all files below it
> copies /d min=1 -r
dir 11 0755 0:0 entries 1 nlink 2 at s3://b/d
> copies /d/g -v
file 12 0644 0:0 len 4 v2 NOT_PERSISTED at s3://b/d/g
event EVENT_ATTR ino 12 11/g
effect 80 file 12 version 2 id 0 
> stat /d/g
file 12 0644 0:0 len 4 v2 NOT_PERSISTED at s3://b/d/g
# Written with three copies: no fewer are kept, and not over the most.
> create /h type=must copies=3
session 3 fence 3 file 14 version 1 key h copies 3
> complete s=3 len=5
file 14 0644 0:0 len 5 v1 NOT_PERSISTED at s3://b/h copies 3..-1
> stat /h
file 14 0644 0:0 len 5 v1 NOT_PERSISTED at s3://b/h copies 3..-1
> copies /h min=1 max=2
file 14 0644 0:0 len 5 v1 NOT_PERSISTED at s3://b/h copies 1..2
> create /h type=must copies=4 -o
session 4 fence 4 file 14 version 2 key h copies 4
> complete s=4 len=5
file 14 0644 0:0 len 5 v2 NOT_PERSISTED at s3://b/h copies 4..4
> stat /h
file 14 0644 0:0 len 5 v2 NOT_PERSISTED at s3://b/h copies 4..4
# A rewrite with the default keeps what was asked for.
> create /h type=must -o -v
session 5 fence 5 file 14 version 3 key h copies 4
> complete s=5 len=6
file 14 0644 0:0 len 6 v3 NOT_PERSISTED at s3://b/h copies 4..4
> stat /h
file 14 0644 0:0 len 6 v3 NOT_PERSISTED at s3://b/h copies 4..4
# Further holders of what is in no store; of another version nothing is noted.
> hold ino=0x14 v=3 w=9
ok
> hold ino=0x14 v=2 w=8
ok
> hold ino=0x99 v=1 w=8
ok
> rm /h
ok
> state
files 2 dirs 2 sessions 0 intents 0 mounts 1 trash 0
