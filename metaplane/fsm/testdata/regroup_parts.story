# A part moves from its group to another one: its junction stays where it is, and
# leads to the other in one apply. The group that it leaves is told until it knows.
> mount / file:///r caps=rdox
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> decide i=1 -q
ok
> mkdir /a/p group=2 mode=0750
intent 2 undecided mkdir mount 1 source a/p target a/p
> decide i=2 -q
ok
> regroup /a/p group=3
busy: it is just being mounted
> junction id=2 from=1 to=2 root=0x2000000000012
mount 2
> as 5:5
> regroup /a/p group=3
permission denied: only root puts directories into groups
> as 0:0
> regroup /a/p group=2
mount 2
> regroup /a/p/f group=3
referral: the subtree lives in group 2
> regroup /a/p group=3
intent 3 undecided regroup mount 1 source a/p
> regroup /a/p group=3
intent 3 undecided regroup mount 1 source a/p
> regroup /a/p group=4
exists: it is on its way to group 3
> regroup /a/p group=2
exists: it is on its way to group 3
> regroup /a group=3
unsupported: /a/p lives in group 2, and what lives in a group of its own is not divided further
# It is there for everybody, but nobody takes it away.
> stat /a/p/f
referral
> ls /a
p: dir 2000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> rm /a/p
busy: it is on its way to group 3 (intent 3)
> unmount /a/p
busy: it is on its way to group 3 (intent 3)
> junction id=2 from=2 to=3
busy: it is on its way to group 3 (intent 3)
> mv /a /b
cross-mount: /a/p lives in group 2
> quota /a inodes=10
unsupported: /a/p lives in group 2, and no quota of the first can count what is in it: set one there
> mount / file:///r -u trash=10
unsupported: /a/p lives in group 2, and what is deleted there could not be kept: unmount it first, which gives it back
> reopen
> regroup i=3
ok
> state
files 0 dirs 3 sessions 0 intents 0 mounts 2 trash 0
> regroup i=3 root=0x3000000000012
not found: no such move: it was given up, or has ended
> regroup settled=3
ok
> regroup cleared=3
ok
# Again, while it is given other options: its new row has them.
> regroup /a/p group=3
intent 4 undecided regroup mount 1 source a/p
> mount / file:///r -u -ro caps=rdox
mount 1
> regroup i=4 root=0x3000000000012 -v
mount 4
event EVENT_ENTRY ino 2000000000012 11/p
event EVENT_ENTRY ino 3000000000012 11/p
event EVENT_MOUNT ino 12 11/p
effect 9 file 0 version 0 id 0 
> junction id=2 from=1 to=2
not found: no such junction
> stat /a/p/f
referral
> ls /a
p: dir 3000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> state
files 0 dirs 3 sessions 0 intents 0 mounts 2 trash 0
> reopen
> junction id=4 from=1 to=2
mount 4
> stat /a/p/f
referral
> regroup settled=4
ok
> regroup /a/p group=3
mount 4
> regroup /a/p group=2
intent 5 undecided regroup mount 1 source a/p
> regroup i=5
ok
