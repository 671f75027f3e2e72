# Group 2: transfers, where the file goes: each number is decided once.
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1 caps=rdo
mount 2
> sync /a/p f:have:h d:d -range -loaded
created 2 changed 0 removed 0 skipped 0
> quota /a/p inodes=3
ok
> transfer /a/p/f tx=5 fp=abc by=5
decided 5: permission denied
> transfer /a/p/f tx=5 fp=abc
decided 5: permission denied
> as 5:5
> transfer /a/p/f tx=6 fp=abc
permission denied: only groups hand files to each other
> as root
> transfer /a/p/f tx=6 of=3 fp=abc
decided 6: cross-mount
> transfer /a/p/d tx=7 fp=abc
decided 7: is a directory
> transfer /a/p/have tx=8 fp=abc -n
decided 8: exists
> transfer /a/p/x/f tx=9 fp=abc
decided 9: not found
> transfer /a/p/f tx=10 fp=abc
intent 562949953421313 undecided receive mount 2 target f want abc
# The name shows what was there, and nothing else gets it; the room is held.
> stat /a/p/f
missing [f] below 2000000000012, key f pending 562949953421313
> create /a/p/f type=cache -done
busy: an earlier change is still on its way to the UFS (intent 562949953421313)
> transfer /a/p/f tx=11 fp=def
busy: an earlier change is still on its way to the UFS (intent 562949953421313)
> transfer /a/p/f tx=11 fp=def abort=12
decided 11: busy
> usage /a/p
bytes 1 files 1 dirs 1
quota of /a/p: bytes 1 of 0, held 3; inodes 2 of 3, held 1
> transfer /a/p/g tx=12 fp=def
decided 12: over quota the quota of /a/p is 3 files and directories, with 3 there or being made: no room for 1 more
> transfer /a/p/f tx=10 fp=abc
intent 562949953421313 undecided receive mount 2 target f want abc
> reopen
> transfer /a/p/f tx=10 fp=abc abort=12
intent 562949953421313 undecided receive mount 2 target f want abc
> decide i=0x2000000000001 -v
file 2000000000015 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/f
decided 10: ok, as 2000000000015
event EVENT_ENTRY ino 2000000000015 2000000000012/f
> transfer /a/p/f tx=10 fp=abc abort=12
decided 10: ok, as 2000000000015
> stat /a/p/f
file 2000000000015 0644 5:0 len 3 v1 PERSISTED fp abc at file:///r/a/p/f
> usage /a/p
bytes 4 files 2 dirs 1
quota of /a/p: bytes 4 of 0, held 0; inodes 3 of 3, held 0
# What takes the place of a file needs no more room than that had.
> transfer /a/p/have tx=13 fp=z
intent 562949953421314 undecided receive mount 2 target have want z
> decide i=0x2000000000002 kind=16 msg=full
conflict: full
> transfer /a/p/have tx=13 fp=z
decided 13: conflict full
> transfer /a/p/have tx=14 link=f
intent 562949953421315 undecided receive mount 2 target have want h
> decide i=0x2000000000003
link 2000000000016 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> f
decided 14: ok, as 2000000000016
> stat /a/p/have
link 2000000000016 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/have -> f
> rm /a/p/have
ok
> transfer /a/p/l tx=15 link=f
link 2000000000017 0644 5:0 len 1 v1 NOT_PERSISTED at file:///r/a/p/l -> f
decided 15: ok, as 2000000000017
# What the other group has taken note of is forgotten, and refused when it comes again.
> transfer / below=15
ok
> transfer /a/p/f tx=14 link=f
stale: the transfer was decided, and that was taken note of
> transfer /a/p/l tx=15 link=f
decided 15: ok, as 2000000000017
> reopen
> transfer /a/p/f tx=10 fp=abc
stale: the transfer was decided, and that was taken note of
> transfer /a/p/l tx=15 link=f
decided 15: ok, as 2000000000017
> state
files 2 dirs 4 sessions 0 intents 0 mounts 1 trash 0
