# Parts: directories of a mount of the first group whose content lives in another
# group. Their rows go through the states of junctions, and they stay where they are.
> mount / file:///r caps=rdox
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/a
> as 5:5
> mkdir /a/p group=2
permission denied
> as 0:0
> mkdir /a/p group=2 mode=0750
intent 2 undecided mkdir mount 1 source a/p target a/p
> stat /a/p
missing [p] below 11, key a/p pending 2
> quota /a inodes=10
busy: a directory is just being made in a group of its own below it
> decide i=2
dir 12 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> stat /a/p
busy
> quota /a inodes=10
unsupported: /a/p lives in group 2, and no quota of the first can count what is in it: set one there
> quota /a/p inodes=10
busy: it is just being mounted
> junction id=2 from=1 to=2 root=0x2000000000012
mount 2
> stat /a/p
referral
> stat /a/p/f
referral
> ls /a
p: dir 2000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
> usage /a
bytes 0 files 0 dirs 1
> mkdir /a/p group=2 -x
referral: the subtree lives in group 2
> mkdir /a group=2 -x
exists: it is there already, and stays in its group
> mkdir /a/p/q group=2
referral: the subtree lives in group 2
# Sync knows its name, and neither takes it for its own nor away.
> sync /a d:p -range -loaded
created 0 changed 0 removed 0 skipped 1
> sync /a -range -loaded
created 0 changed 0 removed 0 skipped 1
> sync /a f:p:x -range
created 0 changed 0 removed 0 skipped 1
> ls /a
p: dir 2000000000012 0750 0:0 entries 0 nlink 2 at file:///r/a/p mount
# It stays where it is, and so does what is above it.
> mv /a /b
cross-mount: /a/p lives in group 2
> mkdir /b
intent 3 undecided mkdir mount 1 source b target b
> decide i=3
dir 13 0755 0:0 entries 0 nlink 2 at file:///r/b
> mv -x /a /b
cross-mount: a directory in one of them lives in another group
> mv /a/p /b/p
referral: the subtree lives in group 2
> rm /a -r
not empty: /a/p lives in group 2: remove it first
> rm /a
not empty
> unmount /
invalid: the root mount stays
> mount /a/p file:///r/a/p -u
exists: it is a directory of the mount at /, and has its options
> mount /x file:///r/a/p/x
invalid: its URI overlaps the one mounted at /
# Options of the mount are its own.
> mount / file:///r -u -ro caps=rdox
mount 1
> stat /a/p
referral
> rm /a/p
read-only
> mount / file:///r -u caps=rdox
mount 1
> junction id=2 from=1 to=2
mount 2
# Its own group says whether it is empty; while it is asked nobody passes.
> as 5:5
> rm /a/p
permission denied
> as 0:0
> rm /a/p want=1
is a directory
> rm /a/p -c
unsupported: it lives in group 2: unmount it, which leaves what the store has
> rm /a/p
mount 2
> stat /a/p/f
busy
> rm /a/p
busy: it is just being unmounted
> junction id=2 from=3 to=2 removing
mount 2
> stat /a/p/f
referral
> rm /a/p -r
mount 2
> reopen
> junction id=2 from=3 to=0
mount 2
> ls /a
p: dir 12 0750 0:0 entries 0 nlink 2 at file:///r/a/p
> stat /a/p/f
missing [f] below 12, key a/p/f pending 0
> rm /a/p
intent 4 undecided remove mount 1 source a/p
> decide i=4
ok
> ls /a
(empty)
> usage /
bytes 0 files 0 dirs 2
# A quota counts what is in its group alone, so it has none of these below it.
> quota /a inodes=10
ok
> mkdir /a/p group=2
unsupported: the quota of /a could not count what is in another group: take it away, or leave the directory in its group
> quota /a inodes=0
ok
> mkdir /p group=2 mode=0700
intent 5 undecided mkdir mount 1 source p target p
> decide i=5
dir 14 0700 0:0 entries 0 nlink 2 at file:///r/p mount
> quota / inodes=10
unsupported: /p lives in group 2, and no quota of the first can count what is in it: set one there
# Given back without being asked whether it is empty: the store is looked at again.
> junction id=3 from=1 to=2 root=0x2000000000013
mount 3
> unmount /p
mount 3
> junction id=3 from=3 to=0
mount 3
> ls /
a: dir 11 0755 0:0 entries 0 nlink 2 at file:///r/a
b: dir 13 0755 0:0 entries 0 nlink 2 at file:///r/b
p: dir 14 0700 0:0 entries 0 nlink 2 at file:///r/p
> usage /
bytes 0 files 0 dirs 3
> state
files 0 dirs 4 sessions 0 intents 0 mounts 1 trash 0

# What is deleted is kept in one place of one group: a mount with a trash has no
# parts, and one with parts no trash.
> mkdir /q group=2
intent 6 undecided mkdir mount 1 source q target q
> mount / file:///r caps=rdox -u trash=60
busy: a directory is just being made in a group of its own
> decide i=6
dir 15 0755 0:0 entries 0 nlink 2 at file:///r/q mount
> mount / file:///r caps=rdox -u trash=60
unsupported: /q lives in group 2, and what is deleted there could not be kept: unmount it first, which gives it back
> mount / file:///r caps=rdox -u
mount 1
> junction id=4 from=1 to=2 root=0x2000000000014
mount 4
> unmount /q
mount 4
> junction id=4 from=3 to=0
mount 4
> mount / file:///r caps=rdox -u trash=60
mount 1
> mkdir /s group=2
unsupported: what is deleted in another group could not be kept in the trash of /: mount that with --trash-retention 0, or leave the directory in its group
> mount / file:///r caps=rdox -u trash=-1
mount 1
> mkdir /s group=2
intent 7 undecided mkdir mount 1 source s target s
