# A change of attributes that the store makes to one object, while a writer puts
# another in its place (found by sim seed 10030 of the plans with links).
> mount / file:///r caps=rdo
mount 1
> create /f type=cache
session 1 fence 1 file 11 version 1 key f
> complete s=1 len=1 fp=A
file 11 0644 0:0 len 1 v1 PERSISTED fp A at file:///r/f

# the writer completes before the change is decided: the new object gets it, too
> create /f type=cache -o
session 2 fence 2 file 11 version 2 key f
> chmod /f mode=0700
intent 1 undecided setattr mount 1 source f
> renew s=2 f=2 len=2
ok
> complete s=2 len=2 fp=B
file 11 0644 0:0 len 2 v2 PERSISTED fp B at file:///r/f pending
> decide i=1 -v
file 11 0700 0:0 len 2 v2 PERSISTED fp B at file:///r/f pending
event EVENT_ATTR ino 11 1/f
effect 6 file 0 version 0 id 2 
> sync / f:f:B:644
created 0 changed 0 removed 0 skipped 1
> state
files 1 dirs 1 sessions 0 intents 1 mounts 1 trash 0
intent 2 undecided setattr mount 1 source f
> decide i=2
file 11 0700 0:0 len 2 v2 PERSISTED fp B at file:///r/f
> sync / f:f:B:700
created 0 changed 0 removed 0 skipped 0
> stat /f
file 11 0700 0:0 len 2 v2 PERSISTED fp B at file:///r/f

# so it is with times, and the fingerprint that these gave to the old one is not
# the new one's
> create /f type=cache -o
session 3 fence 3 file 11 version 3 key f
> touch /f t=77
intent 3 undecided setattr mount 1 source f
> complete s=3 len=3 fp=C
file 11 0700 0:0 len 3 v3 PERSISTED fp C at file:///r/f pending
> decide i=3 fp=B2
file 11 0700 0:0 len 3 v3 PERSISTED fp C at file:///r/f pending
> decide i=4 fp=C2
file 11 0700 0:0 len 3 v3 PERSISTED fp C2 at file:///r/f
> stat /f
file 11 0700 0:0 len 3 v3 PERSISTED fp C2 at file:///r/f

# after it: as ever
> create /f type=cache -o
session 4 fence 4 file 11 version 4 key f
> chmod /f mode=0600
intent 5 undecided setattr mount 1 source f
> decide i=5
file 11 0600 0:0 len 3 v3 PERSISTED fp C2 at file:///r/f
> complete s=4 len=4 fp=D
file 11 0600 0:0 len 4 v4 PERSISTED fp D at file:///r/f
> decide i=6
file 11 0600 0:0 len 4 v4 PERSISTED fp D at file:///r/f
> stat /f
file 11 0600 0:0 len 4 v4 PERSISTED fp D at file:///r/f

# a writer that dies between the two: what it uploaded, with the attributes of
# when it began, gets those that the file has since
> create /f type=cache -o
session 5 fence 5 file 11 version 5 key f
> chmod /f mode=0444
intent 7 undecided setattr mount 1 source f
> decide i=7
file 11 0444 0:0 len 4 v4 PERSISTED fp D at file:///r/f
> abandon s=5
ok
> sync / f:f:EEEEE:600 s=5
created 0 changed 1 removed 0 skipped 0
> state
files 1 dirs 1 sessions 1 intents 1 mounts 1 trash 0
session 5 SESSION_EXPIRED file 11 f
intent 8 undecided setattr mount 1 source f
> decide i=8
file 11 0444 0:0 len 5 v6 PERSISTED fp EEEEE at file:///r/f
> drop s=5
ok
> stat /f
file 11 0444 0:0 len 5 v6 PERSISTED fp EEEEE at file:///r/f

# one whose attributes somebody else has given to it keeps them
> create /f type=cache -o
session 6 fence 6 file 11 version 7 key f
> chmod /f mode=0600
intent 9 undecided setattr mount 1 source f
> decide i=9
file 11 0600 0:0 len 5 v6 PERSISTED fp EEEEE at file:///r/f
> abandon s=6
ok
> sync / f:f:FFFFFF:640 s=6
created 0 changed 1 removed 0 skipped 0
> drop s=6
ok
> stat /f
file 11 0640 0:0 len 6 v8 PERSISTED fp FFFFFF at file:///r/f
> state
files 1 dirs 1 sessions 0 intents 0 mounts 1 trash 0
