# Write sessions: nothing is seen before complete, fences keep old writers out.
> mount / file:///r caps=rdo
mount 1
> create /f type=cache
session 1 fence 1 file 11 version 1 key f
> stat /f
missing [f] below 1, key f pending 0
> lookup ino=0x11
file 11 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/f fresh
> create /f type=cache
busy: the file is open for writing
> create /f type=cache -steal
session 2 fence 2 file 12 version 1 key f
> complete s=1 len=5 fp=A
stale: the write session is over
> complete s=2 len=7 fp=B -v
file 12 0644 0:0 len 7 v1 PERSISTED fp B at file:///r/f
event EVENT_ENTRY ino 12 1/f
> stat /f
file 12 0644 0:0 len 7 v1 PERSISTED fp B at file:///r/f
> complete s=2 len=7 fp=B
stale: the write session is over
> state
files 1 dirs 1 sessions 1 intents 0 mounts 1 trash 0
session 1 SESSION_STOLEN file 11 f
> drop s=1
ok
> state
files 1 dirs 1 sessions 0 intents 0 mounts 1 trash 0

# an overwrite shows the old version until it is complete
> create /f type=cache
exists
> create /f type=cache -o
session 3 fence 3 file 12 version 2 key f
> stat /f
file 12 0644 0:0 len 7 v1 PERSISTED fp B at file:///r/f session 3
> abandon s=3
ok
> create /f type=cache -o
busy: the file is open for writing
> drop s=3
ok
> create /f type=cache -o
session 4 fence 4 file 12 version 3 key f
> complete s=4 f=3 len=1
stale: the write session is over
> complete s=4 len=9 fp=C -keep
session 5 fence 5 file 12 version 4 key f
> complete s=5 len=10 fp=D -keep
session 6 fence 6 file 12 version 5 key f
> stat /f
file 12 0644 0:0 len 10 v4 PERSISTED fp D at file:///r/f session 6
> abandon s=6 -swept
ok
> state
files 1 dirs 1 sessions 0 intents 0 mounts 1 trash 0

# what has an open session at or below it stays where it is
> mkdir /d -q
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 13 0755 0:0 entries 0 nlink 2 at file:///r/d
> create /d/g type=must
session 7 fence 7 file 14 version 1 key d/g
> rm /d/g
not found
> rm /d -r
busy: a file is open for writing there
> mv /d /e
busy: a file is open for writing there
> mv /f /d/g
busy: a file is open for writing there
> mkdir /d/g
busy: a file is open for writing there
> renew s=7
ok
> tick s=14
> expire
ids [7]
> renew s=7
ids [7]
> tick s=14
> expire -v
ok
> state
files 1 dirs 2 sessions 1 intents 0 mounts 1 trash 0
session 7 SESSION_EXPIRED file 14 g
> complete s=7 len=1
stale: the write session is over
> drop s=7
ok
> state
files 1 dirs 2 sessions 0 intents 0 mounts 1 trash 0
> rm /d -r
intent 2 undecided remove mount 1 source d
