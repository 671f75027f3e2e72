# Group 2: exchanges with a name of another group, where they are decided: what was there goes with the decision.
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1 caps=rdox
mount 2
> sync /a/p f:have:h f:two:22 d:d -range -loaded
created 3 changed 0 removed 0 skipped 0
> quota /a/p bytes=6
ok
> transfer /a/p/no tx=5 fp=abc -x
decided 5: not found
> transfer /a/p/d tx=6 fp=abc -x
decided 6: cross-mount a directory stays in its group
> transfer /a/p/d/no tx=7 fp=abc -x
decided 7: not found
> transfer /a/p tx=8 fp=abc -x
decided 8: cross-mount a directory stays in its group
> transfer /a/p/have tx=9 fp=abc -x of=3
decided 9: cross-mount
> transfer /a/p/have tx=10 fp=abc -x by=5
decided 10: permission denied
> transfer /a/p/two tx=11 fp=a -x room=1
decided 11: busy it has grown since the other group was asked for room
> ln /a/p/two /a/p/again
file 2000000000014 0644 0:0 len 2 v1 PERSISTED nlink 2 fp 22 at file:///r/a/p/two
> transfer /a/p/two tx=12 fp=abc -x
decided 12: cross-mount a file with several names stays in its group
> rm /a/p/again
ok
> create /a/p/n type=must -done
file 2000000000016 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/p/n
> transfer /a/p/n tx=13 fp=abc -x
decided 13: cross-mount only what its store has goes to another group: it is not persisted
> transfer /a/p/have tx=14 fp=123456 -x
decided 14: over quota the quota of /a/p is 6 bytes, with 3 there or being written: no room for 5 more
> transfer /a/p/have tx=15 fp=abc -x room=3
intent 562949953421313 undecided receive mount 2 target have want abc have h
# The name shows what was there; the room that more needs is held.
> stat /a/p/have
file 2000000000013 0644 0:0 len 1 v1 PERSISTED fp h at file:///r/a/p/have pending
> usage /a/p
bytes 3 files 3 dirs 1
quota of /a/p: bytes 3 of 6, held 2; inodes 4 of 0, held 0
> rm /a/p/have
busy: an earlier change is still on its way to the UFS (intent 562949953421313)
> reopen
> transfer /a/p/have tx=15 fp=abc -x room=3
intent 562949953421313 undecided receive mount 2 target have want abc have h
> decide i=0x2000000000001 -v
file 2000000000017 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/have
decided 15: ok, as 2000000000017, for 2000000000013 len 1 h
event EVENT_ENTRY ino 2000000000013 2000000000012/have
event EVENT_ENTRY ino 2000000000017 2000000000012/have
effect 1 file 2000000000013 version 0 id 0 
> transfer /a/p/have tx=15 fp=abc -x room=3
decided 15: ok, as 2000000000017, for 2000000000013 len 1 h
> stat /a/p/have
file 2000000000017 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/have
> usage /a/p
bytes 5 files 3 dirs 1
quota of /a/p: bytes 5 of 6, held 0; inodes 4 of 0, held 0
> reopen
> transfer /a/p/have tx=15 fp=abc -x room=3 abort=12
decided 15: ok, as 2000000000017, for 2000000000013 len 1 h
# Refused by the store it stays, and nothing goes.
> transfer /a/p/have tx=16 fp=xyz -x
intent 562949953421314 undecided receive mount 2 target have want xyz have abc
> decide i=0x2000000000002 kind=16 msg=changed
conflict: changed
> transfer /a/p/have tx=16 fp=xyz -x
decided 16: conflict changed
> stat /a/p/have
file 2000000000017 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/have
# Of a link the store has nothing: the other one goes to its place.
> transfer /a/p/have tx=17 link=t -x
intent 562949953421315 undecided receive mount 2 target have have abc
> decide i=0x2000000000003
link 2000000000018 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> t
decided 17: ok, as 2000000000018, for 2000000000017 len 3 abc
> stat /a/p/have
link 2000000000018 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> t
> transfer /a/p/have tx=18 link=u -x
link 2000000000019 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> u
decided 18: ok, as 2000000000019, for 2000000000018 len 1 t
> stat /a/p/have
link 2000000000019 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> u
> transfer /a/p/have tx=19 fp=abc -x
intent 562949953421316 undecided receive mount 2 target have want abc
> decide i=0x2000000000004
file 200000000001a 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/have
decided 19: ok, as 200000000001a, for 2000000000019 len 1 u
> stat /a/p/have
file 200000000001a 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/have
> usage /a/p
bytes 5 files 3 dirs 1
quota of /a/p: bytes 5 of 6, held 0; inodes 4 of 0, held 0
# A name that is on its way is waited for by a lower number, and refuses a higher one.
> mv /a/p/have away=12/have
intent 562949953421317 undecided transfer mount 2 source have want abc
> transfer /a/p/have tx=0x2000000000004 fp=abc -x
busy: it is on its way to a directory of another group (intent 562949953421317)
> transfer /a/p/have tx=0x3000000000001 fp=abc -x
decided 844424930131969: busy it is on its way to a directory of another group
> decide i=0x2000000000005 kind=12 msg=x
busy: x
> transfer /a/p/have tx=20 fp=abd -x
intent 562949953421318 undecided receive mount 2 target have want abd have abc
> decide i=0x2000000000006
file 200000000001b 0644 5:0 len 3 v1 PERSISTED fp abd at file:///r/a/p/have
decided 20: ok, as 200000000001b, for 200000000001a len 3 abc
# What is taken note of is forgotten, with what went.
> transfer / below=21
ok
> transfer /a/p/have tx=20 fp=abd -x
stale: the transfer was decided, and that was taken note of
> state
files 3 dirs 4 sessions 0 intents 0 mounts 1 trash 0
