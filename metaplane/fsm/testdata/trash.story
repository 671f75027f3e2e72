# Deletion with a trash: what is deleted moves into a hidden directory of its
# mount, in the store, too; it is restored by a rename back, or expires.
> mount / file:///r caps=rdox trash=60
mount 1
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/d
> create /d/f
session 1 fence 1 file 12 version 1 key d/f
> complete s=1 len=5 fp=one
file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/d/f
> rm /d/f
intent 2 undecided rename mount 1 source d/f target .~orca.trash/12.2r88tmo want one
> stat /d/f
file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/d/f pending
> decide i=2
ok
> stat /d/f
missing [f] below 11, key d/f pending 0
> trash
12 /d/f by 0, 0 s old, 60 s to go: 5 bytes, 1 inodes
> lookup ino=0x12
file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/.~orca.trash/12.2r88tmo

# Nobody sees it, and nobody changes what is in it.
> ls /
d: dir 11 0755 0:0 entries 0 nlink 2 at file:///r/d
> stat /
dir 1 0755 0:0 entries 1 nlink 3 at file:///r mount
> stat /.~orca.trash
not found
> walk ino=0x12
file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/.~orca.trash/12.2r88tmo
> chmod ino=12 mode=0777
not found
> mkdir /.~orca.trash/x -p
not found
> mv /d /.~orca.trash
not found
> sync / d:d -range -loaded
created 0 changed 0 removed 0 skipped 1
> trash
12 /d/f by 0, 4 s old, 56 s to go: 5 bytes, 1 inodes

# The name is free; a restore does not replace.
> create /d/f
session 2 fence 2 file 14 version 1 key d/f
> complete s=2 len=3 fp=two
file 14 0644 0:0 len 3 v1 PERSISTED fp two at file:///r/d/f
> undelete /d/f ino=0x12
exists
> undelete /nope/f ino=0x12
not found
> undelete /d/g ino=0x12
intent 3 undecided rename mount 1 source .~orca.trash/12.2r88tmo target d/g want one
> decide i=3
file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/d/g
> trash
nothing
> ls /d
f: file 14 0644 0:0 len 3 v1 PERSISTED fp two at file:///r/d/f
g: file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/d/g
> undelete /d/h ino=0x12
not found: it is not in the trash

# A directory goes with all below it, in one step.
> rm /d -r
intent 4 undecided rename mount 1 source d target .~orca.trash/11.8q83xts
> create /d/late -done
busy: an earlier change is still on its way to the UFS (intent 4)
> decide i=4
ok
> trash
11 /d by 0, 0 s old, 60 s to go: 8 bytes, 3 inodes, a directory
> stat /d
missing [d] below 1, key d pending 0
> undelete /d ino=0x11
intent 5 undecided rename mount 1 source .~orca.trash/11.8q83xts target d
> decide i=5
dir 11 0755 0:0 entries 2 nlink 2 at file:///r/d
> tree /
d: dir 11 0755 0:0 entries 2 nlink 2 at file:///r/d
  f: file 14 0644 0:0 len 3 v1 PERSISTED fp two at file:///r/d/f
  g: file 12 0644 0:0 len 5 v1 PERSISTED fp one at file:///r/d/g

# For good: asked for, empty directories, names of files with others.
> rm /d/g -skip
intent 6 undecided remove mount 1 source d/g want one
> decide i=6
ok
> mkdir /e
intent 7 undecided mkdir mount 1 source e target e
> decide i=7
dir 15 0755 0:0 entries 0 nlink 2 at file:///r/e
> rm /e
intent 8 undecided remove mount 1 source e
> decide i=8
ok
> ln /d/f /d/l
file 14 0644 0:0 len 3 v1 PERSISTED nlink 2 fp two at file:///r/d/f
> rm /d/l
ok
> trash
nothing

# A tree with such names has them removed first, but for the last one.
> ln /d/f /d/l
file 14 0644 0:0 len 3 v1 PERSISTED nlink 2 fp two at file:///r/d/f
> rm /d -r
busy: names of files with several are removed from it first (walk)
> rm /d/l -linked
ok
> rm /d/f -linked
ok
> rm /d -r
intent 9 undecided rename mount 1 source d target .~orca.trash/11.gjdgxs0
> decide i=9
ok
> trash
11 /d by 0, 0 s old, 60 s to go: 3 bytes, 2 inodes, a directory

