# Who deleted it, and root, may restore or purge it; and only to where they may
# write. The store without renames moves it in the background.
> mount / s3://b caps= trash=60
mount 1
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at s3://b/d
> chmod /d mode=0777
dir 11 0777 0:0 entries 0 nlink 2 at s3://b/d
> mkdir /p
intent 2 undecided mkdir mount 1 source p target p
> decide i=2
dir 12 0755 0:0 entries 0 nlink 2 at s3://b/p
> as 5:5
> create /d/f
session 1 fence 1 file 13 version 1 key d/f
> complete s=1 len=5 fp=one
file 13 0644 5:5 len 5 v1 PERSISTED fp one at s3://b/d/f
> rm /d/f
intent 3 deferred move mount 1 source d/f target .~orca.trash/13.44ud8g0 want one
> as 6:6
> trash
nothing
> undelete /d/f ino=0x13
not found: it is not in the trash
> purge ino=0x13
ok
> as 5:5
> trash
13 /d/f by 5, 2 s old, 58 s to go: 5 bytes, 1 inodes
> trash /p
nothing
> trash /d/f
13 /d/f by 5, 2 s old, 58 s to go: 5 bytes, 1 inodes
> undelete /d/f ino=0x13
busy: an earlier change is still on its way to the UFS (intent 3)
> cutover i=3 ino=0x13 want=one fp=two
file 13 0644 5:5 len 5 v1 PERSISTED fp two at s3://b/.~orca.trash/13.44ud8g0 pending
> finish i=3
ok
> undelete /p/f ino=0x13
permission denied
> undelete /d/f ino=0x13
intent 4 deferred move mount 1 source .~orca.trash/13.44ud8g0 target d/f want two
file 13 0644 5:5 len 5 v1 PERSISTED fp two at s3://b/.~orca.trash/13.44ud8g0 pending
> cutover i=4 ino=0x13 want=two fp=three
file 13 0644 5:5 len 5 v1 PERSISTED fp three at s3://b/d/f pending
> finish i=4
ok
> stat /d/f
file 13 0644 5:5 len 5 v1 PERSISTED fp three at s3://b/d/f

# A sticky directory lets neither others delete nor rename what is not theirs.
> as root
> chmod /d mode=01777
dir 11 1777 0:0 entries 1 nlink 2 at s3://b/d
> as 6:6
> rm /d/f
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/g
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/g -x
not found
> create /d/mine -done type=must
file 15 0644 6:6 len 0 v1 NOT_PERSISTED at s3://b/d/mine
> mv /d/mine /d/f
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/mine -x
permission denied: the directory is sticky and the entry another's
> create /d/link link=f
link 16 0644 6:6 len 1 v1 NOT_PERSISTED at s3://b/d/link -> f
> as 5:5
> rm /d/link
permission denied: the directory is sticky and the entry another's
> mv /d/link /d/l
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/link
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/mine
permission denied: the directory is sticky and the entry another's
> mv /d/f /d/g
intent 5 deferred move mount 1 source d/f target d/g want three
file 13 0644 5:5 len 5 v1 PERSISTED fp three at s3://b/d/f pending
> as 6:6
> rm /d/link
ok
> mv /d/mine /d/theirs
file 15 0644 6:6 len 0 v1 NOT_PERSISTED at s3://b/d/theirs

# What nobody has persisted is kept as it is, and persisted there.
> as 5:5
> create /d/a type=async
session 2 fence 2 file 17 version 1 key d/a
> complete s=2 len=3
file 17 0644 5:5 len 3 v1 TO_BE_PERSISTED at s3://b/d/a
> rm /d/a
ok
> state
files 4 dirs 4 sessions 0 intents 1 mounts 1 trash 0
intent 5 deferred move mount 1 source d/f target d/g want three
> prepare ino=0x17
intent 6 undecided persist mount 1 target .~orca.trash/17.gjdgxs0
> purge ino=0x17
ok
> persisted i=6 fp=late
file 17 0644 5:5 len 3 v1 PERSISTED fp late at s3://b/.~orca.trash/17.gjdgxs0
> trash
17 /d/a by 5, 3 s old, 57 s to go: 3 bytes, 1 inodes
> undelete /d/a ino=0x17
intent 7 deferred move mount 1 source .~orca.trash/17.gjdgxs0 target d/a want late
file 17 0644 5:5 len 3 v1 PERSISTED fp late at s3://b/.~orca.trash/17.gjdgxs0 pending
> stat /d/a
file 17 0644 5:5 len 3 v1 PERSISTED fp late at s3://b/.~orca.trash/17.gjdgxs0 pending moved