# The store had it no more: there is nothing to keep.
> undelete /d ino=0x11
intent 10 undecided rename mount 1 source .~orca.trash/11.gjdgxs0 target d
> decide i=10
dir 11 0755 0:0 entries 1 nlink 2 at file:///r/d
> rm /d/f
intent 11 undecided rename mount 1 source d/f target .~orca.trash/14.idiytj4 want two
> decide i=11 -vanished
ok
> trash
nothing
> mkdir /d/s
intent 12 undecided mkdir mount 1 source d/s target d/s
> decide i=12
dir 16 0755 0:0 entries 0 nlink 2 at file:///r/d/s
> create /d/s/t -done
file 17 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d/s/t
> rm /d -r
intent 13 undecided rename mount 1 source d target .~orca.trash/11.ko7u680
> decide i=13 -vanished
ok
> trash
11 /d by 0, 0 s old, 60 s to go: 0 bytes, 3 inodes, a directory
> undelete /d ino=0x11
dir 11 0755 0:0 entries 1 nlink 3 at file:///r/d
> tree /
d: dir 11 0755 0:0 entries 1 nlink 3 at file:///r/d
  s: dir 16 0755 0:0 entries 1 nlink 2 at file:///r/d/s
    t: file 17 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d/s/t
> rm /d -r
ok
> trash
11 /d by 0, 0 s old, 60 s to go: 0 bytes, 3 inodes, a directory
> rm /d -skip -r
not found
> state
files 1 dirs 4 sessions 0 intents 0 mounts 1 trash 0
> purge ino=0x11
ids [17]
> sweep
ok
> ls /
(empty)

# It expires, and goes from the store in the background.
> create /x
session 3 fence 3 file 18 version 1 key x
> complete s=3 len=2 fp=x
file 18 0644 0:0 len 2 v1 PERSISTED fp x at file:///r/x
> rm /x
intent 14 undecided rename mount 1 source x target .~orca.trash/18.ot27eo0 want x
> decide i=14
ok
> mkdir /t/u -p
intent 15 undecided mkdir mount 1 source t target t/u
> decide i=15
dir 1a 0755 0:0 entries 0 nlink 2 at file:///r/t/u
> create /t/u/v -done
file 1b 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/t/u/v
> rm /t -r
intent 16 undecided rename mount 1 source t target .~orca.trash/19.r3r2rcw
> decide i=16
ok
> trash
18 /x by 0, 5 s old, 55 s to go: 2 bytes, 1 inodes
19 /t by 0, 0 s old, 60 s to go: 0 bytes, 3 inodes, a directory
> tick s=50
> trash
18 /x by 0, 55 s old, 5 s to go: 2 bytes, 1 inodes
19 /t by 0, 50 s old, 10 s to go: 0 bytes, 3 inodes, a directory
> purge ino=0x18 -expired
ok
> purge ino=0x16 -expired
ok
> undelete /x ino=0x16
not found: it is not in the trash
> state
files 2 dirs 4 sessions 0 intents 0 mounts 1 trash 0
> tick s=20
> trash
18 /x by 0, 78 s old, -18 s to go: 2 bytes, 1 inodes
19 /t by 0, 73 s old, -13 s to go: 0 bytes, 3 inodes, a directory
expired [18 19]
> unmount /
invalid: the root mount stays
> purge ino=0x18 -expired
ids [24]
> finish i=17
ok
> finish i=18
ok
> sweep
ok
> state
files 1 dirs 4 sessions 0 intents 0 mounts 1 trash 0

# An update of the mount leaves the retention as it is, or changes it for what is
# there, too.
> mount / file:///r caps=rdox -u
mount 1
> trash
19 /t by 0, 79 s old, -19 s to go: 0 bytes, 3 inodes, a directory
expired [19]
> mount / file:///r caps=rdox -u trash=1000
mount 1
> trash
19 /t by 0, 80 s old, 920 s to go: 0 bytes, 3 inodes, a directory
> mount / file:///r caps=rdox -u trash=-1
mount 1
> trash
19 /t by 0, 81 s old, -81 s to go: 0 bytes, 3 inodes, a directory
expired [19]
